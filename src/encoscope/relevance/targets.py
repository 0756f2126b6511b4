"""The units that relevance starts from, one for each image of a batch, and the relevance they start with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder, Observation
from encoscope.errors import UsageError
from encoscope.units import Unit, compute_values, parse_unit, required_outputs, unit_weights

RelevanceStart: TypeAlias = Literal["all", "argmax"]
Units: TypeAlias = Unit | str | Sequence[Unit | str]
UnitLocation: TypeAlias = str
"""Where a unit lives: a layer's name, FEATURES or LOGITS."""
FEATURES: UnitLocation = ":features"  # no module's name holds a colon
LOGITS: UnitLocation = ":class"


@dataclass(frozen=True)
class Targets:
    """Units as they were asked for: one for all images, or one an image.

    start: "all", relevance starts at all positions of the map; "argmax", at the one position of an image where the
    activations have the highest cosine similarity with the unit's direction (VITAL, appendix B.3).
    """

    encoder: Encoder
    units: tuple[Unit, ...]
    start: RelevanceStart

    def of(self, batch: int) -> tuple[Unit, ...]:
        """The unit of each image of a batch."""
        if len(self.units) == 1:
            return self.units * batch
        if len(self.units) != batch:
            raise UsageError(f"{len(self.units)} units were given for {batch} images: give one, or one an image")
        return self.units

    @cached_property
    def distinct(self) -> tuple[Unit, ...]:
        """Each unit once, in order."""
        return tuple(dict.fromkeys(self.units))

    @property
    def needs(self) -> dict[str, Any]:
        """What ``Encoder.observe`` must be asked for, so that the forward pass gets as far as the units."""
        return required_outputs(self.distinct)

    @property
    def places(self) -> tuple[UnitLocation, ...]:
        """Where the units live."""
        return tuple(dict.fromkeys(locate_unit(unit) for unit in self.units))

    def rows(self, where: UnitLocation, batch: int) -> Float[Tensor, "batch channels"]:
        """Each image's unit as a vector over the channels of a place; zeros for units that live elsewhere."""
        chosen = self.of(batch)
        vectors = {unit: unit_weights(unit, self.encoder) for unit in self.distinct if locate_unit(unit) == where}
        nothing = torch.zeros_like(next(iter(vectors.values())))
        return torch.stack([vectors.get(unit, nothing) for unit in chosen])

    def objective(self, seen: Observation) -> Float[Tensor, ""]:
        """The sum over the images of their units' values, to be differentiated; at the best position for "argmax"."""
        if self.start == "all":
            found = compute_values(seen, self.distinct)
            columns = [self.distinct.index(unit) for unit in self.of(len(found))]
            return found[torch.arange(len(found)), columns].sum()
        parts = []
        for where in self.places:
            maps = seen.activations[where].maps
            rows = self.rows(where, len(maps)).to(maps)
            parts.append((maps * place_at_best_position(maps.detach(), rows)).sum())
        return torch.stack(parts).sum()


def resolve_targets(encoder: Encoder, units: Units, layers: Sequence[str], start: RelevanceStart) -> Targets:
    """Units and layers checked against the encoder: relevance is there at the units' own layers and those below.

    Raises UsageError for unknown units and layers, and for layers above a unit's.
    """
    if start not in ("all", "argmax"):
        raise UsageError(f"start is 'all' or 'argmax', not {start!r}")
    several = [units] if isinstance(units, str | Unit) else list(units)
    found = Targets(encoder, tuple(parse_unit(unit, encoder) for unit in several), start)
    if not found.units:
        raise UsageError("no units given")
    if not layers:
        raise UsageError("no layers given")
    order = {info.name: index for index, info in enumerate(encoder.layers)}
    for name in layers:
        encoder.layer(name)
        for unit in found.distinct:
            if unit.layer is not None and order[name] > order[unit.layer]:
                raise UsageError(f"layer {name!r} comes after {unit.text}: relevance goes from a unit to layers below")
    if start == "argmax":
        for unit in found.distinct:
            if unit.layer is None or unit.kind == "token":
                raise UsageError(f"start='argmax' is for units of a layer's map, and {unit.text} has no positions")
    return found


def locate_unit(unit: Unit) -> UnitLocation:
    """Where a unit lives: its layer, FEATURES or LOGITS."""
    if unit.layer is not None:
        return unit.layer
    return LOGITS if unit.kind == "class" else FEATURES


def place_at_best_position(
    maps: Float[Tensor, "batch channels height width"], rows: Float[Tensor, "batch channels"]
) -> Float[Tensor, "batch channels height width"]:
    """Each row at the position of its image where the map has the highest cosine similarity with it, else zeros."""
    flat = maps.flatten(2)
    similarity = torch.nn.functional.cosine_similarity(flat, rows[:, :, None], dim=1)
    best = similarity.argmax(1)
    found = torch.zeros_like(flat)
    found[torch.arange(len(flat), device=flat.device), :, best] = rows
    return found.unflatten(2, maps.shape[2:])
