"""What an atlas shows, as plain records: every part is optional, and no number comes without its unit or control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Integer

from encoscope.errors import EncoscopeError, UsageError

Point: TypeAlias = tuple[float, float]
"""x and y as shares of a picture's width and height, 0 to 1."""

Box: TypeAlias = tuple[float, float, float, float]
"""left, top, right, bottom as shares of a picture's width and height, 0 to 1."""

MAX_LEAVES = 64
"""Labels of the finest cut that an atlas keeps; the pages' slider goes up to 20 of them."""


@dataclass(frozen=True)
class Measure:
    """One number, with what it counts and what it would be without the effect it claims.

    unit: what the number counts, in words ("AUC", "logits per standard deviation"); never empty.
    interval: ends of a 95 % interval. control: the number a control gave, and control_name which control that was.
    """

    value: float
    unit: str
    control: float | None = None
    control_name: str = ""
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        numbers = [self.value, *(self.interval or ()), *([] if self.control is None else [self.control])]
        if not self.unit:
            raise UsageError(f"the number {self.value} has no unit: say what it counts")
        if not all(math.isfinite(number) for number in numbers):
            raise EncoscopeError(f"an atlas cannot show {numbers} ({self.unit}): leave out what is not finite")
        if self.control is not None and not self.control_name:
            raise UsageError(f"the control {self.control} ({self.unit}) has no name: say what it is")


@dataclass(frozen=True)
class Picture:
    """A picture of the site: its file's name (a hash of its content) and its size in pixels. See ``Writer.picture``."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Term:
    """A word or phrase with its score; what the score is stands beside the list it is in."""

    text: str
    score: float


@dataclass(frozen=True)
class DescriptionRecord:
    """What a feature stands for.

    concepts, phrases: best first. spurious: found, too, where the feature is silent, and so removed.
    method: which method gave them ("falcon", "soft-wpmi", ...). score: what the scores are ("cosine", ...).
    control: the score that chance gives, and control_name how it was found. note: what a reader has to know.
    """

    concepts: tuple[Term, ...]
    method: str
    score: str
    phrases: tuple[Term, ...] = ()
    spurious: tuple[Term, ...] = ()
    control: float | None = None
    control_name: str = ""
    note: str = ""


@dataclass(frozen=True)
class VisualizationRecord:
    """A synthesized picture. transparent: the same with what did not matter made transparent. facet: of several.

    notes: what a reader has to know, a sentence each.
    """

    method: str
    picture: Picture
    transparent: Picture | None = None
    activation: Measure | None = None
    facet: str = ""
    notes: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it can stand for its unit: where known, it excites it a tenth as much as what it was matched to."""
        measured = self.activation
        if measured is None or measured.control is None or measured.control <= 0:
            return True
        return measured.value >= 0.1 * measured.control


