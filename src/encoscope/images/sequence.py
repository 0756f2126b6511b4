"""Images by number, for what passes over them several times: a few stay in memory, the others are read again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import overload

from encoscope.errors import EncoscopeError
from encoscope.images.image import LoadedImage, SkippedImage
from encoscope.images.levels import Channels
from encoscope.images.read import read_image

HELD = 2**29
"""Bytes of decoded images that stay in memory."""


class ImageSequence(Sequence[LoadedImage]):
    """The images of a stream that could be read, to be asked for by number any number of times.

    The first ones stay in memory, as many as ``held`` bytes hold, and those that came from no file; each of the others
    is read from its file again.

    Args:
        stream: Images, and what could not be read, as ``read_images`` gives them.
        channels: The channels that they were read with, for ``read_image``.
        held: Bytes of decoded images that stay in memory.

    Attributes:
        ids: The id of each image.
        paths: The file of each image; None for one from memory.
        skipped: What could not be read.

    Raises:
        EncoscopeError: By ``[]``, for a file that has changed meanwhile.

    Example:
        >>> import numpy as np
        >>> images = ImageSequence([read_image(np.zeros((2, 3), np.uint8))])
        >>> len(images), images[0].width
        (1, 3)
    """

    def __init__(
        self, stream: Iterable[LoadedImage | SkippedImage], channels: Channels | None = 3, *, held: int = HELD
    ) -> None:
        self.ids: list[str] = []
        self.paths: list[str | None] = []
        self.skipped: list[SkippedImage] = []
        self._channels = channels
        self._held: dict[int, LoadedImage] = {}
        self._last: tuple[int, LoadedImage] | None = None
        for item in stream:
            if isinstance(item, SkippedImage):
                self.skipped.append(item)
                continue
            if item.path is None or held >= item.pixels.nbytes:
                held -= item.pixels.nbytes
                self._held[len(self.ids)] = item
            self.ids.append(item.id)
            self.paths.append(item.path)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> LoadedImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[LoadedImage]: ...
    def __getitem__(self, index: int | slice) -> LoadedImage | list[LoadedImage]:
        """Give an image, or several as a list."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number in self._held:
            return self._held[number]
        if self._last is None or self._last[0] != number:
            self._last = (number, self._read(number))
        return self._last[1]

    def select(self, numbers: Sequence[int]) -> ImageSequence:
        """Take some of the images, without reading any.

        Args:
            numbers: Theirs, in the order in which they shall come.

        Returns:
            These images.
        """
        part = ImageSequence((), self._channels)
        part.ids, part.paths = [self.ids[number] for number in numbers], [self.paths[number] for number in numbers]
        part._held = {index: self._held[number] for index, number in enumerate(numbers) if number in self._held}
        return part

    def _read(self, number: int) -> LoadedImage:
        image = read_image(os.fspath(self.paths[number] or ""), channels=self._channels)
        if image.id != self.ids[number]:
            raise EncoscopeError(f"{image.path} changed while the images were being read: run it again")
        return image
