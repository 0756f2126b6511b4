"""GradCAM: which part of an image a unit responds to, for many units of many images in one pass.

GradCAM weighs a layer's channels with the unit's mean gradient over the layer's map: ReLU(sum_c w_c A_c).

- Where a unit's value is linear in the spatial mean of a layer, w is the unit's own vector up to scale and no backward
  pass is needed: for feature i, ReLU(A_i). So it is for a channel, group or direction of a layer, at that layer, and
  for features and classes of networks that end in global average pooling, at the last stage.
- Otherwise w comes from a backward pass, to the last stage or block whose map has a gradient at all. In transformers
  that pool from the class token the last block's patch tokens have none, so it is the block before; the same for a unit
  of a class token. One backward pass serves one unit of every image of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.encoder.capture import RecordedOutput, draw_random_pixels, recording_outputs
from encoscope.errors import UsageError
from encoscope.units import Unit, compute_values, required_outputs, unit_weights

GradCamMethod: TypeAlias = Literal["closed form", "gradient"]


@dataclass(frozen=True)
class GradCamTarget:
    """Where the maps of a space's units are taken.

    Attributes:
        layer: The layer.
        method: "gradient" where a backward pass is needed, else "closed form".
    """

    layer: str
    method: GradCamMethod


class GradCam:
    """Computes GradCAMs of an encoder's units. The layer and the method of a space are chosen when first needed.

    Args:
        encoder: The encoder.
        method: None takes the closed form wherever it is exact; "gradient" takes a backward pass everywhere.
    """

    def __init__(self, encoder: Encoder, method: GradCamMethod | None = None) -> None:
        self.encoder = encoder
        self.method: GradCamMethod | None = method
        self._targets: dict[str, GradCamTarget] = {}

    def target(self, unit: Unit) -> GradCamTarget:
        """Choose the layer and the method for a unit.

        Args:
            unit: The unit.

        Returns:
            The same target for all units of a space.

        Raises:
            UsageError: Where no layer's map has a gradient.
        """
        space = unit.space
        if space not in self._targets:
            self._targets[space] = self._find(unit)
        return self._targets[space]

    def __call__(
        self, pixels: Float[Tensor, "batch channels height width"], units: Sequence[Sequence[Unit]]
    ) -> list[list[Float[Tensor, "rows columns"]]]:
        """Compute the maps of each image's own units.

        Args:
            pixels: A normalized batch.
            units: A list of units for each image, of any length.

        Returns:
            For each image a map of each unit, not negative, at the layer's resolution, on the CPU.

        Raises:
            UsageError: For another number of lists than of images.
        """
        if len(units) != len(pixels):
            raise UsageError(f"units of {len(units)} images were given for {len(pixels)} images")
        cams: list[list[Tensor]] = [[pixels.new_zeros(0)] * len(requested) for requested in units]
        items = [(image, index, unit) for image, requested in enumerate(units) for index, unit in enumerate(requested)]
        closed = [item for item in items if self.target(item[2]).method == "closed form"]
        if closed:
            self._closed(pixels, closed, cams)
        others: dict[str, list[tuple[int, int, Unit]]] = {}
        for item in items:
            target = self.target(item[2])
            if target.method == "gradient":
                others.setdefault(target.layer, []).append(item)
        for layer, members in others.items():
            self._gradient(pixels, layer, members, cams)
        return cams

    def _closed(self, pixels: Tensor, items: Sequence[tuple[int, int, Unit]], cams: list[list[Tensor]]) -> None:
        layers = list(dict.fromkeys(self.target(unit).layer for _, _, unit in items))
        seen = self.encoder.observe(pixels, layers).activations
        vectors: dict[Unit, Tensor] = {}
        for image, index, unit in items:
            maps = seen[self.target(unit).layer].maps[image]
            if unit.direction is None and unit.kind != "class":
                cam = maps[list(unit.channels)].sum(0)
            else:
                if unit not in vectors:
                    vectors[unit] = self._vector(unit).to(maps.device)
                cam = torch.einsum("c,chw->hw", vectors[unit], maps)
            cams[image][index] = cam.relu().cpu()

    def _vector(self, unit: Unit) -> Tensor:
        """A unit over the channels of its layer; classes are sums of rows of the linear head."""
        if unit.kind != "class":
            return unit_weights(unit, self.encoder)
        head = self.encoder.head
        if head is None:
            raise UsageError(f"{self.encoder.source} has no linear head: {unit.text} is no sum of channels")
        weight = head.weight.detach().float()
        if unit.direction is not None:
            return unit_weights(unit, self.encoder).to(weight) @ weight
        return weight[list(unit.channels)].sum(0)

    def _gradient(
        self, pixels: Tensor, layer: str, items: Sequence[tuple[int, int, Unit]], cams: list[list[Tensor]]
    ) -> None:
        units = list(dict.fromkeys(unit for _, _, unit in items))
        column = {unit: number for number, unit in enumerate(units)}
        output, measured = self._forward(pixels, layer, units)
        if output is None:
            raise UsageError(f"layer {layer!r} comes after {units[0].text}, or the network did not call it")
        canvas = (pixels.shape[2], pixels.shape[3])
        maps = self.encoder.as_activation(layer, output.value.detach(), canvas).maps
        waiting: dict[int, list[tuple[int, Unit]]] = {}
        for image, index, unit in items:
            waiting.setdefault(image, []).append((index, unit))
        for turn in range(max(map(len, waiting.values()))):
            now = [(image, *todo[turn]) for image, todo in waiting.items() if turn < len(todo)]
            # images do not touch each other, so one backward pass holds each image's own gradient
            total = torch.stack([measured[image, column[unit]] for image, _, unit in now]).sum()
            gradient = _gradient_of(total, output)
            slopes = self.encoder.as_activation(layer, gradient, canvas).maps.mean((2, 3))
            for image, index, _ in now:
                cams[image][index] = torch.einsum("c,chw->hw", slopes[image], maps[image]).relu().cpu()

    def _forward(self, pixels: Tensor, layer: str, units: Sequence[Unit]) -> tuple[RecordedOutput | None, Tensor]:
        """A layer's output in its own layout, and the units' values computed from it, with the graph between them.

        The output is None for a layer that comes after the units' own, which is where the forward pass ends.
        """
        first = next(self.encoder.module.parameters(), None)
        kind = None if first is None or not first.is_floating_point() else first.dtype
        leaf = pixels.detach().to(self.encoder.device, kind).requires_grad_()
        with recording_outputs(self.encoder.module, {layer: self.encoder.locate(layer)}) as recorded:
            seen = self.encoder.observe(leaf, **required_outputs(units), gradients=True)
        with torch.enable_grad():
            return recorded.get(layer), compute_values(seen, units)

    def _find(self, unit: Unit) -> GradCamTarget:
        own = unit.layer if unit.kind in ("channel", "group", "direction") else None
        if own is not None:
            return GradCamTarget(own, self.method or "closed form")
        pooled = None if self.method == "gradient" else self._pooled_layer(unit.kind)
        if pooled is not None:
            return GradCamTarget(pooled, "closed form")
        # the units of a space depend on the same layers before it: some of them stand for all
        width = {"token": lambda: self.encoder.layer(str(unit.layer)).channels, "features": lambda: self.encoder.width}
        count = width.get(unit.kind, lambda: self.encoder.outputs or 1)()
        units = [_replace(unit, channel) for channel in range(min(count, 8))]
        pixels = self._noise()
        for name in reversed(self.encoder.depths):
            output, measured = self._forward(pixels, name, units)
            if output is None:
                continue
            gradient = _gradient_of(measured.square().sum(), output)
            if self.encoder.as_activation(name, gradient, (pixels.shape[2], pixels.shape[3])).maps.any():
                return GradCamTarget(name, "gradient")
        raise UsageError(
            f"{unit.text}: no layer of {self.encoder.source} with a spatial map has a gradient for GradCAM"
        )

    def _pooled_layer(self, kind: str) -> str | None:
        """The last layer whose spatial mean the features are, if there is one (and logits are linear in them)."""
        head = self.encoder.head
        if kind == "token" or (kind == "class" and head is None):
            return None
        width, pixels = self.encoder.width, self._noise()
        names = [info.name for info in self.encoder.layers if info.channels == width]
        if not names:
            return None
        seen = self.encoder.observe(pixels, names, features=True)
        if seen.features is None:
            return None
        scale = seen.features.abs().max()
        for name in reversed(names):
            if torch.allclose(
                seen.activations[name].maps.mean((2, 3)), seen.features, rtol=1e-3, atol=1e-4 * float(scale)
            ):
                return name
        return None

    def _noise(self) -> Tensor:
        preprocess = self.encoder.preprocess
        first = next(self.encoder.module.parameters(), None)
        return draw_random_pixels(1, preprocess.channels, preprocess.size, first)


def _gradient_of(total: Tensor, output: RecordedOutput) -> Tensor:
    """The gradient at a layer's output; zeros where none reaches it."""
    if not total.requires_grad or output.edge is None:
        return torch.zeros_like(output.value)
    (gradient,) = torch.autograd.grad(total, [output.edge], retain_graph=True, allow_unused=True)
    return torch.zeros_like(output.value) if gradient is None else gradient


def _replace(unit: Unit, channel: int) -> Unit:
    return Unit(f"{unit.text}", unit.kind, unit.layer, (channel,))
