"""The settings of transformers' image processors, as a Preprocess whose pixels are the processor's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from encoscope.errors import EncoscopeError, UsageError
from encoscope.images.geometry import Preprocess
from encoscope.images.trial import STATE_IT, check_preprocess

_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_WARPED_FROM = 384  # pixels of ConvNeXt's processor: from here on it squashes in place of cropping


def load_processor(name: str, config: Any, *, trust: bool = False) -> Any:
    """Load the image processor that was saved with a model: the one that computes with Pillow, if there are two.

    Args:
        name: The model's name or folder.
        config: The model's configuration.
        trust: Allow a processor's own code from a hub to run.

    Returns:
        The processor; None for a model that was saved without one.

    Raises:
        UsageError: For a processor that this version of transformers does not know.
        EncoscopeError: For a file that cannot be read.
    """
    import transformers

    try:
        settings = transformers.BaseImageProcessor.get_image_processor_dict(name)[0]
    except (OSError, ValueError) as error:
        if "JSON" in str(error):
            raise EncoscopeError(f"hf:{name}: its image processor's file is no valid JSON") from error
        return None
    named = any(key in settings for key in ("image_processor_type", "feature_extractor_type", "auto_map"))
    if not named and _find_kind(config) is None:  # neither the file nor the type of network names a class
        return _find_kind(config, plain=True)(**settings)
    try:
        if not named:
            return _find_kind(config)(**settings)
        processor = transformers.AutoImageProcessor.from_pretrained(
            name, config=config, backend="pil", trust_remote_code=trust
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        detail = " ".join(str(error).split())[:160]
        raise UsageError(f"hf:{name}: its image processor cannot be loaded: {detail}") from error
    written = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    expected = str(written).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if written and _name(processor) != expected:  # transformers takes the type's own class for one that it lacks
        raise UsageError(f"hf:{name}: its image processor {written} is not known to this transformers: {STATE_IT}")
    return processor


def make_default_processor(config: Any) -> Any:
    """Make the image processor that transformers has for a type of network, with its default settings.

    Args:
        config: The network's configuration.

    Returns:
        The processor; None where transformers has none for the type.
    """
    kind = _find_kind(config)
    try:
        return None if kind is None else kind()
    except (TypeError, ValueError, ImportError):  # one that needs settings of the model
        return None


def _find_kind(config: Any, *, plain: bool = False) -> Any:
    """The class of image processors of a type of network, or of the type whose image tower it is; None if unknown."""
    from transformers import CONFIG_MAPPING, ViTImageProcessorPil
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    if plain:
        return ViTImageProcessorPil
    whole = getattr(config, "model_type", "").removesuffix("_vision_model")
    for candidate in (type(config), CONFIG_MAPPING.get(whole, None)):
        if candidate is not None and candidate in IMAGE_PROCESSOR_MAPPING:
            kinds: Any = IMAGE_PROCESSOR_MAPPING[candidate]
            return kinds.get("pil") or next(iter(kinds.values()), None)
    return None


def read_preprocess(processor: Any, config: Any) -> Preprocess:
    """Convert the settings of an image processor, and check on trial images that the pixels are the processor's.

    Args:
        processor: From ``load_processor`` or ``make_default_processor``.
        config: The vision network's configuration, for what the settings leave out.

    Returns:
        The preprocessing.

    Raises:
        UsageError: For a processor whose pixels this library cannot give.
    """
    name = _name(processor)
    channels = getattr(config, "num_channels", 3)
    try:
        preprocess = _translate(processor, name, _image_size(config), channels if isinstance(channels, int) else 3)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        detail = " ".join(str(error).split())[:160]
        raise UsageError(f"the image processor {name} has settings that are not supported: {detail}") from error

    def process(image: Any) -> np.ndarray:
        return np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])

    if len(preprocess.mean) in (1, preprocess.channels):  # else transformers itself refuses images
        if getattr(processor, "backend", "pil") == "pil":
            check_preprocess(preprocess, process, f"the image processor {name}")
        else:  # torchvision rounds resized bytes otherwise than Pillow: by one level of 255 at most
            level = max(1 / (255 * std) for std in preprocess.unit_std)
            check_preprocess(preprocess, process, f"the image processor {name}", tolerance=1.01 * level)
    return preprocess


def assume_preprocess(config: Any, whole: Any = None) -> tuple[Preprocess, str]:
    """Choose the preprocessing of a network that was saved without an image processor.

    Args:
        config: The vision network's configuration.
        whole: The configuration of the model that it is part of; None where it is the whole.

    Returns:
        The default preprocessing of the type of network at the network's own size, and whose default it is.
    """
    size = _image_size(config) or (224, 224)
    processor = make_default_processor(config) or make_default_processor(whole)
    if processor is not None:
        try:
            preprocess = read_preprocess(processor, config)
            scale = preprocess.resized_to(preprocess.size)[0] / preprocess.size[0]
            resize_to = (round(size[0] * scale), round(size[1] * scale))
            return replace(preprocess, size=size, resize_to=resize_to), f"{_name(processor)}'s defaults"
        except UsageError:
            pass
    channels = getattr(config, "num_channels", 3)
    return Preprocess(size=size, channels=channels if isinstance(channels, int) else 3), "the usual settings"


def _name(processor: Any) -> str:
    return type(processor).__name__.removesuffix("Pil")


def _image_size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None


def _translate(processor: Any, name: str, own: tuple[int, int] | None, channels: int) -> Preprocess:
    """What the settings mean by the names that transformers gives them; a few classes read some of them otherwise."""
    crop = _pair(processor.crop_size) if _set(processor, "do_center_crop") else None
    resize, target = _resizing(processor)
    size = crop or target or own or (224, 224)
    numbers = _numbers(processor) if _set(processor, "do_normalize") else ((0.0,), (1.0,))
    pad = _pair(getattr(processor, "pad_size", None)) if _set(processor, "do_pad") else None
    resample = getattr(processor, "resample", None)
    preprocess = Preprocess(
        size=size,
        mean=numbers[0],
        std=numbers[1],
        interpolation=_INTERPOLATIONS[2 if resample is None else int(resample)],
        channels=channels,
        resize=resize,
        resize_to=target,
        window=crop is not None or resize == "squash",
        pad_to=pad,
        rounding="down",
        rescale=float(processor.rescale_factor) if _set(processor, "do_rescale") else 1.0,
    )
    special = _SPECIAL.get(name)
    preprocess = preprocess if special is None else special(preprocess, processor)
    if not preprocess.window or preprocess.resize_to is None:
        return preprocess
    return replace(preprocess, crop=min(1.0, preprocess.size[0] / preprocess.resize_to[0]))


def _set(processor: Any, name: str) -> bool:
    return bool(getattr(processor, name, None))


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _numbers(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = (
        (float(values),) if isinstance(values, int | float) else tuple(float(value) for value in values)
        for values in (processor.image_mean, processor.image_std)
    )
    return mean, std


def _resizing(processor: Any) -> tuple[Any, tuple[int, int] | None]:
    """The kind of resizing, and (height, width) that it aims at."""
    size = getattr(processor, "size", None)
    if not _set(processor, "do_resize") or size is None:
        return "none", None
    size = {key: value for key, value in dict(size).items() if value}
    match sorted(size):
        case ["height", "width"]:
            return "squash", (size["height"], size["width"])
        case ["shortest_edge"]:
            return "short", (size["shortest_edge"], size["shortest_edge"])
        case ["max_height", "max_width"]:
            return "long", (size["max_height"], size["max_width"])
    raise ValueError(f"size {size}")


def _read_convnext(preprocess: Preprocess, processor: Any) -> Preprocess:
    """Smaller sizes are cropped from a larger one by ``crop_pct``, larger ones are squashed."""
    if preprocess.resize != "short" or preprocess.resize_to is None:
        return preprocess
    side = preprocess.resize_to[0]
    if side >= _WARPED_FROM:
        return replace(preprocess, size=(side, side), resize="squash", window=True, pad_to=None)
    larger = int(side / processor.crop_pct)
    return replace(preprocess, size=(side, side), resize_to=(larger, larger), window=True, pad_to=None)


def _read_poolformer(preprocess: Preprocess, processor: Any) -> Preprocess:
    """The image is resized to ``size`` over ``crop_pct``; a square size is that of the short side."""
    share, target = processor.crop_pct, preprocess.resize_to
    if share is None or target is None or preprocess.resize == "long":
        return preprocess
    larger = (int(target[0] / share), int(target[1] / share))
    kind = "squash" if target[0] != target[1] else "short"
    return replace(preprocess, resize=kind, resize_to=larger, window=_set(processor, "do_center_crop"))


def _read_levit(preprocess: Preprocess, processor: Any) -> Preprocess:
    """The short side is 256 for every 224 pixels of ``size``."""
    if preprocess.resize != "short" or preprocess.resize_to is None:
        return preprocess
    side = int((256 / 224) * preprocess.resize_to[0])
    return replace(preprocess, resize_to=(side, side))


def _read_efficientnet(preprocess: Preprocess, processor: Any) -> Preprocess:
    """A classifier's input (``include_top``) is divided by std twice."""
    offset = 1.0 if _set(processor, "rescale_offset") and _set(processor, "do_rescale") else 0.0
    std_twice = _set(processor, "include_top")
    if std_twice and not _set(processor, "do_normalize"):  # divided by std, but only once and without a mean
        mean, std = (0.0,), _numbers(processor)[1]
        return replace(preprocess, mean=mean, std=std, rescale_offset=offset, pad_to=None)
    return replace(preprocess, rescale_offset=offset, std_twice=std_twice, pad_to=None)


def _read_mobilevit(preprocess: Preprocess, processor: Any) -> Preprocess:
    """Values in [0, 1] without mean and std, blue first."""
    order = "bgr" if _set(processor, "do_flip_channel_order") else "rgb"
    return replace(preprocess, mean=(0.0,), std=(1.0,), channel_order=order, pad_to=None)


def _read_dinov3(preprocess: Preprocess, processor: Any) -> Preprocess:
    """Values are rescaled before they are resized."""
    return replace(preprocess, resize_floats=_set(processor, "do_rescale"), pad_to=None)


_SPECIAL: dict[str, Callable[[Preprocess, Any], Preprocess]] = {
    "ConvNextImageProcessor": _read_convnext,
    "PoolFormerImageProcessor": _read_poolformer,
    "LevitImageProcessor": _read_levit,
    "EfficientNetImageProcessor": _read_efficientnet,
    "MobileViTImageProcessor": _read_mobilevit,
    "DINOv3ViTImageProcessor": _read_dinov3,
}
