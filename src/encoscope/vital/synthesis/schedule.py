"""How a step's learning rate follows from its place in the run: factors of the optimiser's own rate."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int, int], float]
"""Gives the factor of the learning rate from (step, steps), steps counted from 0."""


def constant(step: int, steps: int) -> float:
    """Always 1."""
    return 1.0


def cosine(step: int, steps: int) -> float:
    """From 1 down to 0 along half a cosine."""
    return 0.5 * (1 + cos(pi * step / steps))


def warmup_cosine(step: int, steps: int) -> float:
    """VITAL's: up in a straight line over the first twentieth of the run, then half a cosine down to 0.

    With 2,000 steps the first 100 are the warm-up, as in the authors' code; shorter runs keep the proportion.
    """
    warmup = max(1, round(steps / 20))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / (steps - warmup)))
