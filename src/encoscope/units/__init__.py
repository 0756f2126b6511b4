"""Units, the things that are explained: what they are, what their texts mean, and their values on images."""

from encoscope.units.text import is_all, list_units, parse_unit, parse_units
from encoscope.units.unit import Unit, UnitKind, UnitObjective, channel_unit, direction_unit, objective_unit
from encoscope.units.values import compute_values, measure_units, required_outputs, unit_weights

__all__ = [
    "Unit",
    "UnitKind",
    "UnitObjective",
    "channel_unit",
    "compute_values",
    "direction_unit",
    "is_all",
    "list_units",
    "measure_units",
    "objective_unit",
    "parse_unit",
    "parse_units",
    "required_outputs",
    "unit_weights",
]
