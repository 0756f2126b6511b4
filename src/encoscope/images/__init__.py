"""Images from anywhere to a network's input, and back to the original pixels."""

from encoscope.defaults import MAX_PIXELS
from encoscope.images.batch import Batch, make_batch
from encoscope.images.collect import collect_files, read_images
from encoscope.images.datasets import is_dataset, open_boxed_dataset, open_dataset
from encoscope.images.folders import SUFFIXES
from encoscope.images.geometry import Geometry, GeometryKind, Preprocess
from encoscope.images.image import LoadedImage, SkippedImage
from encoscope.images.levels import Channels, Color, Window
from encoscope.images.listing import ImageListing, draw_images, list_images
from encoscope.images.metadata import read_columns
from encoscope.images.read import read_image
from encoscope.images.resize import resize_image
from encoscope.images.sampling import count_classes, sample_images, split_images
from encoscope.images.sets import BoxedImages, LabelledImages
from encoscope.images.tables import read_rows

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Batch",
    "BoxedImages",
    "Channels",
    "Color",
    "Geometry",
    "GeometryKind",
    "ImageListing",
    "LabelledImages",
    "LoadedImage",
    "Preprocess",
    "SkippedImage",
    "Window",
    "collect_files",
    "count_classes",
    "draw_images",
    "is_dataset",
    "list_images",
    "make_batch",
    "open_boxed_dataset",
    "open_dataset",
    "read_columns",
    "read_image",
    "read_images",
    "read_rows",
    "resize_image",
    "sample_images",
    "split_images",
]
