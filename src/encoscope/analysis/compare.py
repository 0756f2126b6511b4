"""How two encoders differ on the same images: what they treat alike, how their layers and features correspond."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.counting import count_noun
from encoscope.encoder import Encoder, as_encoder, untrained_copy
from encoscope.errors import EncoscopeError, UsageError
from encoscope.evaluation.charts import render_figure
from encoscope.images import LoadedImage, SkippedImage, count_classes, draw_images, list_images, read_images
from encoscope.metrics import Interval, ari, bootstrap
from encoscope.metrics.layer_cka import LayerCKA
from encoscope.metrics.matching import Correlation, match_units
from encoscope.nave import Segmentation, segment_stream
from encoscope.nave.settings import NaveSettings
from encoscope.plots import draw_contact_sheet, draw_overlay, read_sheet
from encoscope.progress import Progress, track
from encoscope.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "comparison"
CLUSTERS = (2, 3, 5, 8, 12)
LAYERS = 12
"""At most so many layers of each network are compared, spread evenly over its depth."""

SHOWN = 8
_BATCH = 8


@dataclass(frozen=True)
class Agreement:
    """How alike two encoders segment images: adjusted Rand index, mean over images.

    Attributes:
        clusters: K of the segmentations.
        agreement: Of the two encoders.
        ceiling: Of the first encoder with itself on the mirrored image, mirrored back; hardly more can be expected.
        floor: Of the first encoder with its own untrained copy, what the images alone make any network agree on; None
            where no copy can be made.
    """

    clusters: int
    agreement: Interval
    ceiling: Interval
    floor: Interval | None


@concise_repr
@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """What ``compare`` gives: two encoders on the same images. ``print`` shows its values.

    Attributes:
        names: The encoders' sources.
        digests: Theirs.
        images: How many images were compared.
        agreements: Of segmentations, one for each number of clusters.
        layers: The names of the layers that are compared, of each encoder.
        cka: ``[first, second]``, linear CKA (unbiased) between spatial means of layers.
        matches: ``[pairs, 2]``, pooled features matched one to one, the most correlated first.
        correlations: ``[pairs]``, theirs.
        chance: ``[pairs]``, the same with the second encoder's images shifted by one, so that no two belong together.
        ranked: Each image's path with its mean adjusted Rand index over the granularities, the lowest first.
        sheet: The images that differ most.
        random_state: The seed.
        skipped: What could not be read.
        preprocessing: How images were brought to each encoder's input.
        records: What else was decided about each encoder, see `Encoder.record`.
        limit: The most images that were asked for; None for all.
        classes: The number of images of each class; empty without labels.
        warnings: What was said of the encoders.
    """

    names: tuple[str, str]
    digests: tuple[str, str]
    images: int
    agreements: tuple[Agreement, ...]
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    cka: Float[np.ndarray, "first second"]
    matches: Int[np.ndarray, "pairs 2"]
    correlations: Float[np.ndarray, " pairs"]
    chance: Float[np.ndarray, " pairs"]
    ranked: tuple[tuple[str | None, float], ...]
    sheet: Image.Image
    random_state: int = 0
    skipped: tuple[SkippedImage, ...] = ()
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    records: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default_factory=lambda: ({}, {}))
    limit: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.names[0]} and {self.names[1]} on {count_noun(self.images, 'image')}", ""]
        rows: list[tuple[Any, ...]] = [("K", "agreement (ARI)", "first, mirrored", "first, untrained")]
        rows += [(row.clusters, row.agreement, row.ceiling, row.floor or "-") for row in self.agreements]
        for row in rows:
            lines += ["  ".join([str(row[0]).rjust(2), *(str(cell).ljust(20) for cell in row[1:])]).rstrip()]
        alike, chance = (int((values > 0.5).sum()) for values in (self.correlations, self.chance))
        lines += [
            "",
            f"features matched with r > 0.5: {alike} of {len(self.matches)} ({chance} with images shifted by one)",
            f"last layers' CKA: {self.cka[-1, -1]:.3f}",
        ]
        return "\n".join(lines)

    def to_dict(self, document: str | os.PathLike[str] | None = None) -> results.Document:
        """Give the result document.

        Args:
            document: Its file, to which paths in it are relative; by default they stay as they are.

        Returns:
            The document.
        """

        def name(path: str | None) -> str | None:
            return path if path is None or document is None else results.relative(path, document)

        entry = {
            "agreement": [
                {
                    "clusters": row.clusters,
                    "agreement": row.agreement.as_dict(),
                    "mirrored": row.ceiling.as_dict(),
                    "untrained": None if row.floor is None else row.floor.as_dict(),
                }
                for row in self.agreements
            ],
            "cka": {
                "layers": [list(names) for names in self.layers],
                "values": [[None if np.isnan(value) else float(value) for value in row] for row in self.cka],
            },
            "features": [
                {"first": int(a), "second": int(b), "correlation": float(r)}
                for (a, b), r in zip(self.matches, self.correlations, strict=True)
            ],
            "chance_correlations": self.chance,
            "images": [{"path": name(path), "agreement": score} for path, score in self.ranked],
        }
        return results.envelope(
            KIND,
            [entry],
            model={
                "sources": list(self.names),
                "digests": list(self.digests),
                "preprocessing": list(self.preprocessing),
            }
            | ({"records": [dict(record) for record in self.records]} if any(self.records) else {})
            | ({"warnings": list(self.warnings)} if self.warnings else {}),
            settings={"clusters": [row.clusters for row in self.agreements], "images": self.images}
            | {"limit": self.limit, "classes": dict(self.classes)},
            seed=self.random_state,
            skipped=[{"path": name(item.path), "reason": item.reason} for item in self.skipped],
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, ``cka.png`` and ``differences.png`` into a folder.

        Args:
            path: The folder; it is made if it is absent.

        Returns:
            The folder.
        """
        folder = Path(path)
        for name, image in (("cka", render_figure(self.plot())), ("differences", self.sheet)):
            with results.atomic_write(folder / f"{name}.png") as temporary:
                image.save(temporary)
        results.write(folder / "result.json", self.to_dict(folder / "result.json"))
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The comparison.

        Raises:
            MissingError: When nothing is there, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        entry, model = document["results"][0], document["model"]
        features, values = entry["features"], entry["cka"]["values"]
        return cls(
            names=(model["sources"][0], model["sources"][1]),
            digests=(model["digests"][0], model["digests"][1]),
            images=document["settings"]["images"],
            limit=document["settings"].get("limit"),
            classes=document["settings"].get("classes", {}),
            warnings=tuple(model.get("warnings", ())),
            agreements=tuple(_read_agreement(row) for row in entry["agreement"]),
            layers=(tuple(entry["cka"]["layers"][0]), tuple(entry["cka"]["layers"][1])),
            cka=np.array([[np.nan if value is None else value for value in row] for row in values], np.float64),
            matches=np.array([(item["first"], item["second"]) for item in features], np.int64).reshape(-1, 2),
            correlations=np.array([item["correlation"] for item in features], np.float64),
            chance=np.array(entry["chance_correlations"], np.float64),
            ranked=tuple(
                (None if item["path"] is None else results.resolve_path(item["path"], file), item["agreement"])
                for item in entry["images"]
            ),
            sheet=read_sheet(file.with_name("differences.png")),
            random_state=document["seed"],
            preprocessing=tuple(model.get("preprocessing", ())),
            records=(dict(model.get("records", ({}, {}))[0]), dict(model.get("records", ({}, {}))[1])),
            skipped=tuple(
                SkippedImage(results.resolve_path(item["path"], file), item["reason"]) for item in document["skipped"]
            ),
        )

    def plot(self) -> Figure:
        """Plot CKA of the first encoder's layers (rows) with the second's, as a matplotlib figure."""
        from matplotlib.figure import Figure

        rows, columns = self.cka.shape
        figure = Figure(figsize=(2.6 + 0.55 * columns, 2.0 + 0.45 * rows), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(self.cka, vmin=0, vmax=1, cmap="viridis")
        axes.set_yticks(range(rows), self.layers[0])
        axes.set_xticks(range(columns), self.layers[1], rotation=45, ha="right")
        axes.set_ylabel(self.names[0])
        axes.set_xlabel(self.names[1])
        for (row, column), value in np.ndenumerate(self.cka):
            text = "" if np.isnan(value) else f"{value:.2f}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if value < 0.6 else "black"
            )
        figure.colorbar(shown, ax=axes, label="linear CKA")
        return figure


