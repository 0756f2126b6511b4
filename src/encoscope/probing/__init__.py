"""One pass over a dataset: every image's value of every channel, kept on disk, and the strongest images and patches."""

from encoscope.probing.cutting import Patch, compute_patch_values, load_patches
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.moments import Moments
from encoscope.probing.patches import find_top_patches
from encoscope.probing.prefetch import prefetch
from encoscope.probing.result import Probe
from encoscope.probing.run import from_array, load, probe
from encoscope.probing.topk import TopK

__all__ = [
    "Moments",
    "Patch",
    "Probe",
    "TopK",
    "compute_patch_values",
    "find_top_patches",
    "from_array",
    "hash_files",
    "load",
    "load_patches",
    "prefetch",
    "probe",
    "rank_ids",
]
