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
"""The tensor that a unit is read from: a layer's name, FEATURES or LOGITS."""
FEATURES: UnitLocation = ":features"  # no module's name holds a colon
LOGITS: UnitLocation = ":class"


@dataclass(frozen=True)
class Targets:
    """The units that relevance starts from.

    Attributes:
        encoder: The encoder.
        units: One unit for all images, or one for each image.
        start: "all", relevance starts at all positions of the map; "argmax", it starts at the one position of each
            image where the activations have the highest cosine similarity with the unit's direction (VITAL, appendix
            B.3).
    """

    encoder: Encoder
    units: tuple[Unit, ...]
    start: RelevanceStart

    def for_batch(self, batch: int) -> tuple[Unit, ...]:
        """Get the unit of each image of a batch.

        Args:
            batch: Number of images.

        Returns:
            One unit for each image.

        Raises:
            UsageError: If there are several units, and not one for each image.
        """
        if len(self.units) == 1:
            return self.units * batch
        if len(self.units) != batch:
            raise UsageError(
                f"{len(self.units)} units were given for {batch} images: use one unit, or one for each image"
            )
        return self.units

    @cached_property
    def distinct(self) -> tuple[Unit, ...]:
        """Each unit once, in the order of its first image."""
        return tuple(dict.fromkeys(self.units))

    @property
    def needs(self) -> dict[str, Any]:
        """Arguments for ``Encoder.observe`` with which the forward pass runs through the units."""
        return required_outputs(self.distinct)

    @property
    def locations(self) -> tuple[UnitLocation, ...]:
        """The tensors that the units are read from."""
        return tuple(dict.fromkeys(locate_unit(unit) for unit in self.units))

    def make_rows(self, location: UnitLocation, batch: int) -> Float[Tensor, "batch channels"]:
        """Write each image's unit as a vector over the channels of a location.

        Args:
            location: The location.
            batch: Number of images.

        Returns:
            One row for each image; zeros for units of other locations.
        """
        units = self.for_batch(batch)
        vectors = {unit: unit_weights(unit, self.encoder) for unit in self.distinct if locate_unit(unit) == location}
        zeros = torch.zeros_like(next(iter(vectors.values())))
        return torch.stack([vectors.get(unit, zeros) for unit in units])

    def compute_objective(self, observation: Observation) -> Float[Tensor, ""]:
        """Compute the scalar whose gradient is the attribution.

        Args:
            observation: The result of a forward pass, with its graph.

        Returns:
            The sum over the images of their units' values; for "argmax" at the best position alone.
        """
        if self.start == "all":
            values = compute_values(observation, self.distinct)
            columns = [self.distinct.index(unit) for unit in self.for_batch(len(values))]
            return values[torch.arange(len(values)), columns].sum()
        terms = []
        for location in self.locations:
            maps = observation.activations[location].maps
            rows = self.make_rows(location, len(maps)).to(maps)
            terms.append((maps * place_at_best_position(maps.detach(), rows)).sum())
        return torch.stack(terms).sum()


def resolve_targets(encoder: Encoder, units: Units, layers: Sequence[str], start: RelevanceStart) -> Targets:
    """Check units and layers against an encoder.

    Args:
        encoder: The encoder.
        units: One unit, or one for each image.
        layers: The layers whose relevance is requested: the units' own, or layers before them.
        start: Where relevance starts, see ``Targets``.

    Returns:
        The units.

    Raises:
        UsageError: For unknown units and layers, for a layer after a unit, and for ``start="argmax"`` with a unit that
            has no positions.
    """
    if start not in ("all", "argmax"):
        raise UsageError(f"start is 'all' or 'argmax', not {start!r}")
    requested = [units] if isinstance(units, str | Unit) else list(units)
    resolved = Targets(encoder, tuple(parse_unit(unit, encoder) for unit in requested), start)
    if not resolved.units:
        raise UsageError("no units were given")
    if not layers:
        raise UsageError("no layers were given")
    order = {info.name: index for index, info in enumerate(encoder.layers)}
    for name in layers:
        encoder.layer(name)
        for unit in resolved.distinct:
            if unit.layer is not None and order[name] > order[unit.layer]:
                raise UsageError(
                    f"layer {name!r} comes after {unit.text}: relevance goes from a unit to layers before it"
                )
    if start == "argmax":
        for unit in resolved.distinct:
            if unit.layer is None or unit.kind == "token" or not unit.is_spanned:
                raise UsageError(f"start='argmax' is for units of a layer's map, and {unit.text} has no positions")
    return resolved


def locate_unit(unit: Unit) -> UnitLocation:
    """Find the tensor that a unit is read from.

    Args:
        unit: The unit.

    Returns:
        Its layer, FEATURES or LOGITS.
    """
    if unit.layer is not None:
        return unit.layer
    return LOGITS if unit.kind == "class" else FEATURES


def place_at_best_position(
    maps: Float[Tensor, "batch channels height width"], rows: Float[Tensor, "batch channels"]
) -> Float[Tensor, "batch channels height width"]:
    """Place each image's row at the position where the image's map has the highest cosine similarity with it.

    Args:
        maps: The maps.
        rows: One vector for each image.

    Returns:
        The rows at these positions, zeros elsewhere.

    Source: VITAL, appendix B.3.
    """
    flat = maps.flatten(2)
    similarity = torch.nn.functional.cosine_similarity(flat, rows[:, :, None], dim=1)
    best = similarity.argmax(1)
    placed = torch.zeros_like(flat)
    placed[torch.arange(len(flat), device=flat.device), :, best] = rows
    return placed.unflatten(2, maps.shape[2:])
