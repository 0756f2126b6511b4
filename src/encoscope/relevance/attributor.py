"""What all attribution methods share: what they need of a forward pass, and how they are asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.encoder import Encoder
from encoscope.encoder.capture import removing_hooks
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance.targets import Targets


class Attributor(ABC):
    """Relevance of layers' activations for given units, with whatever is costly prepared once; see ``attribution``.

    Called on a normalised batch [B, C, H, W] it gives {layer: relevance [B, C, h, w]}, detached. Where the forward pass
    is made anyway, it is watched instead::

        with attributor.recording():
            seen = encoder.observe(pixels, gradients=True, **attributor.needs)
        found = attributor.relevance()
    """

    def __init__(self, encoder: Encoder, targets: Targets, layers: Sequence[str]) -> None:
        self.encoder = encoder
        self.targets = targets
        self.layers = tuple(layers)
        self._pixels: Tensor | None = None

    @property
    def needs(self) -> dict[str, Any]:
        """Arguments for ``Encoder.observe`` with which the pass shows the layers and gets as far as the units."""
        needs = self.targets.needs
        return needs | {"layers": list(dict.fromkeys([*self.layers, *needs["layers"]]))}

    def __call__(
        self, pixels: Float[Tensor, "batch colours rows columns"]
    ) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """The relevance of the layers on a normalised batch."""
        self._pixels = pixels.detach().to(self.encoder.device)
        return self.relevance()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Watch the one forward pass that is made inside."""
        with _first_pixels(self.encoder) as seen:
            yield
        if not seen:
            raise UsageError("no forward pass was made while it was to be recorded")
        self._pixels = seen[0]

    def relevance(self) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """The relevance for the recorded pass, which is forgotten then; layers in the order they were asked for.

        Raises UsageError where nothing was recorded, where the method does not reach the network, and where a layer is
        none of those the unit is computed from.
        """
        if self._pixels is None:
            raise UsageError("no forward pass is recorded: make one inside recording() before each relevance()")
        pixels, self._pixels = self._pixels, None
        found = self._relevance(pixels)
        units = ", ".join(unit.text for unit in self.targets.distinct[:3])
        for name in self.layers:
            if name not in found:
                raise UsageError(f"no relevance gets from {units} to layer {name!r}: the unit is not computed from it")
            if not torch.isfinite(found[name]).all():
                raise EncoscopeError(
                    f"the relevance of {units} at layer {name!r} is NaN or infinite: check the weights"
                )
        return {name: found[name] for name in self.layers}

    @abstractmethod
    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        """Maps of relevance without a graph; layers that none gets to may be left out."""


@contextmanager
def _first_pixels(encoder: Encoder) -> Iterator[list[Tensor]]:
    """Keeps the images that the network is called with inside the block."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not seen:
            seen.extend(
                item.detach() for item in (*args, *kwargs.values()) if isinstance(item, Tensor) and item.ndim == 4
            )

    with removing_hooks([]) as handles:
        # All of them: an encoder may call a part of its module (the image tower of an image-text model).
        for module in encoder.module.modules():
            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
        yield seen
