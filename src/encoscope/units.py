"""Units, the things that are explained: a channel, a group or direction of channels, a pooled feature, a class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from encoscope.classes import find_class
from encoscope.encoder import Activation, Encoder, Observation
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.file_kind import require_ordinary_file

UnitKind: TypeAlias = Literal["channel", "group", "direction", "token", "features", "class"]


@dataclass(frozen=True)
class Unit:
    """A thing to explain; made by ``parse_unit``, ``channel_unit`` or ``direction_unit``.

    Attributes:
        text: The unit as the user wrote it, which is its name in results.
        kind: "channel", "group" and "direction" belong to a layer's maps, "token" to its class token, "features" to the
            pooled representation, "class" to the logits.
        layer: Its layer; None for "features" and "class".
        channels: Indices of channels or features, or of the class; empty for a direction.
        direction: One number for each channel (or feature); None for all other units.

    Example:
        >>> Unit("layer4:485", "channel", "layer4", (485,)).space
        'layer4'
    """

    text: str
    kind: UnitKind
    layer: str | None = None
    channels: tuple[int, ...] = ()
    direction: tuple[float, ...] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def index(self) -> int:
        """The single channel, feature or class; UsageError for groups and directions."""
        if len(self.channels) != 1:
            raise UsageError(f"{self.text} is not a single channel, feature or class")
        return self.channels[0]

    @property
    def space(self) -> str:
        """The representation whose channels the unit is made of: "features", "logits", a layer's name, or LAYER@cls."""
        if self.kind == "features":
            return "features"
        if self.kind == "class":
            return "logits"
        return f"{self.layer}@cls" if self.kind == "token" else str(self.layer)

    @property
    def unit_vector(self) -> Float32[np.ndarray, " channels"]:
        """The direction, scaled to length 1; UsageError for a unit without one."""
        if self.direction is None:
            raise UsageError(f"{self.text} is no direction")
        vector = np.asarray(self.direction, dtype=np.float32)
        return vector / np.linalg.norm(vector)

    @overload
    def activation(
        self, values: Float[np.ndarray, "_images _channels"], *, normalized: bool = False
    ) -> Float[np.ndarray, " _images"]: ...
    @overload
    def activation(
        self, values: Float[Tensor, "_images _channels"], *, normalized: bool = False
    ) -> Float[Tensor, " _images"]: ...
    def activation(self, values: Any, *, normalized: bool = False) -> Any:
        """Compute the unit's value on images from the values of its space's channels.

        Args:
            values: ``[images, channels]``, an array or a tensor: every channel of the unit's ``space`` on each image.
                The result of a tensor is differentiable.
            normalized: Scale a direction to length 1, as FALCON does for values that have length 1 themselves. It
                changes no other kind of unit.

        Returns:
            One value for each image: of a channel, feature or class its column; of a group the sum of its columns;
            of a direction the dot product with it.

        Example:
            >>> Unit("layer4:0,2", "group", "layer4", (0, 2)).activation(np.array([[1.0, 2.0, 3.0]])).tolist()
            [4.0]
        """
        if self.direction is None:
            columns = values[:, list(self.channels)]
            return columns.sum(1) if isinstance(columns, Tensor) else np.asarray(columns).sum(1)
        vector = self.unit_vector if normalized else self.direction
        if isinstance(values, Tensor):
            return values @ torch.tensor(vector, dtype=values.dtype, device=values.device)
        return np.asarray(values) @ np.asarray(vector, dtype=np.float32)


