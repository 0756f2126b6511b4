"""The result of every visualization method: an image of a unit, where it was attended to, and what made it."""

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
from encoscope.counting import count_noun
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.results import Document, ModelRecord, Result
from encoscope.vital.transparency import stretch_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "visualization"

_SQUARES = 16  # of the checkerboard along the short side
_LIGHT, _DARK = 235, 200


@concise_repr
@dataclass(frozen=True, eq=False)
class Visualization(Result):
    """A unit, visualized.

    Attributes:
        unit: The unit as the user wrote it.
        name: The same, with the facet's number where it is one of several.
        image: ``[height, width, channels]``, values in [0, 1], as they were optimized.
        transparency: ``[height, width]``, the opacity of every pixel, 0 to 1.
        losses: The whole loss ("loss") and its parts by name, a number for each step.
        activation: The unit's value on the image.
        reference_activation: The mean of the unit's value on the references; None without references.
        predicted: The network's class of the image, {"index", "class", "probability"}; None without a classifier.
        references: The ids of the references, with the boxes of patches.
        method: The method's name, such as "vital".
        settings: All settings that decide the result.
        seed: The seed of everything random.
        model: The encoder that was visualized.
        steps: The steps that were done.
        total: The steps of the whole run; more than ``steps`` where it was interrupted.
        notes: What a reader of the result has to know, a sentence each.
        facet: {"number", "of"} for a unit with several visualizations, else None.
        variant: {"number", "of"} for one of several pictures of a unit, else None.
        strength: How much the unit counted beside the photo that the image began as; None where it began as noise.
        profile: Each channel's mean over the references, in the last layer that was matched; None without references.
        frames: ``[frames, height, width, 3]``, the image on the way, 8 bits a channel; None where it was not kept.
        control: The name of the control this is, such as "untrained"; None for the visualization itself.
        judged: Of a control: what the encoder that is explained makes of it, {"activation", "predicted"}.
        controls: The controls that were made beside this visualization.
        n_references: The number of references behind the statistics; 0 for methods without references.
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
    model: ModelRecord
    steps: int
    total: int
    notes: tuple[str, ...] = ()
    facet: Mapping[str, Any] | None = None
    variant: Mapping[str, Any] | None = None
    strength: float | None = None
    profile: Float[np.ndarray, " _channels"] | None = None
    frames: UInt8[np.ndarray, "frames height width 3"] | None = None
    control: str | None = None
    judged: Mapping[str, Any] | None = None
    controls: tuple[Visualization, ...] = ()
    n_references: int = 0

    @property
    def picture(self) -> Image.Image:
        """The image as it is, 8 bits a channel; of many channels the first three."""
        return Image.fromarray(plots.to_rgb(self.image))

    @property
    def rgba(self) -> UInt8[np.ndarray, "height width 4"]:
        """The image with its transparency, colors spread for display."""
        rgb = plots.to_rgb(stretch_colors(torch.from_numpy(self.image).permute(2, 0, 1)))
        alpha = (self.transparency * 255).round().astype(np.uint8)
        return np.concatenate([rgb, alpha[:, :, None]], 2)

    @property
    def transparent(self) -> Image.Image:
        """``rgba`` as a PIL image."""
        return Image.fromarray(self.rgba)

    @property
    def over_white(self) -> Image.Image:
        """The transparent image on white, for pages that show no transparency."""
        return Image.alpha_composite(Image.new("RGBA", self.transparent.size, "white"), self.transparent).convert("RGB")

    @property
    def over_checkerboard(self) -> Image.Image:
        """The transparent image on grey squares, so that what is transparent does not pass for white."""
        height, width = self.transparency.shape
        side = max(1, min(height, width) // _SQUARES)
        rows, columns = np.indices((height, width)) // side
        squares = np.where((rows + columns) % 2, _DARK, _LIGHT).astype(np.uint8)
        return Image.alpha_composite(Image.fromarray(squares).convert("RGBA"), self.transparent).convert("RGB")

    @property
    def caption(self) -> str:
        """One line: the name, and the class that the network sees, or else the unit's value."""
        if self.predicted is None:
            return f"{self.name}: {self.activation:.3g}"
        label = self.predicted["class"] or f"class {self.predicted['index']}"
        return f"{self.name}: {label}, {self.predicted['probability']:.0%}"

    @property
    def reference_line(self) -> str:
        """One line: how many references there are, and the unit's mean value on them; empty without references."""
        if not self.n_references:
            return ""
        line = count_noun(self.n_references, "reference")
        if self.reference_activation is not None:
            line += f" with a mean activation of {self.reference_activation:.3g}; this image has {self.activation:.3g}"
        return line

    def __str__(self) -> str:
        return self.caption

    def plot(self) -> Figure:
        """Draw the image, the image with transparency, and the losses over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        left.imshow(self.picture)
        left.set_title(self.caption)
        middle.imshow(self.over_checkerboard)
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
        """Give the entry of a result document, without the files."""
        ends = {
            name: [float(values[0]), float(values[-1])] if len(values) else [] for name, values in self.losses.items()
        }
        entry: dict[str, Any] = {
            "unit": self.unit,
            "name": self.name,
            "activation": self.activation,
            "reference_activation": self.reference_activation,
            "predicted": None if self.predicted is None else dict(self.predicted),
            "losses": ends,
            "references": list(self.references),
            "n_references": self.n_references,
            "method": self.method,
            "settings": dict(self.settings),
            "steps": [self.steps, self.total],
            "notes": list(self.notes),
        }
        for name in ("facet", "variant"):
            if getattr(self, name) is not None:
                entry[name] = dict(getattr(self, name))
        if self.strength is not None:
            entry["strength"] = self.strength
        if self.control is not None:
            entry |= {"control": self.control, "judged": self.judged, "model": self.model.as_dict()}
        if self.controls:
            entry["controls"] = [control.entry() for control in self.controls]
        return entry

    def to_dict(self) -> Document:
        """Give the result document, without images and losses of each step."""
        return self.make_document([self.entry()])

    def write(
        self, base: str | os.PathLike[str], document: str | os.PathLike[str], *, arrays: bool = False
    ) -> dict[str, Any]:
        """Write BASE.png, BASE.transparent.png and BASE.losses.npz, and the same for each control.

        Args:
            base: The files' path without a suffix. A control's has ``.NAME`` of the control behind it.
            document: The path of the result document, to which the files' names are relative.
            arrays: Also write BASE.arrays.npz with image and transparency, which ``load`` needs.

        Returns:
            The entry with the files' names. Its "losses" are those of the first and the last step; those of every step
            are in the file.
        """
        base = Path(base)
        entry = self.entry()
        for kind, image, suffix in (("picture", self.picture, ""), ("transparent", self.transparent, ".transparent")):
            path = base.with_name(f"{base.name}{suffix}.png")
            with results.atomic_write(path) as temporary:
                image.save(temporary)
            entry[kind] = results.relative(path, document)
        entry["every_loss"] = _write_arrays(base.with_name(f"{base.name}.losses.npz"), self.losses, document)
        if arrays:
            optional = {"profile": self.profile, "frames": self.frames}
            values = {"image": self.image, "transparency": self.transparency}
            values |= {name: array for name, array in optional.items() if array is not None}
            entry["arrays"] = _write_arrays(base.with_name(f"{base.name}.arrays.npz"), values, document)
        if self.frames is not None:
            path = self.save_animation(base.with_name(f"{base.name}.webp"))
            entry["animation"] = results.relative(path, document)
        if self.controls:
            entry["controls"] = [
                control.write(base.with_name(f"{base.name}.{control.control}"), document, arrays=arrays)
                for control in self.controls
            ]
        return entry

    def save_animation(self, path: str | os.PathLike[str], *, milliseconds: int = 80) -> Path:
        """Write the image on its way from the first step to the last.

        Args:
            path: A file that ends in .webp or .gif.
            milliseconds: How long each frame is shown; the last one is shown for a second.

        Returns:
            The file.

        Raises:
            UsageError: Where no frames were kept, and for another ending.
        """
        file = Path(path)
        if self.frames is None or not len(self.frames):
            raise UsageError("no frames were kept: visualize with frames=40 (on the command line --frames 40)")
        if file.suffix.lower() not in (".webp", ".gif"):
            raise UsageError(f"an animation is a .webp or .gif file, not {file.name}")
        images = [Image.fromarray(frame) for frame in self.frames]
        durations = [milliseconds] * (len(images) - 1) + [1000]
        kind: dict[str, Any] = {"quality": 85} if file.suffix.lower() == ".webp" else {}
        with results.atomic_write(file) as temporary:
            images[0].save(
                temporary,
                format=file.suffix[1:].upper(),
                save_all=True,
                append_images=images[1:],
                duration=durations,
                loop=0,
                **kind,
            )
        return file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image, the image with transparency, losses, arrays and ``result.json`` into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder, which ``load`` reads.
        """
        folder = Path(path)
        document = folder / "result.json"
        entry = self.write(folder / make_file_name(self.name), document, arrays=True)
        results.write(document, self.make_document([entry]))
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Visualization:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The visualization, with its controls.

        Raises:
            MissingError: When nothing is there, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        entries = document["visualizations"]
        if len(entries) != 1:
            raise EncoscopeError(f"{file} lists {len(entries)} visualizations: load takes a folder that save wrote")
        return read_entry(entries[0], document, file)

    def make_document(self, entries: Sequence[Mapping[str, Any]], skipped: Sequence[Any] = ()) -> Document:
        """Make the result document of a run that this visualization is part of.

        Args:
            entries: The entry of each visualization.
            skipped: What was left out, with ``path`` and ``reason`` each.

        Returns:
            The document, with this visualization's encoder, settings and seed.
        """
        return results.envelope(
            KIND, entries, model=self.model.as_dict(), settings=self.settings, seed=self.seed, skipped=skipped
        )


