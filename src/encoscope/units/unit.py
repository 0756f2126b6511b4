"""Units, the things that are explained: a channel, a group or direction of channels, a pooled feature, a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, tensor

from encoscope.encoder import Observation
from encoscope.errors import UsageError

UnitObjective: TypeAlias = Callable[[Observation], Tensor]
"""A user's own quantity: from an observation of a batch one number for each image, differentiable."""
UnitKind: TypeAlias = Literal["channel", "group", "direction", "token", "features", "class", "sum", "own"]


@dataclass(frozen=True)
class Unit:
    """A thing to explain; made by ``parse_unit``, ``channel_unit``, ``direction_unit`` or ``objective_unit``.

    Attributes:
        text: The unit as the user wrote it, which is its name in results.
        kind: "channel", "group" and "direction" belong to a layer's maps, "token" to its class token, "features" to the
            pooled representation, "class" to the logits. A "sum" adds units of several layers, and "own" is a function
            of the user.
        layer: Its layer; None for "features" and "class". Of a sum the last of its layers, if all have one.
        channels: Indices of channels or features, or of the class; empty for a direction.
        direction: One number for each channel (or feature), also of a group with minus signs; None for all other units.
        position: (row, column) of the layer's map at the network's own size; None for the mean over the map.
        terms: The units of a sum, each with its sign.
        objective: The user's function.
        reads: What the user's function reads: layers, "features", "logits".

    Example:
        >>> Unit("layer4:485", "channel", "layer4", (485,)).space
        'layer4'
    """

    text: str
    kind: UnitKind
    layer: str | None = None
    channels: tuple[int, ...] = ()
    direction: tuple[float, ...] | None = field(default=None, repr=False)
    position: tuple[int, int] | None = None
    terms: tuple[tuple[float, Unit], ...] = ()
    objective: UnitObjective | None = field(default=None, repr=False)
    reads: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def index(self) -> int:
        """The single channel, feature or class; UsageError for groups and directions."""
        if len(self.channels) != 1:
            raise UsageError(f"{self.text} is not a single channel, feature or class")
        return self.channels[0]

    @property
    def is_class(self) -> bool:
        """Whether it is a single class, whose references are the images with its label."""
        return self.kind == "class" and len(self.channels) == 1

    @property
    def is_spanned(self) -> bool:
        """Whether its value is a sum over the channels of one representation, averaged over the map."""
        return self.kind not in ("sum", "own") and self.position is None

    @property
    def is_keyed(self) -> bool:
        """Whether ``as_key`` says all of it; a user's function is not known by its content."""
        return self.objective is None and all(unit.is_keyed for _, unit in self.terms)

    def as_key(self) -> list[Any]:
        """Give what the unit is as plain values, for cache keys."""
        key: list[Any] = [self.kind, self.layer, self.channels, self.direction]
        if self.position is not None:
            key.append({"position": self.position})
        if self.terms:
            key.append({"terms": [[sign, unit.as_key()] for sign, unit in self.terms]})
        return key

    @property
    def space(self) -> str:
        """The representation whose channels the unit is made of: "features", "logits", a layer's name, or LAYER@cls.

        UsageError for a unit at one position, a sum over layers, and a function of the user.
        """
        if not self.is_spanned:
            raise UsageError(f"{self.text} is not made of the mean channels of one layer, as this needs")
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
            return values @ tensor(vector, dtype=values.dtype, device=values.device)
        return np.asarray(values) @ np.asarray(vector, dtype=np.float32)


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


def objective_unit(function: UnitObjective, reads: Sequence[str] | str = "logits", *, name: str | None = None) -> Unit:
    """Make a unit of a function of your own, such as the difference of two classes' logits.

    Args:
        function: Gets the observation of a batch of images (``activations``, ``features``, ``logits``) and gives one
            number for each image, differentiable.
        reads: What of the network it reads: names of layers, "features", "logits".
        name: The unit's name in results; None is the function's.

    Returns:
        The unit, for ``encoscope.visualize``.

    Raises:
        UsageError: For what is no function.

    Example:
        >>> unit = objective_unit(lambda seen: seen.logits[:, 3] - seen.logits[:, 5], name="3 rather than 5")
        >>> unit.text
        '3 rather than 5'
    """
    if not callable(function):
        raise UsageError(f"a unit's objective is a function from an observation to numbers, not {function!r}")
    text = name or str(getattr(function, "__name__", type(function).__name__))
    return Unit(text, "own", objective=function, reads=(reads,) if isinstance(reads, str) else tuple(reads))
