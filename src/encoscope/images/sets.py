"""Sets of images with a label for each image, or boxes around its objects."""

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
from encoscope.file_kind import name_special_kind
from encoscope.images.image import SkippedImage

_log = logging.getLogger("encoscope")


@concise_repr
@dataclass(frozen=True)
class LabelledImages:
    """The images of a dataset, in the order of its list.

    Attributes:
        paths: One file for each image.
        labels: For each image an index into ``classes``; empty if images have no label (a plain folder, images with
            boxes).
        classes: Class names, sorted by bytes or in the dataset's own order.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@concise_repr
@dataclass(frozen=True, eq=False)
class BoxedImages(LabelledImages):
    """Images with boxes. Each list of boxes has one entry for each object, in the order of the annotation.

    Attributes:
        boxes: For each image ``[x0, y0, x1, y1]`` in pixels from 0, clipped to the image; x1 and y1 are the right and
            lower edges, so a box of the whole image ends at its width and height.
        box_labels: For each object an index into ``classes``.
        difficult: Whether an object is annotated as difficult; False if the annotation does not say so.
        truncated: Whether an object is annotated as truncated.
        crowd: Whether a box is annotated as a crowd of objects.
        skipped: Images that were left out, with the reasons.
        notes: What else is unusual in the annotations, one line each.
    """

    boxes: tuple[Float[np.ndarray, "_objects 4"], ...]
    box_labels: tuple[Int64[np.ndarray, " _objects"], ...]
    difficult: tuple[Bool[np.ndarray, " _objects"], ...]
    truncated: tuple[Bool[np.ndarray, " _objects"], ...]
    crowd: tuple[Bool[np.ndarray, " _objects"], ...]
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()

    def ground_truth(self, index: int, *, hard: bool = True) -> Float[np.ndarray, "_objects 4"]:
        """Select the boxes of an image that count in an evaluation.

        Args:
            index: The image's position in ``paths``.
            hard: Whether difficult and truncated objects count, as in LOST's protocol.

        Returns:
            The boxes without crowds, rounded to whole pixels.

        Source: LOST (Simeoni et al., 2021), evaluation code.
        """
        kept = ~self.crowd[index]
        if not hard:
            kept &= ~(self.difficult[index] | self.truncated[index])
        return np.rint(self.boxes[index][kept])


@dataclass(frozen=True)
class AnnotatedObject:
    """An annotated object, as it was read.

    Attributes:
        name: Its class.
        box: ``[x0, y0, x1, y1]`` in pixels; it may reach out of the image.
        difficult: As annotated.
        truncated: As annotated.
        crowd: As annotated.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    crowd: bool = False


@dataclass
class BoxedImagesBuilder:
    """Builds BoxedImages image by image, and counts what is unusual.

    Attributes:
        objects: The objects of each image that was added.
        skipped: Images that were left out.
        clipped: Number of boxes that reached out of their image.
        dropped: Number of boxes without area inside their image.
        boxless: Number of objects annotated without a box.
    """

    objects: dict[Path, list[AnnotatedObject]] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)
    clipped: int = 0
    dropped: int = 0
    boxless: int = 0

    def add(self, path: Path, objects: Iterable[AnnotatedObject], size: tuple[int, int] | None) -> None:
        """Add an image.

        Args:
            path: Its file.
            objects: Its objects.
            size: (width, height) in the annotation, None if it has none. It is read from the file if an object reaches
                out of it.
        """
        objects = list(objects)
        if objects and (size is None or _reach_out(objects, size)):
            try:
                size = read_image_size(path)
            except ImageError as error:
                self.skipped.append(SkippedImage(str(path), str(error)))
                return
        width, height = map(float, size or (0, 0))  # it is known where there are objects
        kept = []
        for annotated in objects:
            x0, x1 = sorted(annotated.box[::2])
            y0, y1 = sorted(annotated.box[1::2])
            box = (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))
            if not (box[0] < box[2] and box[1] < box[3]):  # outside the image, empty or not a number
                self.dropped += 1
                continue
            self.clipped += box != (x0, y0, x1, y1)
            kept.append(replace(annotated, box=box))
        self.objects[path] = kept

    def finish(self, classes: Sequence[str] | None = None, notes: Sequence[str] = ()) -> BoxedImages:
        """Build the set of all images that were added.

        Args:
            classes: Class names in order; the names of the objects, sorted by bytes, if left out.
            notes: More lines for the set's ``notes``.

        Returns:
            The set. What is unusual is logged as warnings, too.
        """
        lists = list(self.objects.values())
        if classes is None:
            classes = sorted({annotated.name for objects in lists for annotated in objects}, key=str.encode)
        index = {name: number for number, name in enumerate(classes)}
        lines = [*notes, *self._notes()]
        for note in lines:
            _log.warning("%s", note)
        empty = sum(not objects for objects in lists)
        if empty:
            lines.append(f"{empty} of {len(lists)} images have no box")

        def collect_flags(name: str) -> tuple[np.ndarray, ...]:
            return tuple(np.array([getattr(annotated, name) for annotated in objects], dtype=bool) for objects in lists)

        return BoxedImages(
            paths=tuple(self.objects),
            labels=(),
            classes=tuple(classes),
            boxes=tuple(
                np.array([annotated.box for annotated in objects], dtype=np.float64).reshape(-1, 4) for objects in lists
            ),
            box_labels=tuple(
                np.array([index[annotated.name] for annotated in objects], dtype=np.int64) for objects in lists
            ),
            difficult=collect_flags("difficult"),
            truncated=collect_flags("truncated"),
            crowd=collect_flags("crowd"),
            skipped=tuple(self.skipped),
            notes=tuple(lines),
        )

    def _notes(self) -> list[str]:
        counts = (
            (self.clipped, "boxes reached outside their image and were clipped"),
            (self.dropped, "boxes without area inside their image were left out"),
            (self.boxless, "objects annotated without a box were left out"),
            (len(self.skipped), f"images were left out; the first: {self.skipped[0].reason}" if self.skipped else ""),
        )
        return [f"{count} {event}" for count, event in counts if count]


def read_image_size(path: Path) -> tuple[int, int]:
    """Read the size of an image file from its header.

    Args:
        path: The file.

    Returns:
        (width, height) of the upright image.

    Raises:
        ImageError: The file does not exist or is no image.
    """
    try:
        if (kind := name_special_kind(path)) is not None:
            raise ImageError(f"cannot read {path}: it is {kind}, not an image")
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientation: a quarter turn
            return (image.height, image.width) if turned else (image.width, image.height)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _reach_out(objects: Sequence[AnnotatedObject], size: tuple[int, int]) -> bool:
    return any(max(item.box[::2]) > size[0] or max(item.box[1::2]) > size[1] for item in objects)
