"""Random numbers that belong to an image, so that it does not depend on what else is in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Generators: TypeAlias = Sequence[Generator]
"""One generator for each image of the batch, on the CPU whatever the device: every device draws the same numbers."""


def make_generators(random_state: int, names: Sequence[str]) -> list[Generator]:
    """Make a generator for each name, seeded by the name and the run's seed alone.

    Args:
        random_state: The run's seed.
        names: The units' texts.

    Returns:
        The generators.
    """
    generators = []
    for name in names:
        digest = hashlib.sha256(f"{random_state}\0{name}".encode()).digest()
        generators.append(Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1))
    return generators


def draw_normal(generators: Generators, *shape: int) -> Float[Tensor, "batch ..."]:
    """Draw standard normal numbers.

    Args:
        generators: The generator of each image.
        *shape: How many for each image.

    Returns:
        The numbers, with the batch as first axis.
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def draw_uniform(
    generators: Generators, *shape: int, low: float = 0.0, high: float = 1.0
) -> Float[Tensor, "batch ..."]:
    """Draw uniform numbers.

    Args:
        generators: The generator of each image.
        *shape: How many for each image.
        low: The lowest.
        high: The upper end, not included.

    Returns:
        The numbers, with the batch as first axis.
    """
    numbers = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return low + (high - low) * numbers


def draw_integers(generators: Generators, low: int, high: int, count: int) -> list[list[int]]:
    """Draw whole numbers.

    Args:
        generators: The generator of each image.
        low: The lowest.
        high: The highest, included.
        count: How many for each image.

    Returns:
        The numbers of each image.
    """
    return [torch.randint(low, high + 1, (count,), generator=generator).tolist() for generator in generators]
