"""Schedules: the factor of the optimizer's learning rate in each step of a run."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int, int], float]
"""Gives the factor of the learning rate from (step, steps), steps counted from 0."""


def constant(step: int, steps: int) -> float:
    """Keep the learning rate.

    Args:
        step: The step, from 0.
        steps: The steps of the run.

    Returns:
        1.
    """
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Lower the learning rate from 1 to 0 along half a cosine.

    Args:
        step: The step, from 0.
        steps: The steps of the run.

    Returns:
        The factor.

    Example:
        >>> cosine(0, 9)
        1.0
    """
    return 0.5 * (1 + cos(pi * step / steps))


def warmup_cosine(step: int, steps: int) -> float:
    """Raise the learning rate in a straight line over the first twentieth of the run, then lower it along a cosine.

    With 2,000 steps the first 100 are the warm-up, as in the authors' code; shorter runs keep the proportion.

    Args:
        step: The step, from 0.
        steps: The steps of the run.

    Returns:
        The factor.

    Source: the code of VITAL's authors.
    """
    warmup = max(1, round(steps / 20))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / (steps - warmup)))
