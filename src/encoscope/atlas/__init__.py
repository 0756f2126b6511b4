"""The atlas: an encoder's features as pages one can browse, and as records one can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.atlas.build import build_atlas
    from encoscope.atlas.matching import compare_atlases
    from encoscope.atlas.reader import Atlas, open_atlas
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
    from encoscope.atlas.serving import serve_atlas
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
    "build_atlas",
    "compare_atlases",
    "open",
    "open_atlas",
    "serve_atlas",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Atlas": "encoscope.atlas.reader",
        "CircuitLayer": "encoscope.atlas.records",
        "CircuitLink": "encoscope.atlas.records",
        "ClassRecord": "encoscope.atlas.records",
        "ComparisonRecord": "encoscope.atlas.records",
        "CropRecord": "encoscope.atlas.records",
        "DescriptionRecord": "encoscope.atlas.records",
        "Failure": "encoscope.atlas.records",
        "FeatureRecord": "encoscope.atlas.records",
        "Histogram": "encoscope.atlas.records",
        "ImageFile": "encoscope.atlas.records",
        "ImageRecord": "encoscope.atlas.records",
        "ImageSegmentation": "encoscope.atlas.records",
        "LabelMap": "encoscope.atlas.records",
        "MatchedFeature": "encoscope.atlas.records",
        "MatchedPair": "encoscope.atlas.records",
        "Measure": "encoscope.atlas.records",
        "NodeTop": "encoscope.atlas.records",
        "SegmentationInfo": "encoscope.atlas.records",
        "Term": "encoscope.atlas.records",
        "VisualizationRecord": "encoscope.atlas.records",
        "Writer": "encoscope.atlas.writer",
        "build_atlas": "encoscope.atlas.build",
        "compare_atlases": "encoscope.atlas.matching",
        "open": "encoscope.atlas.reader:open_atlas",
        "open_atlas": "encoscope.atlas.reader",
        "serve_atlas": "encoscope.atlas.serving",
    },
)
