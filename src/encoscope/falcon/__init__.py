"""FALCON: what a feature stands for, in words (ICML 2023, arXiv 2307.10504)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.falcon.captions.build import build_captions
    from encoscope.falcon.captions.store import CaptionStore
    from encoscope.falcon.described_groups import DescribedGroup, DescribedGroups
    from encoscope.falcon.description import Concept, Description, Descriptions, Example
    from encoscope.falcon.estimator import Falcon, describe, groups
    from encoscope.falcon.failure import Contribution, FailureExplanation, explain_failure
    from encoscope.falcon.feature_groups import FeatureGroup, find_groups
    from encoscope.falcon.heldout import HeldoutTest
    from encoscope.falcon.selection import DescriptionOutcome
    from encoscope.falcon.settings import FalconSettings
    from encoscope.falcon.transfer import Transfer, fit_transfer

__all__ = [
    "CaptionStore",
    "Concept",
    "Contribution",
    "DescribedGroup",
    "DescribedGroups",
    "Description",
    "DescriptionOutcome",
    "Descriptions",
    "Example",
    "FailureExplanation",
    "Falcon",
    "FalconSettings",
    "FeatureGroup",
    "HeldoutTest",
    "Transfer",
    "build_captions",
    "describe",
    "explain_failure",
    "find_groups",
    "fit_transfer",
    "groups",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CaptionStore": "encoscope.falcon.captions.store",
        "Concept": "encoscope.falcon.description",
        "Contribution": "encoscope.falcon.failure",
        "DescribedGroup": "encoscope.falcon.described_groups",
        "DescribedGroups": "encoscope.falcon.described_groups",
        "Description": "encoscope.falcon.description",
        "DescriptionOutcome": "encoscope.falcon.selection",
        "Descriptions": "encoscope.falcon.description",
        "Example": "encoscope.falcon.description",
        "FailureExplanation": "encoscope.falcon.failure",
        "Falcon": "encoscope.falcon.estimator",
        "FalconSettings": "encoscope.falcon.settings",
        "FeatureGroup": "encoscope.falcon.feature_groups",
        "HeldoutTest": "encoscope.falcon.heldout",
        "Transfer": "encoscope.falcon.transfer",
        "build_captions": "encoscope.falcon.captions.build",
        "describe": "encoscope.falcon.estimator",
        "explain_failure": "encoscope.falcon.failure",
        "find_groups": "encoscope.falcon.feature_groups",
        "fit_transfer": "encoscope.falcon.transfer",
        "groups": "encoscope.falcon.estimator",
    },
)
