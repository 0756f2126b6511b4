"""One pass over a dataset: every image's value of every channel, kept on disk, and the strongest images and patches."""

from encoscope.probing.cutting import Patch, load_patches, patch_values
from encoscope.probing.ids import file_ids, ranks
from encoscope.probing.listing import Listing, listing
from encoscope.probing.moments import Moments
from encoscope.probing.patches import top_patches
from encoscope.probing.prefetch import ahead
from encoscope.probing.result import Probe
from encoscope.probing.run import bring_in, load, probe
from encoscope.probing.topk import TopK

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
