"""The digest of a network's weights alone."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn, uint8


def hash_weights(module: nn.Module) -> str:
    """Compute the sha256 of a network's weights.

    Args:
        module: The network.

    Returns:
        The sha256 (hex) of all parameters and buffers, sorted by name: name, type, shape and bytes of each.
    """
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        raw = value.detach().cpu().contiguous().reshape(-1)
        sha.update(raw.view(uint8).numpy().data if raw.numel() else b"")
    return sha.hexdigest()
