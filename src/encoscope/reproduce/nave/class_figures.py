"""NAVE's figures of a class: 3, and 11 and 12 on test images that are classified rightly and wrongly.

All training images of a class are clustered together (Ward, K = 10, last three stages), each by itself as well (K = 5),
and one of the shared clusters is uncovered. The paper does it for STL-10's birds with a ResNet-18; here any labelled
dataset and classifier, by default the zoo's and Caltech-101's ibis. Which cluster is uncovered (the paper's 8) is a
setting; by default it is the one, of those in at least half of the images, that has the smallest share of its pixels
near the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import ImageListing, LoadedImage, list_images, read_image
from encoscope.metrics import bootstrap
from encoscope.nave import Nave, Segmentation, segment
from encoscope.nave.stability import compute_agreement
from encoscope.plots import draw_overlay, to_rgb
from encoscope.progress import track_steps
from encoscope.reproduce.inputs import load_encoders
from encoscope.reproduce.sheets import Cell, draw_sheet

STAND_IN = "zoo:resnet-caltech101"
CLASSES = ("bird", "ibis")
DEFAULTS = {"class": "", "cluster": -1, "clusters": 10, "image_clusters": 5, "size": "model"}
SHOWN = {"nave-fig3": 6, "nave-fig11": 50, "nave-fig12": 50}


@dataclass(frozen=True, eq=False)
class ClassClusters:
    """The shared clusters of a class.

    Attributes:
        name: name of the class.
        encoder: the network.
        nave: the joint fit.
        images: the images it was fitted on.
        segmentations: their segmentations.
        uncovered: the cluster that is uncovered.
    """

    name: str
    encoder: Encoder
    nave: Nave
    images: Sequence[LoadedImage]
    segmentations: Sequence[Segmentation]
    uncovered: int


def fig3(request: EvaluationRequest) -> Report:
    """Cluster a class's images one by one and together, and uncover one cluster.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with a row for each cluster.

    Source: NAVE, Fig. 3.
    """
    settings = request.settings(DEFAULTS)
    clusters = fit_class_clusters(request, settings)
    encoder = clusters.encoder
    untrained = _fit_jointly(untrained_copy(encoder, random_state=request.seed), clusters.images, settings, request)
    cells, trained_agreement, untrained_agreement = [], [], []
    with track_steps(len(clusters.images), "images", request.progress) as count:
        for index, image in enumerate(clusters.images):
            alone = segment(
                encoder,
                image,
                preset="paper",
                n_clusters=settings["image_clusters"],
                grouping="ward",
                size=settings["size"],
                random_state=request.seed,
            )
            together = clusters.segmentations[index]
            trained_agreement.append(compute_agreement(alone.labels, together.labels))
            untrained_agreement.append(compute_agreement(alone.labels, untrained.predict([image])[0].labels))
            if index < SHOWN["nave-fig3"]:
                cells += [
                    (to_rgb(image), ""),
                    (draw_overlay(image, alone.labels), "alone"),
                    (draw_overlay(image, together.labels), "together"),
                    (uncover_cluster(image, together, clusters.uncovered), f"cluster {clusters.uncovered}"),
                ]
            count(1)
    notes = [
        "Agreement of the clustering of each image with that of all (adjusted Rand index): "
        f"{bootstrap(trained_agreement)}; with the untrained network's clustering of all: "
        f"{bootstrap(untrained_agreement)}.",
    ]
    return _build_report(
        "nave-fig3", "one by one and together", clusters, cells, _list_clusters(clusters), notes, settings, request
    )


def fig11(request: EvaluationRequest) -> Report:
    """Draw the class's clusters on test images that are classified rightly.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the share of the uncovered cluster.

    Source: NAVE, Fig. 11.
    """
    return _draw_test_images("nave-fig11", request, right=True)


def fig12(request: EvaluationRequest) -> Report:
    """Draw the class's clusters on test images that are classified wrongly.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the share of the uncovered cluster.

    Source: NAVE, Fig. 12.
    """
    return _draw_test_images("nave-fig12", request, right=False)


def _draw_test_images(name: str, request: EvaluationRequest, *, right: bool) -> Report:
    settings = request.settings(DEFAULTS)
    if len(request.datasets) < 2:
        raise UsageError(
            f"{name} needs two --dataset: one to cluster, one to test, such as caltech101:ROOT#train and #test"
        )
    clusters = fit_class_clusters(request, settings)
    rows, cells = [], []
    for is_right in (True, False):
        images = _read_class(request.datasets[1], clusters.name)
        images = [image for image in images if _is_right(clusters, image) == is_right][: request.limit or SHOWN[name]]
        segmentations = clusters.nave.predict(images) if images else []
        shares = [float((segmentation.labels == clusters.uncovered).mean()) for segmentation in segmentations]
        rows.append(
            {"classified": "rightly" if is_right else "wrongly", "photos": len(images)}
            | {f"with cluster {clusters.uncovered}": sum(share > 0 for share in shares)}
            | {"share of pixels": bootstrap(shares) if shares else None}
        )
        if is_right == right:
            for image, segmentation in zip(images, segmentations, strict=True):
                shown = uncover_cluster(image, segmentation, clusters.uncovered)
                cells += [(draw_overlay(image, segmentation.labels), ""), (shown, "")]
    answer = "rightly" if right else "wrongly"
    notes = [] if cells else [f"No test image of {clusters.name} is classified {answer}: there is no picture."]
    return _build_report(name, f"test images classified {answer}", clusters, cells, rows, notes, settings, request)


def fit_class_clusters(request: EvaluationRequest, settings: dict[str, Any]) -> ClassClusters:
    """Cluster the training images of the class together.

    Args:
        request: the experiment's request.
        settings: the experiment's settings.

    Returns:
        The clusters.

    Raises:
        UsageError: without a labelled dataset, for another class, and for a cluster that does not exist.
    """
    if not request.datasets:
        raise UsageError(
            "a class's figure needs --dataset with labels, such as caltech101:ROOT#train or stl10:ROOT#train"
        )
    listing = list_images(request.datasets[0])
    name = _choose_class(listing, settings["class"], request.datasets[0])
    encoder = load_encoders(request, (STAND_IN,), (STAND_IN,))[0]
    images = _read_class(request.datasets[0], name)[: request.limit]
    nave = _fit_jointly(encoder, images, settings, request)
    segmentations = nave.predict(images)
    uncovered = settings["cluster"]
    if uncovered < 0:
        uncovered = _find_central_cluster(segmentations, settings["clusters"])
    if uncovered >= settings["clusters"]:
        raise UsageError(f"cluster is one of 0 to {settings['clusters'] - 1}, not {uncovered}")
    return ClassClusters(name, encoder, nave, images, segmentations, uncovered)


def uncover_cluster(image: LoadedImage, segmentation: Segmentation, cluster: int) -> np.ndarray:
    """Show an image where it belongs to a cluster, pale elsewhere.

    Args:
        image: the image.
        segmentation: its segmentation.
        cluster: the label that is shown.

    Returns:
        Pixels of shape ``[height, width, 3]``, from 0 to 255.
    """
    pixels = to_rgb(image)
    pale = (255 - (255 - pixels.mean(2, keepdims=True)) * 0.15).astype(np.uint8)
    return np.where((segmentation.labels == cluster)[..., None], pixels, pale)


def _fit_jointly(
    encoder: Encoder, images: Sequence[LoadedImage], settings: dict[str, Any], request: EvaluationRequest
) -> Nave:
    nave = Nave(
        encoder,
        preset="paper",
        n_clusters=settings["clusters"],
        grouping="ward",
        size=settings["size"],
        random_state=request.seed,
        progress=request.progress,
    )
    return nave.fit(list(images), fresh=request.fresh)


def _read_class(dataset: str, name: str) -> list[LoadedImage]:
    listing = list_images(dataset)
    _choose_class(listing, name, dataset)
    return [read_image(path) for path, label in zip(listing.paths, listing.labels, strict=True) if label == name]


def _choose_class(listing: ImageListing, name: str, dataset: str) -> str:
    if not listing.classes:
        raise UsageError(f"{dataset!r} has no labels: name a labelled dataset, such as caltech101:ROOT#train")
    name = name or next((known for known in CLASSES if known in listing.classes), listing.classes[0])
    if name not in listing.classes:
        raise UsageError(
            f"{dataset!r} has no class {name!r}{suggest_nearest(name, listing.classes)}: see --set class=NAME"
        )
    return name


def _is_right(clusters: ClassClusters, image: LoadedImage) -> bool:
    encoder, name = clusters.encoder, clusters.name
    if encoder.classes is None or name not in encoder.classes:
        raise UsageError(f"{encoder.source} has no class {name!r}: its answers cannot be checked")
    return int(encoder.logits(image).argmax()) == encoder.classes.index(name)


def _find_central_cluster(segmentations: Sequence[Segmentation], clusters: int) -> int:
    """The cluster, of those in at least half of the images, with the smallest share of its pixels near the border."""
    presence = np.array([[(item.labels == k).any() for k in range(clusters)] for item in segmentations]).mean(0)
    shares = _compute_border_shares(segmentations, clusters)
    shares[presence < min(0.5, presence.max())] = np.inf
    return int(shares.argmin())


def _compute_border_shares(segmentations: Sequence[Segmentation], clusters: int) -> np.ndarray:
    """The share of each cluster's pixels that lie within a tenth of the sides from the border."""
    inside, total = np.zeros(clusters), np.zeros(clusters)
    for item in segmentations:
        top, left = item.height // 10, item.width // 10
        total += np.bincount(item.labels.ravel(), minlength=clusters)
        middle = item.labels[top : item.height - top, left : item.width - left]
        inside += np.bincount(middle.ravel(), minlength=clusters)
    return 1 - inside / np.maximum(total, 1)


