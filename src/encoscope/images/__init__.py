"""Images from anywhere to a network's input, and back to the original pixels."""

from encoscope.images.batch import Batch, to_batch
from encoscope.images.collect import collect, photos
from encoscope.images.datasets import boxed, dataset, is_dataset
from encoscope.images.folders import SUFFIXES
from encoscope.images.geometry import Geometry, GeometryKind, Preprocess
from encoscope.images.image import Photo, Skipped
from encoscope.images.levels import Colour, Window
from encoscope.images.read import MAX_PIXELS, read
from encoscope.images.resize import resize
from encoscope.images.sets import BoxedPhotos, LabelledPhotos

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Batch",
    "BoxedPhotos",
    "Colour",
    "Geometry",
    "GeometryKind",
    "LabelledPhotos",
    "Photo",
    "Preprocess",
    "Skipped",
    "Window",
    "boxed",
    "collect",
    "dataset",
    "is_dataset",
    "photos",
    "read",
    "resize",
    "to_batch",
]
