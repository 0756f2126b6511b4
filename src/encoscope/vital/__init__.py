"""VITAL: what a unit looks like (Gorgun, Schiele and Fischer 2025), and the methods it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.vital.circuits import Circuit, ClassCircuit, circuit
    from encoscope.vital.estimator import Vital
    from encoscope.vital.methods import visualize, visualize_stream
    from encoscope.vital.settings import CircuitSettings, VitalSettings
    from encoscope.vital.sprite_map import make_sprite_map
    from encoscope.vital.visualization import Visualization, make_contact_sheet

__all__ = [
    "Circuit",
    "CircuitSettings",
    "ClassCircuit",
    "Visualization",
    "Vital",
    "VitalSettings",
    "circuit",
    "make_contact_sheet",
    "make_sprite_map",
    "visualize",
    "visualize_stream",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Circuit": "encoscope.vital.circuits",
        "CircuitSettings": "encoscope.vital.settings",
        "ClassCircuit": "encoscope.vital.circuits",
        "Visualization": "encoscope.vital.visualization",
        "Vital": "encoscope.vital.estimator",
        "VitalSettings": "encoscope.vital.settings",
        "circuit": "encoscope.vital.circuits",
        "make_contact_sheet": "encoscope.vital.visualization",
        "make_sprite_map": "encoscope.vital.sprite_map",
        "visualize": "encoscope.vital.methods",
        "visualize_stream": "encoscope.vital.methods",
    },
)
