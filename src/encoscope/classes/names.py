"""The class that a name stands for: exact text, the same but for its writing, synonyms, WordNet numbers."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images.imagenet import name_imagenet_classes

WORDNET_NUMBER = re.compile(r"n\d{8}")
"""A noun's number in WordNet: the name of a folder of ImageNet."""


@dataclass(frozen=True)
class NameMatch:
    """The classes that a name can stand for.

    Attributes:
        indices: Their indices; several where the name is ambiguous, none where no class has it.
        how: "name", "name but for its writing", "synonym" or "WordNet number"; "no match" where there is none.
    """

    indices: tuple[int, ...] = ()
    how: str = "no match"


@dataclass(frozen=True)
class _NameTable:
    """The indices of class names by their exact text, by the normalized whole, and by each normalized synonym."""

    exact: dict[str, list[int]]
    whole: dict[str, list[int]]
    synonyms: dict[str, list[int]]


def match_name(name: str, classes: Sequence[str] | None, count: int | None) -> NameMatch:
    """Find the classes that a name or a WordNet number can stand for.

    Args:
        name: The name.
        classes: The class names; commas separate synonyms. None for a network without names.
        count: The number of classes; with the number of one of ImageNet's sets, its WordNet numbers are known. None
            where that is not known.

    Returns:
        The classes of this exact text; else those of this name whatever its case, ``_`` standing for a space; else
        those with this synonym; else those that the WordNet number stands for; else, for a network whose classes are
        ImageNet's, those that ImageNet has other names for.
    """
    table = None if classes is None else _tabulate(tuple(classes))
    if table is None:
        return _match_number(name, None, count) if WORDNET_NUMBER.fullmatch(name) else NameMatch()
    normalized, own = normalize_name(name), tuple(classes or ())
    for indices, how in (
        (table.exact.get(name), "name"),
        (table.whole.get(normalized), "name but for its writing"),
        (table.synonyms.get(normalized), "synonym"),
    ):
        if indices and how == "synonym" and len(indices) > 1:
            return _match_imagenet_name(name, own, count) or NameMatch(tuple(indices), how)
        if indices:
            return NameMatch(tuple(indices), how)
    if WORDNET_NUMBER.fullmatch(name):
        return _match_number(name, own, count)
    return _match_imagenet_name(name, own, count) or _match_imagenet_synonym(normalized, own, count)


def find_class(text: str, encoder: Encoder) -> int:
    """Find the class that a user names.

    Args:
        text: An index, a name or a WordNet number, as for ``match_name``.
        encoder: A network with a classification head.

    Returns:
        The class's index.

    Raises:
        UsageError: There is no such class, or several have this name.
    """
    count = encoder.outputs
    if count is None:
        raise UsageError(encoder.explain_missing_logits())
    digits = text.strip()
    if digits.isascii() and digits.isdigit():
        digits = digits.lstrip("0") or "0"
        if len(digits) > len(str(count)) or int(digits) >= count:
            shown = digits if len(digits) < 20 else f"{digits[:8]}..."
            raise UsageError(
                f"there is no class {shown}, it is out of range: {encoder.source} has {count} classes, 0 to {count - 1}"
            )
        return int(digits)
    match = match_name(text, encoder.classes, count)
    if encoder.classes is None and not match.indices:
        raise UsageError(f"{encoder.source} has no class names: use class:N with an index from 0 to {count - 1}")
    return _take_single(text, match, encoder.classes or ())


def find_class_index(name: str, classes: Sequence[str]) -> int:
    """Find the class of a name.

    Args:
        name: A class name, whatever its case, ``_`` standing for a space.
        classes: The class names; commas separate synonyms, each of which counts.

    Returns:
        The position among ``classes``. The exact text comes first, then the whole name, then a synonym.

    Raises:
        UsageError: No class has this name (the nearest is suggested), or several classes have it.

    Example:
        >>> find_class_index("Golden_Retriever", ["tench", "golden retriever, goldie"])
        1
    """
    return _take_single(name, match_name(name, classes, None), classes)


