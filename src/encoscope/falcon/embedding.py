"""Images, crops and words as vectors of the image-text model; each image is decoded once for all units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.falcon.crops import Crop, compute_crops, cut_box
from encoscope.falcon.gradcam import GradCam
from encoscope.images import Batch, Channels, LoadedImage, Preprocess, read_image
from encoscope.probing import prefetch
from encoscope.progress import Progress, track_steps
from encoscope.store.array_cache import ArrayCache
from encoscope.units import Unit
from encoscope.vlm import VLM

PROMPTS = ("{}", "a photo of {}")
"""The texts that stand for a word; its vector is the mean of theirs."""


@dataclass(frozen=True)
class _Request:
    """What is embedded of one image: the crops of some units, and itself as a whole."""

    image: str
    units: list[Unit]
    whole: bool


class ImageEmbedder:
    """Embeds images, whole or as units' crops, and keeps the vectors.

    Args:
        encoder: The encoder, for GradCAM.
        vlm: The image-text model.
        mask_threshold: The share of a GradCAM's range from which on it is cropped.
        cache_dir: The folder of stores; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Raises:
        UsageError: The encoder takes another number of channels than 1 and 3.
    """

    def __init__(
        self,
        encoder: Encoder,
        vlm: VLM,
        *,
        mask_threshold: float = 0.6,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        if encoder.preprocess.channels not in (1, 3):
            raise UsageError(
                f"{encoder.source} takes {encoder.preprocess.channels} channels, and an image-text model sees grey or "
                "color: its features cannot be described (atlas build --no-describe leaves descriptions out)"
            )
        self.encoder, self.vlm, self.mask_threshold, self.progress = encoder, vlm, mask_threshold, progress
        self.cam = GradCam(encoder)
        self._cache_dir = cache_dir
        self._images = ArrayCache({"what": "image", "vlm": vlm.digest}, cache_dir)
        self._crops: dict[str, ArrayCache] = {}

    def embed(
        self,
        crops: Iterable[tuple[Unit, str]] = (),
        images: Iterable[str] = (),
        *,
        paths: Mapping[str, str | None],
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Embed crops and whole images, those that are not known yet.

        Args:
            crops: Pairs of a unit and an image's id.
            images: Ids of images that are embedded whole.
            paths: The file of every image named, by its id.
            batch_size: Images at a time; it does not change the result.

        Raises:
            EncoscopeError: For an image that cannot be read any more or has no file, and for a full disk.
        """
        missing: dict[str, tuple[list[Unit], bool]] = {}
        for unit, image in dict.fromkeys(crops):
            if _key(unit, image) not in self._find_cache(unit):
                missing.setdefault(image, ([], False))[0].append(unit)
        for image in dict.fromkeys(images):
            if image not in self._images:
                missing[image] = (missing.get(image, ([], False))[0], True)
        requests = [_Request(image, units, whole) for image, (units, whole) in missing.items()]
        with track_steps(len(requests), "crops", self.progress) as step:
            loaded = prefetch(lambda request: self._load(request, paths), requests, 2 * batch_size)
            while batch := list(islice(loaded, batch_size)):
                self._embed_batch(batch)
                step(len(batch))
        for cache in (self._images, *self._crops.values()):
            cache.flush()

    def get_crop_vectors(self, unit: Unit, images: Sequence[str]) -> Float[np.ndarray, "images width"]:
        """Look up the vectors of a unit's crops.

        Args:
            unit: The unit.
            images: The ids of images whose crops were embedded.

        Returns:
            A vector for each.
        """
        if not images:
            return np.zeros((0, self.vlm.width), np.float32)
        return self._find_cache(unit).stack([_key(unit, image) for image in images], "vectors")

    def get_crop(self, unit: Unit, image: str) -> Crop:
        """Look up a unit's crop.

        Args:
            unit: The unit.
            image: The id of an image whose crop was embedded.

        Returns:
            The crop.
        """
        arrays = self._find_cache(unit).read(_key(unit, image))
        x0, y0, x1, y1 = arrays["boxes"].tolist()
        return Crop((x0, y0, x1, y1), np.array(arrays["cams"]))

    def get_image_vectors(self, images: Sequence[str]) -> Float[np.ndarray, "images width"]:
        """Look up the vectors of whole images.

        Args:
            images: The ids of images that were embedded.

        Returns:
            A vector for each.
        """
        return self._images.stack(images, "vectors") if images else np.zeros((0, self.vlm.width), np.float32)

    def _find_cache(self, unit: Unit) -> ArrayCache:
        space = unit.space
        if space not in self._crops:
            target = self.cam.target(unit)
            layers = [target.layer] if target.layer in {info.name for info in self.encoder.layers} else []
            manifest = {
                "what": "crops",
                "vlm": self.vlm.digest,
                **identify_encoder(self.encoder),
                "space": space,
                "gradcam": [target.layer, target.method, self.mask_threshold],
            }
            self._crops[space] = ArrayCache(
                manifest,
                choose_cache_dir(self.encoder, self._cache_dir),
                about={"trial": record_trial(self.encoder, layers)},
                accepts=lambda about: is_same_network(self.encoder, about.get("trial"), layers, "crops"),
            )
        return self._crops[space]

    def _load(self, request: _Request, paths: Mapping[str, str | None]) -> tuple[_Request, LoadedImage, Batch | None]:
        image = reread_image(request.image, paths.get(request.image), self.encoder.preprocess.image_channels)
        return request, image, self.encoder.prepare(image) if request.units else None

    def _embed_batch(self, batch: Sequence[tuple[_Request, LoadedImage, Batch | None]]) -> None:
        """One forward pass for all images that need crops, one call of the VLM for all crops and images."""
        prepared = [(request.units, inputs) for request, _, inputs in batch if inputs is not None]
        crops: list[list[Crop]] = [[] for _ in batch]
        if prepared:
            cams = self.cam(torch.cat([inputs.pixels for _, inputs in prepared]), [units for units, _ in prepared])
            maps = iter(zip(cams, (inputs.geometries[0] for _, inputs in prepared), strict=True))
            crops = [
                compute_crops(*next(maps), self.mask_threshold) if inputs is not None else [] for _, _, inputs in batch
            ]
        size, interpolation = find_vlm_input(self.vlm)
        images: list[Any] = []
        for (request, image, _), members in zip(batch, crops, strict=True):
            images += [cut_box(image, crop.box, size, interpolation) for crop in members]
            images += [image] if request.whole else []
        vectors = iter(self.vlm.embed_images(images).numpy())
        for (request, _, _), members in zip(batch, crops, strict=True):
            for unit, crop in zip(request.units, members, strict=True):
                arrays = {"vectors": next(vectors), "boxes": np.array(crop.box, np.int32), "cams": crop.cam}
                self._find_cache(unit).add(_key(unit, request.image), arrays)
            if request.whole:
                self._images.add(request.image, {"vectors": next(vectors)})


