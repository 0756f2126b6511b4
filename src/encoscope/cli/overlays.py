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
    """The checks that were asked for: agreement over runs, and controls.

    Args:
        encoder: The encoder.
        settings: The settings of the segmentation, by name.
        runs: Runs whose agreement is measured; None for none.
        controls: "untrained", "color", both or none.
    """

    def __init__(self, encoder: Encoder, settings: dict[str, Any], runs: int | None, controls: Sequence[str]) -> None:
        self._encoder, self._settings, self.runs, self.controls = encoder, settings, runs, controls

    @cached_property
    def _untrained_copy(self) -> Encoder:
        return untrained_copy(
            self._encoder, random_state=self._settings["random_state"] + 1
        )  # other weights than --untrained would

    def control(self, name: str, image: LoadedImage, segmentation: Segmentation) -> Segmentation:
        """Segment the same image by a control.

        Args:
            name: The control.
            image: The image.
            segmentation: What the encoder gave.

        Returns:
            The control's segmentation.
        """
        if name == "color":
            return color_control(image, segmentation)
        return untrained_control(self._untrained_copy, image, segmentation, **self._settings)

    def stability(self, image: LoadedImage) -> Any:
        """Measure agreement over runs, a flip and crops.

        Args:
            image: The image.

        Returns:
            The agreement.
        """
        return measure_stability(self._encoder, image, runs=self.runs or 0, **self._settings)


def write(
    image: LoadedImage, segmentation: Segmentation, base: Path, document: Path, extras: Extras | None = None
) -> dict[str, Any]:
    """Write the pictures of an image.

    Args:
        image: The image.
        segmentation: Its segmentation.
        base: Where files go, without their endings.
        document: The document's file, which names them relative to itself.
        extras: The checks that were asked for.

    Returns:
        The image's entry in the document.
    """

    def save(kind: str, drawing: Image.Image | np.ndarray) -> str:
        path = base.with_name(f"{base.name}.{kind}.png")
        with results.atomic_write(path) as temporary:
            (drawing if isinstance(drawing, Image.Image) else Image.fromarray(drawing)).save(temporary)
        return results.relative(path, document)

    entry = segmentation.entry()
    regions = entry.pop("regions")
    entry["path"] = results.relative(image.path or "", document)
    overlay = plots.draw_overlay(image, segmentation.labels)
    entry["labels"] = save("labels", plots.draw_label_image(segmentation.labels))
    entry["overlay"] = save("overlay", overlay)
    if extras is not None and extras.controls:
        panels, captions = [image, overlay], ["image", "this encoder"]
        entry["controls"] = []
        for name in extras.controls:
            other = extras.control(name, image, segmentation)
            figure = compute_agreement(segmentation.labels, other.labels)
            panels.append(plots.draw_overlay(image, other.labels))
            captions.append(f"control: {name}, agreement (ARI) {figure:.2f}")
            entry["controls"].append({"control": name, "agreement": figure})
        entry["comparison"] = save("controls", plots.draw_contact_sheet(panels, captions, len(panels), cell=320))
    if extras is not None and extras.runs:
        stability = extras.stability(image)
        entry["stability"] = stability.as_dict() | {"picture": save("runs", stability.mean_color)}
    return entry | {"regions": regions}


class Sheet:
    """A contact sheet of the first images of a run, small at once so that a long run stays small."""

    def __init__(self) -> None:
        self._overlays: list[Image.Image] = []
        self._captions: list[str] = []

    def add(self, image: LoadedImage, segmentation: Segmentation) -> None:
        """Put an image on the sheet, if there is room.

        Args:
            image: The image.
            segmentation: Its segmentation.
        """
        if len(self._overlays) < SHEET:
            overlay = Image.fromarray(plots.draw_overlay(image, segmentation.labels))
            overlay.thumbnail((480, 480))
            self._overlays.append(overlay)
            self._captions.append(f"{Path(image.path or '').name}, K = {segmentation.n_clusters}")

    def save(self, path: Path) -> None:
        """Write the sheet, if anything is on it.

        Args:
            path: The file.
        """
        if self._overlays:
            with results.atomic_write(path) as temporary:
                Image.fromarray(plots.draw_contact_sheet(self._overlays, self._captions, columns=4)).save(temporary)
