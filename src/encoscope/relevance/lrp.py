"""Layer-wise relevance propagation (LRP) with the residual split, from a recorded forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.encoder.capture import removing_hooks, watching_outputs
from encoscope.encoder.containers import find_first_tensor
from encoscope.errors import UsageError
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.rules import PositiveWeights, propagate_through
from encoscope.relevance.same_sign import Direction, as_float, make_averaging_rule
from encoscope.relevance.tape import Tape
from encoscope.relevance.targets import FEATURES, LOGITS, Targets, UnitLocation, place_at_best_position

_EXTENSION = "relevance is LRP by rules for any network, an extension of this library: the paper's are for ResNets"


class Lrp(Attributor):
    """LRP for networks of any library.

    Relevance starts as the activation at all positions of a unit's channel (for a group its channels; for a direction
    its components times the activations; for a class its logit; for a feature its value; for a class token's channel
    its value). With ``start="argmax"`` it starts as the unit's direction at the position of highest cosine similarity.
    It is zero elsewhere.

    ResNets and plain networks of convolutions with rectified inputs get the paper's rules, those of
    ``encoscope.relevance.rules``. A network with anything else between its first layer with weights and the unit gets
    those of ``encoscope.relevance.signed_rules``, from the unit to the layers: an extension.

    The structure of the network is recorded in each forward pass (inputs and output of each operation), so it does
    not depend on names or classes of modules.

    Args:
        encoder: The encoder.
        targets: The units.
        layers: The layers, in the order of the result.

    Raises:
        UsageError: For units that LRP does not support: at one position, of several layers.

    Source: Otsuki et al., ECCV 2024.
    """

    def __init__(self, encoder: Encoder, targets: Targets, layers: Sequence[str]) -> None:
        super().__init__(encoder, targets, layers)
        for unit in targets.distinct:
            if unit.kind == "features" and encoder.pooled_layer is not None:
                raise UsageError(
                    f"features of {encoder.source} are the mean of layer {encoder.pooled_layer}: for LRP name "
                    f"a channel of that layer, not {unit.text}"
                )
            if not unit.is_spanned:
                raise UsageError(
                    f"LRP starts from a whole layer, and {unit.text} does not: use method='gradient-input'"
                )
        self._positive = PositiveWeights()
        self._recording: Tape | None = None
        self._tape: Tape | None = None
        self._recorded: dict[UnitLocation, tuple[int, Tensor]] = {}

    def _try(self, pixels: Tensor) -> None:
        with self.recording():  # with gradients, which show what is computed outside of torch's functions
            self.encoder.observe(pixels.requires_grad_(), gradients=True, **self.needs)
        self.relevance()

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
        _ = self.encoder._choice  # found by passes of its own, which are not to be recorded
        self._recording = tape = Tape(self._positive)
        names = dict.fromkeys([*self.layers, *self.targets.locations])
        layers = {name: self.encoder.locate(name) for name in names if name not in (FEATURES, LOGITS)}

        def watch(name: str, _call: int, tensor: Tensor) -> None:
            self._recorded[name] = (tape.get_number(tensor), tensor.detach().clone())

        # These hooks run before those of the pass itself, and so get each layer's own output.
        with super().recording(), removing_hooks([]) as handles, tape:
            for name in names:
                if name in (FEATURES, LOGITS):
                    handles.append(self._register_hook(name, tape))
            try:
                with watching_outputs(self.encoder.module, layers, watch):
                    yield
            finally:
                self._recording = None
        self._tape = tape

    def _receive_images(self, images: Tensor) -> None:
        if self._recording is not None:
            self._recording.start_from(images)

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
        canvas = (pixels.shape[2], pixels.shape[3])
        resnet = tape.is_resnet([recorded[location][0] for location in self.targets.locations])
        self.note = "" if resnet else _EXTENSION
        starts = {
            recorded[location][0]: self._compute_start(location, recorded[location][1], canvas, resnet)
            for location in self.targets.locations
        }
        relevance = tape.propagate(starts, {name: recorded[name][0] for name in self.layers})
        return {name: self.encoder.as_activation(name, maps, canvas).maps for name, maps in relevance.items()}

    def _compute_start(
        self, location: UnitLocation, raw: Tensor, canvas: tuple[int, int], resnet: bool
    ) -> Float[Tensor, "batch ..."]:
        """The relevance to start with, in the shape of the network's own tensor at a unit's location."""
        raw = as_float(raw)
        rows = self.targets.make_rows(location, len(raw)).to(raw)
        if location in (FEATURES, LOGITS):
            if raw.ndim == 4 and location == FEATURES and self.encoder._choice.head is None:
                return _start_before_mean(raw, rows, resnet)
            return rows.reshape(*rows.shape, *[1] * (raw.ndim - 2)) * raw
        is_token = torch.tensor([unit.kind == "token" for unit in self.targets.for_batch(len(raw))], device=raw.device)
        # What a unit reads of the network's own tensor is linear in it, so that its gradient is where relevance starts.
        with torch.enable_grad():
            leaf = raw.clone().requires_grad_()
            activation = self.encoder.as_activation(location, leaf, canvas)
            if self.targets.start == "argmax":
                value = (activation.maps * place_at_best_position(activation.maps.detach(), rows)).sum()
                return torch.autograd.grad(value, leaf)[0]
            value = (activation.maps * rows.masked_fill(is_token[:, None], 0)[:, :, None, None]).sum()
            if activation.prefix is not None and is_token.any():
                value = value + (activation.prefix[:, 0] * rows.masked_fill(~is_token[:, None], 0)).sum()
        return raw * torch.autograd.grad(value, leaf)[0]


def _start_before_mean(raw: Tensor, rows: Tensor, resnet: bool) -> Tensor:
    """The relevance of maps whose mean over space is the features."""

    def mean(maps: Tensor) -> Tensor:
        return maps.mean((2, 3))

    value = mean(raw)
    if resnet:
        return propagate_through(mean, raw, rows * value)
    direction = Direction()
    direction.set(value > 0)
    return make_averaging_rule(mean, raw, direction, "mean")(rows * value)[0]
