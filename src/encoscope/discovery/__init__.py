"""Object discovery: what a segmentation is compared with, from an encoder and a photo to boxes and masks."""

from encoscope.discovery.attention import AttentionKeys, attention_keys
from encoscope.discovery.methods import METHODS, Method, method
from encoscope.discovery.result import DiscoveredObjects, candidates

__all__ = ["METHODS", "AttentionKeys", "DiscoveredObjects", "Method", "attention_keys", "candidates", "method"]
