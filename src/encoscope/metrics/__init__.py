"""Measures: pure functions of arrays."""

from encoscope.metrics.bootstrap import Interval, bootstrap, bootstrap_difference
from encoscope.metrics.miou import hungarian, image_miou, ious, many_to_one, overlap

__all__ = [
    "Interval",
    "bootstrap",
    "bootstrap_difference",
    "hungarian",
    "image_miou",
    "ious",
    "many_to_one",
    "overlap",
]
