"""What an atlas shows, as plain records: every field may be left out, and no number comes without its unit."""

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
    """One number, with its unit and what a control gives in its place.

    Attributes:
        value: The number.
        unit: What the number counts, in words ("AUC", "logits per standard deviation"); never empty.
        control: The number that a control gave, None where there is none.
        control_name: Which control that was; needed where there is one.
        interval: Ends of a 95 % interval.

    Raises:
        UsageError: No unit, or a control without its name.
        EncoscopeError: A number that is not finite.

    Example:
        >>> Measure(0.91, "AUC", 0.52, "permuted features").control
        0.52
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
class ImageFile:
    """An image file of the site; see ``Writer.save_image``.

    Attributes:
        name: The file's name below ``images/``, a hash of its content.
        width: In pixels.
        height: In pixels.
    """

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class Term:
    """A word or phrase with its score.

    Attributes:
        text: The word or phrase.
        score: In the unit that ``DescriptionRecord.score`` names.
    """

    text: str
    score: float


@dataclass(frozen=True)
class DescriptionRecord:
    """What a feature stands for.

    Attributes:
        concepts: Best first.
        method: Which method gave them ("falcon", "soft-wpmi", ...).
        score: What the scores are ("cosine", ...).
        phrases: Best first.
        spurious: Concepts that were removed, since images on which the feature is silent share them.
        control: The score that chance gives.
        control_name: How the control was measured.
        note: What a reader has to know.
        verdict: What the test of the description came to, such as "no better than chance"; empty where it is unknown.
    """

    concepts: tuple[Term, ...]
    method: str
    score: str
    phrases: tuple[Term, ...] = ()
    spurious: tuple[Term, ...] = ()
    control: float | None = None
    control_name: str = ""
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class VisualizationRecord:
    """A synthesized picture of a unit.

    Attributes:
        method: Which method made it ("vital", "fourier", "maco").
        picture: The picture.
        transparent: The same with what did not matter made transparent.
        activation: The unit's value on the picture.
        facet: Which of several pictures of the unit it is.
        notes: What a reader has to know, a sentence each.
    """

    method: str
    picture: ImageFile
    transparent: ImageFile | None = None
    activation: Measure | None = None
    facet: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_representative(self) -> bool:
        """Whether it can represent its unit: its activation is at least a tenth of the control, where one is known."""
        measured = self.activation
        if measured is None or measured.control is None or measured.control <= 0:
            return True
        return measured.value >= 0.1 * measured.control


@dataclass(frozen=True)
class CropRecord:
    """An image, or a crop of it, and a unit's value there.

    Attributes:
        image: The image's id in this atlas.
        picture: What is shown.
        value: The unit's value.
        box: The region that was cropped, where ``picture`` is the whole image.
        outline: Closed polygons on the picture around what drives the unit.
        captions: Captions of the crop, best first.
    """

    image: str
    picture: ImageFile
    value: Measure
    box: Box | None = None
    outline: tuple[tuple[Point, ...], ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How often a unit takes which values over the atlas's images.

    Attributes:
        edges: Ends of the bins, one more than counts.
        counts: Images of each bin.
        mean: Of the values over the images.
        std: Standard deviation of the values over the images.
        unit: What the values are.

    Raises:
        UsageError: Another number of edges.
    """

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
    """A unit or class of the atlas, and how strongly it is tied to the record that holds the link.

    Attributes:
        target: A unit, ``layer4:485``, or ``class:NAME``.
        measure: How strongly it is tied.
        examples: Images on which the target is strongest; they are shown where the atlas has no record of it.
    """

    target: str
    measure: Measure
    examples: tuple[ImageFile, ...] = ()