def normalize_name(name: str) -> str:
    """Normalize a class name so that it can be compared.

    Args:
        name: A class name or a label.

    Returns:
        The name in lower case, with single spaces in place of ``_``.

    Example:
        >>> normalize_name("Golden_Retriever")
        'golden retriever'
    """
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def _take_single(name: str, match: NameMatch, classes: Sequence[str]) -> int:
    if len(match.indices) == 1:
        return match.indices[0]
    if match.indices:
        indices = ", ".join(map(str, match.indices))
        raise UsageError(f"{len(match.indices)} classes are called {name!r}: use an index, one of {indices}")
    plain = map(normalize_name, classes)
    raise UsageError(f"no class is called {name!r}{suggest_nearest(normalize_name(name), plain)}")


@lru_cache(maxsize=8)
def _tabulate(classes: tuple[str, ...]) -> _NameTable:
    exact, whole, synonyms = defaultdict(list), defaultdict(list), defaultdict(list)
    for index, name in enumerate(classes):
        exact[name].append(index)
        whole[normalize_name(name)].append(index)
        words = _describe_number(name) if WORDNET_NUMBER.fullmatch(name) else name
        for synonym in _split_synonyms(words):
            synonyms[synonym].append(index)
    return _NameTable(dict(exact), dict(whole), dict(synonyms))


def _split_synonyms(name: str) -> set[str]:
    return {part.strip() for part in normalize_name(name).split(",")} - {""}


def _match_number(number: str, classes: tuple[str, ...] | None, count: int | None) -> NameMatch:
    """A WordNet number: its position in the ImageNet of this many classes, else the class with its words."""
    positions = _list_imagenet(count, classes)
    if positions is not None:
        index = positions.get(number)
        return NameMatch() if index is None else NameMatch((index,), "WordNet number")
    if classes is None:
        return NameMatch()
    table, words = _tabulate(classes), _describe_number(number)
    whole = table.whole.get(normalize_name(words))
    indices = whole or sorted({index for word in _split_synonyms(words) for index in table.synonyms.get(word, ())})
    return NameMatch(tuple(indices), "WordNet number") if indices else NameMatch()


@lru_cache(maxsize=8)
def _list_imagenet(count: int | None, classes: tuple[str, ...] | None) -> dict[str, int] | None:
    """The WordNet numbers of the ImageNet with so many classes; None where the network's names are other ones."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count or 0})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    numbers = list(info.label_names())
    if classes is not None:
        words = [info.index_to_description(index) for index in range(len(numbers))]
        agreeing = sum(
            not _split_synonyms(own).isdisjoint(_split_synonyms(word)) or own == number
            for own, word, number in zip(classes, words, numbers, strict=False)
        )
        if 2 * agreeing < len(numbers):  # names differ a little from one list to another, but not most of them
            return None
    return {number: index for index, number in enumerate(numbers)}


def _match_imagenet_name(name: str, classes: tuple[str, ...], count: int | None) -> NameMatch | None:
    """A name of ImageNet that no two of its classes share: "crayfish" is no spiny lobster, of which it is a synonym."""
    positions = _list_imagenet(count, classes)
    number = None if positions is None else _number_imagenet_names().get(name)
    index = None if positions is None or number is None else positions.get(number)
    return None if index is None else NameMatch((index,), "synonym")


def _match_imagenet_synonym(normalized: str, classes: tuple[str, ...], count: int | None) -> NameMatch:
    """Another word that ImageNet has for a class, where the network has one: "saxophone" for "sax"."""
    positions = _list_imagenet(count, classes)
    indices = [] if positions is None else _tabulate_imagenet(tuple(positions)).get(normalized, [])
    return NameMatch(tuple(indices), "synonym") if indices else NameMatch()


@cache
def _number_imagenet_names() -> dict[str, str]:
    return {name: number for number, name in name_imagenet_classes().items()}


@lru_cache(maxsize=2)
def _tabulate_imagenet(numbers: tuple[str, ...]) -> dict[str, list[int]]:
    """The positions of WordNet numbers by each of their words."""
    synonyms = defaultdict(list)
    for index, number in enumerate(numbers):
        for synonym in _split_synonyms(_describe_number(number)):
            synonyms[synonym].append(index)
    return dict(synonyms)


def _describe_number(number: str) -> str:
    """The words of a WordNet number, with commas between them; empty for one that ImageNet does not have."""
    try:
        return str(_load_wordnet().label_name_to_description(number))
    except KeyError:
        return ""


@cache
def _load_wordnet() -> Any:  # timm annotates its methods loosely
    from timm.data.imagenet_info import ImageNetInfo

    return ImageNetInfo("imagenet-22k")
