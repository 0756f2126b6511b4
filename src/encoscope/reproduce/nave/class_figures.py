"""NAVE's figures of a class: 3, and 11 and 12 on test photos that are classified rightly and wrongly.

All training photos of a class are clustered together (Ward, K = 10, last three stages), each by itself as well (K = 5),
and one of the shared clusters is uncovered. The paper does it for STL-10's birds with a ResNet-18; here any labelled
dataset and classifier, by default the zoo's and Caltech-101's ibis. Which cluster is uncovered (the paper's 8) is a
setting; left out, it is the one, of those in at least half of the photos, that keeps most to the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import LabelledImages, LoadedImage, open_dataset, read_image
from encoscope.metrics import bootstrap
from encoscope.nave import Nave, Segmentation, segment
from encoscope.nave.stability import compute_agreement
from encoscope.plots import draw_contact_sheet, draw_overlay, to_rgb
from encoscope.progress import track_steps
from encoscope.reproduce.nave.figures import STAND_INS, encoders

CLASSES = ("bird", "ibis")
DEFAULTS = {"class": "", "cluster": -1, "clusters": 10, "image_clusters": 5, "size": "model"}
SHOWN = {"nave-fig3": 6, "nave-fig11": 50, "nave-fig12": 50}


@dataclass(frozen=True, eq=False)
class ClassClusters:
    """The shared clusters of a class: the fit, its photos with their labels, and the cluster that is uncovered."""

    name: str
    encoder: Encoder
    nave: Nave
    photos: Sequence[LoadedImage]
    parts: Sequence[Segmentation]
    uncovered: int


def fig3(request: EvaluationRequest) -> Report:
    """A class's photos clustered one by one and together, and one cluster uncovered."""
    asked = request.settings(DEFAULTS)
    found = class_clusters(request, asked)
    twin = _jointly(untrained_copy(found.encoder, random_state=request.seed), found.photos, asked, request)
    cells, same, bare = [], [], []
    with track_steps(len(found.photos), "photos", request.progress) as count:
        for index, photo in enumerate(found.photos):
            alone = segment(
                found.encoder,
                photo,
                n_clusters=asked["image_clusters"],
                grouping="ward",
                size=asked["size"],
                random_state=request.seed,
            )
            same.append(compute_agreement(alone.labels, found.parts[index].labels))
            bare.append(compute_agreement(alone.labels, twin.predict([photo])[0].labels))
            if index < SHOWN["nave-fig3"]:
                cells += [
                    (to_rgb(photo), ""),
                    (draw_overlay(photo, alone.labels), "alone"),
                    (draw_overlay(photo, found.parts[index].labels), "together"),
                    (only(photo, found.parts[index], found.uncovered), f"cluster {found.uncovered}"),
                ]
            count(1)
    notes = [
        "Agreement of the clustering of each photo with that of all (adjusted Rand index): "
        f"{bootstrap(same)}; with the untrained network's clustering of all: {bootstrap(bare)}.",
    ]
    return _report("nave-fig3", "one by one and together", found, cells, _rows(found), notes, asked, request)


def fig11(request: EvaluationRequest) -> Report:
    """The class's clusters on test photos that are classified rightly."""
    return _tested("nave-fig11", request, right=True)


def fig12(request: EvaluationRequest) -> Report:
    """The class's clusters on test photos that are classified wrongly."""
    return _tested("nave-fig12", request, right=False)


def _tested(name: str, request: EvaluationRequest, *, right: bool) -> Report:
    asked = request.settings(DEFAULTS)
    if len(request.datasets) < 2:
        raise UsageError(
            f"{name} needs two --dataset: one to cluster, one to test, such as caltech101:ROOT#train and #test"
        )
    found = class_clusters(request, asked)
    rows, cells = [], []
    for how in (True, False):
        kept = [photo for photo in _of_class(request.datasets[1], found.name) if _right(found, photo) == how]
        kept = kept[: request.limit or SHOWN[name]]
        parts = found.nave.predict(kept) if kept else []
        shares = [float((one.labels == found.uncovered).mean()) for one in parts]
        rows.append(
            {"classified": "rightly" if how else "wrongly", "photos": len(kept)}
            | {f"with cluster {found.uncovered}": sum(share > 0 for share in shares)}
            | {"share of pixels": bootstrap(shares) if shares else None}
        )
        if how == right:
            for photo, one in zip(kept, parts, strict=True):
                cells += [(draw_overlay(photo, one.labels), ""), (only(photo, one, found.uncovered), "")]
    how = "rightly" if right else "wrongly"
    notes = [] if cells else [f"No test photo of {found.name} is classified {how}: there is no picture."]
    return _report(name, f"test photos classified {how}", found, cells, rows, notes, asked, request)


