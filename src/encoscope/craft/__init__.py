"""CRAFT's concepts: non-negative directions in a layer that make up a class, with their importance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.craft.bank import ConceptBank
    from encoscope.craft.estimator import Craft, find_concepts
    from encoscope.craft.factorization import compute_shares, factorize
    from encoscope.craft.importance import compute_importances
    from encoscope.craft.settings import CraftSettings
    from encoscope.craft.sobol import compute_linear_indices, compute_total_indices, draw_designs

_HOMES = {
    "ConceptBank": "encoscope.craft.bank",
    "Craft": "encoscope.craft.estimator",
    "CraftSettings": "encoscope.craft.settings",
    "compute_importances": "encoscope.craft.importance",
    "compute_linear_indices": "encoscope.craft.sobol",
    "compute_shares": "encoscope.craft.factorization",
    "compute_total_indices": "encoscope.craft.sobol",
    "draw_designs": "encoscope.craft.sobol",
    "factorize": "encoscope.craft.factorization",
    "find_concepts": "encoscope.craft.estimator",
}

__all__ = [
    "ConceptBank",
    "Craft",
    "CraftSettings",
    "compute_importances",
    "compute_linear_indices",
    "compute_shares",
    "compute_total_indices",
    "draw_designs",
    "factorize",
    "find_concepts",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
