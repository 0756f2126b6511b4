"""An endoscope for vision encoders.

``load`` an encoder, then ask which parts of an image it treats alike: ``segment`` (NAVE); what a feature stands for,
in words: ``describe`` (FALCON); and what it looks like: ``visualize`` (VITAL).
Names are imported when first used, so ``import encoscope`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names
from encoscope._version import __version__

if TYPE_CHECKING:
    from encoscope import evaluation
    from encoscope.analysis.audit import Audit, audit
    from encoscope.analysis.compare import compare
    from encoscope.analysis.comparison import Comparison
    from encoscope.analysis.concepts import VisualizedConcepts, concepts
    from encoscope.classes import ClassMatches, match_classes
    from encoscope.craft import ConceptBank, Craft
    from encoscope.encoder import Encoder, load
    from encoscope.encoder import list_layers as layers
    from encoscope.falcon import (
        CaptionStore,
        DescribedGroups,
        Description,
        Descriptions,
        FailureExplanation,
        Falcon,
        build_captions,
        describe,
        explain_failure,
    )
    from encoscope.falcon.estimator import groups
    from encoscope.nave import ColoredImage, FeatureColors, Nave, Segmentation, SimilarityMaps, colors, segment, similar
    from encoscope.nave.controls import compute_controls as controls
    from encoscope.nave.stability import measure_stability as stability
    from encoscope.probing import Probe, probe
    from encoscope.units import Unit, objective_unit
    from encoscope.vital import (
        Circuit,
        ClassCircuit,
        Visualization,
        Vital,
        VitalSettings,
        circuit,
        visualize,
        visualize_stream,
    )

_HOMES = {
    "Audit": "encoscope.analysis.audit",
    "Comparison": "encoscope.analysis.comparison",
    "DescribedGroups": "encoscope.falcon",
    "FailureExplanation": "encoscope.falcon",
    "Circuit": "encoscope.vital",
    "ClassCircuit": "encoscope.vital",
    "ClassMatches": "encoscope.classes",
    "ConceptBank": "encoscope.craft",
    "Craft": "encoscope.craft",
    "CaptionStore": "encoscope.falcon",
    "Description": "encoscope.falcon",
    "Descriptions": "encoscope.falcon",
    "Encoder": "encoscope.encoder",
    "Falcon": "encoscope.falcon",
    "ColoredImage": "encoscope.nave",
    "FeatureColors": "encoscope.nave",
    "Nave": "encoscope.nave",
    "Probe": "encoscope.probing",
    "Segmentation": "encoscope.nave",
    "SimilarityMaps": "encoscope.nave",
    "Unit": "encoscope.units",
    "Visualization": "encoscope.vital",
    "Vital": "encoscope.vital",
    "VitalSettings": "encoscope.vital",
    "VisualizedConcepts": "encoscope.analysis.concepts",
    "circuit": "encoscope.vital",
    "compare": "encoscope.analysis.compare",
    "concepts": "encoscope.analysis.concepts",
    "audit": "encoscope.analysis.audit",
    "build_captions": "encoscope.falcon",
    "colors": "encoscope.nave",
    "controls": "encoscope.nave.controls:compute_controls",
    "describe": "encoscope.falcon",
    "evaluation": "encoscope.evaluation",
    "explain_failure": "encoscope.falcon",
    "groups": "encoscope.falcon.estimator",
    "layers": "encoscope.encoder:list_layers",
    "load": "encoscope.encoder",
    "match_classes": "encoscope.classes",
    "objective_unit": "encoscope.units",
    "probe": "encoscope.probing",
    "segment": "encoscope.nave",
    "similar": "encoscope.nave",
    "stability": "encoscope.nave.stability:measure_stability",
    "visualize": "encoscope.vital",
    "visualize_stream": "encoscope.vital",
}

__all__ = [
    "Audit",
    "CaptionStore",
    "Circuit",
    "ClassCircuit",
    "ClassMatches",
    "ColoredImage",
    "Comparison",
    "ConceptBank",
    "Craft",
    "DescribedGroups",
    "Description",
    "Descriptions",
    "Encoder",
    "FailureExplanation",
    "Falcon",
    "FeatureColors",
    "Nave",
    "Probe",
    "Segmentation",
    "SimilarityMaps",
    "Unit",
    "Visualization",
    "VisualizedConcepts",
    "Vital",
    "VitalSettings",
    "__version__",
    "audit",
    "build_captions",
    "circuit",
    "colors",
    "compare",
    "concepts",
    "controls",
    "describe",
    "evaluation",
    "explain_failure",
    "groups",
    "layers",
    "load",
    "match_classes",
    "objective_unit",
    "probe",
    "segment",
    "similar",
    "stability",
    "visualize",
    "visualize_stream",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
