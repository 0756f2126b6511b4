"""How smooth an image is: the two regularizers of VITAL."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def compute_total_variation(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Compute the sum of four unsquared l2 norms of differences: horizontal, vertical, and along both diagonals.

    Args:
        images: The images.

    Returns:
        The total variation of each image.

    Source: VITAL, equation 4; the four norms are from the authors' code.
    """
    differences = (
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1, :] - images[:, :, 1:, :],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    )
    return sum((_norm(difference) for difference in differences[1:]), start=_norm(differences[0]))


def compute_l2_norm(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Compute ||x||_2 over channels and space, in the network's normalized units.

    Args:
        images: The images.

    Returns:
        The norm of each image.
    """
    return _norm(images)


def _norm(values: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    return values.flatten(1).norm(dim=1)
