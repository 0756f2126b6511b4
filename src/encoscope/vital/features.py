"""What of an image is matched: some layers' values, with relevance multiplied in where that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.relevance import Attributor, make_attributor
from encoscope.relevance.attribution import RelevanceMethod
from encoscope.relevance.targets import RelevanceStart
from encoscope.units import Unit, compute_values, required_outputs
from encoscope.vital.matching import Values, flatten_values

Relevance: TypeAlias = RelevanceMethod
"""A method's name ("lrp", "guided-backprop", "gradient-input"), or a callable (encoder, pixels, unit, layers)."""


@dataclass(frozen=True)
class LayerFeatures:
    """What one pass showed.

    values: by layer. peaks: the spatial maximum of each channel's relevance, by layer, where there is relevance.
    activation: the unit's value on each image, and shrinkage: by how much relevance makes the mean square of a layer's
    activations smaller, as its (new, old) on each image: both of references only.
    silent: images on which nothing has relevance, since the unit does not answer to them at all, and plain: the values
    without relevance; only of a picture in the making, and only where there are such images.
    """

    values: Mapping[str, Values]
    peaks: Mapping[str, Float[Tensor, "batch channels"]] | None = None
    activation: Float[Tensor, " batch"] | None = None
    shrinkage: Mapping[str, Float[Tensor, "batch 2"]] | None = None
    silent: Bool[Tensor, " batch"] | None = None
    plain: Mapping[str, Values] | None = None


class FeatureReader:
    """Turns normalised images into what is matched.

    relevance: None matches activations as they are (tokens with the class token); otherwise activation times
    relevance of the image's unit, the relevance a constant (paper, section 3.3; on tokens: the patches).
    scaled: the authors' way: relevance min-max scaled to [0, 1] over space, for each image and channel.
    """

    def __init__(
        self, encoder: Encoder, layers: Sequence[str], relevance: Relevance | None = None, *, scaled: bool = False
    ) -> None:
        self.encoder, self.layers, self.relevance, self.scaled = encoder, tuple(layers), relevance, scaled
        self._attributors: dict[tuple[Unit, ...], Attributor] = {}

    def __call__(self, images: Tensor, units: Sequence[Unit]) -> LayerFeatures:
        """Read a batch of normalised images with the graph to them. units: of each image."""
        return self._read(images, units, {"layers": self.layers})

    def reference(self, images: Tensor, unit: Unit) -> LayerFeatures:
        """Read a batch of references of one unit: without a graph, and with the unit's value."""
        wanted = required_outputs([unit])
        layers = [*self.layers, *(name for name in wanted.pop("layers") if name not in self.layers)]
        return self._read(images, [unit], {"layers": layers, **wanted}, references=True)

    def _read(
        self, images: Tensor, units: Sequence[Unit], wanted: Mapping[str, Any], *, references: bool = False
    ) -> LayerFeatures:
        if self.relevance is None:
            seen = self.encoder.observe(images, **wanted, gradients=not references)
            found = {name: flatten_values(seen.activations[name]) for name in self.layers}
            return LayerFeatures(found, None, compute_values(seen, units)[:, 0] if references else None)
        attributor = self._attributor(tuple(units))
        with attributor.recording():
            seen = self.encoder.observe(images, **_joined(wanted, attributor.needs), gradients=True)
        relevance = {name: maps.detach() for name, maps in attributor.relevance().items()}
        plain = {name: seen.activations[name].maps for name in self.layers}
        weighted = {
            name: maps * (scale_min_max(relevance[name]) if self.scaled else relevance[name])
            for name, maps in plain.items()
        }
        peaks = {name: relevance[name].amax((2, 3)) for name in self.layers}
        if not references:
            found = {name: maps.flatten(2) for name, maps in weighted.items()}
            silent = torch.stack([maps.flatten(1).any(1).logical_not() for maps in relevance.values()]).all(0)
            if not silent.any():
                return LayerFeatures(found, peaks)
            return LayerFeatures(
                found, peaks, silent=silent, plain={name: maps.flatten(2) for name, maps in plain.items()}
            )
        squares = {
            name: torch.stack([each.detach().square().mean((1, 2, 3)) for each in (maps, plain[name])], 1)
            for name, maps in weighted.items()
        }
        found = {name: maps.detach().flatten(2) for name, maps in weighted.items()}
        return LayerFeatures(found, peaks, compute_values(seen, units)[:, 0].detach(), squares)

    def _attributor(self, units: tuple[Unit, ...]) -> Attributor:
        distinct = units[:1] if len(set(units)) == 1 else units
        if distinct not in self._attributors:
            self._attributors[distinct] = make_attributor(
                self.encoder, distinct, self.layers, self.relevance or "lrp", start=_start(distinct)
            )
        return self._attributors[distinct]


def relevance_reaches(encoder: Encoder, unit: Unit, layers: Sequence[str], relevance: Relevance) -> bool:
    """Whether a relevance method gets from a unit to all of the layers of this network."""
    try:
        make_attributor(encoder, unit, layers, relevance, start=_start([unit]))
    except UsageError:
        return False
    return True


def _start(units: Sequence[Unit]) -> RelevanceStart:
    """Concepts, directions in a layer's channel space, start where an image is most like them (appendix B.3)."""
    return "argmax" if all(unit.kind == "direction" for unit in units) else "all"


def scale_min_max(
    relevance: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Scaled to [0, 1] over space, for each image and channel; 0 where it is flat."""
    low, high = relevance.amin((2, 3), keepdim=True), relevance.amax((2, 3), keepdim=True)
    return (relevance - low) / (high - low).clamp(min=torch.finfo(relevance.dtype).tiny)


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Encoder.observe`` is to be asked for, to serve both."""
    layers = list(dict.fromkeys([*one.get("layers", ()), *other.get("layers", ())]))
    flags = {name: bool(one.get(name) or other.get(name)) for name in ("features", "logits")}
    return {"layers": layers, **flags}
