"""How many channels a network takes, as its first convolution says."""

from __future__ import annotations

from torch import nn

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
