"""A fingerprint of a network: its weights and its preprocessing."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from encoscope.images import Preprocess


def compute_digest(module: nn.Module, preprocess: Preprocess) -> str:
    """sha256 (hex) over the sorted state (names, types, shapes, bytes) and the preprocessing; same on any device."""
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
    """Changes when a weight is replaced or written to in place; cheap, so that a digest can be kept until then."""
    return tuple(
        (name, t.data_ptr(), t._version)
        for name, t in module.state_dict(keep_vars=True).items()
        if isinstance(t, torch.Tensor)
    )
