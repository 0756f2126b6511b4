"""The interface of image-text models, and what their implementations share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from encoscope.computation import describe_computation, hash_weights
from encoscope.images import Preprocess, make_batch, read_image

BATCH = 64
"""Images that are in memory at a time."""


@runtime_checkable
class VLM(Protocol):
    """A model that embeds images and texts so that the cosine of two vectors says how well they match.

    Vectors are float32, of length 1, on the CPU.

    Attributes:
        source: What the model was loaded from.
        width: Number of components of a vector.
    """

    source: str
    width: int

    @property
    def digest(self) -> str:
        """The sha256 (hex) of weights and preprocessing: two models of the same digest give the same vectors."""
        ...

    def embed_images(self, images: Sequence[Any]) -> Float[Tensor, "images width"]:
        """Embed images.

        Args:
            images: Anything that ``encoscope.images.read_image`` takes: paths, PIL images, arrays, LoadedImages.

        Returns:
            One vector for each image.
        """
        ...

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Embed texts.

        Args:
            texts: The texts.

        Returns:
            One vector for each text.
        """
        ...


class TwoTowers(ABC):
    """A network with one tower for images and one for texts; see `VLM`.

    Args:
        model: The network. It is set to evaluation mode and needs no gradients from then on.
        preprocess: How images are brought to its input.
        source: What it was loaded from.
        device: Where the network runs.
    """

    def __init__(self, model: Any, preprocess: Preprocess, *, source: str, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.preprocess = preprocess
        self.source = source
        self.width = int(self.embed_texts([""]).shape[1])

    @property
    def digest(self) -> str:
        """The sha256 (hex) of weights, preprocessing and tokenizer."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return compute_vlm_digest(self.model, self.preprocess, self._describe_tokenizer())

    @abstractmethod
    def _describe_tokenizer(self) -> str:
        """The properties of the tokenizer that influence the vectors, as a text."""

    @abstractmethod
    def _encode_images(self, pixels: Tensor) -> Tensor:
        """Vectors of any length for a normalized batch on the model's device."""

    @abstractmethod
    def _encode_texts(self, texts: list[str]) -> Tensor:
        """Vectors of any length for texts."""

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Any]) -> Float[Tensor, "images width"]:
        """Embed images, 64 at a time.

        Args:
            images: Anything that ``encoscope.images.read_image`` takes: paths, PIL images, arrays, LoadedImages.

        Returns:
            One vector of length 1 for each image, float32 on the CPU.

        Raises:
            ImageError: If an image cannot be read.
        """
        rows = [torch.zeros(0, self.width)]
        for start in range(0, len(images), BATCH):
            loaded = [read_image(image) for image in images[start : start + BATCH]]
            batch = make_batch(loaded, self.preprocess)
            vectors = self._encode_images(batch.pixels.to(self.device)).float()
            rows.append(functional.normalize(vectors, dim=1).cpu())
        return torch.cat(rows)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Embed texts.

        Args:
            texts: The texts. The tokenizer truncates those that are longer than the model's limit.

        Returns:
            One vector of length 1 for each text, float32 on the CPU.
        """
        rows = [torch.zeros(0, getattr(self, "width", 0))] if not texts else []
        for start in range(0, len(texts), 16 * BATCH):
            vectors = self._encode_texts(list(texts[start : start + 16 * BATCH])).float()
            rows.append(functional.normalize(vectors, dim=1).cpu())
        return torch.cat(rows)


def compute_vlm_digest(module: nn.Module, preprocess: Preprocess, text: str) -> str:
    """Compute the digest of an image-text model.

    Args:
        module: The network.
        preprocess: How images are brought to its input.
        text: A description of the tokenizer.

    Returns:
        The sha256 (hex) of the sorted parameters and buffers, the preprocessing, the description, and what the modules
        compute.
    """
    sha = hashlib.sha256(hash_weights(module).encode())
    sha.update(json.dumps([preprocess.as_dict(), text], sort_keys=True).encode())
    sha.update(describe_computation(module).encode())
    return sha.hexdigest()
