"""Does an encoder fixate on a watermark, or on where images come from?

With a watermark: what happens to features, answers and segments when it is put on images, beside a control of the same
size cut from another image. Without one: which joint clusters and which features go with labels or other metadata
(site, scanner, class) more than shuffled ones do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import nn

from encoscope import results
from encoscope.analysis.associations import Association, draw_association_sheet, rank_associations
from encoscope.analysis.audit_store import AuditStore
from encoscope.analysis.cue_response import CueResponse, draw_watermark_sheet, measure_response
from encoscope.analysis.settings import AuditSettings
from encoscope.counting import count_noun
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.images import SkippedImage, count_classes, draw_images, list_images, read_columns, read_images
from encoscope.images.sequence import ImageSequence
from encoscope.nave.layers import choose_layers
from encoscope.plots import read_sheet
from encoscope.progress import Progress, nest_progress
from encoscope.results import ModelRecord, Result, record_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "audit"
_LINES = 20  # associations in the text
_SHOWN = 4  # images on the sheet of a watermark


@dataclass(frozen=True)
class AssociatedColumn:
    """What goes with one column of metadata.

    Attributes:
        name: Of the column; "folder" or "label" for the dataset's own labels.
        images: How many images have a value in it.
        values: How many different values there are.
        associations: Clusters and features, the strongest association first.
    """

    name: str
    images: int
    values: int
    associations: tuple[Association, ...]


@dataclass(frozen=True, eq=False)
class Audit(Result):
    """What ``audit`` gives. ``print`` shows its values.

    Attributes:
        response: To the watermark; None without one.
        columns: What goes with each column of metadata; empty with a watermark.
        sheet: Images with the watermark, or with the clusters that go with the labels most.
        model: The encoder, with the layers of the joint clusters.
        settings: All that shaped the values.
        random_state: The seed.
        skipped: What could not be read.
        notes: What else was left out.
    """

    response: CueResponse | None
    columns: tuple[AssociatedColumn, ...]
    sheet: Image.Image
    model: ModelRecord
    settings: Mapping[str, Any]
    random_state: int
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.response is not None:
            return _describe_response(self.response, str(self.settings["watermark"]))
        lines = []
        for column in self.columns:
            lines += [f"{column.name}: {count_noun(column.images, 'image')}, {count_noun(column.values, 'value')}"]
            lines += ["what          eta^2  p       highest for"]
            lines += [
                f"{item.kind} {item.index}".ljust(14) + f"{item.eta_squared:.3f}  {item.p:.4f}  {item.highest}"
                for item in column.associations[:_LINES]
            ]
        return "\n".join(lines)

    def to_dict(self, document: str | os.PathLike[str] | None = None) -> results.Document:
        """Give the result document.

        Args:
            document: Its file, to which paths in it are relative; by default they stay as they are.

        Returns:
            The document.
        """

        def name(path: str) -> str:
            return path if document is None else results.relative(path, document)

        if self.response is not None:
            entries = [{"watermark": self.settings["watermark"], **asdict(self.response)}]
        else:
            entries = [
                {"column": column.name, "images": column.images, "values": column.values, **asdict(item)}
                for column in self.columns
                for item in column.associations
            ]
        labels = self.settings["labels"]
        return results.envelope(
            KIND,
            entries,
            model=self.model.as_dict(),
            settings={
                **self.settings,
                "labels": None if labels is None else name(labels),
                "notes": list(self.notes),
            },
            seed=self.random_state,
            skipped=[{"path": name(item.path), "reason": item.reason} for item in self.skipped],
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json`` and ``sheet.png`` into a folder.

        Args:
            path: The folder; it is made if it is absent.

        Returns:
            The folder.
        """
        folder = Path(path)
        with results.atomic_write(folder / "sheet.png") as temporary:
            self.sheet.save(temporary)
        results.write(folder / "result.json", self.to_dict(folder / "result.json"))
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Audit:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The audit.

        Raises:
            MissingError: When nothing is there, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        entries, settings = document["results"], dict(document["settings"])
        notes = tuple(settings.pop("notes"))
        if settings["labels"] is not None:
            settings["labels"] = results.resolve_path(settings["labels"], file)
        is_response = settings["watermark"] is not None
        return cls(
            response=CueResponse.from_dict(entries[0]) if is_response else None,
            columns=() if is_response else _read_columns(entries),
            sheet=read_sheet(file.with_name("sheet.png")),
            model=ModelRecord.from_dict(document["model"]),
            settings=settings,
            random_state=document["seed"],
            skipped=tuple(
                SkippedImage(results.resolve_path(item["path"], file), item["reason"]) for item in document["skipped"]
            ),
            notes=notes,
        )

    def plot(self) -> Figure:
        """Give the sheet as a matplotlib figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.sheet.width / 100, self.sheet.height / 100), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(self.sheet)
        axes.set_axis_off()
        return figure


@explain_calls
def audit(
    encoder: Encoder | nn.Module | str,
    images: Any,
    *,
    watermark: str | os.PathLike[str] | None = None,
    share: float | None = None,
    labels: str | os.PathLike[str] | None = None,
    n_clusters: int | None = None,
    limit: int | None = None,
    permutations: int | None = None,
    random_state: int = AuditSettings.random_state,
    progress: Progress = None,
) -> Audit:
    """Measure whether an encoder fixates on a watermark, or on what tells images' sources apart.

    With ``watermark`` it is put on the images, and what follows it in features, answers and segments is measured beside
    a control patch. Without, joint clusters and features are ranked by how they go with labels (the dataset's, folders,
    or ``labels``), with p-values from permutations. `AuditSettings` says what each setting means and what its
    default is.

    Args:
        encoder: An encoder, a network or a source string.
        images: A folder (subfolders are labels), a dataset string, or a list of files.
        watermark: box, letter, stripes, disc, arrow, ruler, date, or an image file.
        share: Side of the watermark over the short side of the image, between 0 and 1.
        labels: A CSV file with a column of image names and columns of metadata.
        n_clusters: Joint clusters.
        limit: At most so many images, at least 4, drawn with the seed, from every class in proportion where there are
            labels.
        permutations: Of the labels, for p-values.
        random_state: The seed.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The result, to print, save or plot.

    Raises:
        UsageError: fewer than four images, no labels, or a watermark and labels at once.
        MissingError: files that are absent.

    Example:
        ::

            result = encoscope.audit("zoo:resnet-caltech101", "images/", watermark="letter")
            print(result)
            result.save("audit")

    Source: NAVE, figure 6 (a watermark and joint clusters).
    """
    settings = AuditSettings.from_preset(
        share=share, n_clusters=n_clusters, limit=limit, permutations=permutations, random_state=random_state
    )
    if watermark is not None and labels is not None:
        raise UsageError("watermark and labels are two audits: give one of them")
    encoder = as_encoder(encoder)
    channels = encoder.preprocess.channels
    if watermark is not None and channels not in (1, 3):
        raise UsageError(f"a watermark is laid over grey or color, and {encoder.source} takes {channels} channels")
    loaded = _read_sequence(encoder, images, settings)
    response, columns, notes = None, [], []
    with AuditStore(encoder, choose_layers(encoder)) as kept:
        if watermark is not None:
            kind = os.fspath(watermark)
            response = measure_response(
                encoder,
                loaded,
                kind,
                share=settings.share,
                n_clusters=settings.n_clusters,
                random_state=random_state,
                progress=progress,
                kept=kept,
            )
            shown = loaded[:_SHOWN]
            sheet = draw_watermark_sheet(encoder, shown, kind, share=settings.share, random_state=random_state)
        else:
            metadata = _read_metadata(images, labels, loaded.paths)
            columns, sheet, notes = _associate(encoder, loaded, metadata, settings, kept, progress)
    return Audit(
        response=response,
        columns=tuple(columns),
        sheet=sheet,
        model=record_model(encoder, choose_layers(encoder)),
        settings={
            **settings.as_dict(),
            "images": len(loaded),
            "classes": _count_classes(images, loaded.paths),
            "watermark": None if watermark is None else os.fspath(watermark),
            "labels": None if labels is None else os.fspath(labels),
            **({"share": None} if watermark is None else {"permutations": None}),
        },
        random_state=random_state,
        skipped=tuple(loaded.skipped),
        notes=tuple(notes),
    )


def _read_sequence(encoder: Encoder, images: Any, settings: AuditSettings) -> ImageSequence:
    """The images that are audited; what does not fit in memory is read again when it is needed."""
    preprocess = encoder.preprocess
    channels = 3 if preprocess.channels == 1 else preprocess.image_channels
    selection = draw_images(images, settings.limit, settings.random_state)
    return ImageSequence(read_images(selection, channels=channels), channels)


def _count_classes(images: Any, files: Sequence[str | None]) -> dict[str, int]:
    """How many images of each class there are; empty for images without labels."""
    labels = list_images(images).find_labels([Path(file or "") for file in files])
    return count_classes(labels or [])


def _read_metadata(
    images: Any, labels: str | os.PathLike[str] | None, files: Sequence[str | None]
) -> dict[str, list[str | None]]:
    """What is known of the images: the CSV file's columns, the dataset's labels, or their folders."""
    paths = [Path(file or "") for file in files]
    if labels is not None:
        return dict(read_columns(Path(labels), paths))
    single = isinstance(images, str | os.PathLike)
    name = "label" if single and not Path(images).exists() else "folder"
    known = list_images(images).find_labels(paths) or [path.parent.name for path in paths]
    if len(set(known) - {None}) < 2:
        source = os.fspath(images) if single else "the list of images"
        raise UsageError(f"{source} has no labels (subfolders): give labels, a CSV file, or a watermark")
    return {name: known}


def _read_columns(entries: Sequence[Mapping[str, Any]]) -> tuple[AssociatedColumn, ...]:
    """The columns of a document, in their order."""
    columns: dict[str, list[Association]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for entry in entries:
        values = {field.name: entry[field.name] for field in fields(Association)}
        columns.setdefault(entry["column"], []).append(Association(**values))
        sizes[entry["column"]] = (entry["images"], entry["values"])
    return tuple(AssociatedColumn(name, *sizes[name], tuple(items)) for name, items in columns.items())


def _associate(
    encoder: Encoder,
    loaded: ImageSequence,
    metadata: Mapping[str, Sequence[str | None]],
    settings: AuditSettings,
    kept: AuditStore,
    progress: Progress,
) -> tuple[list[AssociatedColumn], Image.Image, list[str]]:
    """Columns with what goes with them, the sheet of the first, and notes on columns that were left out."""
    columns, notes, sheet = [], [], None
    for name, values in metadata.items():
        known = [(index, value) for index, value in enumerate(values) if value is not None]
        distinct = {value for _, value in known}
        if len(distinct) < 2:
            notes.append(f"column {name!r} has fewer than two values for these images: left out")
            continue
        images, present = loaded.select([index for index, _ in known]), [value for _, value in known]
        ranking = rank_associations(
            encoder,
            images,
            present,
            n_clusters=settings.n_clusters,
            random_state=settings.random_state,
            permutations=settings.permutations,
            progress=nest_progress(progress),
            kept=kept,
        )
        columns.append(AssociatedColumn(name, len(images), len(distinct), tuple(ranking.associations)))
        sheet = sheet or draw_association_sheet(ranking, images, present)
    if sheet is None:
        raise UsageError("no column has two different values for these images")
    return columns, sheet, notes


def _describe_response(response: CueResponse, watermark: str) -> str:
    rows = [
        ("", f"watermark ({watermark})", "control patch"),
        ("the same change in all images (mean cosine)", str(response.consistency), str(response.consistency_control)),
        ("size of the change (share of the features' length)", str(response.size), str(response.size_control)),
        ("segments that follow it (bits)", str(response.follows), str(response.follows_control)),
    ]
    if response.answers is not None:
        rows.append(("answers that change", str(response.answers), str(response.answers_control)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"excess of the same change over the control: {response.consistency_excess}")
    if response.toward is not None:
        lines.append(f"the watermark moves answers toward: {response.toward[0]} (mean rise {response.toward[1]:+.3f})")
    return "\n".join(lines)
