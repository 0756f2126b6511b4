"""Measures: pure functions of arrays."""

from encoscope.metrics.bootstrap import Interval, bootstrap, bootstrap_difference
from encoscope.metrics.boundaries import BoundaryScore, boundaries, boundary_score, undersegmentation_error
from encoscope.metrics.cka import LinearCKA, linear_cka
from encoscope.metrics.corloc import Candidates, Localised, box_ious, corloc, hits, localise
from encoscope.metrics.embeddings import clarity, polysemanticity, redundancy
from encoscope.metrics.faithfulness import curve_auc, explained_variance
from encoscope.metrics.frechet import frechet_distance, frechet_from_moments
from encoscope.metrics.kernel import KernelDistance, halves, kernel_distance, squared_mmd
from encoscope.metrics.miou import hungarian, image_miou, ious, many_to_one, overlap
from encoscope.metrics.partitions import ari, foreground_ari, nmi, table_ari, table_nmi
from encoscope.metrics.separation import Separation, auc_interval, auc_mad
from encoscope.metrics.zeroshot import ranks, templates, zero_shot_accuracy, zero_shot_weights

__all__ = [
    "BoundaryScore",
    "Candidates",
    "Interval",
    "KernelDistance",
    "LinearCKA",
    "Localised",
    "Separation",
    "ari",
    "auc_interval",
    "auc_mad",
    "bootstrap",
    "bootstrap_difference",
    "boundaries",
    "boundary_score",
    "box_ious",
    "clarity",
    "corloc",
    "curve_auc",
    "explained_variance",
    "foreground_ari",
    "frechet_distance",
    "frechet_from_moments",
    "halves",
    "hits",
    "hungarian",
    "image_miou",
    "ious",
    "kernel_distance",
    "linear_cka",
    "localise",
    "many_to_one",
    "nmi",
    "overlap",
    "polysemanticity",
    "ranks",
    "redundancy",
    "squared_mmd",
    "table_ari",
    "table_nmi",
    "templates",
    "undersegmentation_error",
    "zero_shot_accuracy",
    "zero_shot_weights",
]
