"""An image in the colors of an encoder's features: what FeatureColors gives, saved, loaded and drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.errors import EncoscopeError, MissingError
from encoscope.results import Document, ModelRecord, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "feature-colors"


@concise_repr
@dataclass(frozen=True, eq=False)
class ColoredImage(Result):
    """An image in the colors of its features.

    Attributes:
        rgb: ``[height, width, 3]``, the colors of every pixel of the original image.
        components: ``[rows, columns, 3]``, the values of the three components on the grid, without padding; NaN where
            a cell is no foreground.
        explained: The share of the features' variance that each component explains, over the sample of all images.
        settings: The settings that made it.
        path: The file, where there is one.
    """

    rgb: UInt8[np.ndarray, "height width 3"]
    components: Float[np.ndarray, "rows columns 3"]
    explained: tuple[float, float, float]
    settings: dict[str, Any]
    path: str | None = None
    _model: ModelRecord | None = field(default=None, repr=False)

    def plot(self) -> Figure:
        """A matplotlib figure of the colors."""
        from matplotlib.figure import Figure

        height, width = self.rgb.shape[:2]
        figure = Figure(figsize=(5, 5 * height / width), layout="constrained")
        axes = figure.subplots()
        axes.imshow(self.rgb)
        axes.set_title(Path(self.path).name if self.path else "image")
        axes.set_axis_off()
        return figure

    def entry(self) -> dict[str, Any]:
        """This image's entry in a result document."""
        height, width = self.rgb.shape[:2]
        foreground = float(np.isfinite(self.components[..., 0]).mean())
        return {"path": self.path, "width": width, "height": height, "foreground": foreground}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, ``colors.png`` and ``components.npy`` into a folder; ``load`` reads them back.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        folder = Path(path)
        with results.atomic_write(folder / "colors.png") as temporary:
            Image.fromarray(self.rgb).save(temporary)
        with results.atomic_write(folder / "components.npy") as temporary, Path(temporary).open("wb") as file:
            np.save(file, self.components, allow_pickle=False)
        entry = self.entry() | {"colors": "colors.png", "components": "components.npy"}
        results.write(folder / "result.json", self._document(entry))
        return folder

    def to_dict(self) -> Document:
        """Give the result document, without the arrays."""
        return self._document(self.entry())

    def _document(self, entry: dict[str, Any]) -> Document:
        model = None if self._model is None else self._model.as_dict()
        settings = self.settings | {"explained": list(self.explained)}
        return results.envelope(KIND, [entry], model=model, settings=settings, seed=self.settings["random_state"])

    def __str__(self) -> str:
        name = Path(self.path).name if self.path else "image"
        return f"{name}: three components explain {sum(self.explained):.0%} of the variance"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ColoredImage:
        """Read what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The colored image.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result.
        """
        folder = Path(path)
        document = results.read(folder / "result.json", KIND)
        (entry,) = document["images"]
        try:
            with Image.open(folder / entry["colors"]) as image:
                rgb = np.asarray(image.convert("RGB"))
            components = np.load(folder / entry["components"], allow_pickle=False)
        except KeyError as error:
            raise EncoscopeError(f"{folder / 'result.json'} was not written by ColoredImage.save") from error
        except FileNotFoundError as error:
            raise MissingError(f"{error.filename} is missing: the result is not whole") from error
        settings = dict(document["settings"])
        first, second, third = settings.pop("explained")
        model = document["model"]
        return cls(
            rgb=rgb,
            components=components,
            explained=(first, second, third),
            settings=settings,
            path=entry["path"],
            _model=None if model is None else ModelRecord.from_dict(model),
        )
