"""Non-negative matrix factorisation of activations: A ~ U W, with a concept a row of W (CRAFT, section 3.1)."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError, UsageError

_ITERATIONS = 1000


def check_non_negative(activations: Float[np.ndarray, "*shape"], layer: str) -> None:
    """Refuse negative activations, with what to do.

    Args:
        activations: The activations of a layer.
        layer: Its name, for the message.

    Raises:
        UsageError: When one is negative.
    """
    lowest = float(activations.min(initial=0))
    if lowest < 0:
        raise UsageError(
            f"layer {layer!r} gives negative activations (down to {lowest:.3g}), and non-negative factorisation takes "
            "none: choose a layer that ends in a ReLU, such as a ResNet's layer4"
        )


def factorize(
    activations: Float[np.ndarray, "patches channels"], number: int, random_state: int = RANDOM_STATE
) -> tuple[Float[np.ndarray, "patches concepts"], Float[np.ndarray, "concepts channels"]]:
    """Factorize activations: A ~ U W.

    Args:
        activations: ``[patches, channels]``, not negative.
        number: How many concepts.
        random_state: The seed of the start.

    Returns:
        U, how much of each concept is in each patch, and W, the concepts as directions of unit length.

    Raises:
        UsageError: For a number below 1.
        EncoscopeError: When there are fewer patches than concepts, or fewer concepts in them than asked for.

    Source: CRAFT, section 3.1.
    """
    if number < 1:
        raise UsageError(f"the number of concepts is a number from 1 on, not {number}")
    if len(activations) < number:
        raise EncoscopeError(f"{number} concepts take at least {number} patches, and there are {len(activations)}")
    nmf = NMF(init="nndsvda", max_iter=_ITERATIONS, random_state=random_state)
    nmf.set_params(n_components=number)  # its signature takes the default, a string, for the type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says how far it is from the activations
        shares = nmf.fit_transform(activations.astype(np.float64))
    lengths = np.linalg.norm(nmf.components_, axis=1)
    alive = int(((lengths > 0) & (shares > 0).any(0)).sum())
    if alive < number:
        raise EncoscopeError(f"only {alive} of {number} concepts are in these patches: ask for {max(alive, 1)}")
    return shares * lengths, nmf.components_ / lengths[:, None]


def compute_shares(
    activations: Float[np.ndarray, "vectors channels"], directions: Float[np.ndarray, "concepts channels"]
) -> Float[np.ndarray, "vectors concepts"]:
    """Compute how much of each direction is in activations, by non-negative least squares.

    Args:
        activations: ``[vectors, channels]``.
        directions: ``[concepts, channels]``.

    Returns:
        ``[vectors, concepts]``.
    """
    basis, triangle = np.linalg.qr(directions.T.astype(np.float64))
    reduced = activations.astype(np.float64) @ basis  # the same problem in as many dimensions as there are concepts
    return np.stack([nnls(triangle, vector)[0] for vector in reduced])


def compute_relative_error(
    activations: Float[np.ndarray, "patches channels"],
    shares: Float[np.ndarray, "patches concepts"],
    directions: Float[np.ndarray, "concepts channels"],
) -> float:
    """Compute what a factorization leaves out.

    Args:
        activations: ``[patches, channels]``, A.
        shares: ``[patches, concepts]``, U.
        directions: ``[concepts, channels]``, W.

    Returns:
        ||A - U W|| / ||A||.
    """
    norm = float(np.linalg.norm(activations))
    return float(np.linalg.norm(activations - shares @ directions)) / norm if norm else 0.0
