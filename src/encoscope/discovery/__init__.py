"""Object discovery: what a segmentation is compared with, from an encoder and a photo to boxes and masks."""

from encoscope.discovery.attention import AttentionKeys, attention_keys
from encoscope.discovery.methods import METHODS, Method, method
from encoscope.discovery.result import Discovery, candidates

__all__ = ["METHODS", "AttentionKeys", "Discovery", "Method", "attention_keys", "candidates", "method"]
