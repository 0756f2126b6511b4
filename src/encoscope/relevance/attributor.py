"""The base class of all attribution methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.encoder import Encoder
from encoscope.encoder.capture import draw_random_pixels, removing_hooks
from encoscope.encoder.lock import hold_module
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance.targets import Targets, locate_unit


class Attributor(ABC):
    """Computes the relevance of layers' activations for units, batch after batch; see ``make_attributor``.

    It is called on a normalized batch. If a forward pass is run in any case, it can record that pass instead::

        with attributor.recording():
            observation = encoder.observe(pixels, gradients=True, **attributor.needs)
        relevance = attributor.relevance()

    Args:
        encoder: The encoder.
        targets: The units.
        layers: The layers, in the order of the result.
    """

    note = ""
    """What a reader of the relevance has to know, for a method or rules that the VITAL paper does not have."""

    def __init__(self, encoder: Encoder, targets: Targets, layers: Sequence[str]) -> None:
        self.encoder = encoder
        self.targets = targets
        self.layers = tuple(layers)
        self._pixels: Tensor | None = None

    @property
    def needs(self) -> dict[str, Any]:
        """Arguments for ``Encoder.observe`` with which the pass runs through the layers and the units."""
        needs = self.targets.needs
        return needs | {"layers": list(dict.fromkeys([*self.layers, *needs["layers"]]))}

    def __call__(
        self, pixels: Float[Tensor, "batch colors rows columns"]
    ) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """Compute the relevance of the layers on a normalized batch."""
        self._pixels = pixels.detach().to(self.encoder.device)
        return self.relevance()

    def prepare(self) -> None:
        """Check by a trial run on a random image that the method supports the network, the units and the layers.

        Raises:
            UsageError: If it does not.
        """
        trial = copy(self)
        # One unit of each location, since it is the way from there that counts.
        units = {locate_unit(unit): unit for unit in self.targets.distinct}
        trial.targets = replace(self.targets, units=tuple(units.values()))
        own = self.encoder.preprocess
        like = next(self.encoder.module.parameters(), None)
        trial._try(draw_random_pixels(len(units), own.channels, own.size, like))
        self.note = trial.note

    def _try(self, pixels: Tensor) -> None:
        self(pixels)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the one forward pass that is run in the block.

        Yields:
            Nothing.

        Raises:
            UsageError: If no forward pass was run.
        """
        with _record_pixels(self.encoder, self._receive_images) as recorded:
            yield
        if not recorded:
            raise UsageError("no forward pass was run inside recording()")
        self._pixels = recorded[0]

    def relevance(self) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """Compute the relevance for the recorded pass, which is discarded then.

        Returns:
            ``{layer: relevance}`` in the order of ``layers``.

        Raises:
            UsageError: If no pass was recorded, if the method does not support the network, and if the unit is not
                computed from one of the layers.
            EncoscopeError: For NaN or infinite relevance.
        """
        if self._pixels is None:
            raise UsageError("no forward pass is recorded: run one inside recording() before each relevance()")
        pixels, self._pixels = self._pixels, None
        maps = self._relevance(pixels)
        units = ", ".join(unit.text for unit in self.targets.distinct[:3])
        for name in self.layers:
            if name not in maps:
                raise UsageError(f"no relevance reaches layer {name!r} from {units}: the unit is not computed from it")
            if not torch.isfinite(maps[name]).all():
                raise EncoscopeError(
                    f"the relevance of {units} at layer {name!r} is NaN or infinite: check the weights"
                )
        return {name: maps[name] for name in self.layers}

    def _receive_images(self, images: Tensor) -> None:
        """Receives the images that the network is called with in a recorded pass, before it does anything to them."""
        return

    @abstractmethod
    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        """Maps of relevance without a graph; layers that no relevance reaches may be left out."""


@contextmanager
def _record_pixels(encoder: Encoder, receive: Callable[[Tensor], None]) -> Iterator[list[Tensor]]:
    """Record the first images that the network is called with in the block."""
    recorded: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not recorded:
            images = [item for item in (*args, *kwargs.values()) if isinstance(item, Tensor) and item.ndim == 4]
            recorded.extend(item.detach() for item in images)
            for item in images:
                receive(item)

    with hold_module(encoder.module), removing_hooks([]) as handles:
        # All modules: an encoder may call only a submodule (the image tower of an image-text model).
        for module in encoder.module.modules():
            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
        yield recorded
