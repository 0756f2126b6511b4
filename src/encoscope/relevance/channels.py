"""Which channels of a layer matter to a class: the weights of a small circuit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.progress import Progress, track_steps
from encoscope.relevance.attribution import RelevanceMethod, choose_method, make_attributor
from encoscope.units import Unit, parse_unit

_log = logging.getLogger("encoscope")


def compute_channel_relevance(
    encoder: Encoder,
    images: Any,
    unit: Unit | str,
    layer: str | None = None,
    *,
    method: RelevanceMethod | None = None,
    batch_size: int = 16,
    progress: Progress = None,
) -> Float[Tensor, " channels"]:
    """How much each channel of a layer matters to a unit: relevance summed over space, its mean over the images.

    The largest are a class's small circuit (VITAL, Fig. 4). images: a normalised tensor [B, C, H, W], or paths,
    folders, PIL images, ... as for ``images.read_images``; ``batch_size`` of them are in memory at a time, and what
    cannot be read is left out with a warning. layer: the last stage or block below the unit if left out. method: as
    ``choose_method`` says if left out.

    Raises UsageError if no image can be read, and where ``compute_relevance`` does.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is a number of images, at least 1, not {batch_size}")
    unit = parse_unit(unit, encoder)
    name = layer if layer is not None else _below(encoder, unit)
    attributor = make_attributor(encoder, unit, [name], choose_method(encoder) if method is None else method)
    total, count = torch.zeros(encoder.layer(name).channels, dtype=torch.float64), 0
    with track_steps(None, "relevance", progress) as step:
        for pixels in _batches(encoder, images, batch_size):
            # In float64, so that the batches' size does not show.
            total += attributor(pixels)[name].double().sum((0, 2, 3)).cpu()
            count += len(pixels)
            step(len(pixels))
    if not count:
        raise UsageError(f"no image to find the relevance of {unit.text} on: give at least one that can be read")
    return (total / count).float()


def _below(encoder: Encoder, unit: Unit) -> str:
    """The last hidden layer for classes and features; for a layer's unit the last stage or block before its layer."""
    names = [info.name for info in encoder.layers]
    end = len(names) if unit.layer is None else names.index(unit.layer)
    main = [
        info.name
        for info in encoder.layers[:end]
        if info.role != "inner" and not (unit.layer is not None and info.name.startswith(f"{unit.layer}."))
    ]
    if not main:
        raise UsageError(f"no stage or block lies below {unit.text}: name a layer")
    return main[-1]


def _batches(encoder: Encoder, images: Any, size: int) -> Iterator[Float[Tensor, "batch colours rows columns"]]:
    if isinstance(images, Tensor) and images.ndim == 4:
        yield from images.split(size)
        return
    stream = _readable(encoder, images)
    while part := list(islice(stream, size)):
        yield encoder.prepare(part).pixels


def _readable(encoder: Encoder, images: Any) -> Iterator[LoadedImage]:
    for item in read_images(images, channels=encoder.preprocess.channels):
        if isinstance(item, SkippedImage):
            _log.warning("left out %s: %s", item.path, item.reason)
        else:
            yield item
