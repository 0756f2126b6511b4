"""What FALCON says of a unit: concepts, the images behind them, and how far it can be believed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, UInt8

from encoscope import plots
from encoscope.concise_repr import concise_repr
from encoscope.errors import EncoscopeError
from encoscope.falcon.crops import Box, reread_image
from encoscope.falcon.heldout import HeldoutTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY = 128


@dataclass(frozen=True)
class Concept:
    """A word or phrase and its score: equation 1, in the captions' own scores; soft-WPMI for a fallback."""

    word: str
    score: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        return {"word": self.word, "score": self.score}


@concise_repr
@dataclass(frozen=True, eq=False)
class Example:
    """An image behind a description.

    path, id: of its file. activation: the unit's value on it, as the encoder gives it. box: ``[x0, y0, x1, y1]`` in the
    original image's pixels, what was cropped; None for a counterfactual, which counts as a whole. cam: the GradCAM map
    the box came from, 0 to 255 on the layer's grid of the network's own crop. captions: its best, with their scores.
    """

    path: str | None
    id: str
    activation: float
    box: Box | None = None
    cam: UInt8[np.ndarray, "rows columns"] | None = None
    captions: tuple[tuple[str, float], ...] = ()

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The whole photo; grey where its file is gone."""
        try:
            return plots.to_rgb(reread_image(self.id, self.path))
        except EncoscopeError:
            return np.full((96, 96, 3), _GREY, dtype=np.uint8)

    @property
    def crop(self) -> UInt8[np.ndarray, "height width 3"]:
        """The part that was cropped; a counterfactual's whole photo."""
        pixels = self.pixels
        if self.box is None or pixels.shape[0] <= self.box[3] or pixels.shape[1] <= self.box[2]:
            return pixels
        x0, y0, x1, y1 = self.box
        return pixels[y0 : y1 + 1, x0 : x1 + 1]

    @property
    def mask(self) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of the photo inside the box."""
        if self.box is None:
            return None
        found = np.zeros(self.pixels.shape[:2], dtype=bool)
        x0, y0, x1, y1 = self.box
        found[y0 : y1 + 1, x0 : x1 + 1] = True
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        plain: dict[str, Any] = {"path": self.path, "id": self.id, "activation": self.activation}
        if self.box is not None:
            plain["box"] = list(self.box)
        if self.cam is not None:
            plain["cam"] = self.cam
        return plain | {"captions": [{"text": text, "score": score} for text, score in self.captions]}


@concise_repr
@dataclass(frozen=True, eq=False)
class Description:
    """A unit in words.

    unit: as it was written. concepts, phrases: best first. spurious: those that the counterfactuals share, taken out.
    method: "falcon"; "falcon, top-k" where no image (or fewer than asked for) passes alpha and the strongest stand in;
    "dissect" for soft-WPMI where FALCON finds no concept; "none" where nothing is to be said. note: why, where it is
    not plain "falcon".
    images: how many there are in T_i (or stand in); high, low: some of T_i and L_i, strongest first when the
    activations of each image are brought to unit length.
    interpretability: mean cosine over all pairs of crops as the authors compute it, each with itself too; clarity: over
    pairs of different ones; None for fewer than two crops. interpretable: clarity is above the settings' ``clear``.
    heldout: the test on images that were not used; None where none was made.
    """

    unit: str
    concepts: tuple[Concept, ...]
    phrases: tuple[Concept, ...]
    spurious: tuple[Concept, ...]
    method: str
    images: int
    note: str = ""
    interpretability: float | None = None
    clarity: float | None = None
    interpretable: bool = False
    heldout: HeldoutTest | None = None
    high: tuple[Example, ...] = ()
    low: tuple[Example, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model: Mapping[str, Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.unit}: {', '.join(self.words) or self.note or 'nothing found'}"

    @property
    def words(self) -> tuple[str, ...]:
        """The concepts without their scores."""
        return tuple(concept.word for concept in self.concepts)

    @property
    def explained(self) -> bool:
        """Whether FALCON itself found a concept, from images above alpha."""
        return self.method == "falcon"

    def entry(self) -> dict[str, Any]:
        """This description's entry in a result document."""
        return {
            "unit": self.unit,
            "concepts": [concept.as_dict() for concept in self.concepts],
            "phrases": [concept.as_dict() for concept in self.phrases],
            "spurious": [concept.as_dict() for concept in self.spurious],
            "method": self.method,
            "note": self.note,
            "images": self.images,
            "alpha": self.settings.get("alpha"),
            "epsilon": self.settings.get("epsilon"),
            "interpretability": self.interpretability,
            "clarity": self.clarity,
            "interpretable": self.interpretable,
            "heldout": None if self.heldout is None else self.heldout.as_dict(),
            "high": [example.as_dict() for example in self.high],
            "low": [example.as_dict() for example in self.low],
        }

    def sheet(self, *, cell: int = 160, columns: int = 8) -> UInt8[np.ndarray, "height width 3"]:
        """A contact sheet: the highly activating photos with their boxes, the crops, the counterfactuals; above them
        the concepts, what was taken out, and the test."""
        pictures: list[np.ndarray] = []
        texts: list[str] = []
        for example in self.high:
            pictures += [_outlined(example), example.crop]
            texts += [f"{example.activation:.3g}", example.captions[0][0] if example.captions else ""]
        for example in self.low:
            pictures.append(example.pixels)
            texts.append(f"low: {example.activation:.3g}")
        if not pictures:
            pictures, texts = [np.full((cell, cell, 3), 255, dtype=np.uint8)], [self.note or "no images"]
        return plots.draw_contact_sheet(pictures, texts, columns, cell=cell, title=self._title())

    def plot(self) -> Figure:
        """The contact sheet as a matplotlib figure."""
        from matplotlib.figure import Figure

        sheet = self.sheet()
        figure = Figure(figsize=(12, 12 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet)
        axes.set_axis_off()
        return figure

    def _title(self) -> list[str]:
        words = ", ".join(f"{concept.word} {concept.score:.2f}" for concept in self.concepts)
        method = "" if self.explained else f" ({self.method})"
        lines = [f"{self.unit}{method}: {words or self.note or 'nothing found'}"]
        if self.spurious:
            lines.append(f"also true of images that do not activate it: {', '.join(c.word for c in self.spurious)}")
        if self.heldout is not None:
            controls = "".join(f", {name} {found.value:.3f}" for name, found in self.heldout.controls.items())
            lines.append(f"AUC on images it was not made from: {self.heldout.auc}{controls}")
        return lines

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, the crops and a contact sheet into a folder."""
        from encoscope.falcon.writing import write

        return write([self], path)


class Descriptions(Sequence[Description]):
    """Several units' descriptions, in the order they were asked for, and what they come to together.

    summary: coverage (share that FALCON explains, and that has any label), mean AUC, and the best constant label.
    """

    def __init__(self, found: Sequence[Description], summary: Mapping[str, Any]) -> None:
        self._found = tuple(found)
        self.summary = dict(summary)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        return self._found[index]

    def __iter__(self) -> Iterator[Description]:
        return iter(self._found)

    def __repr__(self) -> str:
        return f"Descriptions({len(self)} units, {self.summary.get('coverage', 0):.0%} explained)"

    def save(self, path: str | os.PathLike[str], *, pictures: bool = True) -> Path:
        """Write ``result.json``, ``descriptions.parquet``, and the units' crops and contact sheets into a folder."""
        from encoscope.falcon.writing import write

        return write(self, path, summary=self.summary, pictures=pictures)


def _outlined(example: Example) -> np.ndarray:
    """The photo with its box drawn in white on black."""
    picture = example.pixels.copy()
    if example.box is None or example.box[3] >= picture.shape[0] or example.box[2] >= picture.shape[1]:
        return picture
    x0, y0, x1, y1 = example.box
    width = max(1, min(picture.shape[:2]) // 100)
    for grow, colour in ((2 * width, 0), (width, 255)):
        inside = picture[y0 + grow : y1 + 1 - grow, x0 + grow : x1 + 1 - grow].copy()
        picture[y0 : y1 + 1, x0 : x1 + 1] = colour
        picture[y0 + grow : y0 + grow + inside.shape[0], x0 + grow : x0 + grow + inside.shape[1]] = inside
    return picture
