"""Image-text models: images and texts as vectors of one space."""

from encoscope.vlm.base import VLM, TwoTowers
from encoscope.vlm.load import load
from encoscope.vlm.openclip import OpenClip

__all__ = ["VLM", "OpenClip", "TwoTowers", "load"]
