"""How many channels a network takes, as its first convolution or a trial says, and numbers for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import draw_random_pixels, evaluation_mode
from encoscope.errors import UsageError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_input_channels(module: nn.Module) -> int:
    """Count the channels of a network's input, without running it.

    Args:
        module: The network.

    Returns:
        The input channels of its first convolution (of a transformer the one that embeds patches); 3 for a network
        without one.

    Example:
        >>> count_input_channels(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)))
        1
    """
    first = next((child for child in module.modules() if isinstance(child, _CONVOLUTIONS)), None)
    return 3 if first is None else first.in_channels


def find_input_channels(
    module: nn.Module, size: tuple[int, int], forward: Callable[[Tensor], Any] | None = None
) -> int:
    """Find the number of channels of a network's input.

    A first convolution of 1 or 3 channels is believed. Another one may read what was rearranged before (pixels of
    blocks as channels, as ``nn.PixelUnshuffle`` does), so the network is tried.

    Args:
        module: The network.
        size: (height, width) of its input in pixels.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        The first number that the network takes: that of its first convolution, that divided by 4, 9, 16, ..., 3, or
        1; that of its first convolution if it takes none of these.
    """
    counted = count_input_channels(module)
    if counted in (1, 3):
        return counted
    inside = [counted // side**2 for side in range(2, 33) if counted % side**2 == 0]
    for channels in dict.fromkeys([counted, *inside, 3, 1]):
        pixels = draw_random_pixels(1, channels, size, next(module.parameters(), None))
        try:
            with evaluation_mode(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
                (forward or module)(pixels)
        except Exception:  # whatever the network raises, it does not take so many
            continue
        return channels
    return counted


def spread_over_channels(
    values: Sequence[float] | None, imagenet: tuple[float, ...], channels: int, name: str
) -> tuple[float, ...]:
    """Give one number for each channel.

    Args:
        values: One number, or one for each channel, or three for colors; None for ImageNet's three.
        imagenet: ImageNet's three.
        channels: Number of channels.
        name: What the numbers are, for the message.

    Returns:
        The numbers; the mean of three for each of another number of channels.

    Raises:
        UsageError: For another number of values.
    """
    if values is None or (len(values) == 3 and channels != 3):
        values = imagenet if values is None else values
        return tuple(values) if channels == 3 else (round(sum(values) / 3, 6),) * channels
    if len(values) not in (1, channels):
        raise UsageError(f"{name} has {len(values)} values for {channels} channels")
    return tuple(float(value) for value in values) * (channels if len(values) == 1 else 1)