def parse_unit(text: str | Unit, encoder: Encoder) -> Unit:
    """Read a unit from text and check it against an encoder.

    Args:
        text: ``layer4:485`` is a channel; ``layer4:12,97`` a group; ``layer4@direction.npy`` a direction, a file with
            one number for each channel; ``blocks.7@cls:12`` a channel of the class token; ``features:31`` (also a group
            or ``@FILE``) a feature of the pooled representation, which is what FALCON calls a feature; ``class:207``
            the class of this index; ``class:golden retriever`` a class by name, whatever its case, ``_`` standing for a
            space, or by its number in WordNet (``class:n02099601``). A Unit is returned as it is.
        encoder: The network that the unit belongs to.

    Returns:
        The unit, which keeps the text as its name.

    Raises:
        UsageError: The layer, channel or class does not exist (the nearest name is suggested) or is ambiguous.
        MissingError: The file of a direction does not exist.
    """
    if isinstance(text, Unit):
        return text
    if not isinstance(text, str):
        raise UsageError(f"a unit is a text such as layer4:485 or class:207, not {text!r}")
    layer, separator, rest = _split(text)
    if layer == "class" and separator == ":":
        return Unit(text, "class", channels=(find_class(rest, encoder),))
    if layer == "features":
        if separator == "@":
            return Unit(text, "features", direction=_read_direction(rest, encoder.width, "features"))
        return Unit(text, "features", channels=_parse_indices(rest, encoder.width, text, "features"))
    info = encoder.layer(layer)
    if separator == "@" and rest.startswith("cls:"):
        if not info.prefix:
            raise UsageError(f"layer {layer!r} has no class token: name a channel as {layer}:{rest[4:]}")
        return Unit(text, "token", layer, _parse_token_index(rest[4:], info.channels, text))
    if separator == "@":
        return Unit(text, "direction", layer, direction=_read_direction(rest, info.channels, f"channels of {layer}"))
    indices = _parse_indices(rest, info.channels, text, f"channels of {layer}")
    return Unit(text, "channel" if len(indices) == 1 else "group", layer, indices)


def channel_unit(layer: str, channel: int) -> Unit:
    """Make the unit of one channel of a layer, without a check.

    Args:
        layer: The layer's name.
        channel: The channel's index.

    Returns:
        The unit, called ``LAYER:CHANNEL``.

    Example:
        >>> str(channel_unit("layer4", 485))
        'layer4:485'
    """
    return Unit(f"{layer}:{channel}", "channel", layer, (channel,))


def direction_unit(layer: str, direction: Sequence[float] | np.ndarray | Tensor, text: str) -> Unit:
    """Make the unit of a direction among a layer's channels, without a check.

    Args:
        layer: The layer's name.
        direction: One number for each channel.
        text: The unit's name in results.

    Returns:
        The unit.
    """
    vector = np.asarray(direction, dtype=np.float64)
    return Unit(text, "direction", layer, direction=tuple(vector.tolist()))


def unit_weights(unit: Unit, encoder: Encoder) -> Float[Tensor, " channels"]:
    """Write a unit as a vector over the channels of its space.

    Args:
        unit: The unit.
        encoder: The network that it belongs to.

    Returns:
        A direction itself; for any other unit 1 at its indices and 0 elsewhere; float32.
    """
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
    units = list(units)
    kinds = {unit.kind for unit in units}
    layers = list(dict.fromkeys(unit.layer for unit in units if unit.layer is not None))
    return {"layers": layers, "features": "features" in kinds, "logits": "class" in kinds}


def compute_values(seen: Observation, units: Sequence[Unit]) -> Float[Tensor, "batch units"]:
    """Compute units' values on the images of an observation.

    The value of a channel is its spatial mean over the map (over the patch tokens of a transformer); of a group the sum
    over its channels; of a direction the mean dot product; of a token unit the class token's channel; of a feature its
    pooled value; of a class its logit.

    Args:
        seen: An observation with what ``required_outputs`` lists.
        units: The units.

    Returns:
        ``[images, units]``, differentiable where the observation is.

    Raises:
        UsageError: The observation lacks an output.
    """
    pooled: dict[str, Tensor] = {}
    columns = []
    for unit in units:
        if unit.space not in pooled:
            pooled[unit.space] = _pool(seen, unit)
        columns.append(unit.activation(pooled[unit.space]))
    return torch.stack(columns, 1)


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


def _pool(seen: Observation, unit: Unit) -> Tensor:
    """[B, channels]: the values of all channels of the unit's space."""
    if unit.kind == "class" or unit.kind == "features":
        values = seen.logits if unit.kind == "class" else seen.features
        if values is None:
            raise UsageError(f"{unit.text} needs {unit.space}: see required_outputs")
        return values
    if unit.layer is None or unit.layer not in seen.activations:
        raise UsageError(f"{unit.text} needs layer {unit.layer!r}: see required_outputs")
    activation: Activation = seen.activations[unit.layer]
    if unit.kind != "token":
        return activation.maps.mean((2, 3))
    if activation.prefix is None:
        raise UsageError(f"layer {unit.layer!r} has no class token")
    return activation.prefix[:, 0]


