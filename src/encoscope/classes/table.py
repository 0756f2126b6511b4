"""The labels of a dataset beside the classes of a network, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from encoscope import results
from encoscope.classes.labels import LabelMatch, match_labels
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.images import list_images


@dataclass(frozen=True)
class ClassMatches:
    """The labels of a dataset and the classes of a network that they stand for.

    Attributes:
        source: The network's source.
        outputs: Number of its classes.
        class_order: The order that was stated; None where none was.
        matches: An entry for each label: by the classes' indices, then those that stand for no single class.
        unlabelled: Number of images without a label.
    """

    source: str
    outputs: int
    class_order: str | None
    matches: tuple[LabelMatch, ...]
    unlabelled: int = 0

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.matches)

    @property
    def unmatched(self) -> tuple[LabelMatch, ...]:
        """The labels that stand for no class, or could stand for several."""
        return tuple(match for match in self.matches if match.index is None)

    def to_dict(self) -> results.Document:
        """Give the result document: an entry for each label."""
        entries = [{**asdict(match), "indices": list(match.indices), "index": match.index} for match in self.matches]
        return results.envelope(
            "classes",
            entries,
            model={"source": self.source, "classes": self.outputs},
            settings={"class_order": self.class_order},
            seed=None,
        )

    def __str__(self) -> str:
        rows = [("folder", "images", "class", "name", "how matched")]
        for match in self.matches:
            index = ", ".join(map(str, match.indices)) or "-"
            rows.append((match.label, str(match.images), index, match.name or "-", match.how))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column in (1, 2) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


@explain_calls
def match_classes(encoder: Encoder | nn.Module | str, images: Any, *, class_order: str | None = None) -> ClassMatches:
    """Show which class of a network each label (folder) of a dataset stands for.

    Args:
        encoder: The network; a classifier.
        images: A dataset string, a folder whose folders are labels, or a listing.
        class_order: As for ``match_labels``; None takes what the encoder states.

    Returns:
        The labels with their classes; ``print`` shows them as a table.

    Raises:
        UsageError: The network is no classifier, no image has a label, or the labels can be read in several ways.
        MissingError: There are no images.
    """
    encoder = as_encoder(encoder)
    counts = Counter(list_images(images).labels)
    unlabelled = counts.pop(None, 0)
    labels = [label for label in counts if label is not None]
    if not labels:
        raise UsageError("the images have no labels: name a folder with a folder for each class, or a labelled dataset")
    names = encoder.classes
    matches = [
        replace(
            match,
            images=counts[match.label],
            name="" if names is None or match.index is None else names[match.index],
        )
        for match in match_labels(encoder, labels, class_order=class_order).values()
    ]
    matches.sort(key=lambda match: (match.index is None, match.index or 0, match.label))
    stated = class_order or encoder.class_order
    return ClassMatches(encoder.source, encoder.outputs or 0, stated, tuple(matches), unlabelled)
