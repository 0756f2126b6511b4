"""Maps at a higher resolution by a function of the user, such as AnyUp, JAFAR or FeatUp; its detail is the image's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.computation import describe_computation
from encoscope.encoder.sources.python import find_function
from encoscope.errors import EncoscopeError, UsageError

UpsamplingFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(maps ``[B, C, h, w]``, the network's input ``[B, channels, H, W]``) -> maps ``[B, C, h2, w2]``."""

_PREFIX = "py:"


def find_upsampler(upsampler: Any) -> UpsamplingFunction:
    """Find the function that an upsampler names.

    Args:
        upsampler: "py:module:function", or the function itself.

    Returns:
        The function.

    Raises:
        UsageError: For anything else, and for an unknown module or function.
        EncoscopeError: If importing the module fails.
    """
    if isinstance(upsampler, str) and upsampler.startswith(_PREFIX):
        return find_function(upsampler.removeprefix(_PREFIX), "mymodels.upsamplers:anyup")
    if isinstance(upsampler, str | type) or not callable(upsampler):
        raise UsageError(f"upsampler is py:module:function, or in Python a function, not {upsampler!r}")
    return cast(UpsamplingFunction, upsampler)


def name_upsampler(upsampler: Any) -> str:
    """Give the name of an upsampler for result documents.

    Args:
        upsampler: As for `find_upsampler`.

    Returns:
        "py:module:function"; of a function or a module that has no name, that of its class.
    """
    if isinstance(upsampler, str):
        return upsampler
    named = upsampler if hasattr(upsampler, "__qualname__") else type(upsampler)
    return f"{_PREFIX}{named.__module__}:{named.__qualname__}"


def identify_upsampler(upsampler: Any) -> str:
    """Identify what an upsampler computes, as far as that can be seen without running it.

    Args:
        upsampler: As for `find_upsampler`.

    Returns:
        The sha256 (hex) of its code, and of the modules and their weights within its reach. Files that it reads only
        when it is called are not seen.
    """
    return describe_computation(nn.Identity(), find_upsampler(upsampler))


def upsample_maps(
    upsampler: Any, layers: Sequence[Float[Tensor, "batch _c _h _w"]], pixels: Float[Tensor, "batch channels _y _x"]
) -> list[Float[Tensor, "batch _c _h _w"]]:
    """Bring the maps of each layer to a higher resolution, one image at a time.

    Args:
        upsampler: As for `find_upsampler`.
        layers: ``[B, C, h, w]`` for each layer.
        pixels: ``[B, channels, H, W]``, the normalized images as the network saw them, with padding.

    Returns:
        ``[B, C, h2, w2]`` for each layer.

    Raises:
        UsageError: When the function gives anything but finite maps of the same image and channels that are no smaller.
        EncoscopeError: When it fails.
    """
    function, name = find_upsampler(upsampler), name_upsampler(upsampler)
    upsampled = []
    for maps in layers:
        pairs = zip(maps.split(1), pixels.to(maps.device, maps.dtype).split(1), strict=True)
        outputs = [_upsample(function, name, single, image) for single, image in pairs]
        sizes = {tuple(output.shape[2:]) for output in outputs}
        if len(sizes) > 1:
            raise UsageError(f"{name} gave maps of several sizes for images of one size: {sorted(sizes)}")
        upsampled.append(torch.cat(outputs))
    return upsampled


def _upsample(function: UpsamplingFunction, name: str, maps: Tensor, image: Tensor) -> Tensor:
    """The maps of one image; the function may do what it likes with its own copies."""
    shape = tuple(maps.shape)
    try:
        with torch.no_grad():
            output = function(maps.clone(), image.clone())
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoscopeError(f"{name} failed on maps of shape {shape}: {type(error).__name__}: {reason}") from error
    if not isinstance(output, Tensor):
        raise UsageError(f"{name} gave {type(output).__name__} for maps of shape {shape}: it must return a tensor")
    upsampled = tuple(output.shape)
    grows = len(upsampled) == 4 and upsampled[2] >= shape[2] and upsampled[3] >= shape[3]
    if not grows or upsampled[:2] != shape[:2]:
        raise UsageError(
            f"{name} gave shape {upsampled} for maps of shape {shape}: it must keep the images and channels, "
            "and give at least as many rows and columns"
        )
    if not output.is_floating_point() or not bool(torch.isfinite(output).all()):
        raise UsageError(f"{name} gave values that are no finite numbers for maps of shape {shape}")
    return output.detach().to(maps.device, maps.dtype)
