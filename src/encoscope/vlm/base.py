"""What the rest of the library asks of an image-text model."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from encoscope.images import Preprocess, make_batch, read_image

BATCH = 64


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


class TwoTowers(ABC):
    """A network with a tower for images and one for texts; see `VLM`.

    squash: the whole image is brought to the model's size, its aspect lost, instead of the middle square. The model is
    set to evaluate.
    """

    def __init__(
        self, model: Any, preprocess: Preprocess, *, source: str, squash: bool, device: torch.device | str
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.preprocess = preprocess
        self.source = source
        self.squash = squash
        self.width = int(self.embed_texts([""]).shape[1])

    @property
    def digest(self) -> str:
        """sha256 (hex) over weights, preprocessing and tokenizer."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return compute_vlm_digest(self.model, self.preprocess, self._reading())

    @abstractmethod
    def _reading(self) -> str:
        """What turns text into tokens, as far as it shapes the vectors."""

    @abstractmethod
    def _encode_images(self, pixels: Tensor) -> Tensor:
        """Vectors of any length for a normalised batch on the model's device."""

    @abstractmethod
    def _encode_texts(self, texts: list[str]) -> Tensor:
        """Vectors of any length for texts."""

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Any]) -> Float[Tensor, "images width"]:
        """A unit vector per image, float32 on the CPU; 64 images are held at a time."""
        geometry: Literal["model", "whole"] = "whole" if self.squash else "model"
        rows = [torch.zeros(0, self.width)]
        for start in range(0, len(images), BATCH):
            photos = [read_image(image) for image in images[start : start + BATCH]]
            batch = make_batch(photos, self.preprocess, geometry=geometry, fixed=self.squash)
            vectors = self._encode_images(batch.pixels.to(self.device)).float()
            rows.append(functional.normalize(vectors, dim=1).cpu())
        return torch.cat(rows)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """A unit vector per text, float32 on the CPU; the tokenizer cuts a text longer than the model takes."""
        rows = [torch.zeros(0, getattr(self, "width", 0))] if not texts else []
        for start in range(0, len(texts), 16 * BATCH):
            vectors = self._encode_texts(list(texts[start : start + 16 * BATCH])).float()
            rows.append(functional.normalize(vectors, dim=1).cpu())
        return torch.cat(rows)


def compute_vlm_digest(module: nn.Module, preprocess: Preprocess, text: str) -> str:
    """sha256 over the sorted parameters and buffers, the preprocessing, and what turns text into tokens."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        raw = value.detach().cpu().contiguous().reshape(-1)
        sha.update(raw.view(torch.uint8).numpy().data if raw.numel() else b"")
    sha.update(json.dumps([preprocess.as_dict(), text], sort_keys=True).encode())
    return sha.hexdigest()
