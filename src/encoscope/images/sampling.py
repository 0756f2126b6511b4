"""Draw some of the images of a dataset: with a seed, and from every class in proportion where there are labels."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError


def sample_images(labels: Sequence[Hashable], count: int | None, random_state: int = RANDOM_STATE) -> list[int]:
    """Draw some images, from every class in proportion to its size.

    Args:
        labels: Each image's class; None for an image without one. Images without a class count as one class.
        count: How many images; None, or more than there are, takes all.
        random_state: The seed.

    Returns:
        The indices of the images, in their order. Every class has at least one image if there are enough for that.

    Raises:
        UsageError: For a count below 1.

    Example:
        >>> [index // 3 for index in sample_images(["a"] * 3 + ["b"] * 3 + ["c"] * 3, 3)]
        [0, 1, 2]
    """
    if count is not None and count < 1:
        raise UsageError(f"a number of images is from 1 on, not {count}")
    if count is None or count >= len(labels):
        return list(range(len(labels)))
    members = _group(labels)
    generator = np.random.default_rng(random_state)
    sizes = {name: len(indices) for name, indices in members.items()}
    quotas = _share_out(sizes, count, dict.fromkeys(sizes, 1), generator)
    chosen = [generator.choice(members[name], quota, replace=False) for name, quota in quotas.items()]
    return sorted(int(index) for indices in chosen for index in indices)


def split_images(
    ids: Sequence[str], share: float, labels: Sequence[Hashable] | None = None, random_state: int = RANDOM_STATE
) -> Bool[np.ndarray, " images"]:
    """Choose the images that are held out, the same share of every class; a class always keeps an image.

    The choice depends on the images' ids and the seed, not on their order. Copies of an image are on the same side.

    Args:
        ids: The images' ids.
        share: The share that is held out, from 0 to below 1.
        labels: Each image's class, None for one without; without labels all images count as one class.
        random_state: The seed.

    Returns:
        Whether each image is held out.

    Raises:
        UsageError: For another share.
    """
    if not 0 <= share < 1:
        raise UsageError(f"holdout is a share of the images from 0 to below 1, or a dataset, not {share}")
    classes = dict(
        zip(reversed(ids), reversed(labels or [None] * len(ids)), strict=True)
    )  # a copy's first label counts
    ordered = sorted(classes, key=lambda identity: hashlib.sha256(f"{random_state}\0{identity}".encode()).digest())
    members: dict[Hashable, list[str]] = defaultdict(list)
    for identity in ordered:
        members[classes[identity]].append(identity)
    names = sorted(members, key=lambda name: members[name][0])
    most = {name: len(members[name]) - 1 for name in names}
    total = min(round(share * len(classes)), sum(most.values()))
    quotas = _share_out({name: most[name] + 1 for name in names}, total, {}, None, most)
    heldout = {identity for name in names for identity in members[name][: quotas[name]]}
    return np.array([identity in heldout for identity in ids], dtype=bool)


def count_classes(labels: Sequence[Hashable]) -> dict[str, int]:
    """Count the images of each class, for a result's record.

    Args:
        labels: Each image's class, None for one without.

    Returns:
        The number of images by class, in the classes' order; empty if no image has a class.
    """
    counts = Counter(str(label) for label in labels if label is not None)
    return dict(sorted(counts.items()))


def _group(labels: Sequence[Hashable]) -> Mapping[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    return members


def _share_out(
    sizes: Mapping[Hashable, int],
    total: int,
    least: Mapping[Hashable, int],
    generator: np.random.Generator | None,
    most: Mapping[Hashable, int] | None = None,
) -> dict[Hashable, int]:
    """Whole numbers in proportion to the sizes, of a given sum, by largest remainders; ties by lot, else by order."""
    names = list(sizes)
    most = sizes if most is None else most
    whole = sum(sizes.values())
    lots = dict(zip(names, generator.permutation(len(names)) if generator else range(len(names)), strict=True))
    exact = {name: total * size / whole for name, size in sizes.items()}
    quotas = {name: min(int(exact[name]), most[name]) for name in names}
    if sum(least.get(name, 0) for name in names) <= total:
        quotas = {name: max(quota, least.get(name, 0)) for name, quota in quotas.items()}
    while (left := total - sum(quotas.values())) != 0:
        if left > 0:
            able = [name for name in names if quotas[name] < most[name]]
            best = max(able, key=lambda name: (exact[name] - quotas[name], -lots[name]))
            quotas[best] += 1
        else:
            able = [name for name in names if quotas[name] > least.get(name, 0)]
            best = max(able, key=lambda name: (quotas[name] - exact[name], -lots[name]))
            quotas[best] -= 1
    return quotas
