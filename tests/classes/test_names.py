"""The class that a user names: exact text, then its writing, then synonyms, then WordNet numbers."""

from __future__ import annotations

import unicodedata

import pytest

from encoscope.classes import find_class, find_class_index
from encoscope.errors import UsageError
from encoscope.units import parse_unit
from support.heads import heads


@pytest.mark.parametrize(
    ("name", "classes", "index"),
    [
        ("crane", ["crane, bird", "crane"], 1),
        ("bird", ["crane, bird", "crane"], 0),
        ("turkey", ["Turkey", "turkey", "TURKEY"], 1),  # exact text first
        ("TURKEY", ["Turkey", "turkey", "TURKEY"], 2),
        ("Golden_Retriever", ["tench", "golden  retriever, goldie"], 1),
        (unicodedata.normalize("NFD", "café"), ["tea", unicodedata.normalize("NFC", "Café")], 1),  # macOS's folders
    ],
)
def test_names(name: str, classes: list[str], index: int) -> None:
    assert find_class_index(name, classes) == index
    assert parse_unit(f"class:{name}", heads(len(classes), classes)).index == index


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("tuRkey", ["Turkey", "turkey", "x"], "2 classes are called 'tuRkey': use an index, one of 0, 1"),
        ("crane", ["crane", "crane"], "one of 0, 1"),
        ("goldie", ["a, goldie", "b, Goldie"], "one of 0, 1"),
        ("tenchs", ["tench", "crane"], "nearest: tench"),
    ],
)
def test_ambiguous_and_unknown_names_are_refused(name: str, classes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_class_index(name, classes)
    with pytest.raises(UsageError, match=message):
        find_class(name, heads(len(classes), classes))


def test_wordnet_numbers_are_names() -> None:
    # the positions are those of ILSVRC 2012's own list, in which the numbers ascend
    imagenet = heads(1000)
    assert [find_class(number, imagenet) for number in ("n01440764", "n02099601", "n15075141")] == [0, 207, 999]
    own = heads(3, ["golden retriever", "tench, Tinca tinca", "parachute"])
    assert [find_class(number, own) for number in ("n02099601", "n01440764", "n03888257")] == [0, 1, 2]
    assert find_class("chute", heads(2, ["n03888257", "n01440764"])) == 0  # the classes themselves named by numbers
    others = heads(1000, [f"species {index}" for index in range(1000)])  # a thousand classes that are not ImageNet's
    for number in ("n01440764", "n99999999"):
        with pytest.raises(UsageError, match="no class is called"):
            find_class(number, others)


@pytest.mark.parametrize("text", ["1000", "9" * 5000, "00001000"])
def test_indices_out_of_range_are_one_short_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"out of range.*1000 classes, 0 to 999") as error:
        find_class(text, heads(1000))
    assert len(str(error.value)) < 120
    assert find_class("007", heads(1000)) == 7


def test_imagenet_has_other_names_for_its_classes() -> None:
    from encoscope.images.imagenet import name_imagenet_classes

    zoo = heads(1000, list(name_imagenet_classes().values()))  # the first name of each class
    for text, index in (("saxophone", 776), ("Orca", 148), ("cellphone", 487), ("puma", 286), ("ewer", 725)):
        assert find_class(text, zoo) == index
    with pytest.raises(UsageError, match="2 classes are called 'panda': use an index, one of 387, 388"):
        find_class("panda", zoo)
    for other in (heads(1000, [f"species {index}" for index in range(1000)]), heads(2, ["sax", "orca"])):
        with pytest.raises(UsageError, match="no class is called"):
            find_class("saxophone", other)