def _read_agreement(row: Mapping[str, Any]) -> Agreement:
    agreement, mirrored, untrained = (
        None if row[name] is None else Interval.from_dict(row[name]) for name in ("agreement", "mirrored", "untrained")
    )
    if agreement is None or mirrored is None:
        raise EncoscopeError("a comparison without the agreement of its encoders is damaged: make it again")
    return Agreement(row["clusters"], agreement, mirrored, untrained)


class _Difference(NamedTuple):
    """An image with its agreement, and how both networks segment it."""

    score: float
    path: str | None
    pixels: Any
    first: np.ndarray
    second: np.ndarray


def compare(
    first: Encoder | nn.Module | str,
    second: Encoder | nn.Module | str,
    images: Any,
    *,
    n_clusters: Sequence[int] = CLUSTERS,
    limit: int | None = None,
    random_state: int = 0,
    progress: Progress = None,
) -> Comparison:
    """Compare what two encoders treat alike, layer by layer and feature by feature; one batch is held at a time.

    Agreement of segmentations (NAVE, each encoder's default layers) stands beside the most (the first encoder and the
    mirrored image) and the least (its untrained copy) that can be expected.

    Args:
        first: An encoder, a network or a source string.
        second: Another, or the same one before or after training.
        images: A folder, a dataset string, images, or a stream of these; at least four that can be read.
        n_clusters: The granularities of the segmentations.
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels; of a
            stream the first.
        random_state: The seed.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The comparison, to print, save or plot.

    Raises:
        UsageError: fewer than four images that can be read.
        MissingError: files that are absent.
        EncoscopeError: as ``segment``.

    Example:
        ::

            model = "zoo:resnet-caltech101"
            print(encoscope.compare(model, f"{model}@untrained", "images/", n_clusters=(3, 5)))

    Source: Nguyen et al. 2021, Do Wide and Deep Networks Learn the Same Things? (CKA in minibatches).
    """
    NaveSettings.from_preset(n_clusters=tuple(n_clusters))
    if limit is not None and limit < 1:
        raise UsageError(f"limit is a number from 1 on, not {limit}")
    first, second = as_encoder(first), as_encoder(second)
    source = draw_images(images, limit, random_state)
    source = list(list_images(source).paths) if isinstance(source, str | os.PathLike) else source
    stream = read_images(source, channels=_choose_channels(first, second))
    total = len(source) if hasattr(source, "__len__") else None
    numbers = tuple(sorted(set(n_clusters)))
    untrained = _copy_untrained(first, random_state)
    layers = (_spread_layers(first), _spread_layers(second))
    cka = LayerCKA(len(layers[0]), len(layers[1]))
    paired, shifted = Correlation(), Correlation()
    tables: dict[str, list[list[float]]] = {"agreement": [], "ceiling": [], "floor": []}
    shown: list[_Difference] = []
    skipped: list[SkippedImage] = []
    ranked: list[tuple[str | None, float]] = []
    last: Tensor | None = None  # the second network's features of the image before, for the shifted pairs
    for chunk in _split_chunks(track(stream, total, "compare", progress, shorter="--limit N"), skipped):
        ours = _segment(first, chunk, numbers, random_state)
        theirs = _segment(second, chunk, numbers, random_state)
        mirrored = _segment(first, [_mirror(image) for image in chunk], numbers, random_state)
        bare = None if untrained is None else _segment(untrained, chunk, numbers, random_state)
        for index, image in enumerate(chunk):
            row = _compute_aris(ours[index], theirs[index])
            tables["agreement"].append(row)
            tables["ceiling"].append(_compute_aris(ours[index], mirrored[index], mirrored=True))
            if bare is not None:
                tables["floor"].append(_compute_aris(ours[index], bare[index]))
            ranked.append((image.path, float(np.mean(row))))
            shown = _keep_lowest(shown, float(np.mean(row)), image, ours[index], theirs[index])
        x, y = (_observe(encoder, chunk, names) for encoder, names in ((first, layers[0]), (second, layers[1])))
        cka.partial_fit([x[name] for name in layers[0]], [y[name] for name in layers[1]])
        paired.partial_fit(x[""], y[""])
        partners = (y[""] if last is None else torch.cat([last, y[""]]))[:-1]
        shifted.partial_fit(x[""][len(chunk) - len(partners) :], partners)
        last = y[""][-1:]
    if len(ranked) < 4:
        raise UsageError(f"a comparison needs at least 4 readable images, not {len(ranked)}")
    correlations, chance = paired.finalize(), shifted.finalize()
    matches = match_units(correlations)
    by_chance = match_units(chance)
    return Comparison(
        names=(first.source, second.source),
        digests=(first.digest, second.digest),
        warnings=(*first.warnings, *second.warnings),
        images=len(ranked),
        agreements=tuple(_list_agreements(tables, numbers, random_state)),
        layers=layers,
        cka=cka.finalize(),
        matches=matches,
        correlations=correlations[matches[:, 0], matches[:, 1]],
        chance=chance[by_chance[:, 0], by_chance[:, 1]],
        ranked=tuple(sorted(ranked, key=lambda item: item[1])),
        sheet=_draw_sheet(shown, (first.source, second.source), numbers[len(numbers) // 2]),
        random_state=random_state,
        skipped=tuple(skipped),
        preprocessing=(first.record_preprocess(), second.record_preprocess()),
        records=(dict(first.record), dict(second.record)),
        limit=limit,
        classes=_count_classes(images, [path for path, _ in ranked]),
    )


def _count_classes(images: Any, paths: Sequence[str | None]) -> dict[str, int]:
    """How many images of each class were compared; empty for images without labels or files."""
    if not isinstance(images, str | os.PathLike):
        return {}
    labels = list_images(images).find_labels([Path(path) for path in paths if path is not None])
    return count_classes(labels or [])


def _list_agreements(
    tables: Mapping[str, Sequence[Sequence[float]]], numbers: Sequence[int], random_state: int
) -> Iterator[Agreement]:
    for index, k in enumerate(numbers):
        means = {
            name: bootstrap([row[index] for row in rows], random_state=random_state) if rows else None
            for name, rows in tables.items()
        }
        agreement, ceiling = means["agreement"], means["ceiling"]
        if agreement is not None and ceiling is not None:
            yield Agreement(k, agreement, ceiling, means["floor"])


def _choose_channels(first: Encoder, second: Encoder) -> int:
    """The channels that images are read with: color is made grey for a network of one channel."""
    ours, theirs = first.preprocess.channels, second.preprocess.channels
    if ours != theirs and {ours, theirs} != {1, 3}:
        raise UsageError(
            f"{first.source} takes {ours} channels and {second.source} {theirs}: no image is an input of both"
        )
    return max(ours, theirs)


def _copy_untrained(encoder: Encoder, random_state: int) -> Encoder | None:
    try:
        return untrained_copy(encoder, random_state=random_state)
    except UsageError:
        return None


def _spread_layers(encoder: Encoder) -> tuple[str, ...]:
    """Stages or blocks, at most ``LAYERS`` of them, the first and the last among them."""
    names = encoder.depths
    indices = np.unique(np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int))
    return tuple(names[index] for index in indices)


def _split_chunks(
    items: Iterable[LoadedImage | SkippedImage], skipped: list[SkippedImage]
) -> Iterator[list[LoadedImage]]:
    chunk: list[LoadedImage] = []
    for item in items:
        if isinstance(item, SkippedImage):
            skipped.append(item)
            continue
        chunk.append(item)
        if len(chunk) == _BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _segment(
    encoder: Encoder, chunk: Sequence[LoadedImage], numbers: tuple[int, ...], random_state: int
) -> list[list[Segmentation]]:
    """Each image's segmentations, one for each number of clusters."""
    segmentations: list[Segmentation] = []
    for result in segment_stream(encoder, chunk, n_clusters=numbers, random_state=random_state, batch_size=len(chunk)):
        if isinstance(result, SkippedImage):
            raise UsageError(f"{result.path} cannot be segmented: {result.reason}")
        segmentations.append(result[1])
    return [segmentations[start : start + len(numbers)] for start in range(0, len(segmentations), len(numbers))]


def _mirror(image: LoadedImage) -> LoadedImage:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def _compute_aris(
    first: Sequence[Segmentation], second: Sequence[Segmentation], *, mirrored: bool = False
) -> list[float]:
    """Agreement at each granularity; mirrored: the second ones are of the mirrored image."""
    turn = slice(None, None, -1 if mirrored else 1)
    return [
        ari(a.labels.astype(np.int64), b.labels[:, turn].astype(np.int64)) for a, b in zip(first, second, strict=True)
    ]


def _observe(encoder: Encoder, chunk: Sequence[LoadedImage], layers: Sequence[str]) -> dict[str, Tensor]:
    """Spatial means of layers, and the pooled features under the empty name."""
    seen = encoder.observe(list(chunk), layers, features=True)
    means = {name: activation.maps.mean((2, 3)).cpu() for name, activation in seen.activations.items()}
    return means if seen.features is None else means | {"": seen.features.cpu()}


def _keep_lowest(
    shown: list[_Difference],
    score: float,
    image: LoadedImage,
    first: Sequence[Segmentation],
    second: Sequence[Segmentation],
) -> list[_Difference]:
    """The images with the lowest scores so far, with their middle granularity as both networks see it."""
    if len(shown) == SHOWN and score >= shown[-1].score:
        return shown
    middle = len(first) // 2
    overlays = (draw_overlay(image, first[middle].labels), draw_overlay(image, second[middle].labels))
    return sorted([*shown, _Difference(score, image.path, image.pixels, *overlays)], key=lambda item: item.score)[
        :SHOWN
    ]


def _draw_sheet(shown: Sequence[_Difference], names: tuple[str, str], n_clusters: int) -> Image.Image:
    images, captions = [], []
    for item in shown:
        images += [item.pixels, item.first, item.second]
        captions += [
            f"{Path(item.path).name if item.path else 'image'}: agreement {item.score:.2f}",
            f"{names[0]}, K = {n_clusters}",
            names[1],
        ]
    return Image.fromarray(draw_contact_sheet(images, captions, columns=6))