def parse_units(units: Any, encoder: Encoder) -> tuple[list[Unit], bool]:
    """Find the units that texts and Units name.

    Args:
        units: A text, a Unit, or a list of these. "all" is every pooled feature; LAYER:all, features:all and class:all
            every unit of theirs.
        encoder: The encoder.

    Returns:
        The units, each once, and whether a single one was named.

    Raises:
        UsageError: For no units, and for what names none.
    """
    if isinstance(units, str | Unit):
        if isinstance(units, str) and (units == "all" or units.endswith(":all")):
            return list_units(units.removesuffix("all").removesuffix(":") or "features", encoder), False
        return [parse_unit(units, encoder)], True
    if not isinstance(units, Iterable):
        raise UsageError(f"a unit is a text such as layer4:485 or class:207, not {units!r}")
    parsed = [unit for item in units for unit in parse_units(item, encoder)[0]]
    if not parsed:
        raise UsageError('no units were given: name at least one, such as features:31, or "all"')
    return list(dict.fromkeys(parsed)), False


def list_units(layer: str, encoder: Encoder) -> list[Unit]:
    """List all features, classes, or channels of a layer as units.

    Args:
        layer: "features", "class" or a layer's name.
        encoder: The encoder.

    Returns:
        The units in the order of their numbers.

    Raises:
        UsageError: For an unknown layer, and for the classes of an encoder without a head.
    """
    if layer == "features":
        return [Unit(f"features:{i}", "features", channels=(i,)) for i in range(encoder.width)]
    if layer == "class":
        count = encoder.outputs or parse_unit("class:0", encoder).index  # the latter raises, saying why there are none
        return [Unit(f"class:{i}", "class", channels=(i,)) for i in range(count)]
    info = encoder.layer(layer)
    return [Unit(f"{layer}:{i}", "channel", layer, (i,)) for i in range(info.channels)]


def _split(text: str) -> tuple[str, str, str]:
    """A unit's text as (layer, ":" or "@", the rest)."""
    positions = [position for position in (text.find(":"), text.find("@")) if position > 0]
    if not positions or min(positions) == len(text) - 1:
        raise UsageError(
            f"{text!r} names no unit: write LAYER:CHANNEL (layer4:485), LAYER@FILE.npy, features:31 or class:NAME"
        )
    split = min(positions)
    return text[:split], text[split], text[split + 1 :]


def _parse_indices(text: str, width: int, unit: str, what: str) -> tuple[int, ...]:
    """Distinct indices below ``width``, from a text with commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{unit!r} names no unit: after the colon come numbers with commas between them")
    indices = tuple(int(part) for part in parts)
    if max(indices) >= width:
        raise UsageError(f"{unit!r} is out of range: there are {width} {what}, 0 to {width - 1}")
    if len(set(indices)) < len(indices):
        raise UsageError(f"{unit!r} names an index twice")
    return indices


def _parse_token_index(text: str, width: int, unit: str) -> tuple[int, ...]:
    indices = _parse_indices(text, width, unit, "channels of the class token")
    if len(indices) > 1:
        raise UsageError(f"{unit!r} names several channels: a class token's unit is a single channel")
    return indices


def _read_direction(text: str, width: int, what: str) -> tuple[float, ...]:
    """The vector in a .npy file: ``width`` finite numbers, not all zero."""
    file = Path(text).expanduser()
    require_ordinary_file(file)
    try:
        vector = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"no direction file {os.fspath(file)}") from None
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error
    vector = np.squeeze(np.asarray(vector))
    if vector.shape != (width,) or vector.dtype.kind not in "fiu":
        raise UsageError(f"{os.fspath(file)} holds {vector.dtype} {vector.shape}, not {width} numbers for the {what}")
    if not np.isfinite(vector).all() or not vector.any():
        raise UsageError(f"{os.fspath(file)} holds NaN or infinite numbers, or only zeros")
    return tuple(vector.astype(np.float64).tolist())
