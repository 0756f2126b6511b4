"""``torchvision:NAME`` and ``torchvision:NAME.WEIGHTS``, such as ``torchvision:resnet50.IMAGENET1K_V1``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from encoscope._offline import missing_weights_error, quiet_libraries, torch_hub_file_available
from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed, try_reading
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import Preprocess
from encoscope.images.trial import check_preprocess


def build_model(request: SourceRequest) -> LoadedModel:
    """Build a classification network of torchvision.

    Args:
        request: The network; its name is NAME or NAME.WEIGHTS.

    Returns:
        The network with its weights' own preprocessing and class names.

    Raises:
        UsageError: For unknown names of networks and weights.
        MissingError: For weights that are not available.
        EncoscopeError: For a checkpoint that does not fit.
    """
    from torchvision import models

    name, _, tag = request.name.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"unknown torchvision model {name!r}{suggest_nearest(name, known)}")
    published = models.get_model_weights(name)
    if tag and tag not in published.__members__:
        raise UsageError(
            f"torchvision model {name!r} has no weights {tag!r}; it has {', '.join(published.__members__)}"
        )
    weights: Any = published[tag] if tag else published.__members__.get("DEFAULT") or next(iter(published), None)

    def build_network(classes: int | None = None, channels: int | None = None) -> nn.Module:
        with fixed_seed(request.random_state), quiet_libraries():
            module = models.get_model(name, weights=None, **({} if classes is None else {"num_classes": classes}))
            return module if channels is None else set_input_channels(module, channels)

    if request.checkpoint is not None:
        module = load_checkpoint(request, build_network)
    elif request.untrained:
        module = build_network()
    elif weights is None:
        raise missing_weights_error(f"torchvision:{name}", "torchvision has none for it")
    elif not torch_hub_file_available(weights.url):
        raise missing_weights_error(f"torchvision:{name}", "not in the cache, and the server cannot be reached")
    else:
        try:
            with quiet_libraries():
                module = models.get_model(name, weights=weights)
        except (OSError, RuntimeError) as error:  # no connection, or a download that is not what it should be
            raise missing_weights_error(f"torchvision:{name}", " ".join(str(error).split())[:200]) from error
    preprocess, problem = try_reading(lambda: _read_preprocess(weights, module))
    classes = None if request.untrained else _read_classes(weights, module)
    assumed = None if request.checkpoint is None else f"torchvision's settings for {request.name}"
    return LoadedModel(module, preprocess, classes, assumed=assumed, problem=problem)


def set_input_channels(module: nn.Module, channels: int) -> nn.Module:
    """Replace the first convolution by one for another number of input channels.

    Args:
        module: The network; it is changed.
        channels: Number of input channels.

    Returns:
        The same network.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d):
            bias = child.bias is not None
            size: Any = (child.kernel_size, child.stride, child.padding, child.dilation, child.groups)
            module.set_submodule(name, nn.Conv2d(channels, child.out_channels, *size, bias=bias))
            return module
    return module


def _read_preprocess(weights: Any, module: nn.Module) -> Preprocess:
    first = next((child for child in module.modules() if isinstance(child, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    if weights is None:
        return Preprocess(interpolation="bilinear", crop=0.875, channels=channels)
    with quiet_libraries():
        transform: Any = weights.transforms()
    size, resize = transform.crop_size[0], transform.resize_size[0]
    preprocess = Preprocess(
        size=(size, size),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        crop=size / resize,
        channels=channels,
    )
    if preprocess.resized_to(preprocess.size) != (resize, resize):  # the share is not exact
        preprocess = replace(preprocess, resize_to=(resize, resize))

    def process(image: Any) -> np.ndarray:
        return transform(image).numpy()

    if channels == len(preprocess.mean):  # else torchvision has no transform for this number of channels
        check_preprocess(preprocess, process, "torchvision's preprocessing of these weights")
    return preprocess


def _read_classes(weights: Any, module: nn.Module) -> tuple[str, ...] | None:
    """The weights' own class names, if the head has as many outputs."""
    names = () if weights is None else weights.meta.get("categories", ())
    last = [child for child in module.modules() if isinstance(child, (nn.Linear, nn.Conv2d))][-1]
    outputs = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    return tuple(names) if names and outputs == len(names) else None
