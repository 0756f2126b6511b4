"""Which class each label of a dataset stands for, and which labels are refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from encoscope.classes import count_matches, find_class_images, match_labels
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from support.heads import heads


def indices(outputs: int, labels: list[str], names: list[str] | None = None, order=None) -> dict[str, int | None]:
    matches = match_labels(heads(outputs, names, order), labels)
    return {label: match.index for label, match in matches.items()}


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 1200), width=st.integers(1, 6), named=st.booleans(), seed=st.integers(0, 9))
def test_numbers_from_0_are_indices(count: int, width: int, named: bool, seed: int) -> None:
    labels = [f"{index:0{width}d}" for index in range(count)]
    expected = {label: int(label) for label in labels}
    random.Random(seed).shuffle(labels)
    assert indices(count, labels, [f"a{i} word" for i in range(count)] if named else None) == expected


@settings(max_examples=30, deadline=None)
@given(
    first=st.integers(1, 2000),
    count=st.integers(1, 40),
    prefix=st.sampled_from(["", "0", "class ", "class_", "k"]),
    named=st.booleans(),
)
def test_other_numbers_are_refused_unless_their_order_is_stated(first, count, prefix, named) -> None:
    count = max(count, 2) if prefix.strip("0") else count
    labels = [f"{prefix}{number}" for number in range(first, first + count)]
    names = [f"word {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(count)] if named else None
    with pytest.raises(UsageError, match=r"--class-order numeric or text .* index"):
        indices(count, labels, names)
    assert indices(count, labels, names, "numeric") == {label: i for i, label in enumerate(labels)}
    assert indices(count, labels, names, "text") == {label: i for i, label in enumerate(sorted(labels))}
    by_index = {label: first + i for i, label in enumerate(labels)}
    assert indices(first + count, labels, None, "index") == by_index
    assert set(indices(count, labels, names, "none").values()) == {None}


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (4, ["0", "1", "2", "4"]),  # a gap
        (1000, ["134", "517"]),  # some of the indices
        (12, [f"class {i}" for i in range(12)]),  # another order as text
        (3, ["0", "1", "01"]),  # a number twice
        (5, ["0", "1", "2"]),
        (3, ["cat 2", "cat 10", "dog"]),  # words: as text "cat 10" comes first
        (3, ["Zebra", "ant", "bee"]),  # torchvision sorts capitals first, timm does not
    ],
)
def test_labels_that_can_be_read_in_several_ways_are_refused(outputs: int, labels: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot be told"):
        indices(outputs, labels)


@pytest.mark.parametrize(
    ("outputs", "names", "labels", "expected"),
    [
        (10, None, [f"class {i}" for i in range(10)], list(range(10))),  # all readings agree
        (12, None, [f"class {i:02d}" for i in range(12)], list(range(12))),
        (3, None, ["c", "a", "b"], [2, 0, 1]),
        (3, ["7", "1", "0"], ["0", "1", "7"], [2, 1, 0]),  # the names are numbers: exact text first
        (3, ["tench", "goldfish", "shark"], ["c", "a", "b"], [None] * 3),  # other words than the names: no guess
        (3, ["Cat", "cat", "dog_house"], ["Cat", "cat", "Dog House"], [0, 1, 2]),
        (3, ["Cat", "CAT", "dog"], ["cat", "dog"], [None, 2]),  # ambiguous
        (2, ["tench, Tinca tinca", "golden retriever"], ["n02099601", "n01440764"], [1, 0]),
        (1000, None, ["n01440764", "n02099601", "background"], [0, 207, None]),
        (2, None, ["n02099601", "n01440764"], [1, 0]),  # no ImageNet of two classes: their order
        (2, ["crane", "dog"], ["n02012849", "n03126707"], [None, None]),  # the bird and the machine are both "crane"
    ],
)
def test_each_label_has_its_class(outputs, names, labels, expected) -> None:
    assert list(map(indices(outputs, labels, names).get, labels)) == expected


def test_names_that_are_numbers_and_other_numbers_contradict_each_other() -> None:
    names = [str(number) for number in range(1, 11)]
    with pytest.raises(UsageError, match="others such as '0' are not"):
        indices(10, [str(number) for number in range(10)], names)


def test_orders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="3 classes, and the images have 2"):
        indices(3, ["1", "2"], None, "numeric")
    for labels in (["1", "x"], ["3"], ["1", "01"], ["9" * 40]):
        with pytest.raises(UsageError, match="class_order 'index'"):
            indices(3, labels, None, "index")
    with pytest.raises(UsageError, match="one of numeric, text, index, none"):
        match_labels(heads(2), ["a", "b"], class_order="alphabetical")


def test_the_images_of_a_class() -> None:
    encoder = heads(3, ["Golden_Retriever", "crane", "crane"])
    labels = ["golden retriever", None, "tench", "Golden_Retriever", "crane"]
    assert find_class_images(encoder, 0, labels) == ([0, 3], ())
    with pytest.raises(UsageError, match="'crane' is the name of several classes"):
        find_class_images(encoder, 2, labels)
    with pytest.raises(UsageError, match="2 labels for its 3 classes"):
        find_class_images(heads(3), 1, ["a", "b"])
    with pytest.raises(UsageError, match="no classification head"):
        match_labels(Encoder(nn.Conv2d(3, 2, 2), size=8), ["a"])


@pytest.mark.parametrize(
    ("names", "order", "labels", "index", "note"),
    [
        (["tench", "crane"], None, ["Tench", "crane"], 0, None),
        (["tench", "crane"], None, ["0", "1"], 1, "images labelled '1' count as class 1 (index)"),
        (
            ["tench, Tinca tinca", "crane"],
            None,
            ["tinca_tinca"],
            0,
            "labelled 'tinca_tinca' count as class 0 (synonym)",
        ),
        (["tench, Tinca tinca", "crane"], None, ["n01440764"], 0, "count as class 0 (WordNet number)"),
        (None, "numeric", ["2", "10"], 1, "'10' count as class 1 (numeric order, class_order='numeric')"),
        (None, "text", ["2", "10"], 1, "'2' count as class 1 (text order, class_order='text')"),
        (None, None, ["a", "b"], 1, "'b' count as class 1 (text order)"),
    ],
)
def test_results_say_how_labels_were_matched(names, order, labels, index, note) -> None:
    encoder = heads(2, names, order)
    assert encoder.record == ({} if order is None else {"class_order": order})
    notes = find_class_images(encoder, index, labels)[1]
    assert len(notes) == (note is not None) and (note is None or notes[0].endswith(note))
    counted = count_matches(match_labels(encoder, labels).values())
    if note and len(labels) > 1 and order is not None:
        assert counted == f"2 ({order} order)"
