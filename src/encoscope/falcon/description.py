"""What FALCON says of a unit: concepts, the images behind them, and how far the words can be believed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, UInt8

from encoscope import plots, results
from encoscope.concise_repr import concise_repr
from encoscope.counting import count_noun
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError
from encoscope.falcon.crops import Box
from encoscope.falcon.embedding import reread_image
from encoscope.falcon.heldout import HeldoutTest, give_verdict
from encoscope.falcon.selection import DescriptionOutcome
from encoscope.falcon.writing import UnitFiles, write_units
from encoscope.images import SkippedImage
from encoscope.results import Document, ModelRecord, Result, ResultList

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "description"
_GREY = 128
_CONTROL_NAMES = {"permuted": "other units", "captions": "random captions"}


@dataclass(frozen=True)
class Concept:
    """A word or phrase and its score.

    Attributes:
        word: The word, as a noun's lemma, or the phrase.
        score: Equation 1, in the unit of the captions' scores; soft-WPMI for a label by CLIP-Dissect.
    """

    word: str
    score: float

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        return {"word": self.word, "score": self.score}


@concise_repr
@dataclass(frozen=True, eq=False)
class Example:
    """An image behind a description.

    Attributes:
        path: Its file; None for a probe without files.
        id: The sha256 of the file.
        activation: The unit's value on it, as the encoder gives it.
        box: ``[x0, y0, x1, y1]`` in the original image's pixels, what was cropped; None for a counterfactual, of which
            the whole image counts.
        cam: The GradCAM that the box comes from, 0 to 255, on the layer's grid of the network's own crop.
        captions: Its best captions, with their scores.
    """

    path: str | None
    id: str
    activation: float
    box: Box | None = None
    cam: UInt8[np.ndarray, "rows columns"] | None = None
    captions: tuple[tuple[str, float], ...] = ()

    @cached_property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The whole image; grey where its file is missing."""
        try:
            return plots.to_rgb(reread_image(self.id, self.path, None))
        except EncoscopeError:
            return np.full((96, 96, 3), _GREY, dtype=np.uint8)

    @property
    def crop(self) -> UInt8[np.ndarray, "height width 3"]:
        """The part that was cropped; of a counterfactual the whole image."""
        pixels = self.pixels
        if self.box is None or pixels.shape[0] <= self.box[3] or pixels.shape[1] <= self.box[2]:
            return pixels
        x0, y0, x1, y1 = self.box
        return pixels[y0 : y1 + 1, x0 : x1 + 1]

    @property
    def mask(self) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of the image inside the box."""
        if self.box is None:
            return None
        mask = np.zeros(self.pixels.shape[:2], dtype=bool)
        x0, y0, x1, y1 = self.box
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        return mask

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain: dict[str, Any] = {"path": self.path, "id": self.id, "activation": self.activation}
        if self.box is not None:
            plain["box"] = list(self.box)
        if self.cam is not None:
            plain["cam"] = self.cam
        return plain | {"captions": [{"text": text, "score": score} for text, score in self.captions]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], document: Path) -> Example:
        """Read what stands in a result document.

        Args:
            plain: One of the entry's "high" or "low".
            document: The document's file, which its path is relative to.

        Returns:
            The example.
        """
        path, box, cam = plain["path"], plain.get("box"), plain.get("cam")
        return cls(
            path=None if path is None else os.path.normpath(results.resolve(path, document)),
            id=plain["id"],
            activation=plain["activation"],
            box=None if box is None else (box[0], box[1], box[2], box[3]),
            cam=None if cam is None else np.array(cam, dtype=np.uint8),
            captions=tuple((caption["text"], caption["score"]) for caption in plain["captions"]),
        )


@concise_repr
@dataclass(frozen=True, eq=False)
class Description(Result):
    """A unit in words.

    Attributes:
        unit: The unit, as it was written.
        concepts: Words, best first.
        phrases: Noun phrases, best first.
        spurious: Words and phrases that were dropped because the counterfactuals share them.
        outcome: How the description came about, or why there is none.
        images: The number of images in T_i, or of the strongest where those are used instead.
        note: Why it is not plain FALCON; empty where it is.
        interpretability: The mean cosine over all pairs of crops, each with itself too, as the authors compute it; None
            for fewer than two crops.
        clarity: The mean cosine over pairs of different crops, in [-1, 1].
        interpretable: Whether clarity is above ``clarity_threshold``.
        heldout: The test on images that were not used; None where there is none.
        untested: Why there is no test of its words; empty where there is one, or no words.
        high: The first images of T_i, strongest first when the representation of each image has length 1.
        low: The first counterfactuals, most similar first.
        settings: What decided it, with the models and captions.
        seed: The seed of everything random.
        model: The encoder.
        skipped: Images of the probe that could not be read.
    """

    unit: str
    concepts: tuple[Concept, ...]
    phrases: tuple[Concept, ...]
    spurious: tuple[Concept, ...]
    outcome: DescriptionOutcome
    images: int
    note: str = ""
    interpretability: float | None = None
    clarity: float | None = None
    interpretable: bool = False
    heldout: HeldoutTest | None = None
    untested: str = ""
    high: tuple[Example, ...] = ()
    low: tuple[Example, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seed: int = RANDOM_STATE
    model: ModelRecord | None = field(default=None, repr=False)
    skipped: tuple[SkippedImage, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"{self.unit}: {', '.join(self.words) or self.note or 'no concept'}"

    @property
    def words(self) -> tuple[str, ...]:
        """The concepts without their scores."""
        return tuple(concept.word for concept in self.concepts)

    @property
    def verdict(self) -> str:
        """What its test came to: "beats its control", "no better than chance", "too few images" or "no words"."""
        return give_verdict(self.heldout, bool(self.concepts))

    @property
    def method(self) -> str:
        """What the words come from: "falcon"; "falcon, top-k" (from the strongest images); "dissect"; or "none"."""
        return self.outcome.method

    @property
    def explained(self) -> bool:
        """Whether FALCON itself found a concept, from images above alpha."""
        return self.outcome is DescriptionOutcome.EXPLAINED

    def entry(self) -> dict[str, Any]:
        """Give this description's entry in a result document."""
        return {
            "unit": self.unit,
            "concepts": [concept.as_dict() for concept in self.concepts],
            "phrases": [concept.as_dict() for concept in self.phrases],
            "spurious": [concept.as_dict() for concept in self.spurious],
            "method": self.method,
            "outcome": self.outcome.value,
            "note": self.note,
            "images": self.images,
            "alpha": self.settings.get("alpha"),
            "epsilon": self.settings.get("epsilon"),
            "interpretability": self.interpretability,
            "clarity": self.clarity,
            "interpretable": self.interpretable,
            "heldout": None if self.heldout is None else self.heldout.as_dict(),
            "untested": self.untested,
            "verdict": self.verdict,
            "high": [example.as_dict() for example in self.high],
            "low": [example.as_dict() for example in self.low],
        }

    def to_dict(self) -> Document:
        """Give the result document: concepts, examples, the test, settings and provenance."""
        return results.envelope(KIND, [self.entry()], **_describe_run([self]))

    def draw_sheet(self, *, cell: int = 160, columns: int = 8) -> UInt8[np.ndarray, "height width 3"]:
        """Draw a contact sheet: the highly activating images with their boxes, the crops, the counterfactuals.

        Above them stand the concepts, what was dropped, and the test.

        Args:
            cell: The side of the square that each image is fitted into, in pixels.
            columns: Images in a row.

        Returns:
            An image, 0 to 255.
        """
        images: list[np.ndarray] = []
        texts: list[str] = []
        for example in self.high:
            images += [_draw_box(example), example.crop]
            texts += [f"{example.activation:.3g}", example.captions[0][0] if example.captions else ""]
        for example in self.low:
            images.append(example.pixels)
            texts.append(f"low: {example.activation:.3g}")
        if not images:
            images, texts = [np.full((cell, cell, 3), 255, dtype=np.uint8)], [self.note or "no images"]
        return plots.draw_contact_sheet(images, texts, columns, cell=cell, title=self._title())

    def plot(self) -> Figure:
        """Draw the contact sheet as a matplotlib figure."""
        from matplotlib.figure import Figure

        sheet = self.draw_sheet()
        figure = Figure(figsize=(12, 12 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet)
        axes.set_axis_off()
        return figure

    def _title(self) -> list[str]:
        words = ", ".join(f"{concept.word} {concept.score:.2f}" for concept in self.concepts)
        method = "" if self.explained else f" ({self.method})"
        behind = f" (from {count_noun(self.images, 'image')})" if words and self.images else ""
        lines = [f"{self.unit}{method}: {words or self.note or 'no concept'}{behind}"]
        if self.spurious:
            shared = ", ".join(concept.word for concept in self.spurious)
            lines.append(f"also true of images that do not activate it: {shared}")
        if self.heldout is not None:
            lines.append(f"{self.verdict}: AUC on images it was not made from {self.write_test()}")
        elif self.untested:
            lines.append(f"not tested: {self.untested}")
        return lines

    def write_test(self) -> str:
        """Write the test in one clause: the AUC, the images, and what chance gives.

        Returns:
            The clause; why there is no test where there is none.
        """
        if self.heldout is None:
            return self.untested
        test = self.heldout
        chance = "".join(f"; chance by {_CONTROL_NAMES[name]} {level}" for name, level in test.controls.items())
        return f"{test.auc} ({test.strong} strong images, {test.ordinary} others){chance}"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, the crops and a contact sheet into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        return write_units(path, [self.make_files()], about=_describe_run([self]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Description:
        """Read back what ``save`` wrote. The images are read from where they were.

        Args:
            path: The folder.

        Returns:
            The description.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result, or several descriptions.
        """
        descriptions = Descriptions.load(path)
        if len(descriptions) != 1:
            raise EncoscopeError(f"{path} holds {len(descriptions)} descriptions: read it with Descriptions.load")
        return descriptions[0]

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], document: Document, file: Path) -> Description:
        """Read one description of a result document.

        Args:
            entry: Its entry.
            document: The document.
            file: The document's file, which paths in it are relative to.

        Returns:
            The description.
        """
        model = document["model"]
        return cls(
            unit=entry["unit"],
            concepts=_read_concepts(entry["concepts"]),
            phrases=_read_concepts(entry["phrases"]),
            spurious=_read_concepts(entry["spurious"]),
            outcome=DescriptionOutcome(entry["outcome"]),
            images=entry["images"],
            note=entry["note"],
            interpretability=entry["interpretability"],
            clarity=entry["clarity"],
            interpretable=entry["interpretable"],
            heldout=None if entry["heldout"] is None else HeldoutTest.from_dict(entry["heldout"]),
            untested=entry.get("untested", ""),
            high=tuple(Example.from_dict(example, file) for example in entry["high"]),
            low=tuple(Example.from_dict(example, file) for example in entry["low"]),
            settings=document["settings"] | {"alpha": entry["alpha"], "epsilon": entry["epsilon"]},
            seed=document["seed"] or 0,
            model=None if model is None else ModelRecord.from_dict(model),
            skipped=tuple(SkippedImage(**image) for image in document["skipped"]),
        )

    def make_files(self, *, images: bool = True, **more: Any) -> UnitFiles:
        """Give what is written of it.

        Args:
            images: Whether the crops and the contact sheet are.
            **more: More for its entry.

        Returns:
            The files.
        """
        if not images:
            return UnitFiles(self.entry() | more)
        return UnitFiles(self.entry() | more, self.draw_sheet(), [example.crop for example in self.high])


class Descriptions(ResultList[Description]):
    """The descriptions of several units, in the order of the units, and what they come to together.

    Args:
        descriptions: The descriptions.
        summary: Coverage (the share that FALCON explains, and that has any label), the mean AUC beside its controls,
            and the best label that is the same for all.
    """

    def __init__(self, descriptions: Iterable[Description] = (), summary: Mapping[str, Any] | None = None) -> None:
        super().__init__(descriptions)
        self.summary = dict(summary or {})

    def __repr__(self) -> str:
        return f"Descriptions({count_noun(len(self), 'unit')}, {self.summary.get('coverage', 0):.0%} explained)"

    @property
    def skipped(self) -> list[SkippedImage]:
        """Images of the probe that could not be read."""
        return list(dict.fromkeys(image for description in self for image in description.skipped))

    def to_dict(self) -> Document:
        """Give the result document."""
        entries = [description.entry() for description in self]
        return results.envelope(KIND, entries, **_describe_run(self)) | {"summary": self.summary}

    def save(self, path: str | os.PathLike[str], *, images: bool = True) -> Path:
        """Write ``result.json``, ``descriptions.parquet``, and the units' crops and contact sheets into a folder.

        Args:
            path: The folder; it is made if it is not there.
            images: Write the crops and contact sheets.

        Returns:
            The folder.
        """
        files = (description.make_files(images=images) for description in self)
        return write_units(path, files, about=_describe_run(self), summary=self.summary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Descriptions:
        """Read back what ``save`` wrote. The images are read from where they were.

        Args:
            path: The folder.

        Returns:
            The descriptions.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        descriptions = [Description.from_dict(entry, document, file) for entry in document["descriptions"]]
        return cls(descriptions, document.get("summary"))


def _describe_run(descriptions: list[Description]) -> dict[str, Any]:
    """What a document says of the run: of its first description, as all of a run share a model and settings."""
    skipped = list(dict.fromkeys(image for description in descriptions for image in description.skipped))
    if not descriptions:
        return {"model": None, "settings": {}, "seed": None, "skipped": skipped}
    first = descriptions[0]
    model = None if first.model is None else first.model.as_dict()
    return {"model": model, "settings": first.settings, "seed": first.seed, "skipped": skipped}


def _read_concepts(plain: Iterable[Mapping[str, Any]]) -> tuple[Concept, ...]:
    return tuple(Concept(concept["word"], concept["score"]) for concept in plain)


def _draw_box(example: Example) -> np.ndarray:
    """The image with its box drawn in white on black."""
    pixels = example.pixels.copy()
    if example.box is None or example.box[3] >= pixels.shape[0] or example.box[2] >= pixels.shape[1]:
        return pixels
    x0, y0, x1, y1 = example.box
    width = max(1, min(pixels.shape[:2]) // 100)
    for grow, level in ((2 * width, 0), (width, 255)):
        inside = pixels[y0 + grow : y1 + 1 - grow, x0 + grow : x1 + 1 - grow].copy()
        pixels[y0 : y1 + 1, x0 : x1 + 1] = level
        pixels[y0 + grow : y0 + grow + inside.shape[0], x0 + grow : x0 + grow + inside.shape[1]] = inside
    return pixels
