"""Compute how much the channels of a layer contribute to a class: the weights of a small circuit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from jaxtyping import Float
from torch import Tensor

from encoscope.defaults import GRADIENT_BATCH_SIZE
from encoscope.encoder import Encoder
from encoscope.encoder.roles import module_of
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.progress import Progress, track_steps
from encoscope.relevance.attribution import RelevanceMethod, choose_method, make_attributor
from encoscope.store.passes import Mean, Shard, run_pass
from encoscope.units import Unit, parse_unit

_log = logging.getLogger("encoscope")


def compute_channel_relevance(
    encoder: Encoder,
    images: Any,
    unit: Unit | str,
    layer: str | None = None,
    *,
    method: RelevanceMethod | None = None,
    batch_size: int = GRADIENT_BATCH_SIZE,
    progress: Progress = None,
) -> Float[Tensor, " channels"]:
    """Compute how much each channel of a layer contributes to a unit: its relevance summed over space.

    The channels of largest relevance are a class's small circuit.

    Args:
        encoder: The encoder.
        images: A normalized tensor ``[batch, channels, height, width]``, or what ``images.read_images`` takes: paths,
            folders, PIL images, ... Images that cannot be read are left out with a warning.
        unit: The unit, or its text such as "class:207".
        layer: The layer's name; None takes the last stage or block before the unit.
        method: As for ``compute_relevance``; None takes that of ``choose_method``.
        batch_size: Images that are in memory at a time.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The mean over the images, one number for each channel.

    Raises:
        UsageError: If no image can be read, and as ``compute_relevance``.

    Source: VITAL, figure 4.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is a number of images, at least 1, not {batch_size}")
    unit = parse_unit(unit, encoder)
    name = layer if layer is not None else _find_layer_before(encoder, unit)
    attributor = make_attributor(encoder, unit, [name], choose_method(encoder) if method is None else method)

    def read_relevance(shard: Shard) -> Iterator[tuple[Tensor, int]]:
        with track_steps(None, "relevance", progress) as step:
            for pixels in shard.select(_batches(encoder, images, batch_size)):
                # in float64, so that the result does not depend on the size of the batches
                yield attributor(pixels)[name].double().sum((0, 2, 3)).cpu(), len(pixels)
                step(len(pixels))

    mean = run_pass(read_relevance, Mean())
    if not mean.count:
        raise UsageError(f"no image can be read: the relevance of {unit.text} needs at least one")
    return mean.finalize().float()


def _find_layer_before(encoder: Encoder, unit: Unit) -> str:
    """The last hidden layer for classes and features; for a layer's unit the last stage or block before its layer."""
    names = [info.name for info in encoder.layers]
    end = len(names) if unit.layer is None else names.index(unit.layer)
    main = [
        info.name
        for info in encoder.layers[:end]
        if info.role != "inner" and not (unit.layer is not None and _is_inside(info.name, unit.layer))
    ]
    if not main:
        raise UsageError(f"no stage or block comes before {unit.text}: choose a layer")
    return main[-1]


def _is_inside(name: str, layer: str) -> bool:
    """Whether a layer is another output of a layer's module, or of a module inside it."""
    return f"{module_of(name)}.".startswith(f"{module_of(layer)}.")


def _batches(encoder: Encoder, images: Any, size: int) -> Iterator[Float[Tensor, "batch colors rows columns"]]:
    if isinstance(images, Tensor) and images.ndim == 4:
        yield from images.split(size)
        return
    stream = _read_valid(encoder, images)
    while chunk := list(islice(stream, size)):
        yield encoder.prepare(chunk).pixels


def _read_valid(encoder: Encoder, images: Any) -> Iterator[LoadedImage]:
    for item in read_images(images, channels=encoder.preprocess.image_channels):
        if isinstance(item, SkippedImage):
            _log.warning("left out %s: %s", item.path, item.reason)
        else:
            yield item
