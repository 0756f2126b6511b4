"""The class that each label of a dataset stands for, by names, numbers or the labels' order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from encoscope.classes.names import WORDNET_NUMBER, match_name
from encoscope.encoder import CLASS_ORDERS, Encoder
from encoscope.errors import UsageError
from encoscope.images.imagenet import name_imagenet_classes

_DIGITS = re.compile(r"[0-9]+")
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


@dataclass(frozen=True)
class LabelMatch:
    """The class that a label of a dataset stands for.

    Attributes:
        label: The label as the dataset writes it.
        indices: The class's index; several where the label is ambiguous, none where it stands for no class.
        how: How it was found: "name", "name but for its writing" (case, ``_``), "synonym", "WordNet number", "index",
            "numeric order" or "text order"; "ambiguous" or "no match".
        images: Number of images with this label; 0 where they were not counted.
        name: The class's name; empty where there is none.
    """

    label: str
    indices: tuple[int, ...] = ()
    how: str = "no match"
    images: int = 0
    name: str = ""

    @property
    def index(self) -> int | None:
        """The index of the class; None where no single class matches."""
        return self.indices[0] if len(self.indices) == 1 else None


def match_labels(encoder: Encoder, labels: Iterable[str], *, class_order: str | None = None) -> dict[str, LabelMatch]:
    """Find the class that each label of a dataset stands for.

    In this order: the class of this name (the exact text; else whatever its case, ``_`` standing for a space; else one
    of the synonyms with commas between them), and WordNet numbers; for networks whose classes are ImageNet's also
    ImageNet's other names of them. If no label matches so: the stated order; or
    numbers 0 to K-1 for a network of K classes, which are indices, with leading zeros or without; or, for a network
    without class names and as many labels as classes, the labels in order, if it is the same as text (as torchvision
    sorts folders) and by the numbers in them (as timm does).

    Args:
        encoder: A network with a classification head.
        labels: The dataset's labels; repeated ones count once.
        class_order: "numeric" or "text": the labels in this order are the classes; "index": the numbers of the labels
            are the indices of their classes; "none": labels that are no name stand for no class. None takes what the
            encoder states.

    Returns:
        A match for each label.

    Raises:
        UsageError: The labels can be read in several ways, a stated order does not fit, or the network is no
            classifier.
    """
    count = encoder.outputs
    if count is None:
        raise UsageError(encoder.explain_missing_logits())
    order = class_order or encoder.class_order
    if order is not None and order not in CLASS_ORDERS:
        raise UsageError(f"class_order is one of {', '.join(CLASS_ORDERS)}, not {order!r}")
    known = sorted(set(labels))
    numbers = _read_numbers(known)
    matches = _match_names(encoder, known, count)
    if order is None and numbers is not None and 0 < len(matches) < len(known):
        other = next(label for label in known if label not in matches)
        _refuse(encoder, known, f"some are names of its classes, others such as {other!r} are not")
    if not matches and known and order != "none":
        matches = _match_order(encoder, known, numbers, count, order)
    return {label: matches.get(label, LabelMatch(label)) for label in known}


def count_matches(matches: Iterable[LabelMatch]) -> str:
    """Say how labels were matched with classes, as results record it.

    Args:
        matches: A match for each label.

    Returns:
        The number of labels for each way, such as "97 (name), 3 (no match)".
    """
    counts = Counter(match.how for match in matches)
    return ", ".join(f"{count} ({how})" for how, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def find_class_images(encoder: Encoder, index: int, labels: Sequence[str | None]) -> tuple[list[int], tuple[str, ...]]:
    """Find the images of a class among labelled images.

    Args:
        encoder: A network with a classification head.
        index: The class, an index of the logits.
        labels: The label of each image, None for an image without one.

    Returns:
        The positions in ``labels`` of the labels that stand for the class (see ``match_labels``), none if no label
        does; and notes for results on how these labels were matched, none for labels that are the class's name.

    Raises:
        UsageError: Which images are of the class cannot be told.
    """
    known = {label for label in labels if label is not None}
    matches = match_labels(encoder, known)
    alone = f"give images of class {index} alone, in a folder without subfolders"
    for match in matches.values():
        if len(match.indices) > 1 and index in match.indices:
            several = ", ".join(map(str, match.indices))
            raise UsageError(f"the label {match.label!r} is the name of several classes ({several}): {alone}")
    if encoder.classes is None and known and not any(match.indices for match in matches.values()):
        raise UsageError(
            f"{encoder.source} has no class names, and the images have {len(known)} labels for its {encoder.outputs} "
            f"classes: {alone}, or say --class-order"
        )
    notes = [
        f"images labelled {match.label!r} count as class {index} ({match.how}"
        + (f", class_order={encoder.class_order!r})" if encoder.class_order else ")")
        for match in matches.values()
        if match.index == index and not match.how.startswith("name")
    ]
    positions = [
        position for position, label in enumerate(labels) if label is not None and matches[label].index == index
    ]
    return positions, tuple(notes)


def _match_names(encoder: Encoder, known: Sequence[str], count: int) -> dict[str, LabelMatch]:
    """The labels that are names or WordNet numbers of classes; two numbers with one class's words are ambiguous."""
    matches = {}
    names = _number_imagenet_names(known) if encoder.classes is None else {}
    for label in known:
        match = match_name(names.get(label, label), encoder.classes, count)
        if match.indices:
            how = "name" if label in names else match.how if len(match.indices) == 1 else "ambiguous"
            matches[label] = LabelMatch(label, match.indices, how)
    numbered = Counter(match.index for match in matches.values() if match.how == "WordNet number")
    for label, match in matches.items():
        if match.how == "WordNet number" and numbered[match.index] > 1:
            matches[label] = LabelMatch(label, (), "ambiguous")
    return matches


