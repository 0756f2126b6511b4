"""VITAL's Figs. 5 and 14: where visualizations lie among real images in the network's penultimate features.

The figure is a t-SNE of five classes, real images and visualizations together. A projection can mislead, so the table
has the distances in the features themselves: whether the class nearest to a visualization is its own, and how far from
the class's center it lies, in mean distances of the class's images.
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
from encoscope.reproduce.vital.harness import Bench, prepare_benches
from encoscope.reproduce.vital.judge import observe_images
from encoscope.reproduce.vital.metrics import select_real_images
from encoscope.reproduce.vital.published import WEIGHTS
from encoscope.reproduce.vital.report import build_report

MARKERS: Mapping[str, str] = {"vital": "s", "maco": "^", "fourier": "h", "deepinversion": "*"}
"""The paper's symbols."""
_CLASSES = 5


def fig5(request: EvaluationRequest) -> Report:
    """Project all methods' visualizations of five classes on one network.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with distances from the classes' centers.

    Source: VITAL, Fig. 5.
    """
    return _embedding("vital-fig5", request, ("ResNet50",), tuple(MARKERS))


def fig14(request: EvaluationRequest) -> Report:
    """Project VITAL's and MACO's visualizations of five classes on the paper's other networks.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with distances from the classes' centers.

    Source: VITAL, Fig. 14.
    """
    return _embedding("vital-fig14", request, tuple(WEIGHTS)[1:], ("vital", "maco"))


def compute_center_distances(
    real: Float[np.ndarray, "images features"],
    labels: Int[np.ndarray, " images"],
    features: Float[np.ndarray, "visualizations features"],
    own: Int[np.ndarray, " visualizations"],
) -> tuple[Float[np.ndarray, " visualizations"], Float[np.ndarray, " visualizations"]]:
    """Compute how near visualizations lie to the centers of their classes.

    A center is the mean of a class's real images. The distance is in mean distances of these images from it.

    Args:
        real: features of real images.
        labels: class of each real image.
        features: features of visualizations.
        own: class of each visualization.

    Returns:
        For each visualization, whether the nearest center is its own class's (1 or 0), and its distance from that
        center.
    """
    known = np.unique(labels)
    centers = np.stack([real[labels == label].mean(0) for label in known])
    usual = np.array(
        [
            np.linalg.norm(real[labels == label] - center, axis=1).mean()
            for label, center in zip(known, centers, strict=True)
        ]
    )
    distances = np.linalg.norm(features[:, None] - centers[None], axis=2)
    index = np.searchsorted(known, own)
    rows = np.arange(len(features))
    return (distances.argmin(1) == index).astype(np.float64), distances[rows, index] / np.maximum(usual[index], 1e-12)


def project_features(
    features: Float[np.ndarray, "images features"], random_state: int
) -> Float[np.ndarray, "images 2"]:
    """Project features by t-SNE in two dimensions; its perplexity is 30, or a third of the images where these are few.

    Args:
        features: features of images.
        random_state: seed of t-SNE.

    Returns:
        A point for each image.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(features) - 1) / 3))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=random_state).fit_transform(
        features.astype(np.float32)
    )


def _embedding(name: str, request: EvaluationRequest, networks: Sequence[str], methods: Sequence[str]) -> Report:
    settings, benches = prepare_benches(request, {"images": 50}, networks)
    rows: list[dict[str, Any]] = []
    sheets, notes = {}, []
    for network, bench in benches.items():
        labels = bench.choose_classes(_CLASSES)
        units = [f"class:{label}" for label in labels]
        images = select_real_images(bench, labels)
        real, real_labels = _features(bench, images.paths), np.array(images.labels)
        features: dict[str, Float[np.ndarray, "visualizations features"]] = {}
        for method in methods:
            try:
                features[method] = _features(bench, bench.visualize_seeds(method, units).all)
            except UsageError as error:
                notes.append(f"{method} on {bench.model} cannot run: {error}.")
                continue
            targets = np.array(labels * int(settings["seeds"]))
            nearest, distance = compute_center_distances(real, real_labels, features[method], targets)
            rows.append(_row(network, method, nearest, distance, request.seed))
        inside, spread = compute_center_distances(real, real_labels, real, real_labels)
        rows.append(_row(network, "real photos", inside, spread, request.seed))
        sheet = name if len(benches) == 1 else f"{name}-{network}"
        sheets[sheet] = _draw_projection(bench, real, real_labels, features, labels, request.seed)
    reading = (
        "nearest its own: the share whose nearest class center, in the features, is its class's; distance: from it, in "
        "mean distances of that class's images (1: as far as they). [95 % bootstrap interval over visualizations] "
        "t-SNE shows neighbours, not distances."
    )
    return build_report(
        name, "visualizations among real images, in the features", rows, benches, notes=[reading, *notes], sheets=sheets
    )


def _features(bench: Bench, images: Sequence[Path]) -> Float[np.ndarray, "images features"]:
    return observe_images(bench.encoder, images, [0] * len(images))[0]


def _row(network: str, images: str, nearest: np.ndarray, distance: np.ndarray, random_state: int) -> dict[str, Any]:
    return {
        "network": network,
        "images": images,
        "number": len(nearest),
        "nearest its own": bootstrap(nearest, random_state=random_state),
        "distance": bootstrap(distance, random_state=random_state),
    }


def _draw_projection(
    bench: Bench,
    real: Float[np.ndarray, "images features"],
    labels: Int[np.ndarray, " images"],
    by_method: Mapping[str, Float[np.ndarray, "visualizations features"]],
    classes: Sequence[int],
    random_state: int,
) -> Image.Image:
    """Real images as pale circles, visualizations as symbols, a color for each class."""
    from matplotlib.figure import Figure

    points = project_features(np.concatenate([real, *by_method.values()]), random_state)
    colors = dict(zip(classes, palette(max(1, len(classes))) / 255, strict=True))
    figure = Figure(figsize=(8, 6.4), layout="constrained", dpi=130)
    axes = figure.subplots()
    for label in classes:
        own = points[: len(real)][labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=30, color=colors[label], alpha=0.3, linewidths=0)
        axes.scatter([], [], s=30, color=colors[label], label=bench.names[label])
    first = len(real)
    for method, features in by_method.items():
        selection = points[first : first + len(features)]
        first += len(features)
        owners = list(classes) * (len(features) // len(classes))
        for label, (x, y) in zip(owners, selection, strict=True):
            axes.scatter(x, y, s=110, marker=MARKERS[method], color=colors[label], edgecolors="black", linewidths=0.9)
        axes.scatter([], [], s=80, marker=MARKERS[method], color="0.7", edgecolors="black", label=method)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{bench.model}: penultimate features, t-SNE", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")
