"""FALCON: what a feature stands for, in words (ICML 2023, arXiv 2307.10504)."""

from encoscope.falcon.description import Concept, Description, Descriptions, Example
from encoscope.falcon.estimator import Falcon, describe
from encoscope.falcon.failure import Contribution, FailureExplanation, explain_failure
from encoscope.falcon.groups import DescribedGroup, Group, find_groups
from encoscope.falcon.heldout import HeldoutTest
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.transfer import Transfer, fit_transfer

__all__ = [
    "Concept",
    "Contribution",
    "DescribedGroup",
    "Description",
    "Descriptions",
    "Example",
    "FailureExplanation",
    "Falcon",
    "FalconSettings",
    "Group",
    "HeldoutTest",
    "Transfer",
    "describe",
    "explain_failure",
    "find_groups",
    "fit_transfer",
]
