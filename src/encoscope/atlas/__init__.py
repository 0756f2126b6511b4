"""The atlas: an encoder's features as pages one can browse, and as records one can read."""

from encoscope.atlas.reader import Atlas
from encoscope.atlas.reader import open_atlas as open
from encoscope.atlas.records import (
    CircuitLayer,
    ClassRecord,
    ComparisonRecord,
    Crop,
    Failure,
    FeatureRecord,
    Histogram,
    ImageParts,
    ImageRecord,
    LabelMap,
    Link,
    Measure,
    NodeTop,
    Pair,
    Picture,
    SegmentationInfo,
    Side,
    Term,
    Visualization,
    Words,
)
from encoscope.atlas.writer import Writer

__all__ = [
    "Atlas",
    "CircuitLayer",
    "ClassRecord",
    "ComparisonRecord",
    "Crop",
    "Failure",
    "FeatureRecord",
    "Histogram",
    "ImageParts",
    "ImageRecord",
    "LabelMap",
    "Link",
    "Measure",
    "NodeTop",
    "Pair",
    "Picture",
    "SegmentationInfo",
    "Side",
    "Term",
    "Visualization",
    "Words",
    "Writer",
    "open",
]
