"""Relevance by name of the method, for a batch at once or prepared for a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.gradients import GradientInput, GuidedBackprop
from encoscope.relevance.lrp import Lrp
from encoscope.relevance.targets import RelevanceStart, Targets, Units, resolve_targets
from encoscope.units import Unit, channel_unit

AttributionFunction: TypeAlias = Callable[[Encoder, Tensor, Unit, list[str]], Mapping[str, Tensor]]
RelevanceMethod: TypeAlias = str | AttributionFunction
"""A method's name, or a callable (encoder, pixels [B, C, H, W], unit, layers) -> {layer: [B, channels, h, w]}."""

_METHODS: dict[str, type[Attributor]] = {
    "lrp": Lrp,
    "guided-backprop": GuidedBackprop,
    "gradient-input": GradientInput,
}
METHODS = tuple(_METHODS)


def compute_relevance(
    encoder: Encoder,
    images: Any,
    unit: Units,
    layers: Sequence[str] | str,
    method: RelevanceMethod = "lrp",
    *,
    start: RelevanceStart = "all",
) -> dict[str, Float[Tensor, "batch channels height width"]]:
    """How much each activation of some layers matters to a unit, on each image: {layer: relevance}, detached.

    images: a Batch, a normalised tensor [B, C, H, W], or what ``Encoder.prepare`` takes; they go through the network at
        once. unit: one for all images, or a sequence of one an image. layers: the unit's own or below it.
    method: "lrp", layer-wise relevance propagation with the residual split, for ResNets and plain convolutional
        networks; "guided-backprop", for networks with ReLUs; "gradient-input", for any network; or a callable.
    start: for units of a layer's map, where relevance starts: "all" positions, or "argmax", the one of highest
        cosine similarity with the unit's direction (VITAL, appendix B.3, for concepts).

    Raises UsageError for unknown units, layers and methods, for a layer that comes after the unit, for a network the
    method does not reach, and for a callable's result of another shape than the layers' maps.
    """
    pixels = images if isinstance(images, Tensor) and images.ndim == 4 else encoder.prepare(images).pixels
    return _attributor(encoder, unit, layers, method, start)(pixels)


def make_attributor(
    encoder: Encoder,
    unit: Units,
    layers: Sequence[str] | str,
    method: RelevanceMethod = "lrp",
    *,
    start: RelevanceStart = "all",
) -> Attributor:
    """``relevance`` for a loop: an object with all that is costly prepared, to be called on normalised batches.

    Arguments as for ``relevance``. For LRP the positive weights are computed and the network is tried here, so that one
    it does not reach is refused before the loop begins. See ``Attributor`` for how it uses a pass that is made anyway.
    """
    found = _attributor(encoder, unit, layers, method, start)
    if isinstance(found, Lrp):
        found.prepare()
    return found


def choose_method(encoder: Encoder) -> str:
    """The name of LRP where it reaches the network from its last layer to its first, else "gradient-input"."""
    main = [info for info in encoder.layers if info.role != "inner"] or encoder.layers
    if not main:
        raise UsageError(f"{encoder.source} has no layer with a spatial map")
    try:
        make_attributor(encoder, channel_unit(main[-1].name, 0), [main[0].name], "lrp")
    except UsageError:
        return "gradient-input"
    return "lrp"


def _attributor(
    encoder: Encoder, unit: Units, layers: Sequence[str] | str, method: RelevanceMethod, start: RelevanceStart
) -> Attributor:
    names = [layers] if isinstance(layers, str) else list(layers)
    aims = resolve_targets(encoder, unit, names, start)
    if not isinstance(method, str):
        return _Plugged(encoder, aims, names, method)
    if method not in _METHODS:
        raise UsageError(
            f"unknown relevance method {method!r}{suggest_nearest(method, METHODS)}: "
            f"one of {', '.join(METHODS)}, or a callable"
        )
    return _METHODS[method](encoder, aims, names)


class _Plugged(Attributor):
    """Anyone's attribution, called once for each distinct unit of a batch; what it gives is checked."""

    def __init__(
        self, encoder: Encoder, targets: Targets, layers: Sequence[str], function: AttributionFunction
    ) -> None:
        super().__init__(encoder, targets, layers)
        if targets.start != "all":
            raise UsageError("start='argmax' is for the built-in methods: a callable starts where it likes")
        self._function = function
        self._shapes: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        canvas = tuple(pixels.shape[2:])
        if canvas not in self._shapes:
            seen = self.encoder.activations(pixels[:1], self.layers)
            self._shapes[canvas] = {name: tuple(found.maps.shape[1:]) for name, found in seen.items()}
        chosen = self.targets.of(len(pixels))
        together: dict[str, Tensor] = {}
        for unit in self.targets.distinct:
            rows = [row for row, other in enumerate(chosen) if other == unit]
            found = self._function(self.encoder, pixels[rows], unit, list(self.layers))
            for name in self.layers:
                part = self._checked(found, name, (len(rows), *self._shapes[canvas][name]))
                if name not in together:
                    together[name] = part.new_zeros(len(pixels), *part.shape[1:])
                together[name][rows] = part
        return together

    def _checked(self, found: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        who = getattr(self._function, "__name__", type(self._function).__name__)
        if not isinstance(found, Mapping) or name not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise UsageError(
                f"the attribution {who} gave no relevance for layer {name!r} (it gave {there or 'nothing'})"
            )
        part = found[name]
        if not isinstance(part, Tensor) or tuple(part.shape) != shape:
            given = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise UsageError(f"the attribution {who} gave {given} for layer {name!r}, whose maps are {shape}")
        return part.detach().float()
