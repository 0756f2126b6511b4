"""Layer-wise relevance propagation (LRP) with the residual split, from a recorded forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.encoder.capture import draw_random_pixels, removing_hooks, watching_outputs
from encoscope.encoder.containers import find_first_tensor
from encoscope.errors import UsageError
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.rules import PositiveWeights, propagate_through
from encoscope.relevance.tape import Tape
from encoscope.relevance.targets import FEATURES, LOGITS, Targets, UnitLocation, locate_unit, place_at_best_position


class Lrp(Attributor):
    """LRP for ResNets of any library and for plain convolutional networks.

    Relevance starts as the activation at all positions of a unit's channel (for a group its channels; for a direction
    its components times the activations; for a class its logit; for a feature its value). With ``start="argmax"`` it
    starts as the unit's direction at the position of highest cosine similarity. It is zero elsewhere. The rules are
    those of ``encoscope.relevance.rules``.

    The structure of the network is recorded in each forward pass (inputs and output of each operation), so it does
    not depend on names or classes of modules.

    Args:
        encoder: The encoder.
        targets: The units.
        layers: The layers, in the order of the result.

    Raises:
        UsageError: For units that LRP does not support: of class tokens, at one position, of several layers.

    Source: Otsuki et al., ECCV 2024.
    """

    def __init__(self, encoder: Encoder, targets: Targets, layers: Sequence[str]) -> None:
        super().__init__(encoder, targets, layers)
        for unit in targets.distinct:
            if unit.kind == "token":
                raise UsageError(f"LRP does not support class tokens ({unit.text}): use method='gradient-input'")
            if not unit.is_spanned:
                raise UsageError(
                    f"LRP starts from a whole layer, and {unit.text} does not: use method='gradient-input'"
                )
        self._positive = PositiveWeights()
        self._tape: Tape | None = None
        self._recorded: dict[UnitLocation, tuple[int, Tensor]] = {}

    def prepare(self) -> None:
        """Compute the positive weights, and check by a small trial run that the rules support the network.

        Raises:
            UsageError: If an operation between the units and the layers has no rule.
        """
        trial = Lrp(self.encoder, self.targets, self.layers)
        units = {locate_unit(unit): unit for unit in self.targets.distinct}
        trial.targets = replace(self.targets, units=tuple(units.values()))
        trial._positive = self._positive
        own = self.encoder.preprocess
        trial(draw_random_pixels(len(units), own.channels, own.size, next(self.encoder.module.parameters(), None)))

    def __call__(
        self, pixels: Float[Tensor, "batch colors rows columns"]
    ) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """Compute the relevance of the layers on a normalized batch."""
        with self.recording():
            self.encoder.observe(pixels, **self.needs)
        return self.relevance()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the one forward pass that is run in the block. The pass and its graph do not change.

        Yields:
            Nothing.

        Raises:
            UsageError: If no forward pass was run.
        """
        self._recorded = {}
        tape = Tape(self._positive)
        names = dict.fromkeys([*self.layers, *self.targets.locations])
        layers = {name: self.encoder.locate(name) for name in names if name not in (FEATURES, LOGITS)}

        def watch(name: str, _call: int, tensor: Tensor) -> None:
            self._recorded[name] = (tape.get_number(tensor), tensor.detach().clone())

        # These hooks run before those of the pass itself, and so get each layer's own output.
        with super().recording(), removing_hooks([]) as handles, tape:
            for name in names:
                if name in (FEATURES, LOGITS):
                    handles.append(self._register_hook(name, tape))
            with watching_outputs(self.encoder.module, layers, watch):
                yield
        self._tape = tape

    def _register_hook(self, name: UnitLocation, tape: Tape) -> Any:
        """Register a hook that records the value of the features or the logits; the last call counts."""
        module, choice = self.encoder.module, self.encoder._choice

        def record(tensor: Tensor | None) -> None:
            if tensor is not None:
                self._recorded[name] = (tape.get_number(tensor), tensor.detach().clone())

        def after(read: Callable[[Any], Tensor | None]) -> Callable[..., None]:
            return lambda _module, _args, output: record(read(output))

        if name == FEATURES and choice.head is not None:
            return module.get_submodule(choice.head).register_forward_pre_hook(lambda _module, args: record(args[0]))
        if name == LOGITS and choice.head is not None:
            return module.get_submodule(choice.head).register_forward_hook(after(find_first_tensor))
        if name == LOGITS:
            return module.register_forward_hook(after(choice.read))
        return module.register_forward_hook(after(find_first_tensor))

    @torch.no_grad()
    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        tape, self._tape = self._tape, None
        recorded, self._recorded = self._recorded, {}
        if tape is None:
            raise UsageError("no forward pass is recorded: run one inside recording() before each relevance()")
        for name in (*self.targets.locations, *self.layers):
            if name not in recorded:
                raise UsageError(
                    f"the recorded forward pass ended before {name.lstrip(':')!r}: "
                    "call observe with the arguments in the attributor's needs"
                )
        starts = {
            recorded[location][0]: self._compute_start(location, recorded[location][1])
            for location in self.targets.locations
        }
        relevance = tape.propagate(starts, {name: recorded[name][0] for name in self.layers})
        canvas = (pixels.shape[2], pixels.shape[3])
        return {name: self.encoder.as_activation(name, maps, canvas).maps for name, maps in relevance.items()}

    def _compute_start(self, location: UnitLocation, raw: Tensor) -> Float[Tensor, "batch ..."]:
        """The relevance to start with, in the shape of the network's own tensor at a unit's location."""
        layer = self.encoder._discovery.layers.get(location)
        if layer is not None and layer.layout.form != "nchw":
            raise UsageError(
                f"LRP starts from convolutional maps, and layer {location!r} gives {layer.layout.form}: "
                "use method='gradient-input'"
            )
        raw = raw.float()
        rows = self.targets.make_rows(location, len(raw)).to(raw)
        if self.targets.start == "argmax":
            return place_at_best_position(raw, rows)
        if location == FEATURES and raw.ndim == 4 and self.encoder._choice.head is None:  # the features are its mean

            def mean(maps: Tensor) -> Tensor:
                return maps.mean((2, 3))

            return propagate_through(mean, raw, rows * mean(raw))
        return rows.reshape(*rows.shape, *[1] * (raw.ndim - 2)) * raw