@dataclass(frozen=True)
class CropRecord:
    """An image, or a part of it, and a unit's value there.

    image: the image's id in this atlas. picture: what is shown. box: the part that was cropped,
    marked when ``picture`` is the whole image. outline: closed polygons on the picture around what drives the unit.
    """

    image: str
    picture: Picture
    value: Measure
    box: Box | None = None
    outline: tuple[tuple[Point, ...], ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How often a unit takes which values over the atlas's images. edges: one more than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float
    std: float
    unit: str

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise UsageError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, not {len(self.edges)}")


@dataclass(frozen=True)
class CircuitLink:
    """Another thing of the atlas - a unit, ``layer4:485``, or ``class:NAME`` - and how strongly it is tied to this.

    examples: images on which the target is strongest, which stand for it where the atlas has no record of it.
    """

    target: str
    measure: Measure
    examples: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class FeatureRecord:
    """One feature. What is not there yet is left out: a later record of the same unit adds to it.

    activating: where it fires, strongest first. counterfactuals: images much like those where it does not.
    sparsity: how rarely it fires. truth: how well its words predict it. clarity: how alike its crops are.
    """

    unit: str
    layer: str | None = None
    description: DescriptionRecord | None = None
    heldout_auc: Measure | None = None
    clarity: Measure | None = None
    sparsity: Measure | None = None
    visualizations: tuple[VisualizationRecord, ...] = ()
    activating: tuple[CropRecord, ...] = ()
    counterfactuals: tuple[CropRecord, ...] = ()
    histogram: Histogram | None = None
    nearest: tuple[CircuitLink, ...] = ()
    classes: tuple[CircuitLink, ...] = ()

    @property
    def key(self) -> str:
        """What makes it the same record."""
        return self.unit


@dataclass(frozen=True)
class LabelMap:
    """Labels of a grid over the whole image, row by row, as runs: (label, length, label, length, ...)."""

    rows: int
    columns: int
    runs: tuple[int, ...]

    @classmethod
    def of(cls, labels: Integer[np.ndarray, "rows columns"]) -> LabelMap:
        """The runs of an array of labels from 0 on."""
        flat = np.asarray(labels).ravel()
        if not flat.size or flat.min() < 0:
            raise UsageError(f"a label map of shape {labels.shape} is empty or holds negative labels")
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        lengths = np.diff(np.append(starts, flat.size))
        runs = np.stack([flat[starts], lengths], axis=1).ravel()
        return cls(labels.shape[0], labels.shape[1], tuple(runs.tolist()))

    def array(self) -> Integer[np.ndarray, "rows columns"]:
        """The labels as an array again. EncoscopeError when the runs do not fill the grid."""
        flat = np.repeat(np.array(self.runs[::2], dtype=np.int64), np.array(self.runs[1::2], dtype=np.int64))
        if flat.size != self.rows * self.columns:
            raise EncoscopeError(f"a label map of {self.rows} x {self.columns} cells holds {flat.size}: it is damaged")
        return flat.reshape(self.rows, self.columns)


@dataclass(frozen=True)
class NodeTop:
    """The features of the atlas that stand out in one region. node: a leaf, or ``leaves + step`` of the merges."""

    node: int
    features: tuple[CircuitLink, ...]


@dataclass(frozen=True)
class ImageSegmentation:
    """How one image is parted, at every granularity.

    segmentation: the id of one of the atlas's segmentations. labels: the leaves, the finest cut's regions.
    merges: for a segmentation of single images, which two nodes become one at each step (leaves are nodes 0 to L-1,
    step i makes node L + i); K regions are left after L - K steps. Empty where all images share one tree.
    """

    segmentation: str
    labels: LabelMap
    merges: tuple[tuple[int, int], ...] = ()
    tops: tuple[NodeTop, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One image of the atlas. id: sha256 of its file. name: shown for it. label: its class, where it is known."""

    id: str
    name: str = ""
    picture: Picture | None = None
    thumbnail: Picture | None = None
    label: str | None = None
    predictions: tuple[CircuitLink, ...] = ()
    segmentations: tuple[ImageSegmentation, ...] = ()
    tops: tuple[CircuitLink, ...] = ()

    @property
    def key(self) -> str:
        """What makes it the same record."""
        return self.id


@dataclass(frozen=True)
class CircuitLayer:
    """The channels of one layer that a class rests on, heaviest first."""

    layer: str
    channels: tuple[CircuitLink, ...]


@dataclass(frozen=True)
class Failure:
    """An image that the network takes for something else, and what drove that, in words where there are any."""

    image: str
    picture: Picture
    predicted: str
    confidence: Measure
    drivers: tuple[CircuitLink, ...] = ()


@dataclass(frozen=True)
class ClassRecord:
    """One class: what it looks like, what it rests on, and where it fails."""

    name: str
    index: int
    visualizations: tuple[VisualizationRecord, ...] = ()
    images: tuple[CropRecord, ...] = ()
    accuracy: Measure | None = None
    circuit: tuple[CircuitLayer, ...] = ()
    circuit_method: str = ""
    failures: tuple[Failure, ...] = ()

    @property
    def key(self) -> str:
        """What makes it the same record."""
        return str(self.index)


@dataclass(frozen=True)
class MatchedFeature:
    """A feature of another atlas, as much of it as the comparison shows."""

    unit: str
    concepts: tuple[str, ...] = ()
    picture: Picture | None = None
    crops: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class MatchedPair:
    """A feature here and the one most like it in the other atlas. mutual: each is the other's best match."""

    unit: str
    other: MatchedFeature
    similarity: Measure
    mutual: bool = False


@dataclass(frozen=True)
class ComparisonRecord:
    """Another atlas beside this one. images: how many images both hold, over which the similarity was taken."""

    name: str
    model: str
    digest: str
    images: int
    pairs: tuple[MatchedPair, ...]
    method: str = ""

    @property
    def key(self) -> str:
        """What makes it the same record."""
        return self.name


@dataclass(frozen=True)
class SegmentationInfo:
    """A way all images were parted: over which layers, one by one ("image") or jointly ("joint"), with which tree.

    leaves: labels of the finest cut. merges, sizes: of the shared tree of a joint one: see
    ``ImageSegmentation.merges``, and the cells of each leaf over all images.
    """

    id: str
    layers: tuple[str, ...]
    scope: str
    leaves: int
    merges: tuple[tuple[int, int], ...] = ()
    sizes: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scope not in ("image", "joint"):
            raise UsageError(f'a segmentation\'s scope is "image" or "joint", not {self.scope!r}')
        if not 1 <= self.leaves <= MAX_LEAVES:
            raise UsageError(f"an atlas keeps 1 to {MAX_LEAVES} leaves, not {self.leaves}")


Record: TypeAlias = FeatureRecord | ImageRecord | ClassRecord | ComparisonRecord
