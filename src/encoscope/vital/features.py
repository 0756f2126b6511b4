"""What of an image is matched: the values of some layers, multiplied by relevance where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoscope.encoder import Encoder, Observation
from encoscope.relevance import Attributor, make_attributor
from encoscope.relevance.targets import RelevanceStart
from encoscope.units import Unit, compute_values, required_outputs, unit_weights
from encoscope.vital.matching import Values, flatten_values
from encoscope.vital.recipes import OWN
from encoscope.vital.settings import Relevance


@dataclass(frozen=True)
class LayerFeatures:
    """What is matched of a batch of images.

    Attributes:
        values: The values by layer.
        peaks: The spatial maximum of each channel's relevance, by layer; None without relevance.
        activation: The unit's value on each image; of references only.
        shrinkage: For each layer and image, the mean square of the values with relevance and of those without; of
            references only.
        silent: Images on which nothing has relevance, since the unit does not respond to them; None where there are
            none, and for references.
        plain: The values without relevance, where ``values`` are with it; None for references.
    """

    values: Mapping[str, Values]
    peaks: Mapping[str, Float[Tensor, "batch channels"]] | None = None
    activation: Float[Tensor, " batch"] | None = None
    shrinkage: Mapping[str, Float[Tensor, "batch 2"]] | None = None
    silent: Bool[Tensor, " batch"] | None = None
    plain: Mapping[str, Values] | None = None


class FeatureReader:
    """Turns normalized images into what is matched.

    Args:
        encoder: The encoder.
        layers: The layers that are matched.
        relevance: None matches activations as they are (tokens with the class token). Otherwise they are multiplied by
            the relevance of the image's unit, which counts as a constant; of tokens, only the patches have one.
        scaled: Scale relevance to [0, 1] over space, for each image and channel, as the authors do.
        own: Also read the unit's own map, by the name ``OWN``; of a unit without a map its value.

    Source: VITAL, section 3.3.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[str],
        relevance: Relevance | None = None,
        *,
        scaled: bool = False,
        own: bool = False,
    ) -> None:
        self.encoder, self.layers, self.relevance, self.scaled = encoder, tuple(layers), relevance, scaled
        self.own = own
        self._attributors: dict[tuple[Unit, ...], Attributor] = {}

    def __call__(self, images: Tensor, units: Sequence[Unit]) -> LayerFeatures:
        """Read a batch of normalized images, with the graph to them.

        Args:
            images: ``[batch, channels, height, width]``.
            units: The unit of each image.

        Returns:
            What is matched of them.
        """
        outputs: dict[str, Any] = {"layers": self.layers}
        return self._read(images, units, _join_outputs(outputs, required_outputs(units)) if self.own else outputs)

    def read_references(self, images: Tensor, unit: Unit) -> LayerFeatures:
        """Read a batch of references of one unit, without a graph.

        Args:
            images: ``[batch, channels, height, width]``, normalized.
            unit: The unit.

        Returns:
            What is matched of them, with the unit's value and the shrinkage.
        """
        outputs = required_outputs([unit])  # the unit's own layer among them
        layers = [*self.layers, *(name for name in outputs.pop("layers") if name not in self.layers)]
        return self._read(images, [unit], {"layers": layers, **outputs}, references=True)

    def _read(
        self, images: Tensor, units: Sequence[Unit], outputs: Mapping[str, Any], *, references: bool = False
    ) -> LayerFeatures:
        if self.relevance is None:
            seen = self.encoder.observe(images, **outputs, gradients=not references)
            values = {name: flatten_values(seen.activations[name]) for name in self.layers}
            values |= self._read_own(seen, units, len(images))
            return LayerFeatures(values, None, compute_values(seen, units)[:, 0] if references else None)
        attributor = self._attributor(tuple(units))
        with attributor.recording():
            seen = self.encoder.observe(images, **_join_outputs(outputs, attributor.needs), gradients=True)
        relevance = {name: maps.detach() for name, maps in attributor.relevance().items()}
        plain = {name: seen.activations[name].maps for name in self.layers}
        weighted = {
            name: maps * (scale_min_max(relevance[name]) if self.scaled else relevance[name])
            for name, maps in plain.items()
        }
        peaks = {name: relevance[name].amax((2, 3)) for name in self.layers}
        own = self._read_own(seen, units, len(images))
        if not references:
            values = {name: maps.flatten(2) for name, maps in weighted.items()} | own
            silent = torch.stack([maps.flatten(1).any(1).logical_not() for maps in relevance.values()]).all(0)
            flat = {name: maps.flatten(2) for name, maps in plain.items()}
            return LayerFeatures(values, peaks, silent=silent if silent.any() else None, plain=flat)
        squares = {
            name: torch.stack([each.detach().square().mean((1, 2, 3)) for each in (maps, plain[name])], 1)
            for name, maps in weighted.items()
        }
        values = {name: maps.detach().flatten(2) for name, maps in weighted.items()}
        values |= {name: maps.detach() for name, maps in own.items()}
        return LayerFeatures(values, peaks, compute_values(seen, units)[:, 0].detach(), squares)

    def _read_own(self, seen: Observation, units: Sequence[Unit], count: int) -> dict[str, Values]:
        """The map of each image's unit, ``[batch, 1, positions]``; of a unit without a map its value."""
        if not self.own:
            return {}
        if not all(_has_map(unit) for unit in units):
            columns = compute_values(seen, units)
            own = columns if len(units) == 1 else columns.diagonal()[:, None]
            return {OWN: own[:, :, None]}
        maps = [seen.activations[str(unit.layer)].maps for unit in units]
        rows = [unit_weights(unit, self.encoder).to(each) for unit, each in zip(units, maps, strict=True)]
        if len(units) == 1:
            return {OWN: torch.einsum("c,bchw->bhw", rows[0], maps[0]).flatten(1)[:, None]}
        each = [
            torch.einsum("c,chw->hw", row, map_[index]).flatten()
            for index, (row, map_) in enumerate(zip(rows, maps, strict=True))
        ]
        return {OWN: torch.stack(each)[:, None]}

    def _attributor(self, units: tuple[Unit, ...]) -> Attributor:
        distinct = units[:1] if len(set(units)) == 1 else units
        if distinct not in self._attributors:
            self._attributors[distinct] = make_attributor(
                self.encoder, distinct, self.layers, self.relevance or "lrp", start=_start(distinct)
            )
        return self._attributors[distinct]


