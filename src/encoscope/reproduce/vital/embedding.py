"""VITAL's Figs. 5 and 14: where pictures lie among real photos in the network's penultimate features.

The figure is a t-SNE of five classes, photos and pictures together. A projection can be read into, so the table has
the distances in the features themselves: whether a picture's nearest class is its own, and how far from the class's
centre it lies, in mean distances of the class's photos.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import bootstrap
from encoscope.plots import palette
from encoscope.reproduce.vital.harness import Bench, figures
from encoscope.reproduce.vital.judge import looked_at
from encoscope.reproduce.vital.metrics import real_of
from encoscope.reproduce.vital.published import WEIGHTS
from encoscope.reproduce.vital.report import report

MARKERS: Mapping[str, str] = {"vital": "s", "maco": "^", "fourier": "h", "deepinversion": "*"}
"""The paper's symbols."""
_CLASSES = 5


def fig5(request: EvaluationRequest) -> Report:
    """All methods' pictures of five classes on one network."""
    return _embedding("vital-fig5", request, ("ResNet50",), tuple(MARKERS))


def fig14(request: EvaluationRequest) -> Report:
    """VITAL's and MACO's pictures of five classes on the paper's other networks."""
    return _embedding("vital-fig14", request, tuple(WEIGHTS)[1:], ("vital", "maco"))


def beside_centres(
    real: Float[np.ndarray, "photos features"],
    labels: Int[np.ndarray, " photos"],
    made: Float[np.ndarray, "pictures features"],
    own: Int[np.ndarray, " pictures"],
) -> tuple[Float[np.ndarray, " pictures"], Float[np.ndarray, " pictures"]]:
    """For each picture, whether the nearest class's centre is its own (1 or 0), and its distance from its own.

    A centre is the mean of a class's photos. The distance is in mean distances of the class's photos from it.
    """
    known = np.unique(labels)
    centres = np.stack([real[labels == label].mean(0) for label in known])
    usual = np.array(
        [
            np.linalg.norm(real[labels == label] - centre, axis=1).mean()
            for label, centre in zip(known, centres, strict=True)
        ]
    )
    distances = np.linalg.norm(made[:, None] - centres[None], axis=2)
    place = np.searchsorted(known, own)
    rows = np.arange(len(made))
    return (distances.argmin(1) == place).astype(np.float64), distances[rows, place] / np.maximum(usual[place], 1e-12)


def projected(features: Float[np.ndarray, "images features"], seed: int) -> Float[np.ndarray, "images 2"]:
    """t-SNE in two dimensions; its perplexity is 30, or a third of the images where those are few."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(features) - 1) / 3))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features.astype(np.float32))


def _embedding(name: str, request: EvaluationRequest, networks: Sequence[str], methods: Sequence[str]) -> Report:
    asked, benches = figures(request, {"photos": 50}, networks)
    rows: list[dict[str, Any]] = []
    pictures, notes = {}, []
    for network, bench in benches.items():
        labels = bench.classes(_CLASSES)
        units = [f"class:{label}" for label in labels]
        paths, own = real_of(bench, labels)
        real, wanted = _features(bench, paths), np.array(own)
        found: dict[str, Float[np.ndarray, "pictures features"]] = {}
        for method in methods:
            try:
                found[method] = _features(bench, bench.drawn(method, units).all)
            except UsageError as error:
                notes.append(f"{method} on {bench.model} cannot run: {error}.")
                continue
            targets = np.array(labels * int(asked["seeds"]))
            nearest, distance = beside_centres(real, wanted, found[method], targets)
            rows.append(_row(network, method, nearest, distance, request.seed))
        inside, spread = beside_centres(real, wanted, real, wanted)
        rows.append(_row(network, "real photos", inside, spread, request.seed))
        shown = name if len(benches) == 1 else f"{name}-{network}"
        pictures[shown] = _drawing(bench, real, wanted, found, labels, request.seed)
    reading = (
        "nearest its own: the share whose nearest class centre, in the features, is its class's; distance: from it, in "
        "mean distances of that class's photos (1: as far as they). [95 % bootstrap interval over pictures] "
        "t-SNE shows neighbours, not distances."
    )
    return report(
        name, "pictures among photos, in the features", rows, benches, notes=[reading, *notes], pictures=pictures
    )


def _features(bench: Bench, images: Sequence[Path]) -> Float[np.ndarray, "images features"]:
    return looked_at(bench.encoder, images, [0] * len(images))[0]


def _row(network: str, what: str, nearest: np.ndarray, distance: np.ndarray, seed: int) -> dict[str, Any]:
    return {
        "network": network,
        "images": what,
        "number": len(nearest),
        "nearest its own": bootstrap(nearest, seed=seed),
        "distance": bootstrap(distance, seed=seed),
    }


def _drawing(
    bench: Bench,
    real: Float[np.ndarray, "photos features"],
    labels: Int[np.ndarray, " photos"],
    found: Mapping[str, Float[np.ndarray, "pictures features"]],
    classes: Sequence[int],
    seed: int,
) -> Image.Image:
    """Photos as pale circles, pictures as symbols, a colour for each class."""
    from matplotlib.figure import Figure

    places = projected(np.concatenate([real, *found.values()]), seed)
    colours = dict(zip(classes, palette(max(1, len(classes))) / 255, strict=True))
    figure = Figure(figsize=(8, 6.4), layout="constrained", dpi=130)
    axes = figure.subplots()
    for label in classes:
        mine = places[: len(real)][labels == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=30, color=colours[label], alpha=0.3, linewidths=0)
        axes.scatter([], [], s=30, color=colours[label], label=bench.names[label])
    first = len(real)
    for method, features in found.items():
        part = places[first : first + len(features)]
        first += len(features)
        owners = list(classes) * (len(features) // len(classes))
        for label, (x, y) in zip(owners, part, strict=True):
            axes.scatter(x, y, s=110, marker=MARKERS[method], color=colours[label], edgecolors="black", linewidths=0.9)
        axes.scatter([], [], s=80, marker=MARKERS[method], color="0.7", edgecolors="black", label=method)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{bench.model}: penultimate features, t-SNE", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")
