"""The figures of NAVE's paper, table by table, and where the weights behind them can be loaded from.

CorLoc in percent on VOC07, VOC12 and COCO20k, as printed; the paper gives some rows in several tables and contradicts
itself there by up to 1.1. Where it prints a number with digits run together, the number is the one that is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Figures: TypeAlias = tuple[float | None, float | None, float | None]

NONE: Figures = (None, None, None)
SETS = ("VOC07", "VOC12", "COCO20k")


@dataclass(frozen=True)
class NaveLine:
    """A row of the paper's tables, or of ours beside them.

    Attributes:
        method: name of the method.
        feature: the paper's name of the network; None for a method without one.
        paper: the paper's figures on the three datasets, in percent; None where it has none.
        select: how a segment is chosen, by its "outer" or "inner" box.
        clusters: number of clusters.
        options: further settings of the method.
        name: name of the row, by default made from the others.
        quoted: whether the figures are from other papers, so that the row is not run.
    """

    method: str
    feature: str | None
    paper: Figures = NONE
    select: str = "outer"
    clusters: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    quoted: bool = False

    @property
    def label(self) -> str:
        """The row's name."""
        if self.name:
            return self.name
        details = [self.select] if self.method in ("nave", "slic", "felzenszwalb", "random", "grid") else []
        details += [f"K = {self.clusters}"] if self.clusters != 5 else []
        details += [str(value) for value in self.options.values()]
        return self.method + (f" ({', '.join(details)})" if details else "")


