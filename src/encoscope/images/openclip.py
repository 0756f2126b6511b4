"""The preprocessing and the activation that open_clip's weights were trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from encoscope.errors import UsageError
from encoscope.images.geometry import Preprocess, Resizing
from encoscope.images.trial import check_preprocess

_RESIZE: dict[str, Resizing] = {"shortest": "short", "longest": "long", "squash": "squash"}


def needs_quick_gelu(architecture: str, tag: str) -> bool:
    """Tell whether weights were trained with QuickGELU, whatever the architecture's own activation is.

    Args:
        architecture: open_clip's name of the architecture.
        tag: open_clip's name of the weights; "" for none.

    Returns:
        Whether the tag says so. An architecture that has QuickGELU itself keeps it.
    """
    from open_clip.pretrained import get_pretrained_cfg

    return bool(tag) and bool((get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu"))


def find_settings(architecture: str, tag: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Find the preprocessing settings of weights that open_clip itself does not load.

    Args:
        architecture: open_clip's name of the architecture.
        tag: open_clip's name of the weights; "" for none.
        own: The settings of the model as open_clip made it, without weights.

    Returns:
        The settings of the tag; without a tag, those that most of the architecture's tags have.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
    from open_clip.transform import merge_preprocess_dict

    settings = dict(own)
    tags = [tag] if tag else list_pretrained_tags_by_model(architecture)
    candidates = [merge_preprocess_dict(settings, get_pretrained_cfg(architecture, name) or {}) for name in tags]
    if not candidates:
        return settings
    keys = [repr(sorted(candidate.items())) for candidate in candidates]
    return candidates[keys.index(Counter(keys).most_common(1)[0][0])] | {"size": settings["size"]}


def read_settings(settings: Mapping[str, Any]) -> Preprocess:
    """Translate open_clip's preprocessing settings, and check on trial images that the pixels are open_clip's.

    Args:
        settings: open_clip's settings of a model: size, mean, std, interpolation, resize_mode and fill_color.

    Returns:
        The preprocessing.

    Raises:
        UsageError: For settings that this library does not have.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    config = merge_preprocess_dict(asdict(PreprocessCfg()), dict(settings))
    size: Any = config["size"]
    sides = (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))
    mode = config["resize_mode"]
    if mode not in _RESIZE:
        raise UsageError(f"open_clip's resize_mode {mode!r} is not supported; {', '.join(_RESIZE)} are")
    covers = mode == "shortest" and sides[0] != sides[1]  # open_clip resizes these by bicubic interpolation, always
    preprocess = Preprocess(
        size=sides,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" and not covers else "bicubic",
        resize=_RESIZE[mode],
        fill=(int(config["fill_color"] or 0),) if mode == "longest" else (0,),
    )
    transform: Any = image_transform_v2(PreprocessCfg(**config), is_train=False)

    def process(image: Any) -> np.ndarray:
        return transform(image).numpy()

    check_preprocess(preprocess, process, "open_clip's preprocessing of this model")
    return preprocess
