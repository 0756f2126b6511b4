"""Total Sobol indices: how much of a function's variance each input has a part in (Jansen 1999)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import qmc

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError


def draw_designs(
    inputs: int, samples: int, random_state: int = RANDOM_STATE
) -> tuple[Float[np.ndarray, "samples inputs"], Float[np.ndarray, "inputs samples inputs"]]:
    """Draw points in [0, 1]^inputs at which to evaluate a function.

    Args:
        inputs: The number of inputs.
        samples: The number of points, a power of two, as the scrambled Sobol sequence asks for.
        random_state: The seed.

    Returns:
        A, ``[samples, inputs]``, and for each input A with that one drawn again, ``[inputs, samples, inputs]``.

    Raises:
        UsageError: For no inputs, and for another number of samples.
    """
    if inputs < 1:
        raise UsageError(f"a function has at least one input, not {inputs}")
    if samples < 2 or samples & (samples - 1):
        raise UsageError(f"samples is a power of two, from 2 on, not {samples}")
    points = qmc.Sobol(2 * inputs, rng=np.random.default_rng(random_state)).random(samples)
    base, other = points[:, :inputs], points[:, inputs:]
    changed = np.repeat(base[None], inputs, axis=0)
    for index in range(inputs):
        changed[index, :, index] = other[:, index]
    return base, changed


def compute_total_indices(
    base: Float[np.ndarray, "*functions samples"], changed: Float[np.ndarray, "*functions inputs samples"]
) -> Float[np.ndarray, "*functions inputs"]:
    """Estimate total indices: the mean of (f(A) - f(A_i))^2 / 2 over the variance of f(A); 0 for a constant function.

    Args:
        base: ``[..., samples]``, values at A of any number of functions.
        changed: ``[..., inputs, samples]``, values at the A_i.

    Returns:
        ``[..., inputs]``.

    Source: Jansen 1999.
    """
    base, changed = base.astype(np.float64), changed.astype(np.float64)
    variance = base.var(axis=-1, ddof=1)
    parts = np.square(base[..., None, :] - changed).mean(axis=-1) / 2
    scale = np.abs(base).max(axis=-1, initial=0) ** 2
    constant = variance <= 1e-20 * scale
    return np.where(constant[..., None], 0.0, parts / np.where(constant, 1.0, variance)[..., None])


def compute_linear_indices(slopes: Float[np.ndarray, "*functions inputs"]) -> Float[np.ndarray, "*functions inputs"]:
    """Compute the total indices of linear functions of uniform inputs, in closed form: each squared slope's share.

    Args:
        slopes: ``[..., inputs]``.

    Returns:
        ``[..., inputs]``.
    """
    squares = np.square(slopes.astype(np.float64))
    total = squares.sum(axis=-1, keepdims=True)
    return np.where(total > 0, squares / np.where(total > 0, total, 1.0), 0.0)
