"""``timm:NAME`` and ``timm:NAME.TAG``."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from encoscope._offline import explain_hub_error, hugging_face_access, missing_weights_error, quiet_libraries
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.input_channels import count_input_channels
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed, try_reading
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import Preprocess
from encoscope.images.geometry import Resizing
from encoscope.images.trial import STATE_IT, check_preprocess

# Arguments that let networks with position embeddings or windows take any size; each class knows one of these.
_FREE_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
_RESIZE: dict[str, Resizing] = {"center": "short", "squash": "squash", "border": "long"}  # by timm's crop_mode


def build_model(request: SourceRequest) -> LoadedModel:
    """Build a network of timm.

    Args:
        request: The network; its name is NAME or NAME.TAG.

    Returns:
        The network with timm's own preprocessing and, for trained classifiers of ImageNet, class names.

    Raises:
        UsageError: For an unknown name or tag.
        MissingError: For weights that are not available.
        EncoscopeError: For a checkpoint that does not fit.
    """
    import timm

    base, _, tag = request.name.partition(".")
    if not timm.is_model(base):
        raise UsageError(f"unknown timm model {base!r}{suggest_nearest(base, timm.list_models())}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = suggest_nearest(tag, tags) or f"; it has {', '.join(tags) or 'none'}"
        raise UsageError(f"timm model {base!r} has no weights {tag!r}{known}")

    def build_network(classes: int | None = None, channels: int | None = None) -> nn.Module:
        return create_network(request.name, random_state=request.random_state, num_classes=classes, in_chans=channels)

    if request.checkpoint is not None:
        module = load_checkpoint(request, build_network, converter=_convert)
    elif request.untrained:
        module = build_network()
    elif not tags:
        raise missing_weights_error(f"timm:{request.name}", "timm has none for it")
    else:
        with hugging_face_access():
            try:
                module = create_network(request.name, random_state=request.random_state, pretrained=True)
            except (OSError, RuntimeError) as error:
                raise missing_weights_error(f"timm:{request.name}", explain_hub_error(error)) from error
    preprocess, problem = try_reading(lambda: read_timm_preprocess(module))
    classes = None if request.untrained else _read_classes(module)
    assumed = None if request.checkpoint is None else f"timm's settings for {request.name}"
    return LoadedModel(module, preprocess, classes, assumed=assumed, problem=problem)


def create_network(name: str, *, random_state: int = RANDOM_STATE, **arguments: Any) -> nn.Module:
    """Call ``timm.create_model`` with a seed, for any input size if the network can take that.

    Args:
        name: timm's name, with or without a tag.
        random_state: Seed of random weights.
        **arguments: Further arguments of ``timm.create_model``; those that are None are left out.

    Returns:
        The network.
    """
    import timm

    options = {key: value for key, value in arguments.items() if value is not None}
    for index, free in enumerate(_FREE_SIZE):
        try:
            with fixed_seed(random_state), quiet_libraries():
                return timm.create_model(name, **{**free, **options})
        except TypeError as error:
            if index == len(_FREE_SIZE) - 1 or not any(key in str(error) for key in free):
                raise
    raise AssertionError("unreachable")


def read_timm_preprocess(module: nn.Module) -> Preprocess:
    """Read timm's evaluation settings of a network, and check on trial images that the pixels are timm's.

    Args:
        module: A network made by timm.

    Returns:
        Its preprocessing.

    Raises:
        UsageError: For settings that this library does not have.
    """
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    config = resolve_model_data_config(module)
    _, height, width = config["input_size"]
    # not the published weights' number if another one was requested
    channels = getattr(module, "in_chans", None) or count_input_channels(module)
    mode, share, mean = config["crop_mode"], config["crop_pct"], tuple(config["mean"])
    if mode not in _RESIZE:
        raise UsageError(f"timm's crop_mode {mode!r} is not supported; {', '.join(_RESIZE)} are: {STATE_IT}")
    around = mean if len(mean) == channels else (sum(mean) / len(mean),)
    preprocess = Preprocess(
        size=(height, width),
        mean=mean,
        std=tuple(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "random" else config["interpolation"],
        crop=share,
        channels=channels,
        resize=_RESIZE[mode],
        fill=tuple(round(255 * value) for value in around) if mode == "border" else (0,),
    )
    transform: Any = create_transform(**config, is_training=False)

    def process(image: Any) -> np.ndarray:
        return transform(image).numpy()

    if channels == len(preprocess.mean):  # else timm has no transform for this number of channels
        check_preprocess(preprocess, process, "timm's preprocessing of this network")
    return preprocess


def _convert(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """timm's own conversion of a family's published checkpoints: names, and position embeddings resized."""
    import sys

    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return state if convert is None else dict(convert(dict(state), module))


def _read_classes(module: nn.Module) -> tuple[str, ...] | None:
    """ImageNet's class names in timm's order, if the head has as many outputs as an ImageNet has classes."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    count = getattr(module, "num_classes", 0)
    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(count))
