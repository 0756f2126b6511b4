"""What a visualization method finds: a picture of a unit, where it was attended to, and what made it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from encoscope import plots, results
from encoscope.concise_repr import concise_repr
from encoscope.vital.transparency import stretch_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "visualization"


@concise_repr
@dataclass(frozen=True, eq=False)
class Visualization:
    """A unit's picture.

    unit: as the user wrote it. name: the same, with the facet's number where it is one of several.
    image: values in [0, 1], as they were optimised. transparency: opacity, 0 to 1, of every pixel.
    losses: the whole loss ("loss") and its parts, a number a step.
    activation: the unit's value on the picture. reference_activation: its mean on the references, None without any.
    predicted: the network's class of the picture, {"index", "class", "probability"}; None without a classifier.
    references: their ids (with boxes of patches). notes: what a reader has to know, a sentence each.
    method, settings, seed, model: what made it; model: {"source", "digest", "layers"}.
    steps: done, of total: fewer where a run was interrupted.
    facet: which of how many, for a unit with several pictures. control: the name of the control this picture is, and
    judged: what the encoder that is explained makes of it, {"activation", "predicted"}.
    """

    unit: str
    name: str
    image: Float[np.ndarray, "height width channels"]
    transparency: Float[np.ndarray, "height width"]
    losses: Mapping[str, Float[np.ndarray, " steps"]]
    activation: float
    reference_activation: float | None
    predicted: Mapping[str, Any] | None
    references: tuple[str, ...]
    method: str
    settings: Mapping[str, Any]
    seed: int
    model: Mapping[str, Any]
    steps: int
    total: int
    notes: tuple[str, ...] = ()
    facet: Mapping[str, Any] | None = None
    control: str | None = None
    judged: Mapping[str, Any] | None = None

    @property
    def picture(self) -> Image.Image:
        """The picture as it is, 8 bits a channel; of many channels the first three."""
        return Image.fromarray(plots.to_rgb(self.image))

    @property
    def rgba(self) -> UInt8[np.ndarray, "height width 4"]:
        """The picture with its transparency, colours spread for display."""
        shown = plots.to_rgb(stretch_colors(torch.from_numpy(self.image).permute(2, 0, 1)))
        alpha = (self.transparency * 255).round().astype(np.uint8)
        return np.concatenate([shown, alpha[:, :, None]], 2)

    @property
    def transparent(self) -> Image.Image:
        """``rgba`` as an image."""
        return Image.fromarray(self.rgba)

    @property
    def over_white(self) -> Image.Image:
        """The transparent picture on white, for pages that show no transparency."""
        return Image.alpha_composite(Image.new("RGBA", self.transparent.size, "white"), self.transparent).convert("RGB")

    @property
    def caption(self) -> str:
        """Its name and what the network makes of it, in a line."""
        if self.predicted is None:
            return f"{self.name}: {self.activation:.3g}"
        label = self.predicted["class"] or f"class {self.predicted['index']}"
        return f"{self.name}: {label}, {self.predicted['probability']:.0%}"

    def plot(self) -> Figure:
        """A matplotlib figure: the picture, the picture with transparency, and the losses over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        left.imshow(self.picture)
        left.set_title(self.caption)
        middle.imshow(self.transparent)
        middle.set_title("attended to")
        for axes in (left, middle):
            axes.set_axis_off()
        for name, values in self.losses.items():
            right.plot(values, label=name, linewidth=2 if name == "loss" else 1)
        right.set_yscale("log" if all((values > 0).all() for values in self.losses.values()) else "linear")
        right.set_xlabel("step")
        right.legend(frameon=False)
        return figure

    def entry(self) -> dict[str, Any]:
        """Its entry in a result document, without the files."""
        ends = {
            name: [float(values[0]), float(values[-1])] if len(values) else [] for name, values in self.losses.items()
        }
        found: dict[str, Any] = {
            "unit": self.unit,
            "activation": self.activation,
            "reference_activation": self.reference_activation,
            "predicted": None if self.predicted is None else dict(self.predicted),
            "losses": ends,
            "references": list(self.references),
            "method": self.method,
            "settings": dict(self.settings),
            "steps": [self.steps, self.total],
            "notes": list(self.notes),
        }
        if self.facet is not None:
            found["facet"] = dict(self.facet)
        if self.control is not None:
            found |= {"control": self.control, "judged": self.judged, "model": dict(self.model)}
        return found

    def write(self, base: str | os.PathLike[str], document: str | os.PathLike[str]) -> dict[str, Any]:
        """Write BASE.png, BASE.transparent.png and BASE.losses.npz; gives the entry, files relative to the document.

        In the entry, "losses" are the first and the last step's; every step's are in the file.
        """
        base = Path(base)
        entry = self.entry()
        for kind, image, suffix in (("picture", self.picture, ""), ("transparent", self.transparent, ".transparent")):
            path = base.with_name(f"{base.name}{suffix}.png")
            with results.atomic_write(path) as temporary:
                image.save(temporary)
            entry[kind] = results.relative(path, document)
        path = base.with_name(f"{base.name}.losses.npz")
        with results.atomic_write(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **self.losses)
        return entry | {"every_loss": results.relative(path, document)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write picture, transparent picture, losses and ``result.json`` into a folder."""
        folder = Path(path)
        document = folder / "result.json"
        entry = self.write(folder / file_name(self.name), document)
        results.write(document, self.document([entry]))
        return folder

    def document(self, entries: Sequence[Mapping[str, Any]], skipped: Sequence[Any] = ()) -> results.Document:
        """The envelope of a run this one is part of."""
        return results.envelope(
            KIND, entries, model=self.model, settings=self.settings, seed=self.seed, skipped=skipped
        )


def make_contact_sheet(found: Sequence[Visualization], columns: int = 4, *, cell: int = 240) -> Image.Image:
    """All pictures in rows, each with its name and what the network makes of it."""
    pictures = [visualization.picture for visualization in found]
    captions = [
        f"{visualization.caption} ({visualization.control})" if visualization.control else visualization.caption
        for visualization in found
    ]
    return Image.fromarray(plots.draw_contact_sheet(pictures, captions, columns, cell=cell))


def file_name(unit: str) -> str:
    """A unit's text as part of a file name: letters, digits, dot, dash and underscore; others become a dash."""
    safe = "".join(character if character.isalnum() or character in "._-" else "-" for character in unit)
    return safe.strip(".-") or "unit"