def _list_clusters(clusters: ClassClusters) -> list[dict[str, Any]]:
    count = clusters.nave.codebook_.n_clusters
    border = _compute_border_shares(clusters.segmentations, count)
    return [
        {
            "cluster": k,
            "uncovered": k == clusters.uncovered,
            "share of pixels": float(np.mean([(item.labels == k).mean() for item in clusters.segmentations])),
            "photos with it": int(sum((item.labels == k).any() for item in clusters.segmentations)),
            "share near the border": float(border[k]),
        }
        for k in range(count)
    ]


def _build_report(
    name: str,
    title: str,
    clusters: ClassClusters,
    cells: Sequence[Cell],
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    settings: dict[str, Any],
    request: EvaluationRequest,
) -> Report:
    sheets = {name: draw_sheet(cells, 4 if name == "nave-fig3" else 8, cell=160)} if cells else {}
    provenance = [
        f"{clusters.name}: {len(clusters.images)} images of {shorten_dataset(request.datasets[0])}, "
        f"{clusters.encoder.source}, "
        f"Ward, K = {settings['clusters']} together; the paper has STL-10's birds and a ResNet-18 trained on STL-10. "
        f"Uncovered: cluster {clusters.uncovered}"
        + ("." if settings["cluster"] >= 0 else ", the most central of those in half the images."),
    ]
    return Report(
        name,
        f"NAVE, Fig. {name.removeprefix('nave-fig')}: images of {clusters.name} clustered, {title}",
        rows,
        [*provenance, *notes],
        sheets,
        {"datasets": list(request.datasets), "limit": request.limit, **settings, "uncovered": clusters.uncovered},
        request.seed,
    )
