"""``encoscope audit``: does an encoder fixate on a mark, or on where images come from?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common
from encoscope.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from encoscope.analysis.audit import CueResponse
    from encoscope.encoder import Encoder
    from encoscope.images import LoadedImage

TOP = 20
SHOWN = 4


def audit(
    model: Annotated[str, Parameter(help="The encoder.")],
    /,
    *,
    images: Annotated[
        Path, Parameter(help="A folder (subfolders are labels) or a dataset such as caltech101:ROOT#test.")
    ],
    watermark: Annotated[
        str | None,
        Parameter(
            help="A mark to put on the images: box, letter, stripes, disc, arrow, ruler, date, or an image file."
        ),
    ] = None,
    share: Annotated[float, Parameter(help="Side of the mark over the short side of the image.")] = 0.125,
    labels: Annotated[Path | None, Parameter(help="CSV with a column of image names and columns of metadata.")] = None,
    clusters: Annotated[int, Parameter(help="Joint clusters.")] = 10,
    limit: Annotated[int, Parameter(help="At most so many images, spread evenly; they are held in memory.")] = 200,
    permutations: Annotated[int, Parameter(help="Of the labels, for p-values.")] = 1000,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("audit"),
    common: Common | None = None,
) -> int:
    """See whether an encoder fixates on a mark, or on what tells images' sources apart.

    With --watermark the mark is put on the images, and what follows it in features, answers and segments is shown
    beside a control patch. Without, joint clusters and features are ranked by how they go with labels (the dataset's,
    folders, or --labels), with p-values from permutations. result.json and sheet.png go into the output folder.
    """
    if limit < 4:
        raise UsageError(f"--limit takes a number from 4 on, not {limit}")
    if watermark is not None and labels is not None:
        raise UsageError("--watermark and --labels are two audits: give one of them")
    common = common or Common()

    from encoscope import results
    from encoscope.cli.outputs import find_inputs
    from encoscope.images import LoadedImage, SkippedImage, read_images

    inputs = find_inputs([images])
    if not inputs.files:
        raise MissingError("; ".join(item.reason for item in inputs.skipped) or f"no images in {images}")
    step = max(1, len(inputs.files) // limit)
    files = [file for file, _ in inputs.files][::step][:limit]
    encoder = common.load(model)
    read = list(read_images(files))
    skipped = [*inputs.skipped, *(item for item in read if isinstance(item, SkippedImage))]
    kept = [item for item in read if isinstance(item, LoadedImage)]
    document = out / "result.json"
    if watermark is not None:
        entries, sheet, text = _mark(encoder, kept, watermark, share, clusters, common.seed)
    else:
        columns = _columns(images, labels, kept)
        entries, sheet, text = _metadata(encoder, kept, columns, clusters, permutations, common.seed)
    with results.atomic_write(out / "sheet.png") as temporary:
        sheet.save(temporary)
    envelope = results.envelope(
        "audit",
        entries,
        model={"source": encoder.source, "digest": encoder.digest},
        settings={
            "images": len(kept),
            "watermark": watermark,
            "share": share if watermark else None,
            "labels": None if labels is None else results.relative(labels, document),
            "clusters": clusters,
            "permutations": None if watermark else permutations,
        },
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    for item in skipped:
        note(f"skipped: {item.reason}")
    say(results.dumps(envelope) if common.json else f"{text}\nwritten: {document}")
    return 1 if skipped else 0


def _mark(encoder: Encoder, kept: Sequence[LoadedImage], watermark: str, share: float, clusters: int, seed: int) -> Any:
    from encoscope.analysis.audit import draw_watermark_sheet, measure_response

    found = measure_response(encoder, kept, watermark, share=share, n_clusters=clusters, random_state=seed)
    sheet = draw_watermark_sheet(encoder, kept[:SHOWN], watermark, share=share, random_state=seed)
    return [{"watermark": watermark, **asdict(found)}], sheet, _response(found, watermark)


def _response(found: CueResponse, watermark: str) -> str:
    rows = [
        ("", f"mark ({watermark})", "control patch"),
        ("the same change in all images (mean cosine)", str(found.consistency), str(found.consistency_control)),
        ("size of the change (share of the features' length)", str(found.size), str(found.size_control)),
        ("segments that follow it (bits)", str(found.follows), str(found.follows_control)),
    ]
    if found.answers is not None:
        rows.append(("answers that change", str(found.answers), str(found.answers_control)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"excess of the same change over the control: {found.consistency_excess}")
    if found.toward is not None:
        lines.append(f"the mark moves answers toward: {found.toward[0]} (mean rise {found.toward[1]:+.3f})")
    return "\n".join(lines)


def _columns(images: Path, labels: Path | None, kept: Sequence[LoadedImage]) -> dict[str, list[str | None]]:
    """What is known of the images: the CSV file's columns, the dataset's labels, or their folders."""
    from encoscope.images import list_images, read_columns

    paths = [Path(photo.path or "") for photo in kept]
    if labels is not None:
        return dict(read_columns(labels, paths))
    name = "folder" if images.exists() else "label"
    known = list_images(images).find_labels(paths) or [path.parent.name for path in paths]
    if len(set(known) - {None}) < 2:
        raise UsageError(f"{images} has no labels (subfolders): give --labels CSV, or --watermark")
    return {name: known}


def _metadata(
    encoder: Encoder,
    kept: Sequence[LoadedImage],
    columns: dict[str, list[str | None]],
    clusters: int,
    permutations: int,
    seed: int,
) -> Any:
    from encoscope.analysis.audit import draw_association_sheet, rank_associations

    entries, lines, sheet = [], [], None
    for name, values in columns.items():
        known = [(photo, value) for photo, value in zip(kept, values, strict=True) if value is not None]
        if len({value for _, value in known}) < 2:
            note(f"column {name!r} has fewer than two values for these images: left out")
            continue
        photos, given = [photo for photo, _ in known], [value for _, value in known]
        ranked, nave = rank_associations(
            encoder, photos, given, n_clusters=clusters, random_state=seed, permutations=permutations
        )
        entries += [{"column": name, "images": len(photos), **asdict(item)} for item in ranked]
        lines += [f"{name}: {len(photos)} images, {len(set(given))} values", "what          eta^2  p       highest for"]
        lines += [
            f"{item.kind} {item.index}".ljust(14) + f"{item.eta_squared:.3f}  {item.p:.4f}  {item.highest}"
            for item in ranked[:TOP]
        ]
        sheet = sheet or draw_association_sheet(nave, photos, given, ranked)
    if sheet is None:
        raise UsageError("no column has two different values for these images")
    return entries, sheet, "\n".join(lines)
