"""Connected regions of a label map and their boxes."""

from encoscope.regions.boxes import inner_box, outer_box
from encoscope.regions.components import Region, regions

__all__ = ["Region", "inner_box", "outer_box", "regions"]
