"""Connected regions of a label map and their boxes."""

from encoscope.regions.boxes import compute_inner_box, compute_outer_box
from encoscope.regions.components import Region, find_regions

__all__ = ["Region", "compute_inner_box", "compute_outer_box", "find_regions"]
