"""Terms of the image alone (paper, equation 3): total variation and the l2 norm, for each image of a batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def total_variation(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Sum of four unsquared l2 norms of an image's differences: horizontal, vertical, and along both diagonals."""
    differences = (
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1, :] - images[:, :, 1:, :],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    )
    return sum((_norm(difference) for difference in differences[1:]), start=_norm(differences[0]))


def l2(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """||x||_2 over channels and space, in the network's normalised units."""
    return _norm(images)


def _norm(values: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    return values.flatten(1).norm(dim=1)
