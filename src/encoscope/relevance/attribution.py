"""Compute relevance by a method of choice, for one batch or prepared for a loop."""

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
"""A method's name, or a function (encoder, pixels [B, C, H, W], unit, layers) -> {layer: [B, channels, h, w]}."""

_METHODS: dict[str, type[Attributor]] = {
    "lrp": Lrp,
    "guided-backprop": GuidedBackprop,
    "gradient-input": GradientInput,
}
METHODS = tuple(_METHODS)
"""The names of the built-in methods."""


def compute_relevance(
    encoder: Encoder,
    images: Any,
    unit: Units,
    layers: Sequence[str] | str,
    method: RelevanceMethod = "lrp",
    *,
    start: RelevanceStart = "all",
) -> dict[str, Float[Tensor, "batch channels height width"]]:
    """Compute how much each activation of layers contributes to a unit, on each image.

    Args:
        encoder: The encoder.
        images: A Batch, a normalized tensor ``[batch, channels, height, width]``, or what ``Encoder.prepare`` takes.
            They go through the network at once.
        unit: One unit for all images, or a sequence with one unit for each image.
        layers: Names of layers: the unit's own layer, or layers before it.
        method: "lrp", layer-wise relevance propagation: the paper's rules with the residual split for ResNets and plain
            convolutional networks, rules for signed inputs, gates and attention for any other; "guided-backprop", for
            networks with ReLUs or their capped and smooth forms; "gradient-input", for any network; or a function
            (encoder, pixels, unit, layers) -> {layer: relevance}.
        start: For units of a layer's map, where relevance starts: "all" positions, or "argmax", the position of the
            highest cosine similarity with the unit's direction.

    Returns:
        ``{layer: relevance}``, each of the shape of the layer's maps, without a graph.

    Raises:
        UsageError: For unknown units, layers and methods, for a layer after the unit, for a network that the method
            does not support, and for a function whose result has another shape than the layers' maps.
        EncoscopeError: For NaN or infinite relevance.

    Example:
        ``compute_relevance(encoder, "dog.jpg", "class:207", "layer4")["layer4"]`` is ``[1, channels, height, width]``.

    Source: for "lrp" Otsuki et al., ECCV 2024; for ``start="argmax"`` VITAL, appendix B.3.
    """
    pixels = images if isinstance(images, Tensor) and images.ndim == 4 else encoder.prepare(images).pixels
    return _create_attributor(encoder, unit, layers, method, start)(pixels)


def make_attributor(
    encoder: Encoder,
    unit: Units,
    layers: Sequence[str] | str,
    method: RelevanceMethod = "lrp",
    *,
    start: RelevanceStart = "all",
) -> Attributor:
    """Prepare ``compute_relevance`` for a loop.

    A trial run on a random image shows here whether the method supports the network, the unit and the layers.

    Args:
        encoder: The encoder.
        unit: One unit for all images, or a sequence with one unit for each image of a batch.
        layers: Names of layers: the unit's own layer, or layers before it.
        method: As for ``compute_relevance``.
        start: As for ``compute_relevance``.

    Returns:
        An object to be called on normalized batches. It can also record a forward pass that is run in any case, see
        ``Attributor``.

    Raises:
        UsageError: As ``compute_relevance``.
    """
    attributor = _create_attributor(encoder, unit, layers, method, start)
    attributor.prepare()
    return attributor


def choose_method(encoder: Encoder) -> str:
    """Choose the relevance method for an encoder.

    Args:
        encoder: The encoder.

    Returns:
        "lrp" if LRP supports the network from its last layer to its first, else "gradient-input".

    Raises:
        UsageError: If the network has no layer with a spatial output.
    """
    main = [info for info in encoder.layers if info.role != "inner"] or encoder.layers
    if not main:
        raise UsageError(f"{encoder.source} has no layer with a spatial output")
    try:
        make_attributor(encoder, channel_unit(main[-1].name, 0), [main[0].name], "lrp")
    except UsageError:
        return "gradient-input"
    return "lrp"


def _create_attributor(
    encoder: Encoder, unit: Units, layers: Sequence[str] | str, method: RelevanceMethod, start: RelevanceStart
) -> Attributor:
    names = [layers] if isinstance(layers, str) else list(layers)
    resolved = resolve_targets(encoder, unit, names, start)
    if not isinstance(method, str):
        return _CustomAttributor(encoder, resolved, names, method)
    if method not in _METHODS:
        raise UsageError(
            f"unknown relevance method {method!r}{suggest_nearest(method, METHODS)}: "
            f"one of {', '.join(METHODS)}, or a function"
        )
    return _METHODS[method](encoder, resolved, names)


class _CustomAttributor(Attributor):
    """A function of the user, called once for each distinct unit of a batch; its result is checked."""

    def __init__(
        self, encoder: Encoder, targets: Targets, layers: Sequence[str], function: AttributionFunction
    ) -> None:
        super().__init__(encoder, targets, layers)
        if targets.start != "all":
            raise UsageError("start='argmax' is for the built-in methods, and has no effect on a function")
        self._function = function
        self._shapes: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        canvas = tuple(pixels.shape[2:])
        if canvas not in self._shapes:
            activations = self.encoder.activations(pixels[:1], self.layers)
            self._shapes[canvas] = {name: tuple(layer.maps.shape[1:]) for name, layer in activations.items()}
        units = self.targets.for_batch(len(pixels))
        relevance: dict[str, Tensor] = {}
        for unit in self.targets.distinct:
            rows = [row for row, other in enumerate(units) if other == unit]
            result = self._function(self.encoder, pixels[rows], unit, list(self.layers))
            for name in self.layers:
                maps = self._check_result(result, name, (len(rows), *self._shapes[canvas][name]))
                if name not in relevance:
                    relevance[name] = maps.new_zeros(len(pixels), *maps.shape[1:])
                relevance[name][rows] = maps
        return relevance

    def _check_result(self, result: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        function = getattr(self._function, "__name__", type(self._function).__name__)
        if not isinstance(result, Mapping) or name not in result:
            returned = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise UsageError(
                f"the attribution {function} gave no relevance for layer {name!r} (it gave {returned or 'nothing'})"
            )
        maps = result[name]
        if not isinstance(maps, Tensor) or tuple(maps.shape) != shape:
            actual = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise UsageError(f"the attribution {function} gave {actual} for layer {name!r}, whose maps are {shape}")
        return maps.detach().float()
