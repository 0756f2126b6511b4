"""CRAFT's concepts: non-negative directions in a layer that make up a class, with their importance."""

from encoscope.craft.bank import ConceptBank
from encoscope.craft.craft import find_concepts
from encoscope.craft.factorization import compute_shares, factorize
from encoscope.craft.importance import compute_importances
from encoscope.craft.sobol import compute_linear_indices, compute_total_indices, draw_designs

__all__ = [
    "ConceptBank",
    "compute_importances",
    "compute_linear_indices",
    "compute_shares",
    "compute_total_indices",
    "draw_designs",
    "factorize",
    "find_concepts",
]