def read_entry(entry: Mapping[str, Any], document: Document, file: Path) -> Visualization:
    """Read one visualization of a result document back.

    Args:
        entry: Its entry, written with ``arrays=True``.
        document: The document.
        file: The document's path.

    Returns:
        The visualization, with its controls.

    Raises:
        MissingError: When a file is missing.
        EncoscopeError: When the entry has no arrays, or a file is damaged.
    """
    if "arrays" not in entry:
        raise EncoscopeError(f"{file} was not written by Visualization.save: it has no arrays of {entry['unit']}")
    arrays = _read_arrays(results.resolve(entry["arrays"], file))
    return Visualization(
        unit=entry["unit"],
        name=entry["name"],
        image=arrays["image"],
        transparency=arrays["transparency"],
        losses=_read_arrays(results.resolve(entry["every_loss"], file)),
        activation=entry["activation"],
        reference_activation=entry["reference_activation"],
        predicted=entry["predicted"],
        references=tuple(entry["references"]),
        method=entry["method"],
        settings=entry["settings"],
        seed=document["seed"],
        model=ModelRecord.from_dict(entry.get("model", document["model"])),
        steps=entry["steps"][0],
        total=entry["steps"][1],
        notes=tuple(entry["notes"]),
        facet=entry.get("facet"),
        variant=entry.get("variant"),
        strength=entry.get("strength"),
        profile=arrays.get("profile"),
        frames=arrays.get("frames"),
        control=entry.get("control"),
        judged=entry.get("judged"),
        controls=tuple(read_entry(control, document, file) for control in entry.get("controls", ())),
        n_references=entry.get("n_references", len(entry["references"])),
    )


