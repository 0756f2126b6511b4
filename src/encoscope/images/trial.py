"""Check that a Preprocess gives the pixels of the library whose settings it was read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from encoscope.errors import EncoscopeError, UsageError
from encoscope.images.batch import make_batch
from encoscope.images.geometry import Preprocess
from encoscope.images.read import read_image

_SHAPES = ((61, 97), (131, 66), (83, 83), (255, 342))  # (height, width): wide, tall, square, and larger than most
_TOLERANCE = 1e-5  # over the largest value

STATE_IT = "state it with --mean, --std, --input-size and --interpolation"
"""The cure that messages name where a network's preprocessing is not known."""


def describe_assumption(source: str, whose: str, preprocess: Preprocess) -> str:
    """Say in one line that a network's preprocessing is not known, what is assumed, and how to state it.

    Args:
        source: What the message calls the network.
        whose: Whose preprocessing it is, such as "torchvision's settings for resnet18".
        preprocess: What is assumed.

    Returns:
        The line.
    """
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values) for values in (preprocess.unit_mean, preprocess.unit_std)
    )
    height, width = preprocess.size
    return (
        f"{source}: nothing says how its images were prepared; {whose} are assumed ({height} x {width} pixels, "
        f"{preprocess.interpolation}, mean {mean}, std {std}): if it was otherwise, {STATE_IT}"
    )


def check_preprocess(
    preprocess: Preprocess,
    transform: Callable[[Any], np.ndarray],
    what: str,
    *,
    tolerance: float | None = None,
) -> None:
    """Prepare images of random pixels both ways, and compare.

    Args:
        preprocess: What is believed about the preprocessing.
        transform: The library's own preprocessing, from a PIL image to an array [channels, height, width].
        what: What the message calls it.
        tolerance: How far values may lie apart; None is a hundred-thousandth of the largest.

    Raises:
        UsageError: If the values differ, or the library's own preprocessing fails.
    """
    generator = np.random.default_rng(0)
    channels = preprocess.channels
    if channels not in (1, 3):
        return  # no library has an image of so many channels
    for shape in _SHAPES:
        pixels = generator.integers(0, 256, (*shape, channels), dtype=np.uint8)
        image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
        try:
            expected = np.asarray(transform(image), dtype=np.float32)
        except Exception as error:  # a library's own code can raise anything
            detail = " ".join(str(error).split())[:120]
            raise UsageError(
                f"{what} failed on a trial image ({type(error).__name__}: {detail}): {STATE_IT}"
            ) from error
        try:
            ours = make_batch([read_image(pixels)], preprocess).pixels[0].numpy()
        except EncoscopeError as error:
            raise UsageError(f"{what} is not supported ({error}): {STATE_IT}") from error
        if expected.shape != ours.shape:
            sides = f"{shape[0]} x {shape[1]} pixels"
            raise UsageError(
                f"{what} makes an input of {_describe(expected.shape)} from an image of {sides}, "
                f"which is not supported: {STATE_IT}"
            )
        distance = float(np.abs(expected - ours).max())
        limit = _TOLERANCE * max(1.0, float(np.abs(expected).max())) if tolerance is None else tolerance
        if not distance <= limit:
            raise UsageError(
                f"{what} has settings that are not supported (pixels would be off by {distance:.2g}): {STATE_IT}"
            )


def _describe(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