class TextVectors:
    """Text vectors of words and phrases, each embedded once, by itself and as a photo of it.

    Args:
        vlm: The image-text model.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, words: Sequence[str]) -> Float[np.ndarray, "words width"]:
        """Embed words.

        Args:
            words: Words and phrases.

        Returns:
            A vector of length 1 for each.
        """
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            vectors = self.vlm.embed_texts([prompt.format(word) for word in new for prompt in PROMPTS]).numpy()
            means = vectors.reshape(len(new), len(PROMPTS), -1).mean(1)
            self._known |= dict(zip(new, means / np.linalg.norm(means, axis=1, keepdims=True), strict=True))
        return np.stack([self._known[word] for word in words]) if words else np.zeros((0, self.vlm.width), np.float32)

    def embed_description(self, concepts: Mapping[str, float]) -> Float[np.ndarray, " width"]:
        """Turn a description into one vector.

        Args:
            concepts: Its words with their scores.

        Returns:
            The mean of the words' vectors, weighed by their positive scores; by none where no score is positive.
        """
        weights = np.maximum(np.fromiter(concepts.values(), dtype=np.float32, count=len(concepts)), 0)
        weights = weights if weights.any() else np.ones_like(weights)
        return weights / weights.sum() @ self(list(concepts))


def reread_image(image: str, path: str | None, channels: Channels | None = 3) -> LoadedImage:
    """Read a probe's image again.

    Args:
        image: Its id.
        path: Its file.
        channels: Channels of the result; as for ``read_image``.

    Returns:
        The image.

    Raises:
        EncoscopeError: When its file is missing or is another one now.
    """
    if path is None:
        raise EncoscopeError("this probe was made without files, and crops are cut from images: give a dataset")
    try:
        loaded = read_image(path, channels=channels)
    except (ImageError, MissingError) as error:
        raise EncoscopeError(f"{path} was readable when it was probed: {error}") from error
    if loaded.id != image:
        raise EncoscopeError(f"{path} has changed since it was probed: probe the dataset again")
    return loaded


def find_vlm_input(vlm: VLM) -> tuple[tuple[int, int], str]:
    """Find the input of an image-text model.

    Args:
        vlm: The model.

    Returns:
        Its (height, width), and how it resizes; CLIP's own where the model does not say.
    """
    preprocess = getattr(vlm, "preprocess", None)
    if isinstance(preprocess, Preprocess):
        return preprocess.size, preprocess.interpolation
    return (224, 224), "bicubic"


def _key(unit: Unit, image: str) -> str:
    """A unit and an image as one key; a direction by its numbers, not by its name."""
    if unit.direction is None:
        return f"{','.join(map(str, sorted(unit.channels)))}@{image}"
    digest = hashlib.sha256(np.array(unit.direction, dtype=np.float64).tobytes()).hexdigest()
    return f"{digest[:24]}@{image}"
