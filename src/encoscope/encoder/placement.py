"""Find where on the image the tokens of a sequence lie, by changing parts of the image.

A patch token changes most when its own part of the image changes; a class token, a prompt, a register or a learned
query does not care where the image changes. So each image of the trial differs from the first in random cells of a
grid, and the tokens' responses are compared with the cells that changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import interpolate

TRIALS_IN_ANY_ORDER = 48
_ALPHA_STDS = 4.0  # of the correlation that chance gives
_LEAST = 0.15
_CLEAR = (
    0.45  # the correlation that shows an order: wrong ones fit in part, and patches that overlap respond to several
)
_FREEDOM = 0.25
_MANY = 100  # cells: so many tokens in the order of as many cells fit by chance no better than _LEAST
_EVEN = 0.58  # of the correlation that a tenth of the tokens exceed, for the mean of all
_OWN_SHARE = 0.15  # of a token's response that is not common to all
_MOST_SCORES = 10**7
_MOST_PAIRS = 2 * 10**7  # to be assigned in any order, which takes seconds for as many


@dataclass(frozen=True)
class PatchTrial:
    """Images of which each differs from the first in another part.

    Attributes:
        pixels: ``[1 + trials, channels, height, width]``; the first is the image that the others are compared with.
        masks: ``[trials, height, width]``, 1 where an image differs from the first.
        grids: For each trial (rows, columns) of the grid of whose cells half differ.
    """

    pixels: Float[Tensor, "images channels height width"]
    masks: Float[Tensor, "trials height width"]
    grids: tuple[tuple[int, int], ...]

    def select(
        self, responses: Float[np.ndarray, "trials tokens"], grid: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose the trials that tell the cells of a grid apart: those of its own cells, or all if there are none.

        Args:
            responses: As ``measure_responses`` gives them.
            grid: (rows, columns).

        Returns:
            The responses in these trials, and the *codes* ``[trials, cells]``: the share of each cell that differs, the
            cells in row-major order.
        """
        own = np.array([each == grid for each in self.grids])
        chosen = own if own.any() else np.ones_like(own)
        codes = interpolate(self.masks[None], size=grid, mode="area")[0].flatten(1).numpy().astype(np.float64)
        return responses[chosen], codes[chosen]


@dataclass(frozen=True)
class TokenOrder:
    """Which tokens of a sequence are patches, and of which cells.

    Attributes:
        extra: The positions of the tokens that belong to no cell, in the sequence's order.
        patches: The position of each cell's token, the cells in row-major order.
    """

    extra: tuple[int, ...]
    patches: tuple[int, ...]