def class_clusters(request: EvaluationRequest, asked: dict[str, Any]) -> ClassClusters:
    """Cluster the training photos of the class together. UsageError without a labelled dataset or for another class."""
    if not request.datasets:
        raise UsageError(
            "a class's figure needs --dataset with labels, such as caltech101:ROOT#train or stl10:ROOT#train"
        )
    labelled = open_dataset(request.datasets[0])
    name = _class(labelled, asked["class"], request.datasets[0])
    encoder = encoders(request, STAND_INS[:1], STAND_INS[:1])[0]
    kept = _of_class(request.datasets[0], name)[: request.limit]
    nave = _jointly(encoder, kept, asked, request)
    parts = nave.predict(kept)
    uncovered = asked["cluster"] if asked["cluster"] >= 0 else _middle(parts, asked["clusters"])
    if uncovered >= asked["clusters"]:
        raise UsageError(f"cluster is one of 0 to {asked['clusters'] - 1}, not {uncovered}")
    return ClassClusters(name, encoder, nave, kept, parts, uncovered)


def only(photo: LoadedImage, parts: Segmentation, cluster: int) -> np.ndarray:
    """The photo where it belongs to a cluster, pale elsewhere."""
    pixels = to_rgb(photo)
    pale = (255 - (255 - pixels.mean(2, keepdims=True)) * 0.15).astype(np.uint8)
    return np.where((parts.labels == cluster)[..., None], pixels, pale)


def _jointly(encoder: Encoder, kept: Sequence[LoadedImage], asked: dict[str, Any], request: EvaluationRequest) -> Nave:
    nave = Nave(
        encoder,
        n_clusters=asked["clusters"],
        grouping="ward",
        size=asked["size"],
        random_state=request.seed,
        progress=request.progress,
    )
    return nave.fit(list(kept), fresh=request.fresh)


def _of_class(text: str, name: str) -> list[LoadedImage]:
    labelled = open_dataset(text)
    _class(labelled, name, text)
    index = labelled.classes.index(name)
    return [read_image(path) for path, label in zip(labelled.paths, labelled.labels, strict=True) if label == index]


def _class(labelled: LabelledImages, name: str, text: str) -> str:
    if not labelled.labels:
        raise UsageError(f"{text!r} has no labels: name a labelled dataset, such as caltech101:ROOT#train")
    name = name or next((known for known in CLASSES if known in labelled.classes), labelled.classes[0])
    if name not in labelled.classes:
        raise UsageError(
            f"{text!r} has no class {name!r}{suggest_nearest(name, labelled.classes)}: see --set class=NAME"
        )
    return name


def _right(found: ClassClusters, photo: LoadedImage) -> bool:
    if found.encoder.classes is None or found.name not in found.encoder.classes:
        raise UsageError(f"{found.encoder.source} has no class {found.name!r}, so what it gets right cannot be told")
    return int(found.encoder.logits(photo).argmax()) == found.encoder.classes.index(found.name)


def _middle(parts: Sequence[Segmentation], clusters: int) -> int:
    """The cluster, of those in at least half of the photos, with the smallest share of its pixels near the border."""
    there = np.array([[(one.labels == k).any() for k in range(clusters)] for one in parts]).mean(0)
    rim = _rim(parts, clusters)
    rim[there < min(0.5, there.max())] = np.inf
    return int(rim.argmin())


def _rim(parts: Sequence[Segmentation], clusters: int) -> np.ndarray:
    """The share of each cluster's pixels that lie within a tenth of the sides from the border."""
    inside, total = np.zeros(clusters), np.zeros(clusters)
    for one in parts:
        top, left = one.height // 10, one.width // 10
        total += np.bincount(one.labels.ravel(), minlength=clusters)
        middle = one.labels[top : one.height - top, left : one.width - left]
        inside += np.bincount(middle.ravel(), minlength=clusters)
    return 1 - inside / np.maximum(total, 1)


def _rows(found: ClassClusters) -> list[dict[str, Any]]:
    clusters = found.nave.codebook_.n_clusters
    rim = _rim(found.parts, clusters)
    return [
        {
            "cluster": k,
            "uncovered": k == found.uncovered,
            "share of pixels": float(np.mean([(one.labels == k).mean() for one in found.parts])),
            "photos with it": int(sum((one.labels == k).any() for one in found.parts)),
            "share near the border": float(rim[k]),
        }
        for k in range(clusters)
    ]


def _report(
    name: str,
    title: str,
    found: ClassClusters,
    cells: Sequence[tuple[np.ndarray, str]],
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    asked: dict[str, Any],
    request: EvaluationRequest,
) -> Report:
    pictures = {}
    if cells:
        images, captions = zip(*cells, strict=True)
        columns = 4 if name == "nave-fig3" else 8
        pictures = {name: Image.fromarray(draw_contact_sheet(images, captions, columns, cell=160))}
    said = [
        f"{found.name}: {len(found.photos)} photos of {shorten_dataset(request.datasets[0])}, {found.encoder.source}, "
        f"Ward, K = {asked['clusters']} together; the paper has STL-10's birds and a ResNet-18 trained on STL-10. "
        f"Uncovered: cluster {found.uncovered}"
        + ("." if asked["cluster"] >= 0 else ", the most central of those in half the photos."),
    ]
    return Report(
        name,
        f"NAVE, Fig. {name.removeprefix('nave-fig')}: photos of {found.name} clustered, {title}",
        rows,
        [*said, *notes],
        pictures,
        {"datasets": list(request.datasets), "limit": request.limit, **asked, "uncovered": found.uncovered},
        request.seed,
    )
