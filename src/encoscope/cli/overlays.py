"""What ``encoscope segment`` writes for an image: labels, overlay, checks beside it, and its entry in the document."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope import plots, results
from encoscope.encoder import Encoder, untrained_copy
from encoscope.images import LoadedImage
from encoscope.nave import Segmentation
from encoscope.nave.controls import color_control, untrained_control
from encoscope.nave.stability import compute_agreement, measure_stability

SHEET = 24
"""How many images a contact sheet shows."""


class Extras:
    """The checks that were asked for: agreement over runs, and controls."""

    def __init__(self, encoder: Encoder, settings: dict[str, Any], runs: int | None, controls: Sequence[str]) -> None:
        self._encoder, self._settings, self.runs, self.controls = encoder, settings, runs, controls

    @cached_property
    def _twin(self) -> Encoder:
        return untrained_copy(
            self._encoder, random_state=self._settings["random_state"] + 1
        )  # other weights than --untrained would

    def control(self, name: str, photo: LoadedImage, segmentation: Segmentation) -> Segmentation:
        """The same image by a control."""
        if name == "color":
            return color_control(photo, segmentation)
        return untrained_control(self._twin, photo, segmentation, **self._settings)

    def stability(self, photo: LoadedImage) -> Any:
        """Agreement over runs, a flip and crops."""
        return measure_stability(self._encoder, photo, runs=self.runs or 0, **self._settings)


def write(
    photo: LoadedImage, segmentation: Segmentation, base: Path, document: Path, extras: Extras | None = None
) -> dict[str, Any]:
    """The pictures of an image, and its entry in the document; names in it are relative to the document."""

    def picture(kind: str, image: Image.Image | np.ndarray) -> str:
        path = base.with_name(f"{base.name}.{kind}.png")
        with results.atomic_write(path) as temporary:
            (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(temporary)
        return results.relative(path, document)

    entry = segmentation.entry()
    regions = entry.pop("regions")
    entry["path"] = results.relative(photo.path or "", document)
    overlay = plots.overlay(photo, segmentation.labels)
    entry["labels"] = picture("labels", plots.label_image(segmentation.labels))
    entry["overlay"] = picture("overlay", overlay)
    if extras is not None and extras.controls:
        panels, captions = [photo, overlay], ["photo", "this encoder"]
        entry["controls"] = []
        for name in extras.controls:
            other = extras.control(name, photo, segmentation)
            figure = compute_agreement(segmentation.labels, other.labels)
            panels.append(plots.overlay(photo, other.labels))
            captions.append(f"control: {name}, agreement (ARI) {figure:.2f}")
            entry["controls"].append({"control": name, "agreement": figure})
        entry["comparison"] = picture("controls", plots.contact_sheet(panels, captions, len(panels), cell=320))
    if extras is not None and extras.runs:
        found = extras.stability(photo)
        entry["stability"] = found.as_dict() | {"picture": picture("runs", found.mean_color)}
    return entry | {"regions": regions}


class Sheet:
    """A contact sheet of the first images of a run, small at once so that a long run stays small."""

    def __init__(self) -> None:
        self._pictures: list[Image.Image] = []
        self._captions: list[str] = []

    def add(self, photo: LoadedImage, segmentation: Segmentation) -> None:
        """Put an image on the sheet, if there is room."""
        if len(self._pictures) < SHEET:
            overlay = Image.fromarray(plots.overlay(photo, segmentation.labels))
            overlay.thumbnail((480, 480))
            self._pictures.append(overlay)
            self._captions.append(f"{Path(photo.path or '').name}, K = {segmentation.n_clusters}")

    def save(self, path: Path) -> None:
        """Write the sheet, if anything is on it."""
        if self._pictures:
            with results.atomic_write(path) as temporary:
                Image.fromarray(plots.contact_sheet(self._pictures, self._captions, columns=4)).save(temporary)
