"""Random numbers that belong to an image, so that a picture does not depend on what is made beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Generators: TypeAlias = Sequence[Generator]
"""One generator an image of the batch, on the CPU whatever the device: every device draws the same numbers."""


def make_generators(seed: int, names: Sequence[str]) -> list[Generator]:
    """One generator for each name (a unit's text), seeded by the name and the run's seed alone."""
    found = []
    for name in names:
        digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
        found.append(Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    return found


def draw_normal(generators: Generators, *shape: int) -> Float[Tensor, "batch ..."]:
    """Standard normal numbers, ``shape`` for each image."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def draw_uniform(
    generators: Generators, *shape: int, low: float = 0.0, high: float = 1.0
) -> Float[Tensor, "batch ..."]:
    """Uniform numbers from [low, high), ``shape`` for each image."""
    drawn = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return low + (high - low) * drawn


def draw_integers(generators: Generators, low: int, high: int, count: int) -> list[list[int]]:
    """``count`` whole numbers from low to high, both included, for each image."""
    return [torch.randint(low, high + 1, (count,), generator=generator).tolist() for generator in generators]
