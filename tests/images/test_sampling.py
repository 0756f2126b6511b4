"""Images are drawn from every class, with the seed, and a class's only image is never held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoscope.errors import UsageError
from encoscope.images import count_classes, draw_images, list_images, sample_images, split_images

LABELS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefg")), min_size=1, max_size=80)


@given(LABELS, st.integers(1, 90), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_a_draw_is_in_proportion_and_leaves_no_class_out(labels: list[str | None], count: int, seed: int) -> None:
    drawn = sample_images(labels, count, seed)
    assert drawn == sorted(set(drawn)) and len(drawn) == min(count, len(labels))
    assert drawn == sample_images(labels, count, seed)
    sizes, shares = Counter(labels), Counter(labels[index] for index in drawn)
    if count >= len(sizes):
        assert shares.keys() == sizes.keys()
    for name, size in sizes.items():  # within one of the exact share, but for classes that get their one image
        exact = len(drawn) * size / len(labels)
        assert shares[name] <= max(1, np.ceil(exact)) and shares[name] > exact - 1 - len(sizes)


def test_ten_folders_of_twenty_give_four_each_for_forty() -> None:
    labels = [f"class {index // 20}" for index in range(200)]
    for seed in range(5):
        drawn = sample_images(labels, 40, seed)
        assert Counter(labels[index] for index in drawn) == dict.fromkeys(set(labels), 4)
    assert sample_images(labels, 40, 0) != sample_images(labels, 40, 1)


def test_no_limit_takes_all_and_a_limit_below_one_is_refused() -> None:
    assert sample_images(["a", "b"], None) == sample_images(["a", "b"], 7) == [0, 1]
    with pytest.raises(UsageError, match="from 1 on"):
        sample_images(["a"], 0)


@given(LABELS, st.floats(0, 0.99), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_every_class_keeps_an_image_and_order_does_not_matter(labels, share, seed, shuffler) -> None:
    ids = [f"image {index}" for index in range(len(labels))]
    kept = split_images(ids, share, labels, seed)
    assert {label for label, out in zip(labels, kept, strict=True) if not out} == set(labels)
    sizes = Counter(labels)
    assert kept.sum() == min(round(share * len(ids)), sum(size - 1 for size in sizes.values()))
    order = list(range(len(ids)))
    shuffler.shuffle(order)
    again = split_images([ids[i] for i in order], share, [labels[i] for i in order], seed)
    assert {ids[i] for i, out in zip(order, again, strict=True) if out} == {
        name for name, out in zip(ids, kept, strict=True) if out
    }


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_copies_of_an_image_are_on_one_side(share: float) -> None:
    ids = [f"image {index % 25}" for index in range(60)]
    labels = [f"{int(name.split()[1]) % 3}" for name in ids]
    kept = split_images(ids, share, labels)
    assert all(len({bool(out) for other, out in zip(ids, kept, strict=True) if other == name}) == 1 for name in ids)
    assert kept.any() and not kept.all()


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_shares_outside_of_the_unit_interval_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match="holdout"):
        split_images(["a"], share)


def make_folders(root: Path, sizes: dict[str, int]) -> Path:
    for name, size in sizes.items():
        (root / name).mkdir(parents=True)
        for index in range(size):
            Image.new("RGB", (8, 8), (index, len(name), 3)).save(root / name / f"{index}.png")
    return root


def test_draws_from_folders_lists_arrays_and_streams(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "data", {"ant": 6, "bee": 3, "cow": 1})
    for source in (str(root), root, list_images(root), [str(root)]):
        drawn = draw_images(source, 5, 3)
        assert count_classes([Path(path).parent.name for path in drawn]) == {"ant": 3, "bee": 1, "cow": 1}
    assert draw_images(root, None) == root
    arrays = np.arange(10 * 12, dtype=np.uint8).reshape(10, 2, 2, 3)
    assert len(draw_images(arrays, 4)) == 4 and len(draw_images(list(arrays), 4)) == 4
    assert [item[0, 0, 0] for item in draw_images(iter(arrays), 2)] == [0, 12]
    flat = make_folders(tmp_path / "flat", {"": 6})
    assert len(draw_images(flat, 4, 1)) == 4 and draw_images(flat, 4, 1) != draw_images(flat, 4, 2)
