"""The digest of a network: one number for its weights, its preprocessing and what its modules compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from encoscope.computation import describe_computation, hash_weights
from encoscope.images import Preprocess

_SAMPLES = 16  # values of each tensor


def compute_digest(
    module: nn.Module,
    preprocess: Preprocess,
    computation: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> str:
    """Compute the digest of a network and its preprocessing.

    Args:
        module: The network.
        preprocess: How images are brought to its input.
        computation: What its modules compute, from ``describe_computation``; None describes it here.
        reading: How its outputs are read, of values that JSON can hold.

    Returns:
        The sha256 (hex) of the weights, the preprocessing, what the modules compute, and how it is read. It is the same
        in every process and on any device.
    """
    sha = hashlib.sha256(hash_weights(module).encode())
    sha.update(json.dumps(preprocess.as_dict(), sort_keys=True).encode())
    sha.update((describe_computation(module) if computation is None else computation).encode())
    sha.update(json.dumps(dict(reading or {}), sort_keys=True).encode())
    return sha.hexdigest()


def fingerprint_parameters(module: nn.Module) -> tuple[Any, ...]:
    """List what changes when a weight is replaced or changed in place, without reading all of the weights.

    A digest stays valid until the fingerprint changes. What is written past torch's counters (``weight.data``) shows in
    a few values of each tensor.

    Args:
        module: The network.

    Returns:
        The name, the memory address and torch's version counter of each parameter and buffer; and some of their values.
    """
    tensors = {
        name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)
    }
    listed = tuple((name, tensor.data_ptr(), tensor._version) for name, tensor in tensors.items())
    samples = [_sample(tensor) for tensor in tensors.values() if not tensor.is_meta and tensor.numel()]
    return listed, torch.cat(samples).cpu().numpy().tobytes() if samples else b""


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """A few values of a tensor as bytes."""
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_contiguous():
        return torch.zeros(0, dtype=torch.uint8, device=tensor.device)
    flat = tensor.detach().view(-1)
    return flat[:: max(1, flat.numel() // _SAMPLES)].contiguous().view(torch.uint8)
