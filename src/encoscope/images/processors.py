"""The settings of transformers' image processors, as a Preprocess."""

from __future__ import annotations

from typing import Any

from encoscope.images import Preprocess

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def load_processor(name: str, transformers: Any) -> dict[str, Any]:
    """Load the settings of a model's image processor.

    Args:
        name: The model's name or folder.
        transformers: The transformers module.

    Returns:
        The settings; empty for a model that was saved without a processor.
    """
    try:
        return transformers.BaseImageProcessor.get_image_processor_dict(name)[0]
    except (OSError, ValueError):
        return {}


def read_preprocess(processor: dict[str, Any], config: Any) -> Preprocess:
    """Convert the settings of an image processor.

    Args:
        processor: From ``load_processor``.
        config: The vision network's configuration, for what the settings leave out.

    Returns:
        The preprocessing.
    """
    size = processor.get("size") or getattr(config, "image_size", None) or 224
    resized = _sides(size)
    crop = processor.get("crop_size") if processor.get("do_center_crop") else None
    shown = _sides(crop) if crop else resized
    share = processor.get("crop_pct") or min(1.0, shown[0] / resized[0])
    standard = Preprocess()
    return Preprocess(
        size=shown,
        mean=tuple(processor.get("image_mean") or standard.mean),
        std=tuple(processor.get("image_std") or standard.std),
        interpolation=_INTERPOLATIONS.get(processor.get("resample", 3), "bicubic"),
        crop=share,
        channels=getattr(config, "num_channels", 3),
    )


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        side = size.get("shortest_edge")
        return (side, side) if side else (size["height"], size["width"])
    return (size, size) if isinstance(size, int) else (size[0], size[1])
