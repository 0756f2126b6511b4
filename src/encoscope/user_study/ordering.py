"""Who sees what in which order: all of it follows from a participant's code, on the page and here alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from encoscope.errors import UsageError

Item = TypeVar("Item")

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""What codes are made of: no letter or digit that is taken for another."""
LENGTH = 6
_CODE = re.compile(r"[A-Z0-9-]{1,32}")
_WORD = 0xFFFFFFFF


def is_code(text: object) -> bool:
    """Whether a text may be a participant's code: 1 to 32 capital letters, digits and dashes."""
    return isinstance(text, str) and _CODE.fullmatch(text) is not None


def hashed(text: str) -> int:
    """32 bits of a text: FNV-1a over its UTF-8 bytes, then mixed, so that texts that differ in one letter differ."""
    state = 0x811C9DC5
    for byte in text.encode():
        state = ((state ^ byte) * 0x01000193) & _WORD
    return _mixed(state)


def shuffled(items: Sequence[Item], label: str) -> list[Item]:
    """The items in an order that only the label decides (Fisher and Yates, numbers from splitmix over 32 bits)."""
    found, state = list(items), hashed(label)
    for last in range(len(found) - 1, 0, -1):
        state = (state + 0x9E3779B9) & _WORD
        other = _mixed(state) % (last + 1)
        found[last], found[other] = found[other], found[last]
    return found


def question_order(study: str, code: str, part: str, questions: Sequence[str]) -> list[str]:
    """The order of a part's questions."""
    return shuffled(questions, f"{study}/{code}/{part}/questions")


def choice_order(study: str, code: str, question: str, pictures: Sequence[str]) -> list[str]:
    """The order of a question's pictures, or of the images to choose from."""
    return shuffled(pictures, f"{study}/{code}/{question}/pictures")


def subset_of(study: str, code: str, part: str, subsets: int) -> int:
    """Which subset of a part a participant gets: of each question the one picture that is in it."""
    return hashed(f"{study}/{code}/{part}/subset") % subsets


def square(questions: int, methods: Sequence[str]) -> list[list[str]]:
    """For each question the method in each subset: a Latin square that goes on below itself.

    Every question shows each method in one subset, and a subset's questions share the methods as evenly as they can.
    """
    return [[methods[(row + column) % len(methods)] for column in range(len(methods))] for row in range(questions)]


def codes(study: str, count: int, parts: Sequence[tuple[str, int]], seed: int = 0) -> list[str]:
    """Codes to hand out, so many, that spread evenly over the subsets of each part (its name, and their number)."""
    if count < 0:
        raise UsageError(f"the number of participants is at least 0, not {count}")
    known: set[str] = set()
    found = []
    drawn = _codes(np.random.default_rng(seed))
    for place in range(count):
        wanted, rest = [], place
        for name, subsets in parts:
            wanted.append((name, subsets, rest % subsets))
            rest //= subsets
        fitting = (
            code
            for code in drawn
            if code not in known and all(subset_of(study, code, name, of) == subset for name, of, subset in wanted)
        )
        found.append(next(fitting))
        known.add(found[-1])
    return found


def _codes(rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield "".join(ALPHABET[index] for index in rng.integers(len(ALPHABET), size=LENGTH))


def _mixed(state: int) -> int:
    """The finalizer of MurmurHash3."""
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & _WORD
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & _WORD
    return state ^ (state >> 16)
