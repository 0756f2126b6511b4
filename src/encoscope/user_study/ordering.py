"""The order in which each participant sees things: it follows from a code, on the page and here alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError

Item = TypeVar("Item")

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""The characters of codes: no letter or digit that is mistaken for another."""
LENGTH = 6
_CODE = re.compile(r"[A-Z0-9-]{1,32}")
_WORD = 0xFFFFFFFF


def is_code(text: object) -> bool:
    """Tell whether a text may be a participant's code.

    Args:
        text: Anything.

    Returns:
        Whether it is a text of 1 to 32 capital letters, digits and dashes.
    """
    return isinstance(text, str) and _CODE.fullmatch(text) is not None


def hash_text(text: str) -> int:
    """Hash a text to 32 bits: FNV-1a over its UTF-8 bytes, then MurmurHash3's finalizer.

    Args:
        text: Any text.

    Returns:
        A number from 0 to 2^32 - 1. Texts that differ in one letter have unlike numbers.
    """
    state = 0x811C9DC5
    for byte in text.encode():
        state = ((state ^ byte) * 0x01000193) & _WORD
    return _mix(state)


def shuffle(items: Sequence[Item], label: str) -> list[Item]:
    """Bring items into an order that only a label decides (Fisher and Yates, with numbers of splitmix over 32 bits).

    Args:
        items: The items.
        label: Decides the order.

    Returns:
        The same items in that order.
    """
    shuffled, state = list(items), hash_text(label)
    for last in range(len(shuffled) - 1, 0, -1):
        state = (state + 0x9E3779B9) & _WORD
        other = _mix(state) % (last + 1)
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    return shuffled


def order_questions(study: str, code: str, part: str, questions: Sequence[str]) -> list[str]:
    """Bring the questions of a part into a participant's order.

    Args:
        study: The study's identifier.
        code: The participant's code.
        part: The part.
        questions: The names of its questions, in the order of the questionnaire's file.

    Returns:
        The names in the order of this participant.
    """
    return shuffle(questions, f"{study}/{code}/{part}/questions")


def order_images(study: str, code: str, question: str, files: Sequence[str]) -> list[str]:
    """Bring the images of a question into a participant's order.

    Args:
        study: The study's identifier.
        code: The participant's code.
        question: The name of the question.
        files: Its visualizations, or the real images to choose from, sorted by name.

    Returns:
        The files in the order of this participant.
    """
    return shuffle(files, f"{study}/{code}/{question}/pictures")


def find_subset(study: str, code: str, part: str, subsets: int) -> int:
    """Find which subset of a part a participant sees: of each question the one visualization that is in it.

    Args:
        study: The study's identifier.
        code: The participant's code.
        part: The part.
        subsets: The number of subsets.

    Returns:
        The index of the subset, from 0 on.
    """
    return hash_text(f"{study}/{code}/{part}/subset") % subsets


def make_latin_square(questions: int, methods: Sequence[str]) -> list[list[str]]:
    """Assign methods to subsets by a Latin square that is repeated below itself.

    Args:
        questions: The number of questions.
        methods: The methods.

    Returns:
        For each question the method in each subset. Every question shows each method in one subset, and the questions
        of a subset share the methods as evenly as they can.
    """
    return [[methods[(row + column) % len(methods)] for column in range(len(methods))] for row in range(questions)]


def draw_codes(study: str, count: int, parts: Sequence[tuple[str, int]], random_state: int = RANDOM_STATE) -> list[str]:
    """Draw codes to hand out that spread evenly over the subsets of each part.

    Args:
        study: The study's identifier.
        count: The number of codes.
        parts: The name of each part with subsets, and how many it has.
        random_state: The seed of the codes.

    Returns:
        The codes, no two alike.

    Raises:
        UsageError: If the number is negative.
    """
    if count < 0:
        raise UsageError(f"the number of participants is at least 0, not {count}")
    codes: list[str] = []
    candidates = _draw_codes(np.random.default_rng(random_state))
    for index in range(count):
        targets, rest = [], index
        for name, subsets in parts:
            targets.append((name, subsets, rest % subsets))
            rest //= subsets
        codes.append(
            next(
                code
                for code in candidates
                if code not in codes
                and all(find_subset(study, code, name, of) == subset for name, of, subset in targets)
            )
        )
    return codes


def _draw_codes(rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield "".join(ALPHABET[index] for index in rng.integers(len(ALPHABET), size=LENGTH))


def _mix(state: int) -> int:
    """The finalizer of MurmurHash3."""
    state = ((state ^ (state >> 16)) * 0x85EBCA6B) & _WORD
    state = ((state ^ (state >> 13)) * 0xC2B2AE35) & _WORD
    return state ^ (state >> 16)
