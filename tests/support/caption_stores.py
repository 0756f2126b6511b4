"""An image-text model for tests: a text's vector is the sum of its words' random vectors; no images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class WordVectors:
    def __init__(self, width: int = 16, name: str = "words") -> None:
        self.source = f"test:{name}"
        self.width = width
        self.digest = hashlib.sha256(f"{name}{width}".encode()).hexdigest()
        self.embedded = 0

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(f"{self.source}{word}".encode()).digest()[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.width)

    def embed_images(self, images: Sequence[Any]) -> Tensor:
        raise NotImplementedError

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.embedded += len(texts)
        rows = [sum((self._word(word) for word in text.split()), self._word("")) for text in texts]
        matrix = torch.tensor(np.array(rows).reshape(len(rows), self.width), dtype=torch.float32)
        return functional.normalize(matrix, dim=1)