@dataclass(frozen=True)
class NaveTable:
    """A table of the paper, with rows of ours beside it that have no figure there.

    Attributes:
        title: what it shows.
        lines: the rows.
    """

    title: str
    lines: tuple[NaveLine, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The networks, in order."""
        return tuple(dict.fromkeys(line.feature for line in self.lines if line.feature))


WEIGHTS: Mapping[str, str] = {
    "DINO-ViTS/16": "timm:vit_small_patch16_224.dino",
    "DINOv2-ViTS/14": "timm:vit_small_patch14_dinov2.lvd142m",
    "DINOv2-ViTS/14 + reg": "timm:vit_small_patch14_reg4_dinov2.lvd142m",
    "DINOv2-ViTB/14": "timm:vit_base_patch14_dinov2.lvd142m",
    "DINOv2-ViTB/14 + reg": "timm:vit_base_patch14_reg4_dinov2.lvd142m",
    "ViTS/16 ImageNet": "timm:vit_small_patch16_224.augreg_in1k",
    "ViTS/16 Random Init.": "timm:vit_small_patch16_224@untrained",
    "ViTB/16 ImageNet": "torchvision:vit_b_16",
    "ResNet50 ImageNet": "torchvision:resnet50",
    "DINO-ResNet50": "hub:facebookresearch/dino:dino_resnet50",
}
"""The paper takes supervised weights from PyTorch, which has no ViT-S/16: timm's stand in. Those trained on STL-10 and
on chest X-rays are not public."""

STAND_INS: Mapping[str, str] = {
    "DINO-ViTS/16": "zoo:vit-caltech101",
    "DINOv2-ViTS/14": "zoo:resnet-caltech101",
    "ViTS/16 ImageNet": "zoo:vit-caltech101",
    "ViTS/16 Random Init.": "zoo:vit-caltech101@untrained",
    "ResNet50 ImageNet": "zoo:resnet-caltech101",
}
"""What runs where no model is named: the zoo's, trained on Caltech-101 with labels, whatever the paper's training."""

IMAGENET: Mapping[str, str] = {
    "EfficientNet-Lite0": "zoo:tf_efficientnet_lite0",
    "EfficientNet-Lite0 Random Init.": "zoo:tf_efficientnet_lite0@untrained",
    "EfficientNet-Lite2": "zoo:tf_efficientnet_lite2",
}
"""Networks trained on ImageNet that the paper has not, which run beside the stand-ins, as far as they are installed."""

_DINO, _DINO2, _REG = "DINO-ViTS/16", "DINOv2-ViTS/14", "DINOv2-ViTS/14 + reg"
_B, _B_REG = "DINOv2-ViTB/14", "DINOv2-ViTB/14 + reg"
_RANDOM, _IMAGENET, _VITB, _RESNET = (
    "ViTS/16 Random Init.",
    "ViTS/16 ImageNet",
    "ViTB/16 ImageNet",
    "ResNet50 ImageNet",
)
_STL, _XRAY = "ViTS/16 STL-10", "ViTS/16 Chest-X-RAY"


def _inner(feature: str, paper: Figures, **more: Any) -> NaveLine:
    return NaveLine("nave", feature, paper, "inner", **more)


def _both(feature: str, inner: Figures, outer: Figures) -> tuple[NaveLine, NaveLine]:
    return _inner(feature, inner), NaveLine("nave", feature, outer)


def _clusters(feature: str, three: Figures, five: Figures, seven: Figures) -> tuple[NaveLine, ...]:
    return tuple(_inner(feature, figures, clusters=k) for k, figures in ((3, three), (5, five), (7, seven)))


def _grouped(feature: str, kmeans: Figures, pca: Figures) -> tuple[NaveLine, NaveLine]:
    return (
        _inner(feature, kmeans, options={"grouping": "kmeans"}),
        _inner(feature, pca, options={"grouping": "pca"}),
    )


TABLES: Mapping[int, NaveTable] = {
    1: NaveTable(
        "Object localization: NAVE beside methods that look for one object",
        (
            NaveLine("dino-seg", _DINO, (45.8, 46.2, 42.1)),
            NaveLine("lost", _DINO, (61.9, 64.0, 50.7)),
            NaveLine("tokencut", _DINO, (68.8, 72.1, 58.8)),
            NaveLine("lv", _DINO, (70.6, 72.1, 63.5), name="Lv et al. (quoted)", quoted=True),
            NaveLine("maskcut", _DINO),
            NaveLine("pca", _DINO),
            NaveLine("slic", None, (53.3, 57.1, 47.2)),
            NaveLine("slic", None, (42.2, 46.0, 38.5), "inner"),
            NaveLine("felzenszwalb", None),
            NaveLine("grid", None),
            NaveLine("random", None),
            NaveLine("random", None, select="inner"),
            NaveLine("nave", _DINO, (74.3, 76.1, 68.4)),
            NaveLine("nave", _DINO, (62.7, 62.3, 61.0), "inner"),
            NaveLine("nave", _DINO2, (73.0, 74.2, 71.0)),
            NaveLine("nave", _DINO2, (66.0, 67.1, 66.2), "inner"),
        ),
    ),
    2: NaveTable(
        "The training set of a ViT-S/16",
        (
            _inner(_IMAGENET, (68.7, 69.5, 64.1)),
            _inner(_RANDOM, (45.2, 46.9, 48.0)),
            _inner(_STL, (44.2, 44.7, 51.3)),
            _inner(_XRAY, (42.8, 45.1, 42.7)),
            _inner(_DINO, (62.7, 62.3, 61.0)),
            NaveLine("slic", None, (43.1, 46.0, 38.5), "inner"),
        ),
    ),
    3: NaveTable(
        "Training scheme, architecture and registers",
        (
            _inner(_RANDOM, (45.2, 46.9, 48.0)),
            _inner(_IMAGENET, (68.7, 69.5, 64.1)),
            _inner(_DINO, (62.7, 62.3, 60.6)),
            _inner(_DINO2, (66.0, 66.2, 65.1)),
            _inner(_VITB, (44.1, 45.3, 48.6)),
            _inner(_RESNET, (52.1, 51.7, 57.3)),
            _inner(_DINO2, (66.0, 67.1, 66.2), name="nave (inner), as printed under registers"),
            _inner(_REG, (66.5, 66.4, 65.7)),
            _inner(_B, (63.8, 64.0, 64.0)),
            _inner(_B_REG, (65.7, 66.8, 65.4)),
        ),
    ),
    4: NaveTable(
        "The training set of a ViT-S/16, both boxes",
        (
            *_both(_IMAGENET, (68.7, 69.5, 64.1), (74.9, 76.5, 70.0)),
            *_both(_RANDOM, (45.2, 46.9, 48.0), (52.9, 54.2, 57.2)),
            *_both(_STL, (44.2, 44.7, 51.3), (53.5, 54.1, 61.5)),
            *_both(_XRAY, (42.8, 45.1, 42.7), (49.4, 51.6, 50.9)),
            *_both(_DINO, (62.7, 62.3, 61.0), (74.3, 76.1, 68.4)),
            NaveLine("slic", None, (43.1, 46.0, 38.5), "inner"),
        ),
    ),
    5: NaveTable(
        "Training scheme, architecture and registers, both boxes",
        (
            *_both(_RANDOM, (45.2, 46.9, 48.0), (52.9, 54.2, 57.2)),
            *_both(_IMAGENET, (68.7, 69.5, 64.1), (74.9, 76.5, 70.0)),
            *_both(_DINO, (62.7, 62.3, 60.6), (74.3, 76.1, 68.4)),
            *_both(_DINO2, (66.0, 66.2, 65.1), (73.0, 74.2, 70.6)),
            *_both(_VITB, (44.1, 45.3, 48.6), (52.8, 53.7, 58.3)),
            *_both(_RESNET, (52.1, 51.7, 57.3), (60.8, 61.4, 58.0)),
            *_both(_REG, (66.5, 66.4, 65.7), (74.2, 75.4, 71.3)),
            *_both(_B, (63.8, 64.0, 63.5), (71.3, 72.5, 69.1)),
            *_both(_B_REG, (65.7, 66.8, 65.1), (73.2, 75.0, 70.9)),
        ),
    ),
    6: NaveTable(
        "The number of clusters",
        (
            *_clusters(_RANDOM, (52.6, 49.2, 49.4), (45.2, 46.9, 48.0), (41.7, 41.3, 45.5)),
            *_clusters(_IMAGENET, (62.0, 66.0, 53.6), (68.7, 69.5, 64.1), (66.0, 64.9, 66.1)),
            *_clusters(_DINO, (58.6, 62.8, 51.2), (62.7, 62.3, 60.6), (58.5, 55.2, 62.3)),
            *_clusters(_DINO2, (63.2, 67.1, 54.7), (66.0, 66.2, 65.1), (61.5, 58.8, 66.9)),
            *_clusters(_VITB, (49.6, 52.7, 50.0), (44.1, 45.3, 48.6), (39.8, 39.8, 45.5)),
            *_clusters(_RESNET, (53.2, 57.7, 45.4), (52.1, 51.7, 57.3), (44.1, 42.0, 60.0)),
            *_clusters(_REG, (65.2, 68.6, 56.2), (66.5, 66.4, 65.7), (61.6, 58.7, 67.2)),
            *_clusters(_B, (62.8, 66.6, 53.3), (63.8, 64.0, 63.5), (59.0, 57.3, 65.4)),
            *_clusters(_B_REG, (64.8, 68.6, 55.7), (65.7, 66.8, 65.1), (61.3, 58.7, 67.0)),
        ),
    ),
    7: NaveTable(
        "Grouping by k-means and by principal components",
        (
            *_grouped(_DINO, (62.7, None, 60.6), (59.0, None, 58.0)),
            *_grouped(_DINO2, (65.9, None, 65.1), (68.8, None, 67.5)),
            *_grouped(_REG, (66.5, None, 65.7), (70.3, None, 67.6)),
            *_grouped(_B, (63.8, None, 63.5), (61.2, None, 65.6)),
            *_grouped(_B_REG, (65.7, None, 65.1), (62.7, None, 68.5)),
            *_grouped("DINO-ResNet50", (59.2, None, 57.3), (58.2, None, 56.8)),
        ),
    ),
}
