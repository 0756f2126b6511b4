"""One pass over a dataset: every image's value of every channel, kept on disk, and the strongest images and patches."""

from encoscope.probe.ahead import ahead
from encoscope.probe.cutting import Patch, load_patches, patch_values
from encoscope.probe.ids import file_ids, ranks
from encoscope.probe.listing import Listing, listing
from encoscope.probe.moments import Moments
from encoscope.probe.patches import top_patches
from encoscope.probe.result import Probe
from encoscope.probe.run import bring_in, load, probe
from encoscope.probe.topk import TopK

__all__ = [
    "Listing",
    "Moments",
    "Patch",
    "Probe",
    "TopK",
    "ahead",
    "bring_in",
    "file_ids",
    "listing",
    "load",
    "load_patches",
    "patch_values",
    "probe",
    "ranks",
    "top_patches",
]
