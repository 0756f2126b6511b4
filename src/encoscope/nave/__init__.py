"""NAVE: which parts of an image an encoder treats alike (Boubekki, Fadel and Mair)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.nave.colored_image import ColoredImage
    from encoscope.nave.estimator import Nave
    from encoscope.nave.feature_colors import FeatureColors, colors
    from encoscope.nave.joint import LloydSums
    from encoscope.nave.sample import PixelSample
    from encoscope.nave.segmentation import Segmentation
    from encoscope.nave.settings import ColorSettings, JointSettings, NaveSettings, SimilarSettings
    from encoscope.nave.similarity_maps import Match, SimilarityMap, SimilarityMaps
    from encoscope.nave.similarity_search import similar
    from encoscope.nave.single_image import segment, segment_stream

__all__ = [
    "ColorSettings",
    "ColoredImage",
    "FeatureColors",
    "JointSettings",
    "LloydSums",
    "Match",
    "Nave",
    "NaveSettings",
    "PixelSample",
    "Segmentation",
    "SimilarSettings",
    "SimilarityMap",
    "SimilarityMaps",
    "colors",
    "segment",
    "segment_stream",
    "similar",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ColorSettings": "encoscope.nave.settings",
        "ColoredImage": "encoscope.nave.colored_image",
        "FeatureColors": "encoscope.nave.feature_colors",
        "colors": "encoscope.nave.feature_colors",
        "JointSettings": "encoscope.nave.settings",
        "LloydSums": "encoscope.nave.joint",
        "Nave": "encoscope.nave.estimator",
        "NaveSettings": "encoscope.nave.settings",
        "PixelSample": "encoscope.nave.sample",
        "Segmentation": "encoscope.nave.segmentation",
        "Match": "encoscope.nave.similarity_maps",
        "SimilarSettings": "encoscope.nave.settings",
        "SimilarityMap": "encoscope.nave.similarity_maps",
        "SimilarityMaps": "encoscope.nave.similarity_maps",
        "segment": "encoscope.nave.single_image",
        "segment_stream": "encoscope.nave.single_image",
        "similar": "encoscope.nave.similarity_search",
    },
)
