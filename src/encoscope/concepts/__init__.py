"""CRAFT's concepts: non-negative directions in a layer that make up a class, with their importance."""

from encoscope.concepts.bank import ConceptBank
from encoscope.concepts.craft import find_concepts
from encoscope.concepts.factorise import factorise, shares_of
from encoscope.concepts.importance import importances
from encoscope.concepts.sobol import designs, linear_indices, total_indices

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
