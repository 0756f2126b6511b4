"""Layer-wise relevance propagation with the residual split, from a recorded forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.encoder.capture import draw_random_pixels, find_first_tensor, removing_hooks
from encoscope.encoder.discovery import find_output_tensor
from encoscope.errors import UsageError
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.rules import PositiveWeights, SavedTensor, propagate_through
from encoscope.relevance.tape import Tape
from encoscope.relevance.targets import FEATURES, LOGITS, Targets, UnitLocation, locate_unit, place_at_best_position


class Lrp(Attributor):
    """LRP as in Otsuki et al. (ECCV 2024), for ResNets of any library and for plain convolutional networks.

    Relevance starts as a_c at all positions of a unit's channel (a group's channels; a direction's numbers times the
    activations; the class's logit; the feature), or with ``start="argmax"`` as the unit's direction at the position of
    highest cosine similarity, and is zero elsewhere. The rules are those of ``encoscope.relevance.rules``.

    The structure of the network is read off each forward pass (which operation took what and made what), so it does
    not depend on names or classes of modules. Raises UsageError for operations without a rule.
    """

    def __init__(self, encoder: Encoder, targets: Targets, layers: Sequence[str]) -> None:
        super().__init__(encoder, targets, layers)
        for unit in targets.distinct:
            if unit.kind == "token":
                raise UsageError(f"LRP does not reach class tokens ({unit.text}): use method='gradient-input'")
        self._positive = PositiveWeights()
        self._tape: Tape | None = None
        self._seen: dict[UnitLocation, tuple[int, SavedTensor]] = {}

    def prepare(self) -> None:
        """Compute the positive weights, and find out whether the rules reach the network, by a small trial run."""
        trial = Lrp(self.encoder, self.targets, self.layers)
        homes = {locate_unit(unit): unit for unit in self.targets.distinct}
        trial.targets = replace(self.targets, units=tuple(homes.values()))
        trial._positive = self._positive
        own = self.encoder.preprocess
        trial(draw_random_pixels(len(homes), own.channels, own.size, next(self.encoder.module.parameters(), None)))

    def __call__(
        self, pixels: Float[Tensor, "batch colours rows columns"]
    ) -> dict[str, Float[Tensor, "batch channels height width"]]:
        """The relevance of the layers on a normalised batch."""
        with self.recording():
            self.encoder.observe(pixels, **self.needs)
        return self.relevance()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Watch the one forward pass that is made inside; the pass and its graph are what they would be without."""
        self._seen = {}
        tape = Tape(self._positive)
        # The hooks come before those of the pass itself, and so see each layer's own output.
        with super().recording(), removing_hooks([]) as handles, tape:
            for name in dict.fromkeys([*self.layers, *self.targets.places]):
                handles.append(self._watch(name, tape))
            yield
        self._tape = tape

    def _watch(self, name: UnitLocation, tape: Tape) -> Any:
        """A hook that notes the value of a layer, of the features, or of the logits; the last call counts."""
        module, head = self.encoder.module, self.encoder._discovery.head

        def note(tensor: Tensor | None) -> None:
            if tensor is not None:
                self._seen[name] = (tape.number(tensor), SavedTensor(tensor, name))

        def after(read: Callable[[Any], Tensor | None]) -> Callable[..., None]:
            return lambda _module, _args, output: note(read(output))

        if name == FEATURES and head is not None:
            return module.get_submodule(head).register_forward_pre_hook(lambda _module, args: note(args[0]))
        if name == LOGITS:
            return module.get_submodule(head or "").register_forward_hook(after(find_output_tensor))
        return module.get_submodule("" if name == FEATURES else name).register_forward_hook(after(find_first_tensor))

    @torch.no_grad()
    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        tape, self._tape = self._tape, None
        seen, self._seen = self._seen, {}
        assert tape is not None  # set together with the pixels
        for name in (*self.targets.places, *self.layers):
            if name not in seen:
                raise UsageError(
                    f"the recorded forward pass did not get as far as {name.lstrip(':')!r}: "
                    "observe with the arguments in the attributor's needs"
                )
        starts = {seen[home][0]: self._start(home, seen[home][1]()) for home in self.targets.places}
        found = tape.backward(starts, {name: seen[name][0] for name in self.layers})
        canvas = (pixels.shape[2], pixels.shape[3])
        return {name: self.encoder.as_activation(name, maps, canvas).maps for name, maps in found.items()}

    def _start(self, home: UnitLocation, raw: Tensor) -> Float[Tensor, "batch ..."]:
        """The relevance to start with, in the shape of the network's own tensor at a unit's place."""
        layer = self.encoder._discovery.layers.get(home)
        if layer is not None and layer.layout.form != "nchw":
            raise UsageError(
                f"LRP starts from convolutional maps, and layer {home!r} puts out {layer.layout.form}: "
                "use method='gradient-input'"
            )
        raw = raw.float()
        rows = self.targets.rows(home, len(raw)).to(raw)
        if self.targets.start == "argmax":
            return place_at_best_position(raw, rows)
        if home == FEATURES and raw.ndim == 4 and self.encoder._discovery.head is None:  # the features are its mean

            def mean(maps: Tensor) -> Tensor:
                return maps.mean((2, 3))

            return propagate_through(mean, raw, rows * mean(raw))
        return rows.reshape(*rows.shape, *[1] * (raw.ndim - 2)) * raw
