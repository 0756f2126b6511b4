"""CRAFT's concepts: non-negative directions in a layer that make up a class, with their importance."""

from encoscope.craft.bank import ConceptBank
from encoscope.craft.craft import find_concepts
from encoscope.craft.factorise import factorise, shares_of
from encoscope.craft.importance import importances
from encoscope.craft.sobol import designs, linear_indices, total_indices

__all__ = [
    "ConceptBank",
    "designs",
    "factorise",
    "find_concepts",
    "importances",
    "linear_indices",
    "shares_of",
    "total_indices",
]
