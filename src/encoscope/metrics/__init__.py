"""Measures: pure functions of arrays."""

from encoscope.metrics.bootstrap import Interval, bootstrap, bootstrap_difference
from encoscope.metrics.boundaries import BoundaryScore, boundary_score, find_boundaries, undersegmentation_error
from encoscope.metrics.cka import LinearCKA, linear_cka
from encoscope.metrics.corloc import Candidates, Localization, compute_box_ious, compute_hits, corloc, localize
from encoscope.metrics.embeddings import clarity, polysemanticity, redundancy
from encoscope.metrics.faithfulness import curve_auc, explained_variance
from encoscope.metrics.frechet import frechet_distance, frechet_from_moments
from encoscope.metrics.kernel import KernelDistance, kernel_distance, split_halves, squared_mmd
from encoscope.metrics.miou import assign_hungarian, assign_many_to_one, compute_ious, count_overlap, image_miou
from encoscope.metrics.partitions import ari, foreground_ari, nmi, table_ari, table_nmi
from encoscope.metrics.separation import Separation, auc_interval, auc_mad
from encoscope.metrics.zeroshot import build_zero_shot_weights, load_templates, rank_classes, zero_shot_accuracy

__all__ = [
    "BoundaryScore",
    "Candidates",
    "Interval",
    "KernelDistance",
    "LinearCKA",
    "Localization",
    "Separation",
    "ari",
    "assign_hungarian",
    "assign_many_to_one",
    "auc_interval",
    "auc_mad",
    "bootstrap",
    "bootstrap_difference",
    "boundary_score",
    "build_zero_shot_weights",
    "clarity",
    "compute_box_ious",
    "compute_hits",
    "compute_ious",
    "corloc",
    "count_overlap",
    "curve_auc",
    "explained_variance",
    "find_boundaries",
    "foreground_ari",
    "frechet_distance",
    "frechet_from_moments",
    "image_miou",
    "kernel_distance",
    "linear_cka",
    "load_templates",
    "localize",
    "nmi",
    "polysemanticity",
    "rank_classes",
    "redundancy",
    "split_halves",
    "squared_mmd",
    "table_ari",
    "table_nmi",
    "undersegmentation_error",
    "zero_shot_accuracy",
]
