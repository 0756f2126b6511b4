"""Groups of features that are highly activated together: they explain more than single ones.

Which features of an image reach alpha is one bit each; groups are found on packed bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from encoscope.concise_repr import concise_repr
from encoscope.errors import UsageError
from encoscope.falcon.settings import Mode

_ROWS = 8192


@concise_repr
@dataclass(frozen=True, eq=False)
class Group:
    """Features (or channels) highly activated together, and on which images (rows of the matrix, ascending)."""

    members: tuple[int, ...]
    images: Int[np.ndarray, " images"]


@dataclass(frozen=True, eq=False)
class DescribedGroup:
    """A group as a unit. images: ids. clarity: mean cosine over all pairs of its different crops, None if not embedded.

    interpretable: the clarity is above the settings' ``clear`` (0.8 in the authors' code).
    """

    unit: str
    members: tuple[int, ...]
    images: tuple[str, ...]
    clarity: float | None
    interpretable: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        plain = {"unit": self.unit, "members": list(self.members), "images": len(self.images)}
        return plain | {"clarity": self.clarity, "interpretable": self.interpretable}


def find_groups(
    h: Float[np.ndarray, "images channels"],
    alpha: float,
    *,
    mode: Mode | str = "threshold",
    more_than: int = 10,
    largest: int = 4,
    closed: bool = True,
) -> list[Group]:
    """The groups that more than ``more_than`` images share, by their number of images, then by members.

    h: rows of unit length. mode: "exact", the authors': images whose sets of features at or above alpha are identical
    make a group, single features too. "threshold": a group's images are all those whose members pass alpha, whatever
    else does (T_i of a group): every set of 2 to ``largest`` features that enough images share. closed: leave out sets
    that a larger one explains as well, sharing the very same images.
    """
    if mode not in ("threshold", "exact"):
        raise UsageError(f"mode is threshold or exact, not {mode!r}")
    if more_than < 0 or largest < 2:
        raise UsageError(f"more_than is at least 0 and largest at least 2, not {more_than} and {largest}")
    if not h.size:
        return []
    found = _exact(h, alpha, more_than) if mode == "exact" else _frequent(h, alpha, more_than, largest, closed)
    return sorted(found, key=lambda group: (-len(group.images), group.members))


def _exact(h: np.ndarray, alpha: float, more_than: int) -> list[Group]:
    packed = np.concatenate([np.packbits(bits, axis=1) for bits in _bits(h, alpha, at=True)])
    # rows as single opaque values: sorting finds the identical ones
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    groups = []
    for number in np.flatnonzero(counts > more_than):
        members = np.flatnonzero(np.unpackbits(packed[first[number]], count=h.shape[1]))
        if len(members):
            images = order[ends[number] - counts[number] : ends[number]]
            groups.append(Group(tuple(members.tolist()), images.astype(np.int64)))
    return groups


def _frequent(h: np.ndarray, alpha: float, more_than: int, largest: int, closed: bool) -> list[Group]:
    """Level by level: a set can only be shared often enough if all its parts are."""
    columns = np.concatenate(
        [np.packbits(bits, axis=0) for bits in _bits(h, alpha, at=False)]
    )  # [images / 8, channels]
    columns = np.ascontiguousarray(columns.T)
    often = np.flatnonzero(_count(columns) > more_than)
    level: dict[tuple[int, ...], np.ndarray] = {(int(channel),): columns[channel] for channel in often}
    kept: dict[tuple[int, ...], np.ndarray] = {}
    for _ in range(2, largest + 1):
        grown: dict[tuple[int, ...], np.ndarray] = {}
        for members, bits in level.items():
            later = often[often > members[-1]]
            both = columns[later] & bits
            for place in np.flatnonzero(_count(both) > more_than):
                grown[(*members, int(later[place]))] = both[place]
        kept |= grown
        level = grown
        if not level:
            break
    sets = {members: np.flatnonzero(np.unpackbits(bits, count=len(h))) for members, bits in kept.items()}
    explained: set[tuple[int, ...]] = set()
    if closed:
        for members, images in sets.items():
            for left_out in range(len(members)):
                part = members[:left_out] + members[left_out + 1 :]
                if part in sets and len(sets[part]) == len(images):
                    explained.add(part)
    return [Group(members, images) for members, images in sets.items() if members not in explained]


def _bits(h: np.ndarray, alpha: float, *, at: bool) -> Iterator[Bool[np.ndarray, "rows channels"]]:
    """Whether each entry passes alpha (at: reaches it), some rows at a time; a multiple of 8 of them."""
    for start in range(0, len(h), _ROWS):
        rows = h[start : start + _ROWS]
        yield rows >= alpha if at else rows > alpha


def _count(packed: UInt8[np.ndarray, "sets bytes"]) -> Int[np.ndarray, " sets"]:
    return np.bitwise_count(packed).sum(1, dtype=np.int64)
