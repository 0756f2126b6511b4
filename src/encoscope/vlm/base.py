"""What the rest of the library asks of an image-text model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.images import Preprocess


@runtime_checkable
class VLM(Protocol):
    """Embeds images and texts so that the cosine of two vectors says how well they go together.

    source: what it was loaded from. width: length of a vector. Vectors are float32, of unit length, on the CPU.
    """

    source: str
    width: int

    @property
    def digest(self) -> str:
        """sha256 (hex) over weights and preprocessing: two models with one digest give the same vectors."""
        ...

    def embed_images(self, images: Sequence[Any]) -> Float[Tensor, "images width"]:
        """A vector per image; an image is anything that ``encoscope.images.read`` takes."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """A vector per text."""
        ...


def digest_of(module: nn.Module, preprocess: Preprocess, text: str) -> str:
    """sha256 over the sorted parameters and buffers, the preprocessing, and what turns text into tokens."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        raw = value.detach().cpu().contiguous().reshape(-1)
        sha.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
    sha.update(json.dumps([preprocess.as_dict(), text], sort_keys=True).encode())
    return sha.hexdigest()