def make_trial(
    channels: int, size: tuple[int, int], grids: Iterable[tuple[int, int]], trials: int | None = None
) -> PatchTrial:
    """Make the images of a trial.

    Args:
        channels: Number of channels.
        size: (height, width) in pixels.
        grids: (rows, columns) of the grids that the trial is for. In each image half of the cells of one of them
            change.
        trials: Number of images for each grid; None takes more for a grid of few cells.

    Returns:
        The images; the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    masks, used = [], []
    for rows, columns in grids:
        count = rows * columns
        for _ in range((trials or _count_trials(count)) // 2):
            ranks = torch.rand(count, generator=generator).argsort().argsort()
            cells = (ranks < count // 2).float().reshape(1, 1, rows, columns)
            for changed in (cells, 1 - cells):  # so that each cell changes in half of the trials
                masks.append(interpolate(changed, size=size, mode="nearest")[0, 0])
                used.append((rows, columns))
    first, other = torch.randn(2, channels, *size, generator=generator)
    other = other + 1.5  # brighter, too: noise of the same brightness changes little after a coarse patch embedding
    stacked = torch.stack(masks)
    return PatchTrial(torch.cat([first[None], torch.where(stacked[:, None] > 0, other, first)]), stacked, tuple(used))


def measure_responses(output: Tensor) -> Float[np.ndarray, "trials tokens"]:
    """Measure how much each token changes.

    Args:
        output: ``[1 + trials, tokens, channels]``, a layer's output for the images of a trial.

    Returns:
        The norm of each token's difference from the first image.
    """
    values = output.detach().float()
    changes = torch.linalg.vector_norm(values[1:] - values[:1], dim=2)
    return np.nan_to_num(changes.cpu().numpy().astype(np.float64))


def find_order(
    responses: Float[np.ndarray, "trials tokens"], codes: Float[np.ndarray, "trials cells"]
) -> TokenOrder | None:
    """Find the patch tokens in a sequence that holds them in row-major order, with any number of tokens between them.

    The order is first fitted to half of the trials and held against the other half, so that an order that fits by
    chance is not taken.

    Args:
        responses: As ``measure_responses`` gives them.
        codes: As ``PatchTrial.select`` gives them.

    Returns:
        The order; None if the tokens do not respond to where the image changes, or not in this order.
    """
    count, cells = responses.shape[1], codes.shape[1]
    if count < cells or cells * (count - cells + 1) > _MOST_SCORES:
        return None
    for fit, held_out in _halves(len(codes)):
        patches = _align(responses[fit], codes[fit])
        # The more tokens may be skipped, the better an order fits that is none.
        least = _CLEAR + _FREEDOM * min(1.0, (count - cells) / cells)
        if count > cells and score_order(responses[held_out], codes[held_out], patches) < least:
            return None
        if not responds_in_order(responses[held_out], codes[held_out], patches, clearly=cells < _MANY):
            return None
    order = _make_order(_align(responses, codes), count)
    matched = _match(responses, codes, np.array(order.patches))
    if matched.mean() < _EVEN * np.quantile(matched, 0.9):
        return None  # some fit well and others not at all: as of every other row
    if len(order.extra) >= 3 and respond_locally(responses[:, list(order.extra)], cells):
        return None  # the tokens between are patches, too: the grid is finer
    return order


def find_order_of_any_kind(
    responses: Float[np.ndarray, "trials tokens"], codes: Float[np.ndarray, "trials cells"]
) -> TokenOrder | None:
    """Find the patch tokens in a sequence that holds them in an order of its own, as windows one after the other.

    Args:
        responses: As ``measure_responses`` gives them, for ``TRIALS_IN_ANY_ORDER`` images.
        codes: As ``PatchTrial.select`` gives them.

    Returns:
        The order; None if no order fits well.
    """
    count, cells = responses.shape[1], codes.shape[1]
    if count < cells or cells * count > _MOST_PAIRS:
        return None
    for fit, held_out in _halves(len(codes)):
        patches = _assign(responses[fit], codes[fit])
        if score_order(responses[held_out], codes[held_out], patches) < _CLEAR:
            return None
    order = _make_order(_assign(responses, codes), count)
    extra = list(order.extra)
    return None if len(extra) >= 3 and respond_locally(responses[:, extra], cells) else order


def respond_locally(responses: Float[np.ndarray, "trials tokens"], cells: int) -> bool:
    """Tell whether tokens respond to parts of the image, each to another, wherever these parts are.

    Args:
        responses: As ``measure_responses`` gives them.
        cells: Number of cells that change in the trials, each on its own.

    Returns:
        False for tokens that respond to nothing or, as learned queries, all alike.
    """
    active = responses[:, responses.max(0) > 1e-6 * (responses.max() + 1e-30)]
    if active.shape[1] < 2:
        return False
    own = active - active.mean(1, keepdims=True)
    own -= own.mean(0)
    if own.std() < _OWN_SHARE * active.mean():
        return False
    pairs = own[::2] - own[1::2]
    powers = np.linalg.svd(_standardize(pairs), compute_uv=False) ** 2
    kinds = powers.sum() ** 2 / max(float((powers**2).sum()), 1e-30)  # of responses: their effective number
    return bool(kinds >= 0.45 * (min(*pairs.shape, cells) - 1))


def responds_in_order(
    responses: Float[np.ndarray, "trials tokens"],
    codes: Float[np.ndarray, "trials cells"],
    patches: np.ndarray,
    *,
    clearly: bool = False,
) -> bool:
    """Tell whether tokens change where their cells of the image change, more than by chance.

    Args:
        responses: As ``measure_responses`` gives them.
        codes: As ``PatchTrial.select`` gives them.
        patches: The position of each cell's token.
        clearly: Whether they must do so as clearly as shows an order that is not known already.

    Returns:
        Whether they do.
    """
    chance = 1 / np.sqrt(codes.shape[1] * max(1, len(codes) - 1))
    least = _CLEAR if clearly else min(_CLEAR, max(_LEAST, _ALPHA_STDS * chance))
    return bool(score_order(responses, codes, patches) > least)


def score_order(
    responses: Float[np.ndarray, "trials tokens"],
    codes: Float[np.ndarray, "trials cells"],
    patches: np.ndarray | None = None,
) -> float:
    """Compute the correlation of tokens' responses with the changes of their cells, averaged over cells that change.

    Args:
        responses: As ``measure_responses`` gives them.
        codes: As ``PatchTrial.select`` gives them.
        patches: The position of each cell's token; None for a token for each cell, in order.

    Returns:
        A value in [-1, 1].
    """
    changing = np.any(_standardize_codes(codes) != 0, axis=0)
    return float(_match(responses, codes, patches).sum() / max(1, changing.sum()))


def _match(responses: np.ndarray, codes: np.ndarray, patches: np.ndarray | None) -> np.ndarray:
    """[cells]: the correlation of each cell's changes with the responses of its token."""
    tokens = _standardize_responses(responses)
    return ((tokens if patches is None else tokens[:, patches]) * _standardize_codes(codes)).sum(0)


