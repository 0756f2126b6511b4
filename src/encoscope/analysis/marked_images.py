"""Images with a watermark, and with the control: a patch of another image, at the same position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from encoscope.analysis.watermarks import Watermark, choose_position, make_watermark, paste_watermark
from encoscope.images import LoadedImage
from encoscope.plots import to_rgb


@dataclass(frozen=True)
class MarkedImages:
    """Images to be asked for by number: as they are, with a watermark, and with the control.

    Attributes:
        images: The images.
        kind: Of watermark, or an image file; see ``make_watermark``.
        share: The side of the watermark over the image's short side.
        random_state: The seed of the positions.
    """

    images: Sequence[LoadedImage]
    kind: str
    share: float
    random_state: int

    def clean(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Give an image as it is.

        Args:
            index: Its number.

        Returns:
            Its pixels.
        """
        return to_rgb(self.images[index])

    def add_watermark(self, index: int) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Put the watermark on an image, at the image's own random position.

        Args:
            index: Its number.

        Returns:
            (changed pixels, mask of where the watermark is)
        """
        return self._paste(index, self._make_watermark(index))

    def add_control(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Put the control on an image, in place of the watermark and with its opacity.

        The control is a patch of the next image that is large enough.

        Args:
            index: Its number.

        Returns:
            The changed pixels.
        """
        watermark = self._make_watermark(index)
        rows, columns = watermark.alpha.shape
        following = (*range(index + 1, len(self.images)), *range(index + 1))  # at the latest the image itself
        candidates = (self.clean(other) for other in following)
        image = next(each for each in candidates if each.shape[0] >= rows and each.shape[1] >= columns)
        top, left = choose_position((image.shape[0], image.shape[1]), watermark, (self.random_state, index, 1))
        patch = image[top : top + rows, left : left + columns].copy()
        return self._paste(index, Watermark("control", patch, watermark.alpha))[0]

    def _make_watermark(self, index: int) -> Watermark:
        return make_watermark(self.kind, max(2, round(self.share * min(self.clean(index).shape[:2]))))

    def _paste(
        self, index: int, watermark: Watermark
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        image = self.clean(index)
        top, left = choose_position((image.shape[0], image.shape[1]), watermark, (self.random_state, index))
        return paste_watermark(image, watermark, top, left)
