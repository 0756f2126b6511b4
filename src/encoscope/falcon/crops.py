"""The part of an image that a unit sees, cut out and embedded; each image is decoded and passed once for all units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.falcon.boxing import find_largest_boxes
from encoscope.falcon.gradcam import GradCam, compute_masks
from encoscope.images import Batch, Geometry, LoadedImage, Preprocess, read_image, resize_image
from encoscope.probing import prefetch
from encoscope.progress import Progress, track_steps
from encoscope.store.array_cache import ArrayCache
from encoscope.units import Unit
from encoscope.vlm import VLM

Box = tuple[int, int, int, int]
"""[x0, y0, x1, y1], inclusive extremes in the original image's pixels."""

_BATCH = 32


@concise_repr
@dataclass(frozen=True, eq=False)
class Crop:
    """What a unit sees in an image: its box, and the GradCAM map it was cut from, 0 to 255 on the layer's grid.

    box: in the original image's pixels; the whole image where the map has no part that stands out.
    """

    box: Box
    cam: np.ndarray


def to_original_box(box: Sequence[int], geometry: Geometry) -> Box:
    """A box of the network's canvas (inclusive extremes) in the original image: every pixel that it touches."""
    height, width = geometry.original
    (tall, wide), (top, left) = geometry.resized, geometry.offset
    x0, y0, x1, y1 = box
    return (
        min(max(floor((x0 + left) * width / wide), 0), width - 1),
        min(max(floor((y0 + top) * height / tall), 0), height - 1),
        min(max(ceil((x1 + 1 + left) * width / wide) - 1, 0), width - 1),
        min(max(ceil((y1 + 1 + top) * height / tall) - 1, 0), height - 1),
    )


