"""The digest of a network: one number for its weights and its preprocessing."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from encoscope.images import Preprocess


def compute_digest(module: nn.Module, preprocess: Preprocess) -> str:
    """Compute the digest of a network and its preprocessing.

    Args:
        module: The network.
        preprocess: How images are brought to its input.

    Returns:
        The sha256 (hex) of all parameters and buffers, sorted by name (name, type, shape and bytes of each), and of
        the preprocessing. It is the same on any device.
    """
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        raw = value.detach().cpu().contiguous().reshape(-1)
        sha.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
    sha.update(json.dumps(preprocess.as_dict(), sort_keys=True).encode())
    return sha.hexdigest()


def fingerprint_parameters(module: nn.Module) -> tuple[tuple[str, int, int], ...]:
    """List what changes when a weight is replaced or changed in place, without reading the weights.

    A digest stays valid until the fingerprint changes.

    Args:
        module: The network.

    Returns:
        The name, the memory address and torch's version counter of each parameter and buffer.
    """
    return tuple(
        (name, t.data_ptr(), t._version)
        for name, t in module.state_dict(keep_vars=True).items()
        if isinstance(t, torch.Tensor)
    )