def _number_imagenet_names(known: Sequence[str]) -> dict[str, str]:
    """The WordNet numbers of labels that are all names of ImageNet's classes, as ``imagenet:ROOT`` has them."""
    numbers = {name: number for number, name in name_imagenet_classes().items()}
    return {label: numbers[label] for label in known} if known and all(label in numbers for label in known) else {}


def _match_order(
    encoder: Encoder, known: Sequence[str], numbers: Mapping[str, int] | None, count: int, order: str | None
) -> dict[str, LabelMatch]:
    """The classes of labels that are no names: by a stated order, as indices, or in the one order there is."""
    if order == "index":
        return _match_indices(known, count)
    if order is not None:
        if len(known) != count:
            raise UsageError(
                f"class_order {order!r} needs a label for each of {encoder.source}'s {count} classes, and the images "
                f"have {len(known)}: 'index' takes the numbers in the labels as the classes' indices"
            )
        return _match_positions(known, order)
    in_text, in_numbers = sorted(known), sorted(known, key=_natural_key)
    if numbers is not None:
        is_whole = sorted(numbers.values()) == list(range(count))
        is_plain = all(map(_DIGITS.fullmatch, known))
        if is_whole and (is_plain or in_text == in_numbers):
            return {label: LabelMatch(label, (number,), "index") for label, number in numbers.items()}
        if is_plain or len(known) == count:
            _refuse(encoder, known, "they are numbered, and not from 0 on" if not is_whole else "they are numbered")
    if encoder.classes is not None or len(known) != count:
        return {}
    if in_text != in_numbers:
        _refuse(encoder, known, "as text they have another order than by the numbers in them, or by case")
    return _match_positions(known, "text")


def _match_positions(known: Sequence[str], order: str) -> dict[str, LabelMatch]:
    ordered = sorted(known, key=_natural_key) if order == "numeric" else sorted(known)
    return {label: LabelMatch(label, (index,), f"{order} order") for index, label in enumerate(ordered)}


def _match_indices(known: Sequence[str], count: int) -> dict[str, LabelMatch]:
    matches: dict[str, LabelMatch] = {}
    for label in known:
        digits = _DIGITS.findall(label)
        if len(digits) != 1 or len(digits[0]) > 18 or int(digits[0]) >= count:
            raise UsageError(f"class_order 'index': the label {label!r} holds no number from 0 to {count - 1}")
        matches[label] = LabelMatch(label, (int(digits[0]),), "index")
    if len({match.indices for match in matches.values()}) < len(known):
        raise UsageError("class_order 'index': several labels have the same number")
    return matches


def _read_numbers(known: Sequence[str]) -> dict[str, int] | None:
    """The numbers that labels are told apart by alone (7, 007, "class 7"); None where they are not."""
    parts = {label: match.groups() for label in known if (match := _NUMBERED.fullmatch(label))}
    prefixes = {prefix for prefix, _ in parts.values()}
    if not known or len(parts) < len(known) or len(prefixes) > 1:
        return None
    if all(map(WORDNET_NUMBER.fullmatch, known)) or (prefixes != {""} and len(known) == 1):
        return None
    return {label: int(digits[-18:]) for label, (_, digits) in parts.items()}


def _natural_key(label: str) -> tuple[tuple[int, int, str], ...]:
    """Orders labels by the numbers in them and whatever their case, as timm does."""
    parts = [part for part in re.split(r"([0-9]+)", label.lower()) if part]
    return tuple((0, int(part[-18:]), "") if _DIGITS.fullmatch(part) else (1, 0, part) for part in parts)


def _refuse(encoder: Encoder, known: Sequence[str], why: str) -> NoReturn:
    shown = sorted(known, key=_natural_key)
    examples = ", ".join(map(repr, shown[:3])) + (f" ... {shown[-1]!r}" if len(shown) > 3 else "")
    raise UsageError(
        f"which of {encoder.source}'s {encoder.outputs} classes the {len(known)} labels {examples} stand for "
        f"cannot be told ({why}): say --class-order numeric or text if they are the classes in this order, index if "
        "their numbers are the classes' indices from 0 on, none if they are no classes"
    )