def _count_trials(cells: int) -> int:
    """Few for many cells: each trial tells something of every cell. Two pairs of trials, or several times two."""
    return next((trials for least, trials in ((36, 16),) if cells >= least), 24)


def _halves(trials: int) -> list[tuple[np.ndarray, np.ndarray]]:
    second = np.arange(trials) // 2 % 2 == 1  # each has both trials of a pair
    return [(~second, second), (second, ~second)]


def _standardize(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; columns that hardly vary become 0."""
    centred = values - values.mean(0)
    length = np.linalg.norm(centred, axis=0)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-6 * (np.abs(values).max() + 1e-30))


def _standardize_responses(responses: np.ndarray) -> np.ndarray:
    """Without what is common to all tokens: each image changes all of them a little, and some images more."""
    active = responses.max(0) > 1e-6 * (responses.max() + 1e-30)
    common = responses[:, active].mean(1, keepdims=True) if active.any() else 0.0
    return _standardize(np.where(active, responses - common, 0.0))


def _standardize_codes(codes: np.ndarray) -> np.ndarray:
    return _standardize(codes - codes.mean(1, keepdims=True))


def _align(responses: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The position of each cell's token: all in order, tokens may be skipped, the sum of correlations is highest.

    All skipped tokens stand before or after the patches unless skipping others fits clearly better.
    """
    tokens, expected = _standardize_responses(responses), _standardize_codes(codes)
    count, cells = tokens.shape[1], expected.shape[1]
    spare = count - cells
    # [skipped, cells]: the correlation of each cell with the token that is its own if so many were skipped before it
    scores = np.stack([(tokens[:, extra : extra + cells] * expected).sum(0) for extra in range(spare + 1)])
    sums = scores.sum(1)
    best = np.zeros(spare + 1)
    origins = np.empty((cells, spare + 1), dtype=np.int64)
    for cell in range(cells):
        leading = np.maximum.accumulate(best)
        origins[cell] = np.maximum.accumulate(np.where(best >= leading, np.arange(spare + 1), 0))
        best = leading + scores[:, cell]
    if best.max() <= sums.max() + 0.5:
        return int(sums.argmax()) + np.arange(cells)
    skipped = np.empty(cells, dtype=np.int64)
    extra = int(best.argmax())
    for cell in reversed(range(cells)):
        skipped[cell] = extra
        extra = int(origins[cell, extra])
    return skipped + np.arange(cells)


def _assign(responses: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The position of each cell's token, in any order: the sum of correlations is highest."""
    tokens, cells = linear_sum_assignment(-_standardize_responses(responses).T @ _standardize_codes(codes))
    patches = np.empty(codes.shape[1], dtype=np.int64)
    patches[cells] = tokens
    return patches


def _make_order(patches: np.ndarray, count: int) -> TokenOrder:
    positions = tuple(int(position) for position in patches)
    used = set(positions)
    return TokenOrder(tuple(position for position in range(count) if position not in used), positions)
