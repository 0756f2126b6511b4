"""A unit that is to be visualized, with all that is known of its references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from encoscope.units import Unit
from encoscope.vital.features import Relevance
from encoscope.vital.recipes import Recipe
from encoscope.vital.references.references import References
from encoscope.vital.references.statistics import Prototype

_NO_RECIPE = Recipe("none", (), (), 0.0, 0.0)
_NO_STATISTICS = Prototype({}, 0)


@dataclass(frozen=True)
class Target:
    """A visualization to make. Methods without references leave all but the first two fields as they are.

    Attributes:
        unit: The unit.
        name: The unit's text, with a number where the unit has several facets; the image's random numbers come from
            it.
        recipe: What is matched.
        relevance: What activations are multiplied by; None for nothing.
        prototype: The statistics that are matched.
        references: The images behind the statistics; None where the statistics were supplied.
        facet: {"number", "of"} for a unit with several facets, else None.
        variant: {"number", "of"} for a unit with several variants, else None.
        strength: How much the unit counts beside the photo that the image begins as; None where it begins as noise.
    """

    unit: Unit
    name: str
    recipe: Recipe = _NO_RECIPE
    relevance: Relevance | None = None
    prototype: Prototype = _NO_STATISTICS
    references: References | None = None
    facet: Mapping[str, Any] | None = None
    variant: Mapping[str, Any] | None = None
    strength: float | None = None

    @classmethod
    def of(cls, unit: Unit) -> Target:
        """Make the target of a unit without references.

        Args:
            unit: The unit.

        Returns:
            The target, named after the unit's text.
        """
        return cls(unit, unit.text)
