"""How much an activation matters to a unit: LRP, guided backprop, gradient times input, or anyone's attribution."""

from encoscope.relevance.attribution import METHODS, Method, attribution, default_method, relevance
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.channels import channel_relevance

__all__ = ["METHODS", "Attributor", "Method", "attribution", "channel_relevance", "default_method", "relevance"]
