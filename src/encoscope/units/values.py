"""What units' values on images are, and how they are computed from a forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Activation, Encoder, Observation
from encoscope.errors import EncoscopeError, UsageError
from encoscope.units.unit import Unit, UnitObjective


def unit_weights(unit: Unit, encoder: Encoder) -> Float[Tensor, " channels"]:
    """Write a unit as a vector over the channels of its space.

    Args:
        unit: The unit.
        encoder: The network that it belongs to.

    Returns:
        A direction itself; for any other unit 1 at its indices and 0 elsewhere; float32.

    Raises:
        UsageError: For a sum over layers, and a function of the user.
    """
    if unit.kind in ("sum", "own"):
        raise UsageError(f"{unit.text} is no vector of one layer's channels, as this needs")
    if unit.direction is not None:
        return torch.tensor(unit.direction, dtype=torch.float32)
    if unit.layer is not None:
        width = encoder.layer(unit.layer).channels
    else:
        width = (encoder.outputs or 0) if unit.kind == "class" else encoder.width
    vector = torch.zeros(width)
    vector[list(unit.channels)] = 1
    return vector


def required_outputs(units: Iterable[Unit]) -> dict[str, Any]:
    """List what ``Encoder.observe`` has to return so that units can be measured.

    Args:
        units: The units.

    Returns:
        Its keyword arguments ``layers``, ``features`` and ``logits``.
    """
    spaces = dict.fromkeys(space for unit in units for space in _list_spaces(unit))
    layers = [space for space in spaces if space not in ("features", "logits")]
    return {"layers": layers, "features": "features" in spaces, "logits": "logits" in spaces}


def compute_values(seen: Observation, units: Sequence[Unit]) -> Float[Tensor, "batch units"]:
    """Compute units' values on the images of an observation.

    The value of a channel is its spatial mean over the map (over the patch tokens of a transformer), or its value at
    the unit's position; of a group the sum over its channels, with their signs; of a direction the mean dot product; of
    a token unit the class token's channel; of a feature its pooled value; of a class its logit; of a sum the sum of its
    units' values; of a user's function what it gives.

    Args:
        seen: An observation with what ``required_outputs`` lists.
        units: The units.

    Returns:
        ``[images, units]``, differentiable where the observation is.

    Raises:
        UsageError: The observation lacks an output, its map does not have a unit's position, or a user's function
            gives something else than one number for each image.
        EncoscopeError: A user's function fails.
    """
    pooled: dict[tuple[Any, ...], Tensor] = {}
    return torch.stack([_compute_value(seen, unit, pooled) for unit in units], 1)


def measure_units(encoder: Encoder, images: Any, units: Sequence[Unit]) -> Float[Tensor, "batch units"]:
    """Compute units' values on images in one forward pass.

    Args:
        encoder: The network.
        images: A Batch, a normalized tensor, or what ``Encoder.prepare`` takes.
        units: The units.

    Returns:
        ``[images, units]``, as from ``compute_values``.
    """
    return compute_values(encoder.observe(images, **required_outputs(units)), units)


def _list_spaces(unit: Unit) -> list[str]:
    """What a unit is read from: layers, "features", "logits"."""
    if unit.kind == "sum":
        return [space for _, term in unit.terms for space in _list_spaces(term)]
    if unit.kind == "own":
        return list(unit.reads)
    return [unit.layer if unit.layer is not None else unit.space]


def _compute_value(seen: Observation, unit: Unit, pooled: dict[tuple[Any, ...], Tensor]) -> Float[Tensor, " batch"]:
    """A unit's value on each image. ``pooled`` keeps what units have in common."""
    if unit.kind == "sum":
        return torch.stack([sign * _compute_value(seen, term, pooled) for sign, term in unit.terms]).sum(0)
    if unit.objective is not None:
        return _call_objective(seen, unit, unit.objective)
    key = (unit.kind == "token", _list_spaces(unit)[0], unit.position)
    if key not in pooled:
        pooled[key] = _pool(seen, unit)
    return unit.activation(pooled[key])


def _call_objective(seen: Observation, unit: Unit, function: UnitObjective) -> Float[Tensor, " batch"]:
    try:
        values = function(seen)
    except Exception as error:
        raise EncoscopeError(f"the function of {unit.text} failed: {type(error).__name__}: {error}") from error
    outputs = (seen.logits, seen.features, *(activation.maps for activation in seen.activations.values()))
    count = next(len(output) for output in outputs if output is not None)
    if not isinstance(values, Tensor) or values.shape != (count,):
        what = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise UsageError(f"the function of {unit.text} must give a tensor of {count} numbers, one an image, not {what}")
    return values


def _pool(seen: Observation, unit: Unit) -> Float[Tensor, "batch channels"]:
    """The values of all channels of the unit's space."""
    if unit.kind == "class" or unit.kind == "features":
        values = seen.logits if unit.kind == "class" else seen.features
        if values is None:
            raise UsageError(f"{unit.text} needs {unit.space}: see required_outputs")
        return values
    if unit.layer is None or unit.layer not in seen.activations:
        raise UsageError(f"{unit.text} needs layer {unit.layer!r}: see required_outputs")
    activation: Activation = seen.activations[unit.layer]
    if unit.position is not None:
        (row, column), (rows, columns) = unit.position, activation.maps.shape[2:]
        if row >= rows or column >= columns:
            raise UsageError(f"{unit.text} is not on the map of {rows} x {columns} that this size of image gives")
        return activation.maps[:, :, row, column]
    if unit.kind != "token":
        return activation.maps.mean((2, 3))
    if activation.prefix is None:
        raise UsageError(f"layer {unit.layer!r} has no class token")
    return activation.prefix[:, 0]
