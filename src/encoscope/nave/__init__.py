"""NAVE: which parts of an image an encoder treats alike (Boubekki, Fadel and Mair)."""

from encoscope.nave.estimator import Nave
from encoscope.nave.joint import LloydSums
from encoscope.nave.sample import PixelSample
from encoscope.nave.segment import segment, segment_stream
from encoscope.nave.segmentation import Segmentation

__all__ = ["LloydSums", "Nave", "PixelSample", "Segmentation", "segment", "segment_stream"]
