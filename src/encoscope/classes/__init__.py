"""Which class of a network a name or a label of a dataset stands for: the same rules for every method and verb."""

from encoscope.classes.labels import LabelMatch, count_matches, find_class_images, match_labels
from encoscope.classes.names import find_class, find_class_index, normalize_name
from encoscope.classes.table import ClassMatches, match_classes

__all__ = [
    "ClassMatches",
    "LabelMatch",
    "count_matches",
    "find_class",
    "find_class_images",
    "find_class_index",
    "match_classes",
    "match_labels",
    "normalize_name",
]
