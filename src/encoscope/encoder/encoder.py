"""A frozen network as named layers of feature maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from math import ceil, log2
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.encoder import layouts
from encoscope.encoder.capture import Output, capture, draw_random_pixels, find_first_tensor, removing_hooks
from encoscope.encoder.digest import compute_digest, fingerprint_parameters
from encoscope.encoder.discovery import LayerDiscovery, discover, follows, output_tensor
from encoscope.encoder.execution import guarded, in_halves
from encoscope.encoder.types import Activation, LayerInfo, Observation
from encoscope.errors import EncoscopeError, UsageError, suggest_nearest
from encoscope.images import Batch, GeometryKind, LoadedImage, Preprocess, make_batch, read_image

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# A Batch, a normalised tensor [B, C, H, W], one image, or several (paths, arrays, PIL images, Photos).
Images: TypeAlias = Any


class Encoder:
    """Any ``nn.Module`` that maps a batch of images to features, with its preprocessing, layers and head.

    module: the network; it is only read: training flags, gradient flags and hooks are as before after every call.
    size: side, or (height, width), of the network's own input in pixels.
    mean, std: per channel, for values in [0, 1]; ImageNet's if left out.
    interpolation, crop: how images get to ``size``, see ``Preprocess``.
    channels: of the input. classes: names of the head's outputs, in order.
    device: where to run ("cpu", "cuda", ...); left out, where the module is. precision: "bf16" and "fp16" use autocast.
    forward: what to call instead of ``module(pixels)``, for networks whose own ``forward`` needs more than the pixels.
    classifier: False where a linear layer at the end is a projection (image-text towers), not a classifier.

    Nothing is run until it is needed; layers are found by one trial run.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        size: int | tuple[int, int] = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        interpolation: str = "bicubic",
        crop: float = 1.0,
        channels: int = 3,
        classes: Sequence[str] | None = None,
        source: str = "python",
        device: torch.device | str | None = None,
        precision: str = "fp32",
        forward: Callable[[Tensor], Output] | None = None,
        classifier: bool = True,
    ) -> None:
        if precision not in ("fp32", *_AUTOCAST):
            raise UsageError(f"precision is fp32, bf16 or fp16, not {precision!r}")
        self.module = module if device is None else module.to(device)
        self.preprocess = Preprocess(
            size=(size, size) if isinstance(size, int) else (size[0], size[1]),
            mean=_per_channel(mean, _IMAGENET_MEAN, channels, "mean"),
            std=_per_channel(std, _IMAGENET_STD, channels, "std"),
            interpolation=interpolation,
            crop=crop,
            channels=channels,
        )
        self.classes = None if classes is None else tuple(classes)
        self.source = source
        self.precision = precision
        self._forward = forward
        self._classifier = classifier
        self._digest: tuple[Any, str] | None = None

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return f"Encoder({self.source}, {type(self.module).__name__}, {height}x{width}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def digest(self) -> str:
        """sha256 (hex) of weights and preprocessing; the same on any device; follows changes made to the weights."""
        state = (fingerprint_parameters(self.module), self.preprocess)
        if self._digest is None or self._digest[0] != state:
            self._digest = (state, compute_digest(self.module, self.preprocess))
        return self._digest[1]

    @cached_property
    def _discovery(self) -> LayerDiscovery:
        size, channels = self.preprocess.size, self.preprocess.channels
        found = guarded(self.module, self.source, lambda: discover(self.module, size, channels, self._call))
        if self.classes is not None and found.outputs not in (None, len(self.classes)):
            raise UsageError(f"{len(self.classes)} class names were given for a network of {found.outputs} outputs")
        return found if self._classifier else replace(found, head=None)

    @property
    def layers(self) -> list[LayerInfo]:
        """All modules with a spatial output, in the network's order."""
        return [layer.info for layer in self._discovery.layers.values()]

    def layer(self, name: str) -> LayerInfo:
        """One layer by its ``named_modules()`` name; UsageError names the nearest ones."""
        found = self._discovery.layers.get(name)
        if found is not None:
            return found.info
        if name and name in dict(self.module.named_modules()):
            raise UsageError(f"layer {name!r} gives no spatial map{suggest_nearest(name, self._discovery.layers)}")
        raise UsageError(f"unknown layer {name!r}{suggest_nearest(name, self._discovery.layers)}")

    @property
    def depths(self) -> list[str]:
        """The layers that stand for its depths: the stages; the blocks where it keeps one grid; or the last layer."""
        for role in ("stage", "block"):
            names = [info.name for info in self.layers if info.role == role]
            if names:
                return names
        return [info.name for info in self.layers[-1:]]

    @property
    def head(self) -> nn.Linear | None:
        """The linear layer whose output is the network's output, if there is one."""
        name = self._discovery.head
        found = None if name is None else self.module.get_submodule(name)
        return found if isinstance(found, nn.Linear) else None

    @property
    def outputs(self) -> int | None:
        """Number of classes of the classification head; None for a network without one."""
        return self._discovery.outputs if self._classifies else None

    @cached_property
    def width(self) -> int:
        """Number of pooled features, the width of what ``features`` gives."""
        if self.head is not None:
            return self.head.in_features
        noise = draw_random_pixels(
            1, self.preprocess.channels, self.preprocess.size, next(self.module.parameters(), None)
        )
        return self.features(noise).shape[1]

    @cached_property
    def stride(self) -> int:
        """Sides of inputs of free size should be multiples of this: the patch size, or the coarsest stage's stride."""
        main = [layer for layer in self.layers if layer.role in ("stage", "block")] or self.layers
        strides = [side / cells for info in main for side, cells in zip(self.preprocess.size, info.grid, strict=True)]
        coarsest = max(strides, default=1.0)
        return int(coarsest) if coarsest.is_integer() else 2 ** ceil(log2(coarsest))

    @cached_property
    def resizable(self) -> bool:
        """Whether the network takes other sizes than its own, found by one trial run on an oblong input."""
        if not self.layers:
            return False
        last = [info for info in self.layers if info.role in ("stage", "block")][-1:] or self.layers[-1:]
        height, width = (_round_up(side, self.stride) for side in self.preprocess.size)
        layer = self._discovery.layers[last[0].name]
        return follows(self.module, layer, self.preprocess.channels, (height, width + self.stride), self._call)

    def prepare(
        self,
        images: Images,
        geometry: GeometryKind = "model",
        size: int | Literal["model", "native"] = "model",
    ) -> Batch:
        """The normalised batch of one or several images (paths, PIL images, arrays, tensors, Photos).

        geometry: "model", the network's own resize and centre crop; "whole", nothing cropped: the short side resized
            to ``size``, the aspect kept, sides padded to ``stride``; for networks that take one size only, squashed.
        """
        if isinstance(images, Batch):
            return images
        photos = [self._photo(image) for image in _as_list(images)]
        if not photos:
            raise UsageError("no images given")
        free = geometry == "whole" or size != "model"
        return make_batch(
            photos,
            self.preprocess,
            geometry=geometry,
            size=size,
            multiple=self.stride if free else 1,
            fixed=free and not self.resizable,
        )

    def observe(
        self,
        images: Images,
        layers: Sequence[str] | str = (),
        *,
        features: bool = False,
        logits: bool = False,
        gradients: bool = False,
    ) -> Observation:
        """What one forward pass shows: the outputs of some layers, the pooled features, the logits.

        images: a Batch, a normalised tensor [B, C, H, W], or what ``prepare`` takes. layers: names, in any order.
        gradients: keep the graph, so that what is returned can be differentiated with respect to ``images``, a
            normalised tensor; the whole batch must then fit the memory.
        The pass ends after the last layer if neither features nor logits are asked for. Raises UsageError for unknown
        layers, and for logits of a network without a classification head; EncoscopeError for NaN or infinite
        activations and for a forward pass that fails.
        """
        wanted = {self.layer(name).name for name in ([layers] if isinstance(layers, str) else layers)}
        if not (wanted or features or logits):
            raise UsageError("no layers given")
        if logits and not self._classifies:
            raise UsageError(f"{self.source} has no classification head, so there are no logits: use features")
        if gradients and not (isinstance(images, Tensor) and images.ndim == 4):
            raise UsageError("gradients need a normalised tensor [batch, channels, height, width]: see prepare")
        found = {name: layer for name, layer in self._discovery.layers.items() if name in wanted}
        calls = {name: layer.calls for name, layer in found.items()}

        def run(pixels: Tensor) -> Observation:
            with self._head_input(features) as taken:
                kept, output = capture(self.module, pixels, calls, stop=not (features or logits), forward=self._call)
            canvas = (pixels.shape[2], pixels.shape[3])
            answer = output_tensor(output) if logits else None
            return Observation(
                {name: self._read(name, kept.get(name), canvas) for name in found},
                _full(taken[-1].flatten(1) if taken else _pooled(output)) if features else None,
                None if answer is None else _full(answer),
            )

        pixels = self._pixels(images)
        if gradients:
            return guarded(self.module, self.source, lambda: run(pixels), gradients=True)
        return _join(in_halves(lambda part: guarded(self.module, self.source, lambda: run(part)), pixels))

    def activations(self, images: Images, layers: Sequence[str] | str) -> dict[str, Activation]:
        """The outputs of some layers, as {name: Activation} in the network's order; see ``observe``."""
        return self.observe(images, layers).activations

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """The pooled representation: what the linear head takes; without a head, the output, or its mean over space."""
        found = self.observe(images, features=True).features
        assert found is not None  # asked for
        return found

    def logits(self, images: Images) -> Float[Tensor, "batch classes"]:
        """The head's outputs, before any softmax. Raises UsageError when the network has no classification head."""
        found = self.observe(images, logits=True).logits
        assert found is not None  # a classifying network's output, seen in the trial run
        return found

    @contextmanager
    def _head_input(self, wanted: bool) -> Iterator[list[Tensor]]:
        """Keeps what goes into the linear head during the block; nothing for a network without one."""
        taken: list[Tensor] = []
        name = self._discovery.head
        with removing_hooks([]) as handles:
            if wanted and name is not None:
                head = self.module.get_submodule(name)
                handles.append(head.register_forward_pre_hook(lambda _module, args: taken.append(args[0])))
            yield taken

    @property
    def _classifies(self) -> bool:
        outputs = self._discovery.outputs
        if outputs is None or not self._classifier:
            return False
        stated = getattr(self.module, "num_classes", None)
        return (
            self._discovery.head is not None
            or stated == outputs
            or (self.classes is not None and len(self.classes) == outputs)
        )

    def _call(self, pixels: Tensor) -> Output:
        forward = self._forward or self.module
        if self.precision == "fp32":
            return forward(pixels)
        with torch.autocast(pixels.device.type, dtype=_AUTOCAST[self.precision]):
            return forward(pixels)

    def _photo(self, image: Any) -> LoadedImage:
        return image if isinstance(image, LoadedImage) else read_image(image, channels=self.preprocess.channels)

    def _pixels(self, images: Images) -> Tensor:
        ready = isinstance(images, Tensor) and images.ndim == 4
        pixels = images if ready else self.prepare(images).pixels
        first = next(self.module.parameters(), None)
        return pixels if first is None else pixels.to(first.device, first.dtype if first.is_floating_point() else None)

    def as_activation(self, layer: str, output: Tensor, canvas: tuple[int, int]) -> Activation:
        """A layer's raw output, or a gradient of its shape, for images of ``canvas`` (height, width) pixels."""
        return self._read(self.layer(layer).name, output, canvas)

    def _read(self, name: str, output: Tensor | None, canvas: tuple[int, int]) -> Activation:
        layer = self._discovery.layers[name]
        found = None if output is None else layouts.read(output, layer.layout, canvas)
        if found is None:
            shape = "nothing" if output is None else f"shape {tuple(output.shape)}"
            raise UsageError(
                f"layer {name!r} gives no spatial map for input of {canvas[0]}x{canvas[1]} (it put out {shape})"
            )
        found = Activation(_full(found.maps), None if found.prefix is None else _full(found.prefix))
        if not torch.isfinite(found.maps.detach().sum()) and not torch.isfinite(found.maps).all():
            raise EncoscopeError(
                f"layer {name!r} gives NaN or infinite activations: check the weights, or use precision fp32"
            )
        return found


