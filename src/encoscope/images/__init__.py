"""Images from anywhere to a network's input, and back to the original pixels."""

from encoscope.images.batch import Batch, to_batch
from encoscope.images.collect import SUFFIXES, collect, photos
from encoscope.images.datasets import dataset, is_dataset
from encoscope.images.geometry import Geometry, GeometryKind, Preprocess
from encoscope.images.levels import Colour, Window
from encoscope.images.photo import Photo, Skipped
from encoscope.images.read import MAX_PIXELS, read
from encoscope.images.resize import resize

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Batch",
    "Colour",
    "Geometry",
    "GeometryKind",
    "Photo",
    "Preprocess",
    "Skipped",
    "Window",
    "collect",
    "dataset",
    "is_dataset",
    "photos",
    "read",
    "resize",
    "to_batch",
]
