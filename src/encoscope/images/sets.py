"""Sets of photos with what is known about each: a label, or boxes around its objects."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64
from PIL import Image

from encoscope.concise_repr import concise_repr
from encoscope.errors import ImageError
from encoscope.images.image import SkippedImage

_log = logging.getLogger("encoscope")


@concise_repr
@dataclass(frozen=True)
class LabelledImages:
    """Photos of a dataset, in the order of its list.

    paths: one file per photo. labels: index into ``classes``, one per photo; empty where photos have no label of their
    own (a plain folder, photos with boxes). classes: names, sorted bytewise or in the dataset's own order.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@concise_repr
@dataclass(frozen=True, eq=False)
class BoxedImages(LabelledImages):
    """Photos with boxes; per photo, and in the order of its annotation, one entry an object.

    boxes: ``[x0, y0, x1, y1]`` in pixels from 0, the right and lower edges being x1 and y1 (a box over the whole image
    ends at its width and height), clipped to the image. box_labels: index into ``classes``. difficult, truncated,
    crowd: as annotated, False where it is not said.
    skipped: photos that were left out, and why. notes: what else was found, one line each.
    """

    boxes: tuple[Float[np.ndarray, "_objects 4"], ...]
    box_labels: tuple[Int64[np.ndarray, " _objects"], ...]
    difficult: tuple[Bool[np.ndarray, " _objects"], ...]
    truncated: tuple[Bool[np.ndarray, " _objects"], ...]
    crowd: tuple[Bool[np.ndarray, " _objects"], ...]
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()

    def truth(self, index: int, *, hard: bool = True) -> Float[np.ndarray, "_objects 4"]:
        """The boxes that count for one photo, by LOST's rules: no crowds, coordinates rounded to whole pixels.

        hard: difficult and truncated objects count, as in LOST's protocol.
        """
        kept = ~self.crowd[index]
        if not hard:
            kept &= ~(self.difficult[index] | self.truncated[index])
        return np.rint(self.boxes[index][kept])


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object, as it was read: a box that may be anywhere, and a class name."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    crowd: bool = False


@dataclass
class BoxedImagesBuilder:
    """Builds BoxedPhotos photo by photo, and counts what was odd."""

    things: dict[Path, list[AnnotatedObject]] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)
    clipped: int = 0
    dropped: int = 0
    boxless: int = 0  # objects annotated without a box

    def add(self, path: Path, things: Iterable[AnnotatedObject], size: tuple[int, int] | None) -> None:
        """Add a photo. size: (width, height) as the annotation has it; the file is asked where it seems wrong."""
        things = list(things)
        if things and (size is None or _outside(things, size)):
            try:
                size = read_image_size(path)
            except ImageError as error:
                self.skipped.append(SkippedImage(str(path), str(error)))
                return
        kept = []
        for thing in things:
            x0, x1 = sorted(thing.box[::2])
            y0, y1 = sorted(thing.box[1::2])
            assert size is not None  # there are things
            box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
            if not (box[0] < box[2] and box[1] < box[3]):  # outside the image, empty or not a number
                self.dropped += 1
                continue
            self.clipped += box != (x0, y0, x1, y1)
            kept.append(replace(thing, box=box))
        self.things[path] = kept

    def finish(self, classes: Sequence[str] | None = None, notes: Sequence[str] = ()) -> BoxedImages:
        """What was added. classes: their order; the names found, sorted bytewise, if left out."""
        if classes is None:
            classes = sorted({thing.name for things in self.things.values() for thing in things}, key=str.encode)
        index = {name: place for place, name in enumerate(classes)}
        said = [*notes, *self._notes()]
        for note in said:
            _log.warning("%s", note)
        bare = sum(not things for things in self.things.values())
        if bare:
            said.append(f"{bare} of {len(self.things)} photos have no box")

        def flags(name: str) -> tuple[np.ndarray, ...]:
            return tuple(
                np.array([getattr(thing, name) for thing in things], dtype=bool) for things in self.things.values()
            )

        return BoxedImages(
            paths=tuple(self.things),
            labels=(),
            classes=tuple(classes),
            boxes=tuple(
                np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4)
                for things in self.things.values()
            ),
            box_labels=tuple(
                np.array([index[thing.name] for thing in things], dtype=np.int64) for things in self.things.values()
            ),
            difficult=flags("difficult"),
            truncated=flags("truncated"),
            crowd=flags("crowd"),
            skipped=tuple(self.skipped),
            notes=tuple(said),
        )

    def _notes(self) -> list[str]:
        found = (
            (self.clipped, "boxes reached outside their image and were clipped"),
            (self.dropped, "boxes without area inside their image were left out"),
            (self.boxless, "objects annotated without a box were left out"),
            (len(self.skipped), f"photos were left out; the first: {self.skipped[0].reason}" if self.skipped else ""),
        )
        return [f"{count} {what}" for count, what in found if count]


def read_image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, upright, from its header. ImageError when it is not there or no image."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientation: a quarter turn
            return (image.height, image.width) if turned else (image.width, image.height)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _outside(things: Sequence[AnnotatedObject], size: tuple[int, int]) -> bool:
    return any(max(t.box[::2]) > size[0] or max(t.box[1::2]) > size[1] for t in things)
