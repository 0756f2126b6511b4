"""Groups of features that are highly activated together: they explain more images than single features do.

Whether each feature of an image reaches alpha is one bit; groups are searched on packed bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from encoscope.concise_repr import concise_repr
from encoscope.errors import UsageError
from encoscope.falcon.settings import MODES, FalconSettings, GroupSettings
from encoscope.units import Unit

_ROWS = 8192


@concise_repr
@dataclass(frozen=True, eq=False)
class FeatureGroup:
    """Features (or channels) that are highly activated together.

    Attributes:
        members: Their numbers, ascending.
        images: The images on which they are, as rows of the matrix, ascending.
    """

    members: tuple[int, ...]
    images: Int[np.ndarray, " images"]


def make_group_unit(unit: Unit, members: Sequence[int]) -> Unit:
    """Make one unit of several channels of a space.

    Args:
        unit: Any unit of the space.
        members: The channels.

    Returns:
        The unit, with the text that names it.
    """
    channels = tuple(int(member) for member in members)
    text = ",".join(map(str, channels))
    if unit.kind == "features":
        return Unit(f"features:{text}", "features", channels=channels)
    if unit.kind == "class":
        return replace(unit, text=f"class:{text}", channels=channels)
    return Unit(f"{unit.layer}:{text}", "channel" if len(channels) == 1 else "group", unit.layer, channels)


def find_groups(
    h: Float[np.ndarray, "images channels"],
    alpha: float,
    *,
    mode: str = FalconSettings.mode,
    more_than: int = GroupSettings.more_than,
    largest: int = GroupSettings.largest,
    closed: bool = True,
) -> list[FeatureGroup]:
    """Find the groups of channels that many images share.

    Args:
        h: Rows of unit length.
        alpha: The threshold of a high activation.
        mode: "exact", the authors': images whose sets of features at or above alpha are identical make a group, single
            features too. "threshold": a group's images are all those whose members are above alpha, whatever else is
            (T_i of a group): every set of 2 to ``largest`` features that enough images share.
        more_than: A group is shared by more images than this; 10 is the authors'.
        largest: The most members of a group in mode "threshold".
        closed: Leave out sets of which a larger one shares the very same images.

    Returns:
        The groups, by their number of images, largest first, then by members.

    Raises:
        UsageError: For an unknown mode, and numbers that cannot be.

    Source: FALCON, section 3.4, and the authors' code.
    """
    if mode not in MODES:
        raise UsageError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    GroupSettings(more_than=more_than, largest=largest)
    if not h.size:
        return []
    exact = mode == "exact"
    groups = _find_exact(h, alpha, more_than) if exact else _find_frequent(h, alpha, more_than, largest, closed)
    return sorted(groups, key=lambda group: (-len(group.images), group.members))


def _find_exact(h: np.ndarray, alpha: float, more_than: int) -> list[FeatureGroup]:
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
            groups.append(FeatureGroup(tuple(members.tolist()), images.astype(np.int64)))
    return groups


def _find_frequent(h: np.ndarray, alpha: float, more_than: int, largest: int, closed: bool) -> list[FeatureGroup]:
    """Size by size: enough images can share a set only if enough share each of its subsets."""
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
            for index in np.flatnonzero(_count(both) > more_than):
                grown[(*members, int(later[index]))] = both[index]
        kept |= grown
        level = grown
        if not level:
            break
    sets = {members: np.flatnonzero(np.unpackbits(bits, count=len(h))) for members, bits in kept.items()}
    explained: set[tuple[int, ...]] = set()
    if closed:
        for members, images in sets.items():
            for left_out in range(len(members)):
                subset = members[:left_out] + members[left_out + 1 :]
                if subset in sets and len(sets[subset]) == len(images):
                    explained.add(subset)
    return [FeatureGroup(members, images) for members, images in sets.items() if members not in explained]


def _bits(h: np.ndarray, alpha: float, *, at: bool) -> Iterator[Bool[np.ndarray, "rows channels"]]:
    """Whether each entry passes alpha (at: reaches it), some rows at a time; a multiple of 8 of them."""
    for start in range(0, len(h), _ROWS):
        rows = h[start : start + _ROWS]
        yield rows >= alpha if at else rows > alpha


def _count(packed: UInt8[np.ndarray, "sets bytes"]) -> Int[np.ndarray, " sets"]:
    return np.bitwise_count(packed).sum(1, dtype=np.int64)