@dataclass(frozen=True)
class FeatureRecord:
    """One feature. A field that is not known yet is left out: a later record of the same unit adds it.

    Attributes:
        unit: The unit as it was written, ``layer4:485``.
        layer: Its layer.
        description: What it stands for.
        heldout_auc: How well the description predicts the feature on images that were not used to find it.
        clarity: How alike its crops are.
        sparsity: How rarely it is active.
        visualizations: What it looks like.
        activating: The images on which it is strongest, strongest first.
        counterfactuals: Images much like those, on which it is silent.
        histogram: Its values over the images.
        nearest: Features that rise and fall with it.
        classes: Classes that it feeds.
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
    """Labels of a grid over the whole image, row by row, as runs.

    Attributes:
        rows: Of the grid.
        columns: Of the grid.
        runs: label, length, label, length, ...
    """

    rows: int
    columns: int
    runs: tuple[int, ...]

    @classmethod
    def from_array(cls, labels: Integer[np.ndarray, "rows columns"]) -> LabelMap:
        """The runs of an array of labels.

        Args:
            labels: Labels from 0 on.

        Returns:
            The label map.

        Raises:
            UsageError: An empty array, or a negative label.

        Example:
            >>> LabelMap.from_array(np.array([[0, 0], [0, 3]])).runs
            (0, 3, 3, 1)
        """
        flat = np.asarray(labels).ravel()
        if not flat.size or flat.min() < 0:
            raise UsageError(f"a label map of shape {labels.shape} is empty or holds negative labels")
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        lengths = np.diff(np.append(starts, flat.size))
        runs = np.stack([flat[starts], lengths], axis=1).ravel()
        return cls(labels.shape[0], labels.shape[1], tuple(runs.tolist()))

    def to_array(self) -> Integer[np.ndarray, "rows columns"]:
        """The labels as an array again.

        Raises:
            EncoscopeError: The runs do not fill the grid.
        """
        flat = np.repeat(np.array(self.runs[::2], dtype=np.int64), np.array(self.runs[1::2], dtype=np.int64))
        if flat.size != self.rows * self.columns:
            raise EncoscopeError(f"a label map of {self.rows} x {self.columns} cells holds {flat.size}: it is damaged")
        return flat.reshape(self.rows, self.columns)


@dataclass(frozen=True)
class NodeTop:
    """The features of the atlas that stand out in one region.

    Attributes:
        node: The region's node in the tree: a leaf, or ``leaves + step`` of the merges.
        features: Strongest first.
    """

    node: int
    features: tuple[CircuitLink, ...]


@dataclass(frozen=True)
class ImageSegmentation:
    """One segmentation of one image, at every granularity.

    Attributes:
        segmentation: The id of one of the atlas's segmentations.
        labels: The leaves: the regions of the finest cut.
        merges: For a segmentation of single images, which two nodes become one at each step. Leaves are nodes 0 to
            L - 1, step i makes node L + i; K regions remain after L - K steps. Empty where all images share one tree.
        tops: The features that stand out in the regions.
    """

    segmentation: str
    labels: LabelMap
    merges: tuple[tuple[int, int], ...] = ()
    tops: tuple[NodeTop, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One image of the atlas.

    Attributes:
        id: sha256 of its file.
        name: What is shown as its name.
        picture: The image.
        thumbnail: The same, small.
        label: Its class, where it is known.
        predictions: The network's classes, most probable first.
        segmentations: One for each of the atlas's segmentations.
        tops: The features that stand out in the image.
    """

    id: str
    name: str = ""
    picture: ImageFile | None = None
    thumbnail: ImageFile | None = None
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
    """The channels of one layer that a class rests on.

    Attributes:
        layer: The layer's name.
        channels: Heaviest first.
    """

    layer: str
    channels: tuple[CircuitLink, ...]


@dataclass(frozen=True)
class Failure:
    """An image that the network takes for another class.

    Attributes:
        image: The image's id.
        picture: The image.
        predicted: The name of the class that the network takes it for.
        confidence: The probability of that class.
        drivers: The features that drove the prediction, strongest first.
    """

    image: str
    picture: ImageFile
    predicted: str
    confidence: Measure
    drivers: tuple[CircuitLink, ...] = ()


@dataclass(frozen=True)
class ClassRecord:
    """One class: what it looks like, what it rests on, and where it fails.

    Attributes:
        name: The class's name.
        index: The class's index in the network's output.
        visualizations: What it looks like.
        images: The images with the highest logits.
        accuracy: The share of its images that are recognized.
        circuit: The channels that it rests on, layer by layer.
        circuit_method: How the circuit's weights were measured.
        failures: Images of the class that are taken for another.
    """

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
    """A feature of another atlas, as much of it as the comparison shows.

    Attributes:
        unit: The unit as that atlas writes it.
        concepts: Of its description, best first.
        picture: Its visualization.
        crops: Of the images on which it is strongest.
    """

    unit: str
    concepts: tuple[str, ...] = ()
    picture: ImageFile | None = None
    crops: tuple[ImageFile, ...] = ()


@dataclass(frozen=True)
class MatchedPair:
    """A feature of this atlas and the most similar one of another atlas.

    Attributes:
        unit: The unit of this atlas.
        other: The feature of the other atlas.
        similarity: How similar they are.
        mutual: Whether each is the other's best match.
    """

    unit: str
    other: MatchedFeature
    similarity: Measure
    mutual: bool = False


@dataclass(frozen=True)
class ComparisonRecord:
    """Another atlas beside this one.

    Attributes:
        name: What the other atlas is called here.
        model: The source of its model.
        digest: The digest of its model.
        images: How many images both hold, over which the similarity was measured.
        pairs: One for every feature of this atlas.
        method: What the similarity is.
    """

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
    """How all images were segmented.

    Attributes:
        id: What records of images call it.
        layers: The layers whose activations were clustered, as one feature.
        scope: "image" (every image alone) or "joint" (all images together).
        leaves: Labels of the finest cut, 1 to ``MAX_LEAVES``.
        merges: Of a joint one: the tree that all images share, see ``ImageSegmentation``.
        sizes: Of a joint one: the cells of each leaf over all images.
        settings: The method's settings, in words.

    Raises:
        UsageError: Another scope, or another number of leaves.
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
