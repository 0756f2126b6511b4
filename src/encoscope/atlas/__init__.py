"""The atlas: an encoder's features as pages one can browse, and as records one can read."""

from encoscope.atlas.reader import Atlas
from encoscope.atlas.reader import open_atlas as open
from encoscope.atlas.records import (
    CircuitLayer,
    CircuitLink,
    ClassRecord,
    ComparisonRecord,
    CropRecord,
    DescriptionRecord,
    Failure,
    FeatureRecord,
    Histogram,
    ImageFile,
    ImageRecord,
    ImageSegmentation,
    LabelMap,
    MatchedFeature,
    MatchedPair,
    Measure,
    NodeTop,
    SegmentationInfo,
    Term,
    VisualizationRecord,
)
from encoscope.atlas.writer import Writer

__all__ = [
    "Atlas",
    "CircuitLayer",
    "CircuitLink",
    "ClassRecord",
    "ComparisonRecord",
    "CropRecord",
    "DescriptionRecord",
    "Failure",
    "FeatureRecord",
    "Histogram",
    "ImageFile",
    "ImageRecord",
    "ImageSegmentation",
    "LabelMap",
    "MatchedFeature",
    "MatchedPair",
    "Measure",
    "NodeTop",
    "SegmentationInfo",
    "Term",
    "VisualizationRecord",
    "Writer",
    "open",
]
