"""Groups of features as a result: units with their images, saved as one document."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope import plots, results
from encoscope.concise_repr import concise_repr
from encoscope.defaults import RANDOM_STATE
from encoscope.images import SkippedImage
from encoscope.results import Document, ModelRecord, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "groups"
_SHOWN = 20  # groups on a chart


@concise_repr
@dataclass(frozen=True)
class DescribedGroup:
    """A group as a unit.

    Attributes:
        unit: The unit's text, which `describe` takes.
        members: The numbers of its features, ascending.
        images: The ids of its images.
        clarity: The mean cosine over all pairs of its different crops; None if they were not embedded.
        interpretable: Whether clarity is above ``clarity_threshold`` (0.8 in the authors' code).
    """

    unit: str
    members: tuple[int, ...]
    images: tuple[str, ...]
    clarity: float | None
    interpretable: bool

    def __str__(self) -> str:
        clarity = "" if self.clarity is None else f", clarity {self.clarity:.2f}"
        return f"{self.unit}: {len(self.images)} images{clarity}{', interpretable' if self.interpretable else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain = {"unit": self.unit, "members": list(self.members), "images": len(self.images)}
        return plain | {"clarity": self.clarity, "interpretable": self.interpretable}


@dataclass(frozen=True)
class DescribedGroups(Result):
    """The groups of a layer's features, those of most images first: a sequence of `DescribedGroup`.

    Attributes:
        groups: The groups.
        model: The encoder, with the layer.
        settings: All that decided them.
        seed: The seed of everything random.
        skipped: Images of the probe that could not be read.
    """

    groups: tuple[DescribedGroup, ...]
    model: ModelRecord
    settings: Mapping[str, Any] = field(repr=False)
    seed: int = RANDOM_STATE
    skipped: tuple[SkippedImage, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[DescribedGroup]:
        return iter(self.groups)

    def __getitem__(self, index: int) -> DescribedGroup:
        return self.groups[index]

    def __str__(self) -> str:
        return f"{len(self)} groups, {sum(group.interpretable for group in self)} interpretable"

    def to_dict(self) -> Document:
        """Give the result document; "image_rows" of a group are indices into its list "image_ids"."""
        ids = list(dict.fromkeys(image for group in self for image in group.images))
        rows = {image: row for row, image in enumerate(ids)}
        entries = [group.as_dict() | {"image_rows": [rows[image] for image in group.images]} for group in self]
        document = results.envelope(
            KIND, entries, model=self.model.as_dict(), settings=self.settings, seed=self.seed, skipped=self.skipped
        )
        return document | {"image_ids": ids}

    def plot(self) -> Figure:
        """Draw how many images the first groups share, interpretable ones in another color."""
        from matplotlib.figure import Figure

        shown = self.groups[:_SHOWN]
        figure = Figure(figsize=(8, 1.2 + 0.3 * len(shown)), layout="constrained")
        axes = figure.subplots()
        colors = plots.palette(2) / 255
        axes.barh(
            range(len(shown)),
            [len(group.images) for group in shown],
            color=[colors[int(group.interpretable)] for group in shown],
        )
        axes.set_yticks(range(len(shown)), [group.unit for group in shown])
        axes.invert_yaxis()
        axes.set_xlabel("images")
        axes.set_title(str(self), fontsize=9)
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json`` into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        results.write(Path(path) / "result.json", self.to_dict())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DescribedGroups:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The groups.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result.
        """
        document = results.read(Path(path) / "result.json", KIND)
        ids = document["image_ids"]
        groups = tuple(
            DescribedGroup(
                unit=entry["unit"],
                members=tuple(entry["members"]),
                images=tuple(ids[row] for row in entry["image_rows"]),
                clarity=entry["clarity"],
                interpretable=entry["interpretable"],
            )
            for entry in document["results"]
        )
        skipped = tuple(SkippedImage(**image) for image in document["skipped"])
        model = ModelRecord.from_dict(document["model"])
        return cls(groups, model, document["settings"], document["seed"], skipped)