def make_contact_sheet(
    visualizations: Sequence[Visualization], columns: int = 4, *, cell: int = 240, controls: bool = True
) -> Image.Image:
    """Draw visualizations in rows, each with its caption; beside each, on a checkerboard, what it attended to.

    Args:
        visualizations: The visualizations.
        columns: How many images stand in a row.
        cell: The side of each in pixels.
        controls: Show the controls of each behind it.

    Returns:
        The sheet.
    """
    shown = [each for result in visualizations for each in (result, *(result.controls if controls else ()))]
    images, captions = [], []
    for each in shown:
        images += [each.picture, each.over_checkerboard]
        captions += [f"{each.caption} ({each.control})" if each.control else each.caption, "attended to"]
    return Image.fromarray(plots.draw_contact_sheet(images, captions, columns, cell=cell))


def make_file_name(unit: str) -> str:
    """Turn a unit's text into a part of a file name.

    Args:
        unit: The text.

    Returns:
        Letters, digits, dot, dash and underscore; all others become a dash.

    Example:
        >>> make_file_name("class:sea horse")
        'class-sea-horse'
    """
    safe = "".join(character if character.isalnum() or character in "._-" else "-" for character in unit)
    return safe.strip(".-") or "unit"


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray], document: str | os.PathLike[str]) -> str:
    with results.atomic_write(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    return results.relative(path, document)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return results.read_arrays(path)
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing: the result is not whole") from error
    except results.DAMAGED as error:
        raise EncoscopeError(f"{path} is damaged: the result is not whole") from error
