"""An encoder: a frozen network with named layers, whose outputs are read as feature maps."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import ceil, log2
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.computation import describe_computation
from encoscope.counting import count_noun
from encoscope.defaults import PRECISION
from encoscope.encoder import layouts
from encoscope.encoder.capture import OutputLocation, capture, draw_random_pixels, removing_hooks
from encoscope.encoder.containers import ModuleOutput, find_first_tensor
from encoscope.encoder.digest import compute_digest, fingerprint_parameters
from encoscope.encoder.discovery import LayerDiscovery, discover_layers, follows_input_size
from encoscope.encoder.display import encoder_to_html
from encoscope.encoder.execution import run_guarded, run_in_halves
from encoscope.encoder.inner_normalization import find_inner_normalization
from encoscope.encoder.input_channels import find_input_channels, spread_over_channels
from encoscope.encoder.layouts import TokenLayout
from encoscope.encoder.lock import held_property, hold_module
from encoscope.encoder.outputs import OutputChoice, choose_output, pool_output, refuse_detections
from encoscope.encoder.reset import UntrainedMaker
from encoscope.encoder.roles import module_of
from encoscope.encoder.trial import TrialRun, list_hooks, list_settings, run_trial
from encoscope.encoder.types import CLASS_ORDERS, Activation, ClassOrder, LayerInfo, Observation, join_observations
from encoscope.encoder.wrappers import check_module, unwrap_module
from encoscope.errors import EncoscopeError, UsageError, suggest_nearest
from encoscope.images import Batch, GeometryKind, LoadedImage, Preprocess, make_batch, read_image
from encoscope.images.resize import check_interpolation
from encoscope.images.stated import StatedPreprocess, check_normalization, read_numbers, read_size
from encoscope.images.trial import describe_assumption

_log = logging.getLogger("encoscope")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_RANDOM = (
    "{} gives other outputs each time for the same image (dropout or noise that stays on in evaluation mode?): "
    "results cannot be repeated, and nothing is cached"
)

Images: TypeAlias = Any
"""A Batch, a normalized tensor [B, C, H, W], one image, or several (paths, arrays, PIL images, LoadedImages)."""


class Encoder:
    """A network that maps a batch of images to features, with its preprocessing, its layers and its head.

    The network is not run before a result is needed. Its layers are found by one trial run on random pixels. Its
    training flags, gradient flags and hooks are the same after every call as before it. Several threads may use one
    encoder: they take turns in the network, and each gets what it would get alone.

    Attributes:
        record: What was decided about the network beside its source and digest, of plain values: under "weights" what
            a checkpoint was missing, and so on. Result documents keep it with the model.

    Args:
        module: The network.
        size: The side, or (height, width), of the network's own input in pixels. 224 is the usual size of networks
            trained on ImageNet.
        mean: The mean of each channel, or one for all, for values in [0, 1]; None takes ImageNet's.
        std: The standard deviation of each channel, or one for all, for values in [0, 1]; None takes ImageNet's.
        interpolation: How images are resized: "bicubic", "bilinear", "nearest" or "lanczos".
        crop: The share of the resized image's short side that the centre crop keeps, in (0, 1]; see ``Preprocess``.
        channels: Number of channels of the input; None takes that of the network's first convolution, or, where that
            is not 1 or 3, what a trial shows.
        bands: Which bands of an image are the network's channels, numbered from 1; None takes images of as many
            channels, or grey and color.
        classes: The names of the head's outputs, in order; None if they have no names.
        class_order: How labels that are no class names stand for classes: "numeric" or "text", the labels in this order
            are the classes; "index", the numbers in them are the classes' indices; "none", they stand for no class.
            None refuses labels that could be read in several ways.
        source: Where the network comes from, as results and messages name it.
        device: Where the network runs ("cpu", "cuda", ...); None leaves it where it is.
        precision: Of the forward pass: "fp32", or "bf16" or "fp16", which use autocast.
        forward: A function to call in place of ``module(pixels)``, for a network whose own ``forward`` needs more than
            the pixels.
        classifier: False if a linear layer at the end is a projection, as in image-text models, and not a classifier.
        logits: Which of the network's outputs are the logits, if it gives several: a name, an index, or both with dots
            between them ("heads.0"). None takes the one that is certain, if one is.
        untrained: A function without arguments that returns the same network with random weights, or an Encoder of it,
            for controls. None draws them by the ``reset_parameters`` of the network's modules.
        token_layout: Where the patch tokens stand in the network's sequences, if that cannot be found: a TokenLayout,
            or ((rows, columns), prefix). None has it found, by trial runs on images that differ in parts.

    Raises:
        UsageError: For an unknown precision, order of classes or interpolation, and for ``mean`` or ``std`` of another
            length than ``channels`` or outside [0, 1].

    Attributes:
        preprocess: How images are brought to its input.
        preprocess_notes: What is to be known about that: whether it is assumed or stated, and whether the network
            normalizes its input itself. Results record these lines.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        >>> encoder = Encoder(network, size=32)
        >>> [(layer.name, layer.channels, layer.grid) for layer in encoder.layers]
        [('0', 8, (8, 8)), ('1', 8, (8, 8))]
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        size: int | tuple[int, int] = 224,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: str = "bicubic",
        crop: float = 1.0,
        channels: int | None = None,
        bands: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        class_order: ClassOrder | None = None,
        source: str = "python",
        device: torch.device | str | None = None,
        precision: str = PRECISION,
        forward: Callable[[Tensor], ModuleOutput] | None = None,
        classifier: bool = True,
        logits: str | int | None = None,
        untrained: UntrainedMaker | None = None,
        token_layout: TokenLayout | tuple[tuple[int, int], int] | None = None,
    ) -> None:
        if precision not in ("fp32", *_AUTOCAST):
            raise UsageError(f"precision is fp32, bf16 or fp16, not {precision!r}")
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"Encoder takes a torch.nn.Module, not {type(module).__name__}: encoscope.load loads a source string"
            )
        module = unwrap_module(module)
        check_module(module, source)
        sides, mean, std = read_size(size), read_numbers(mean, "mean"), read_numbers(std, "std")
        module = module if device is None else module.to(device)
        channels = find_input_channels(module, sides, forward) if channels is None else channels
        check_normalization(() if mean is None else mean, () if std is None else std)
        check_interpolation(interpolation)
        self.module = module
        self.preprocess = Preprocess(
            size=sides,
            mean=spread_over_channels(mean, _IMAGENET_MEAN, channels, "mean"),
            std=spread_over_channels(std, _IMAGENET_STD, channels, "std"),
            interpolation=interpolation,
            crop=crop,
            channels=channels,
        )
        self.classes = None if classes is None else tuple(classes)
        self.source = source
        self.precision = precision
        self.record: dict[str, Any] = {}
        self.class_order = class_order
        self._forward = forward
        self._classifier = classifier
        self._requested_logits = None if logits is None else str(logits)
        self._make_untrained = untrained
        self._origin: tuple[str, bool] | None = None  # source and trust, where ``load`` made the encoder
        self.token_layout: TokenLayout | None = None
        if token_layout is not None:
            self.state_token_layout(token_layout)
        self._digest: tuple[Any, str] | None = None
        self.preprocess_notes: tuple[str, ...] = ()
        self._stated: tuple[str, ...] = ()
        if bands is not None:
            self.state_preprocess(StatedPreprocess(bands=bands))
        if mean is None and std is None:  # a choice of the caller, so recorded without a warning
            self.preprocess_notes = (describe_assumption(source, "the usual settings", self.preprocess),)
        self._trial: tuple[Any, TrialRun] | None = None
        self._warned = False

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return f"Encoder({self.source}, {type(self.module).__name__}, {height}x{width}, {self.device})"

    def _repr_html_(self) -> str:
        """For notebooks: source, digest if it is known already, preprocessing, and the layers but the inner ones."""
        return encoder_to_html(self, self._known_digest())

    @property
    def device(self) -> torch.device:
        """The device that holds the network's weights."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def class_order(self) -> ClassOrder | None:
        """How labels that are no class names stand for classes, as the user states it; results record it."""
        return self._class_order

    @class_order.setter
    def class_order(self, order: ClassOrder | None) -> None:
        if order is not None and order not in CLASS_ORDERS:
            raise UsageError(f"class_order is one of {', '.join(CLASS_ORDERS)}, not {order!r}")
        self._class_order: ClassOrder | None = order
        self.record.pop("class_order", None)
        self.record |= {} if order is None else {"class_order": order}

    @property
    def digest(self) -> str:
        """The sha256 (hex) of weights, preprocessing and what the modules compute; the same on any device.

        What the user stated about the logits and the tokens is part of it, too.
        """
        state = self._digest_state()
        if self._digest is None or self._digest[0] != state:
            reading: dict[str, Any] = {"classifier": self._classifier}
            if self._requested_logits is not None:  # other features and logits from the same weights
                reading["logits"] = self._requested_logits
            if self.token_layout is not None:
                reading["token_layout"] = self.token_layout.as_dict()
            self._digest = (state, compute_digest(self.module, self.preprocess, state[-1], reading))
        return self._digest[1]

    def _digest_state(self) -> tuple[Any, ...]:
        """Changes with whatever changes the digest, and costs little."""
        also = () if self._forward is None else (self._forward,)
        computation = describe_computation(self.module, *also)
        stated = (self._requested_logits, self.token_layout)
        return fingerprint_parameters(self.module), self.preprocess, stated, computation

    def _known_digest(self) -> str | None:
        """The digest if it was computed for the present weights, else None."""
        return self._digest[1] if self._digest is not None and self._digest[0] == self._digest_state() else None

    def trial(self, layers: Sequence[str] = ()) -> TrialRun:
        """Run the network twice on two seeded inputs, once for the present weights: what caches keep and compare.

        A network that gives another output each time is named in a warning.

        Args:
            layers: Names of layers whose outputs are kept, beside features and logits.

        Returns:
            Its outputs for the two inputs.

        Raises:
            UsageError: For unknown layers.
            EncoscopeError: For a forward pass that fails.
        """
        settings = (list_hooks(self.module), list_settings(self.module))
        state = (self._digest_state(), self.precision, self.device, settings)
        known = None if self._trial is None or self._trial[0] != state else self._trial[1]
        if known is None or not set(layers) <= known.outputs.keys():
            before = [name for name in known.outputs if name in self._discovery.layers] if known else self.depths
            with hold_module(self.module):
                trial = run_trial(self, list(dict.fromkeys([*before, *layers])))
            if trial.random and not self._warned:
                self._warned = True
                _log.warning("%s", _RANDOM.format(self.source))
            self._trial = (state, trial)
            known = trial
        return known.select(layers)

    def warn_if_random(self) -> None:
        """Try the network if that was not done yet: one that gives another output each time is named in a warning."""
        if self._trial is None:
            self.trial()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every result of this network should say of it, one line each; usually nothing."""
        return (_RANDOM.format(self.source),) if self.trial().random else ()

    @held_property
    def _discovery(self) -> LayerDiscovery:
        size, channels = self.preprocess.size, self.preprocess.channels
        result = run_guarded(
            self.module,
            self.source,
            lambda: discover_layers(self.module, size, channels, self._call, self.token_layout),
            hint=f" (tried with {count_noun(channels, 'channel')} of {size[0]}x{size[1]} pixels: if the network takes "
            "other images, state size and channels of Encoder, on the command line --input-size)",
        )
        self._note_inner_normalization()
        if self.classes is not None and result.outputs not in (None, len(self.classes)):
            _ = self._choice  # where it gives several outputs, another one may have as many values as there are classes
        return result

    @held_property
    def _choice(self) -> OutputChoice:
        """Which of the outputs are the logits."""
        stated = getattr(self.module, "num_classes", None)
        count = stated if isinstance(stated, int) and stated > 0 else None
        choice = run_guarded(
            self.module,
            self.source,
            lambda: choose_output(
                self.module,
                self.preprocess.size,
                self.preprocess.channels,
                self._call,
                source=self.source,
                classes=count if self.classes is None else len(self.classes),
                requested=self._requested_logits,
            ),
        )
        if self.classes is not None and choice.width not in (None, len(self.classes)):
            raise UsageError(f"{len(self.classes)} class names were given for a network of {choice.width} outputs")
        if choice.reason:
            self.record |= {"logits": {"output": choice.key, "reason": choice.reason}}
            if self._requested_logits is None and self._classifier:
                _log.warning(
                    "%s gives several outputs, %s: %s is taken as logits, because %s (--logits takes another)",
                    self.source,
                    choice.describe_candidates(),
                    choice.key,
                    choice.reason,
                )
        return choice if self._classifier else replace(choice, head=None)

    def choose_logits(self, output: str | int | None) -> None:
        """Say which of the network's outputs are the logits.

        Args:
            output: As ``logits`` of the constructor.
        """
        self._requested_logits = None if output is None else str(output)
        self.record.pop("logits", None)
        for name in ("_choice", "width"):  # what was found before
            self.__dict__.pop(name, None)

    def explain_missing_logits(self) -> str:
        """Say why there are no logits: no classification head, or several outputs that could be meant."""
        choice = self._choice
        if choice.key is not None or not self._classifier:
            return f"{self.source} has no classification head, so there are no classes and no logits: use features"
        key = next(iter(choice.candidates))
        return (
            f"{self.source} gives several outputs that could be the logits: {choice.describe_candidates()}; "
            f"say which with --logits, such as --logits {key} (logits={key!r})"
        )

    def state_preprocess(self, stated: StatedPreprocess) -> None:
        """Replace what the user states of the preprocessing.

        Args:
            stated: What the user states.

        Raises:
            UsageError: For another number of values than the network has channels.
        """
        self.preprocess = stated.apply(self.preprocess)
        self._stated = stated.names

    def record_preprocess(self) -> dict[str, Any]:
        """Give the preprocessing for a result document: its fields, what the user stated, and the notes on it."""
        fields = self.preprocess.as_dict().items()
        record = {name: list(value) if isinstance(value, tuple) else value for name, value in fields}
        record |= {"stated": list(self._stated)} if self._stated else {}
        return record | ({"notes": list(self.preprocess_notes)} if self.preprocess_notes else {})

    def _note_preprocess(self, note: str) -> None:
        """Say something about the preprocessing once, and keep it for the records."""
        if note not in self.preprocess_notes:
            self.preprocess_notes = (*self.preprocess_notes, note)
            _log.warning("%s", note)

    def _note_inner_normalization(self) -> None:
        """Say if the network normalizes its input itself, so that it is normalized twice."""
        own = self.preprocess
        inner = find_inner_normalization(self.module, own.channels, own.size, self._call)
        if inner is None or (set(own.unit_mean) == {0.0} and set(own.unit_std) == {1.0}):
            return
        advice = "so mean and std make no difference" if not inner.mean else "so they are normalized twice"
        cure = "" if not inner.mean else ": state mean 0 and std 1 (--mean 0 --std 1) if it takes pixels from 0 to 1"
        self._note_preprocess(f"{self.source} normalizes images itself ({inner}), {advice}{cure}")

    @property
    def layers(self) -> list[LayerInfo]:
        """All modules with a spatial output, in the order in which the network runs them."""
        return [layer.info for layer in self._discovery.layers.values()]

    def layer(self, name: str) -> LayerInfo:
        """Describe one layer.

        Args:
            name: Its name in ``module.named_modules()``.

        Returns:
            The layer's name, kind, channels, grid, prefix tokens and role.

        Raises:
            UsageError: For an unknown layer, and for one without a spatial output. The message names similar layers.
        """
        layer = self._discovery.layers.get(name)
        if layer is not None:
            return layer.info
        several = [other for other in self._discovery.layers if other != name and module_of(other) == name]
        if several:
            raise UsageError(f"{name!r} gives {len(several)} maps: name one of them, {', '.join(several)}")
        count = self._discovery.unplaced.get(name)
        if count is not None:
            raise UsageError(
                f"layer {name!r} gives {count} tokens, and where they lie on the image could not be found: "
                "state it with token_layout (on the command line --grid HxW --prefix N)"
            )
        if name and name in dict(self.module.named_modules()):
            raise UsageError(f"layer {name!r} has no spatial output{suggest_nearest(name, self._discovery.layers)}")
        raise UsageError(f"unknown layer {name!r}{suggest_nearest(name, self._discovery.layers)}")

    def state_token_layout(self, layout: TokenLayout | tuple[tuple[int, int], int]) -> None:
        """State where the patch tokens stand, in place of what trial runs find.

        Args:
            layout: A TokenLayout, or ((rows, columns), prefix).

        Raises:
            UsageError: For a layout that cannot be.
        """
        self.token_layout = TokenLayout.make(layout)
        self.record["token_layout"] = self.token_layout.as_dict()
        for name in ("_discovery", "width", "stride", "resizable"):  # what was found before
            self.__dict__.pop(name, None)

    def locate(self, name: str) -> OutputLocation:
        """Find where in a forward pass a layer's tensor is found.

        Args:
            name: The layer's name.

        Returns:
            The module, which of its calls, and which of its outputs.

        Raises:
            UsageError: As ``layer``.
        """
        return self._discovery.layers[self.layer(name).name].location

    def order_tokens(self, name: str, canvas: tuple[int, int], count: int) -> tuple[tuple[int, int], list[int]]:
        """Find where the tokens of a layer lie.

        Args:
            name: The name of a layer of tokens.
            canvas: (height, width) of the network's input in pixels.
            count: Number of tokens.

        Returns:
            The grid (rows, columns), and the positions of the tokens: first those that belong to no cell, then those of
            the cells in row-major order.

        Raises:
            UsageError: As ``layer``, and for a layer that does not give so many tokens.
        """
        layout = self._discovery.layers[self.layer(name).name].layout
        (rows, columns), order = layout.grid_at(canvas), layout.order_at(canvas, count)
        if order is None:
            raise UsageError(
                f"layer {name!r} has {layout.prefix} tokens beside a grid of {rows} x {columns}, not {count} tokens"
            )
        return (rows, columns), order

    @property
    def unplaced(self) -> dict[str, int]:
        """Modules that give tokens of parts of the image in a layout that could not be found, with their numbers."""
        return dict(self._discovery.unplaced)

    @property
    def depths(self) -> list[str]:
        """The names of the layers that stand for the network's depths.

        They are its stages; its blocks, if it has one grid throughout; or else its last layer. UsageError if blocks
        come after them whose tokens have a layout that could not be found.
        """
        names: list[str] = []
        for role in ("stage", "block"):
            names = names or [info.name for info in self.layers if info.role == role]
        names = names or [info.name for info in self.layers[-1:]]
        if self._discovery.unplaced_blocks:
            block, count = self._discovery.unplaced_blocks
            raise UsageError(
                f"where the {count} tokens of layer {block!r} of {self.source} lie on the image could not be found"
                + (f", and {names[-1]!r} comes before them" if names else "")
                + ": state it with token_layout (on the command line --grid HxW --prefix N), or name the layers"
            )
        return names

    @property
    def head(self) -> nn.Linear | None:
        """The linear layer whose output is the network's output; None if there is no such layer."""
        name = self._choice.head
        module = None if name is None else self.module.get_submodule(name)
        return module if isinstance(module, nn.Linear) else None

    @property
    def outputs(self) -> int | None:
        """Number of classes of the classification head; None for a network without one."""
        return self._choice.width if self._classifies else None

    @property
    def pooled_layer(self) -> str | None:
        """The layer whose mean over space are the features, where the network ends in maps of classes; else None."""
        return self.depths[-1] if self._discovery.dense is not None and self._choice.head is None else None

    @held_property
    def width(self) -> int:
        """Number of pooled features: the second axis of what ``features`` returns."""
        if self.head is not None:
            return self.head.in_features
        noise = draw_random_pixels(
            1, self.preprocess.channels, self.preprocess.size, next(self.module.parameters(), None)
        )
        return self.features(noise).shape[1]

    @held_property
    def stride(self) -> int:
        """The patch size, or the coarsest stage's stride; sides of inputs of free size should be multiples of it."""
        main = [layer for layer in self.layers if layer.role in ("stage", "block")] or self.layers
        strides = [side / cells for info in main for side, cells in zip(self.preprocess.size, info.grid, strict=True)]
        coarsest = max(strides, default=1.0)
        return int(coarsest) if coarsest.is_integer() else 2 ** ceil(log2(coarsest))

    @held_property
    def resizable(self) -> bool:
        """Whether the network takes inputs of other sizes than its own; one trial run on an oblong input tells."""
        if not self.layers:
            return False
        last = [info for info in self.layers if info.role in ("stage", "block")][-1:] or self.layers[-1:]
        height, width = (_round_up(side, self.stride) for side in self.preprocess.size)
        layer = self._discovery.layers[last[0].name]
        return follows_input_size(
            self.module, layer, self.preprocess.channels, (height, width + self.stride), self._call
        )

    def prepare(
        self,
        images: Images,
        geometry: GeometryKind = "model",
        size: int | Literal["model", "native"] = "model",
    ) -> Batch:
        """Read images and bring them to the network's input size.

        Args:
            images: One or several images: paths, PIL images, arrays, tensors or LoadedImages. A Batch is returned
                unchanged.
            geometry: "model" is the network's own resize and centre crop. "whole" crops nothing: the short side
                becomes ``size``, the aspect ratio is kept, and the sides are padded to multiples of ``stride``; for a
                network that takes one size only, the image is squashed to that size.
            size: The short side in pixels; "model" is the network's own, "native" keeps the image's own size.

        Returns:
            The normalized pixels, and for each image how its pixels lie on the network's input.

        Raises:
            UsageError: If there is no image.
            ImageError: If an image cannot be read.
        """
        if isinstance(images, Batch):
            return images
        loaded = [self._load_image(image) for image in _as_list(images)]
        if not loaded:
            raise UsageError("no images were given")
        free = geometry == "whole" or size != "model"
        return make_batch(
            loaded,
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
        """Run one forward pass and return outputs of layers, the pooled features and the logits.

        The pass stops after the last of the layers if neither features nor logits are requested.

        Args:
            images: A Batch, a normalized tensor ``[batch, channels, height, width]``, or what ``prepare`` takes.
            layers: Names of layers, in any order.
            features: Return the pooled features, too.
            logits: Return the logits, too.
            gradients: Keep the graph, so that the result can be differentiated with respect to ``images``, which must
                then be a normalized tensor. The whole batch must fit the memory. The layers' outputs are copies, from
                which the rest of the network is not computed: for the gradient of a unit at a layer see
                ``encoscope.relevance``.

        Returns:
            The layers' outputs in the network's order, and the features and logits if requested.

        Raises:
            UsageError: For unknown layers, and for logits of a network without a classification head.
            EncoscopeError: For NaN or infinite activations, and for a forward pass that fails.
        """
        requested = {self.layer(name).name for name in ([layers] if isinstance(layers, str) else layers)}
        if not (requested or features or logits):
            raise UsageError("no layers were given")
        if logits and not self._classifies:
            raise UsageError(self.explain_missing_logits())
        if features and self._choice.key is None:
            raise UsageError(self.explain_missing_logits())
        if gradients and not (isinstance(images, Tensor) and images.ndim == 4):
            raise UsageError(
                "gradients need a normalized tensor [batch, channels, height, width], such as prepare(images).pixels"
            )
        selection = {name: layer for name, layer in self._discovery.layers.items() if name in requested}
        pooled = self.pooled_layer if features else None
        read = [*selection, *([pooled] if pooled and pooled not in selection else [])]
        locations = {name: self._discovery.layers[name].location for name in read}

        def run(pixels: Tensor) -> Observation:
            with self._record_head_input(features) as head_inputs:
                kept, output = capture(
                    self.module, pixels, locations, stop=not (features or logits), forward=self._call
                )
            canvas = (pixels.shape[2], pixels.shape[3])
            outputs = self._choice.read(output) if logits else None
            activations = {name: self._read(name, kept.get(name), canvas, len(pixels)) for name in read}
            vectors = None
            if features and pooled:
                vectors = activations[pooled].maps.mean((2, 3))
            elif features:
                vectors = head_inputs[-1].flatten(1) if head_inputs else self._pool(output)
            return Observation(
                {name: activations[name] for name in selection},
                None if vectors is None else self._check(vectors, "features"),
                None if outputs is None else self._check(outputs, "logits"),
            )

        pixels = self._pixels(images)
        if gradients:
            observation = run_guarded(self.module, self.source, lambda: run(pixels), gradients=True)
            self._check_gradients(observation, pixels)
            return observation
        parts = run_in_halves(lambda part: run_guarded(self.module, self.source, lambda: run(part)), pixels)
        return join_observations(parts)

    def _check(self, values: Tensor, name: str) -> Tensor:
        """Features or logits in single precision, refused if they are no numbers."""
        values = _to_float(values)
        if values.detach().isnan().any():
            raise EncoscopeError(f"{self.source} gives NaN as {name}: check the weights, or use precision fp32")
        return values

    def _check_gradients(self, observation: Observation, pixels: Tensor) -> None:
        tensors = [activation.maps for activation in observation.activations.values()]
        tensors += [tensor for tensor in (observation.features, observation.logits) if tensor is not None]
        if pixels.requires_grad and not all(tensor.requires_grad for tensor in tensors):
            raise EncoscopeError(
                f"{self.source} passes no gradient to its input: its forward uses no_grad, inference_mode or detach"
            )

    def activations(self, images: Images, layers: Sequence[str] | str) -> dict[str, Activation]:
        """Compute the outputs of layers.

        Args:
            images: As for ``observe``.
            layers: Names of layers, in any order.

        Returns:
            ``{name: Activation}`` in the network's order.

        Raises:
            UsageError: For unknown layers.
            EncoscopeError: As ``observe``.
        """
        return self.observe(images, layers).activations

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """Compute the pooled representation of images.

        Args:
            images: As for ``observe``.

        Returns:
            The input of the linear head. For a network without one: its output if that is 2-D, the pooler's output of
            transformers, the class token, or the mean over space; for a network that gives maps of classes at the
            image's own resolution (segmentation) the mean over space of its last stage.

        Raises:
            EncoscopeError: As ``observe``.
        """
        features = self.observe(images, features=True).features
        if features is None:
            raise EncoscopeError(f"{self.source} gave no features")
        return features

    def logits(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Compute the outputs of the classification head, before any softmax.

        Args:
            images: As for ``observe``.

        Returns:
            The logits.

        Raises:
            UsageError: If the network has no classification head.
            EncoscopeError: As ``observe``.
        """
        logits = self.observe(images, logits=True).logits
        if logits is None:
            raise EncoscopeError(f"{self.source} gave no logits")
        return logits

    @contextmanager
    def _record_head_input(self, requested: bool) -> Iterator[list[Tensor]]:
        """Record the inputs of the linear head during the block; none for a network without a head."""
        inputs: list[Tensor] = []
        name = self._choice.head if requested else None
        with removing_hooks([]) as handles:
            if requested and name is not None:
                head = self.module.get_submodule(name)

                def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                    tensor = find_first_tensor([*args, *kwargs.values()])
                    if tensor is not None:
                        inputs.append(tensor.clone())

                handles.append(head.register_forward_pre_hook(record, with_kwargs=True))
            yield inputs

    @property
    def _classifies(self) -> bool:
        outputs = self._choice.width
        if outputs is None or not self._classifier:
            return False
        stated = getattr(self.module, "num_classes", None)
        return (
            self._choice.head is not None
            or bool(self._choice.key and self._choice.reason)  # the user said so, or it is called logits
            or stated == outputs
            or (self.classes is not None and len(self.classes) == outputs)
        )

    def _call(self, pixels: Tensor) -> ModuleOutput:
        forward = self._forward or self.module
        half = _AUTOCAST.get(self.precision)
        with nullcontext() if half is None else torch.autocast(pixels.device.type, dtype=half):
            output = forward(pixels)
        refuse_detections(output, self.source)
        return output

    def _pool(self, output: ModuleOutput) -> Tensor:
        """The pooled features in the output of a network without a head."""
        if not (isinstance(output, dict) and "pooler_output" in output):
            features = self._choice.read_features(output) if self._choice.key else None
            if features is not None:
                return features
        return pool_output(output)

    def _load_image(self, image: Any) -> LoadedImage:
        return image if isinstance(image, LoadedImage) else read_image(image, channels=self.preprocess.image_channels)

    def _pixels(self, images: Images) -> Tensor:
        ready = isinstance(images, Tensor) and images.ndim == 4
        pixels = images if ready else self.prepare(images).pixels
        first = next(self.module.parameters(), None)
        return pixels if first is None else pixels.to(first.device, first.dtype if first.is_floating_point() else None)

    def as_activation(self, layer: str, output: Tensor, canvas: tuple[int, int]) -> Activation:
        """Read the raw output of a layer, or a gradient of the same shape, as an Activation.

        Args:
            layer: The layer's name.
            output: The tensor in the network's own layout.
            canvas: (height, width) of the network's input in pixels.

        Returns:
            The maps ``[batch, channels, height, width]``, and the prefix tokens if the layer has them.

        Raises:
            UsageError: For an unknown layer, and for a tensor that holds no map of this layer.
            EncoscopeError: For NaN or infinite values.
        """
        return self._read(self.layer(layer).name, output, canvas)

    def _read(self, name: str, output: Tensor | None, canvas: tuple[int, int], count: int | None = None) -> Activation:
        layer = self._discovery.layers[name]
        activation = None if output is None else layouts.read_activation(output, layer.layout, canvas)
        if activation is None or count not in (None, len(activation.maps)):
            shape = "nothing" if output is None else f"shape {tuple(output.shape)}"
            raise UsageError(
                f"layer {name!r} has no spatial output for an input of {canvas[0]}x{canvas[1]} pixels (it gave {shape})"
            )
        prefix = None if activation.prefix is None else _to_float(activation.prefix)
        activation = Activation(_to_float(activation.maps), prefix)
        if not torch.isfinite(activation.maps.detach().sum()) and not torch.isfinite(activation.maps).all():
            raise EncoscopeError(
                f"layer {name!r} gives NaN or infinite activations: check the weights, or use precision fp32"
            )
        return activation


def _to_float(values: Tensor) -> Tensor:
    """The values in single precision, or in double precision if the network computes in that."""
    values = values.clone() if values.is_inference() else values  # of a network that uses inference_mode itself
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


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
