"""Object discovery: methods that segmentations are compared with, from an encoder and an image to boxes and masks."""

from encoscope.discovery.attention import AttentionKeys, read_attention_keys
from encoscope.discovery.methods import METHODS, DiscoveryMethod, get_method
from encoscope.discovery.result import DiscoveredObjects, make_candidates

__all__ = [
    "METHODS",
    "AttentionKeys",
    "DiscoveredObjects",
    "DiscoveryMethod",
    "get_method",
    "make_candidates",
    "read_attention_keys",
]
