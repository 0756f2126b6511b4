"""NAVE: which parts of an image an encoder treats alike (Boubekki, Fadel and Mair)."""

from encoscope.nave.segment import segment, segment_stream
from encoscope.nave.segmentation import Segmentation

__all__ = ["Segmentation", "segment", "segment_stream"]