def check_relevance(encoder: Encoder, unit: Unit, layers: Sequence[str], relevance: Relevance) -> str:
    """Check by a trial run that a relevance method gets from a unit to all of some layers of this network.

    Args:
        encoder: The encoder.
        unit: The unit.
        layers: The layers.
        relevance: The method.

    Returns:
        What a reader of the result has to know of the method; empty for the paper's.

    Raises:
        UsageError: If it does not, saying why.
    """
    return make_attributor(encoder, unit, layers, relevance, start=_start([unit])).note


def scale_min_max(
    relevance: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Scale relevance to [0, 1] over space, for each image and channel.

    Args:
        relevance: The relevance.

    Returns:
        The scaled relevance; 0 where it is flat.
    """
    low, high = relevance.amin((2, 3), keepdim=True), relevance.amax((2, 3), keepdim=True)
    return (relevance - low) / (high - low).clamp(min=torch.finfo(relevance.dtype).tiny)


def _has_map(unit: Unit) -> bool:
    return unit.layer is not None and unit.kind != "token" and unit.is_spanned


def _start(units: Sequence[Unit]) -> RelevanceStart:
    """Concepts, directions in a layer's channel space, start where an image is most like them (appendix B.3)."""
    return "argmax" if all(unit.kind == "direction" for unit in units) else "all"


def _join_outputs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Encoder.observe`` is to give so that it serves both."""
    layers = list(dict.fromkeys([*first.get("layers", ()), *second.get("layers", ())]))
    flags = {name: bool(first.get(name) or second.get(name)) for name in ("features", "logits")}
    return {"layers": layers, **flags}