def _full(values: Tensor) -> Tensor:
    """In single precision, or in double where the network computes in that."""
    return values if values.dtype == torch.float64 else values.float()


def _as_list(images: Images) -> list[Any]:
    if isinstance(images, (str, os.PathLike, LoadedImage)) or (
        isinstance(images, (np.ndarray, Tensor)) and images.ndim < 4
    ):
        return [images]
    try:
        return list(images)
    except TypeError:  # one PIL image
        return [images]


def _join(parts: list[Observation]) -> Observation:
    """The observations of a batch's parts as one."""
    if len(parts) == 1:
        return parts[0]
    activations = {}
    for name in parts[0].activations:
        several = [part.activations[name] for part in parts]
        activations[name] = Activation(
            torch.cat([part.maps for part in several]), _cat([part.prefix for part in several])
        )
    return Observation(activations, _cat([part.features for part in parts]), _cat([part.logits for part in parts]))


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _pooled(output: Output) -> Tensor:
    """[B, r] of a network without a head: its 2-D output, the pooler's, the class token, or the mean over space."""
    pooled = output.get("pooler_output") if isinstance(output, dict) else None
    tensor = pooled if isinstance(pooled, Tensor) else find_first_tensor(output)
    if tensor is None:
        raise EncoscopeError(f"the network's output, {type(output).__name__}, holds no tensor")
    if tensor.ndim == 4:
        return tensor.mean((2, 3))
    if tensor.ndim == 3:
        return tensor[:, 0]
    return tensor.flatten(1)


def _per_channel(
    values: Sequence[float] | None, imagenet: tuple[float, ...], channels: int, name: str
) -> tuple[float, ...]:
    """One number a channel; ImageNet's three, or their mean for any other number of channels, if none were given."""
    if values is None or (len(values) == 3 and channels != 3):
        values = imagenet if values is None else values
        return tuple(values) if channels == 3 else (round(sum(values) / 3, 6),) * channels
    if len(values) not in (1, channels):
        raise UsageError(f"{name} has {len(values)} values for {channels} channels")
    return tuple(float(value) for value in values) * (channels if len(values) == 1 else 1)


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
