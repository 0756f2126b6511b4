"""Numbers with their noun, as texts have them: one image, two images."""

from __future__ import annotations


def count_noun(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun.

    Args:
        count: The number.
        noun: The noun, or more of the sentence, for one.
        plural: The same for any other number; None adds an s.

    Returns:
        Such as "1 image" or "2 images".

    Example:
        >>> count_noun(1, "cluster"), count_noun(0, "cluster"), count_noun(1234, "class", "classes")
        ('1 cluster', '0 clusters', '1234 classes')
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