def cut_box(photo: LoadedImage, box: Box, size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """The pixels inside a box, brought to (height, width) without keeping the aspect (section 2.2, as the authors)."""
    x0, y0, x1, y1 = box
    return resize_image(photo.pixels[y0 : y1 + 1, x0 : x1 + 1], size, interpolation)


def compute_crops(cams: Sequence[Float[Tensor, "_rows _columns"]], geometry: Geometry, share: float) -> list[Crop]:
    """The crops that some maps of one image ask for."""
    boxes = find_largest_boxes(compute_masks(cams, geometry.canvas, share).numpy())
    height, width = geometry.original
    found = []
    for cam, box in zip(cams, boxes.tolist(), strict=True):
        whole = (0, 0, width - 1, height - 1)
        high = float(cam.max())
        levels = (cam / high * 255).round() if high > 0 else torch.zeros_like(cam)
        found.append(Crop(whole if box[0] < 0 else to_original_box(box, geometry), levels.numpy().astype(np.uint8)))
    return found


@dataclass(frozen=True)
class _Work:
    """What is wanted of one image: the crops of some units, and itself as a whole."""

    image: str
    units: list[Unit]
    whole: bool


class ImageEmbedder:
    """Embeds images, whole or as units' crops, and keeps the vectors.

    vlm: embeds. share: part of a GradCAM map's range that is kept. cache: where vectors are kept.
    """

    def __init__(
        self,
        encoder: Encoder,
        vlm: VLM,
        *,
        share: float = 0.6,
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder, self.vlm, self.share, self.progress = encoder, vlm, share, progress
        self.cam = GradCam(encoder)
        self._cache = cache
        self._wholes = ArrayCache({"what": "image", "vlm": vlm.digest}, cache)
        self._crops: dict[str, ArrayCache] = {}

    def embed(
        self,
        crops: Iterable[tuple[Unit, str]] = (),
        images: Iterable[str] = (),
        *,
        paths: Mapping[str, str | None],
        batch: int = _BATCH,
    ) -> None:
        """Embed units' crops (unit, image id) and whole images (ids), those that are not known yet.

        paths: of every image named, by id. Raises EncoscopeError for an image that cannot be read any more or has no
        file, and for a full disk.
        """
        todo: dict[str, tuple[list[Unit], bool]] = {}
        for unit, image in dict.fromkeys(crops):
            if _key(unit, image) not in self._of(unit):
                todo.setdefault(image, ([], False))[0].append(unit)
        for image in dict.fromkeys(images):
            if image not in self._wholes:
                todo[image] = (todo.get(image, ([], False))[0], True)
        work = [_Work(image, units, whole) for image, (units, whole) in todo.items()]
        with track_steps(len(work), "crops", self.progress) as step:
            loaded = prefetch(lambda item: self._load(item, paths), work, 2 * batch)
            while part := list(islice(loaded, batch)):
                self._pass(part)
                step(len(part))
        for vectors in (self._wholes, *self._crops.values()):
            vectors.flush()

    def get_crop_vectors(self, unit: Unit, images: Sequence[str]) -> Float[np.ndarray, "images width"]:
        """The vectors of a unit's crops of some images that were embedded."""
        if not images:
            return np.zeros((0, self.vlm.width), np.float32)
        return self._of(unit).stack([_key(unit, image) for image in images], "vectors")

    def get_crop(self, unit: Unit, image: str) -> Crop:
        """A unit's crop of an image that was embedded."""
        found = self._of(unit).read(_key(unit, image))
        x0, y0, x1, y1 = found["boxes"].tolist()
        return Crop((x0, y0, x1, y1), np.array(found["cams"]))

    def get_image_vectors(self, images: Sequence[str]) -> Float[np.ndarray, "images width"]:
        """The vectors of some whole images that were embedded."""
        return self._wholes.stack(images, "vectors") if images else np.zeros((0, self.vlm.width), np.float32)

    def _of(self, unit: Unit) -> ArrayCache:
        space = unit.space
        if space not in self._crops:
            target = self.cam.target(unit)
            manifest = {
                "what": "crops",
                "vlm": self.vlm.digest,
                "encoder": self.encoder.digest,
                "space": space,
                "gradcam": [target.layer, target.method, self.share],
            }
            self._crops[space] = ArrayCache(manifest, self._cache)
        return self._crops[space]

    def _load(self, work: _Work, paths: Mapping[str, str | None]) -> tuple[_Work, LoadedImage, Batch | None]:
        photo = reread_image(work.image, paths.get(work.image), self.encoder.preprocess.channels)
        return work, photo, self.encoder.prepare(photo) if work.units else None

    def _pass(self, part: Sequence[tuple[_Work, LoadedImage, Batch | None]]) -> None:
        """One forward pass for all images that need crops, one call of the VLM for all pictures."""
        prepared = [(work.units, batch) for work, _, batch in part if batch is not None]
        crops: list[list[Crop]] = [[] for _ in part]
        if prepared:
            cams = self.cam(torch.cat([batch.pixels for _, batch in prepared]), [units for units, _ in prepared])
            ways = iter(zip(cams, (batch.geometries[0] for _, batch in prepared), strict=True))
            crops = [compute_crops(*next(ways), self.share) if batch is not None else [] for _, _, batch in part]
        size, how = find_vlm_input(self.vlm)
        pictures: list[Any] = []
        for (work, photo, _), found in zip(part, crops, strict=True):
            pictures += [cut_box(photo, crop.box, size, how) for crop in found]
            pictures += [photo] if work.whole else []
        vectors = iter(self.vlm.embed_images(pictures).numpy())
        for (work, _, _), found in zip(part, crops, strict=True):
            for unit, crop in zip(work.units, found, strict=True):
                arrays = {"vectors": next(vectors), "boxes": np.array(crop.box, np.int32), "cams": crop.cam}
                self._of(unit).add(_key(unit, work.image), arrays)
            if work.whole:
                self._wholes.add(work.image, {"vectors": next(vectors)})


def reread_image(image: str, path: str | None, channels: int = 3) -> LoadedImage:
    """A probe's image by its id; EncoscopeError when its file is gone or is another one now."""
    if path is None:
        raise EncoscopeError("this probe was made without files, and crops are cut from images: give a dataset")
    try:
        photo = read_image(path, channels=channels)
    except (ImageError, MissingError) as error:
        raise EncoscopeError(f"{path} was there when it was probed: {error}") from error
    if photo.id != image:
        raise EncoscopeError(f"{path} has changed since it was probed: probe the dataset again")
    return photo


def find_vlm_input(vlm: VLM) -> tuple[tuple[int, int], str]:
    """(height, width) of a VLM's input, and how it resizes; CLIP's own where it does not say."""
    preprocess = getattr(vlm, "preprocess", None)
    if isinstance(preprocess, Preprocess):
        return preprocess.size, preprocess.interpolation
    return (224, 224), "bicubic"


def _key(unit: Unit, image: str) -> str:
    """A unit and an image as one key; a direction by its numbers, not by what it was called."""
    if unit.direction is None:
        return f"{','.join(map(str, sorted(unit.channels)))}@{image}"
    digest = hashlib.sha256(np.array(unit.direction, dtype=np.float64).tobytes()).hexdigest()
    return f"{digest[:24]}@{image}"
