"""How two encoders differ on the same images: what they treat alike, how their layers and features correspond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import UsageError
from encoscope.evaluation.charts import render_figure
from encoscope.images import LoadedImage, SkippedImage
from encoscope.metrics import Interval, ari, bootstrap
from encoscope.metrics.layer_cka import LayerCKA
from encoscope.metrics.matching import Correlation, match_units
from encoscope.nave import Segmentation, segment_stream
from encoscope.plots import draw_contact_sheet, draw_overlay
from encoscope.progress import Progress, track

CLUSTERS = (2, 3, 5, 8, 12)
LAYERS = 12
"""At most so many layers of each network are compared, spread evenly over its depth."""

SHOWN = 8
_BATCH = 8


@dataclass(frozen=True)
class Agreement:
    """How alike two encoders part images into ``clusters`` regions: adjusted Rand index, mean over images.

    ceiling: the first encoder with itself on the mirrored image, mirrored back; hardly more can be asked for. floor:
    with its own untrained twin, what the images alone make any network agree on; None where no twin can be made.
    """

    clusters: int
    agreement: Interval
    ceiling: Interval
    floor: Interval | None


@concise_repr
@dataclass(frozen=True)
class Comparison:
    """Two encoders on the same images.

    agreements: one for each number of clusters. cka: linear CKA (unbiased) between spatial means of layers, with the
    layers' names. matches: pooled features matched one to one, most correlated first, with correlation ``r``; chance:
    the same with the second encoder's images shifted by one, so that no two belong together. disagreement: mean ARI of
    each image over the granularities, with its path; the lowest come first. pictures: the images that differ most.
    """

    names: tuple[str, str]
    images: int
    agreements: tuple[Agreement, ...]
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    cka: Float[np.ndarray, "first second"]
    matches: Int[np.ndarray, "pairs 2"]
    correlations: Float[np.ndarray, " pairs"]
    chance: Float[np.ndarray, " pairs"]
    ranked: tuple[tuple[str | None, float], ...]
    sheet: Image.Image
    skipped: tuple[SkippedImage, ...] = ()


def compare(
    first: Encoder,
    second: Encoder,
    photos: Iterable[LoadedImage | SkippedImage],
    *,
    n_clusters: Sequence[int] = CLUSTERS,
    random_state: int = 0,
    total: int | None = None,
    progress: Progress = None,
) -> Comparison:
    """Compare two encoders, or one before and after training, on a stream of photos; one batch is held at a time.

    clusters: granularities at which segmentations (NAVE, each encoder's default layers) are compared. Raises
    UsageError for fewer than four photos, EncoscopeError as ``segment`` does.
    """
    numbers = tuple(sorted(set(n_clusters)))
    twin = _twin(first, random_state)
    layers = (_spread(first), _spread(second))
    cka = LayerCKA(len(layers[0]), len(layers[1]))
    paired, shifted = Correlation(), Correlation()
    tables: dict[str, list[list[float]]] = {"agreement": [], "ceiling": [], "floor": []}
    shown: list[tuple[float, str | None, Any, Any, Any]] = []
    skipped: list[SkippedImage] = []
    ranked: list[tuple[str | None, float]] = []
    last: Tensor | None = None  # the second network's features of the image before, for the shifted pairs
    for chunk in _chunks(track(photos, total, "compare", progress), skipped):
        one = _parts(first, chunk, numbers, random_state)
        two = _parts(second, chunk, numbers, random_state)
        again = _parts(first, [_mirrored(photo) for photo in chunk], numbers, random_state)
        bare = None if twin is None else _parts(twin, chunk, numbers, random_state)
        for index, photo in enumerate(chunk):
            row = _aris(one[index], two[index])
            tables["agreement"].append(row)
            tables["ceiling"].append(_aris(one[index], again[index], mirrored=True))
            if bare is not None:
                tables["floor"].append(_aris(one[index], bare[index]))
            ranked.append((photo.path, float(np.mean(row))))
            shown = _keep(shown, float(np.mean(row)), photo, one[index], two[index])
        x, y = (_see(encoder, chunk, names) for encoder, names in ((first, layers[0]), (second, layers[1])))
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
        images=len(ranked),
        agreements=tuple(
            Agreement(
                k,
                bootstrap([row[place] for row in tables["agreement"]], seed=random_state),
                bootstrap([row[place] for row in tables["ceiling"]], seed=random_state),
                bootstrap([row[place] for row in tables["floor"]], seed=random_state) if twin is not None else None,
            )
            for place, k in enumerate(numbers)
        ),
        layers=layers,
        cka=cka.finalize(),
        matches=matches,
        correlations=correlations[matches[:, 0], matches[:, 1]],
        chance=chance[by_chance[:, 0], by_chance[:, 1]],
        ranked=tuple(sorted(ranked, key=lambda item: item[1])),
        sheet=_sheet(shown, (first.source, second.source), numbers[len(numbers) // 2]),
        skipped=tuple(skipped),
    )


def make_entry(found: Comparison, document: Path) -> dict[str, Any]:
    """A comparison for the result document; images are named relative to it."""
    return {
        "agreement": [
            {
                "clusters": row.clusters,
                "agreement": asdict(row.agreement),
                "mirrored": asdict(row.ceiling),
            }
            | {"untrained": None if row.floor is None else asdict(row.floor)}
            for row in found.agreements
        ],
        "cka": {"layers": [list(names) for names in found.layers], "values": _finite(found.cka)},
        "features": [
            {"first": int(a), "second": int(b), "correlation": float(r)}
            for (a, b), r in zip(found.matches, found.correlations, strict=True)
        ],
        "chance_correlations": found.chance,
        "images": [
            {"path": None if path is None else results.relative(path, document), "agreement": score}
            for path, score in found.ranked
        ],
    }


def draw_cka(found: Comparison) -> Image.Image:
    """CKA of every layer of the first encoder (rows) with every layer of the second."""
    from matplotlib.figure import Figure

    rows, columns = found.cka.shape
    figure = Figure(figsize=(2.6 + 0.55 * columns, 2.0 + 0.45 * rows), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(found.cka, vmin=0, vmax=1, cmap="viridis")
    axes.set_yticks(range(rows), found.layers[0])
    axes.set_xticks(range(columns), found.layers[1], rotation=45, ha="right")
    axes.set_ylabel(found.names[0])
    axes.set_xlabel(found.names[1])
    for (row, column), value in np.ndenumerate(found.cka):
        text = "" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if value < 0.6 else "black")
    figure.colorbar(shown, ax=axes, label="linear CKA")
    return render_figure(figure)


def _finite(values: Float[np.ndarray, "first second"]) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]


def _twin(encoder: Encoder, seed: int) -> Encoder | None:
    try:
        return untrained_copy(encoder, random_state=seed)
    except UsageError:
        return None


def _spread(encoder: Encoder) -> tuple[str, ...]:
    """Stages or blocks, at most ``LAYERS`` of them, the first and the last among them."""
    names = encoder.depths
    places = np.unique(np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int))
    return tuple(names[place] for place in places)


def _chunks(items: Iterable[LoadedImage | SkippedImage], skipped: list[SkippedImage]) -> Iterator[list[LoadedImage]]:
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


def _parts(
    encoder: Encoder, chunk: Sequence[LoadedImage], numbers: tuple[int, ...], seed: int
) -> list[list[Segmentation]]:
    """Each photo's segmentations, one for each number of clusters."""
    found: list[Segmentation] = []
    for result in segment_stream(encoder, chunk, n_clusters=numbers, random_state=seed, batch_size=len(chunk)):
        if isinstance(result, SkippedImage):
            raise UsageError(f"{result.path} cannot be segmented: {result.reason}")
        found.append(result[1])
    return [found[start : start + len(numbers)] for start in range(0, len(found), len(numbers))]


def _mirrored(photo: LoadedImage) -> LoadedImage:
    return replace(photo, pixels=np.ascontiguousarray(photo.pixels[:, ::-1]))


def _aris(one: Sequence[Segmentation], two: Sequence[Segmentation], *, mirrored: bool = False) -> list[float]:
    """Agreement at each granularity; mirrored: the second ones are of the mirrored image."""
    turn = slice(None, None, -1 if mirrored else 1)
    return [ari(a.labels.astype(np.int64), b.labels[:, turn].astype(np.int64)) for a, b in zip(one, two, strict=True)]


def _see(encoder: Encoder, chunk: Sequence[LoadedImage], layers: Sequence[str]) -> dict[str, Tensor]:
    """Spatial means of layers, and the pooled features under the empty name."""
    seen = encoder.observe(list(chunk), layers, features=True)
    assert seen.features is not None  # asked for
    means = {name: found.maps.mean((2, 3)) for name, found in seen.activations.items()}
    return {name: values.cpu() for name, values in (means | {"": seen.features}).items()}


def _keep(
    shown: list[Any], score: float, photo: LoadedImage, one: list[Segmentation], two: list[Segmentation]
) -> list[Any]:
    """The photos with the lowest scores so far, with their middle granularity as both networks see it."""
    if len(shown) == SHOWN and score >= shown[-1][0]:
        return shown
    middle = len(one) // 2
    pictures = (draw_overlay(photo, one[middle].labels), draw_overlay(photo, two[middle].labels))
    return sorted([*shown, (score, photo.path, photo.pixels, *pictures)], key=lambda item: item[0])[:SHOWN]


def _sheet(shown: Sequence[Any], names: tuple[str, str], clusters: int) -> Image.Image:
    images, captions = [], []
    for score, path, pixels, one, two in shown:
        images += [pixels, one, two]
        captions += [
            f"{Path(path).name if path else 'image'}: agreement {score:.2f}",
            f"{names[0]}, K = {clusters}",
            names[1],
        ]
    return Image.fromarray(draw_contact_sheet(images, captions, columns=6))
