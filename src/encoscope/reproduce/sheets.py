"""Contact sheets of captioned images, which the papers' figures are drawn as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from encoscope.plots import draw_contact_sheet

Cell: TypeAlias = tuple[Any, str]
"""An image (a file, a PIL image or an array) and its caption."""


def draw_sheet(cells: Sequence[Cell], columns: int, cell: int = 180) -> Image.Image:
    """Draw images in rows, each with its caption.

    Args:
        cells: images (files, PIL images, or arrays of shape ``[height, width, 3]``) with their captions, row by row.
        columns: number of images in a row.
        cell: longest side of an image on the sheet, in pixels; by default below a network's usual input.

    Returns:
        The sheet.
    """
    images = [Image.open(image) if isinstance(image, Path) else image for image, _ in cells]
    return Image.fromarray(draw_contact_sheet(images, [caption for _, caption in cells], columns, cell=cell))


def blank_cell() -> Cell:
    """A white cell without a caption, which fills a row up."""
    return np.full((64, 64, 3), 255, np.uint8), ""
