"""How much an activation matters to a unit: LRP, guided backprop, gradient times input, or a function of your own."""

from encoscope.relevance.attribution import METHODS, RelevanceMethod, choose_method, compute_relevance, make_attributor
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.channels import compute_channel_relevance

__all__ = [
    "METHODS",
    "Attributor",
    "RelevanceMethod",
    "choose_method",
    "compute_channel_relevance",
    "compute_relevance",
    "make_attributor",
]
