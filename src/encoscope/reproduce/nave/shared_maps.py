"""Measure many settings of NAVE on images that the network sees once for each size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from encoscope._version import __version__
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, identify_encoder
from encoscope.errors import ImageError, MissingError
from encoscope.evaluation.baselines import BaselineSegments
from encoscope.evaluation.localization import score_localization
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.evaluation.runner import AnnotatedImage, Measurements, identify_example, open_cache
from encoscope.images import LoadedImage, SkippedImage, read_image
from encoscope.images.panoptic import VOID
from encoscope.metrics import assign_many_to_one, boundary_score, compute_ious, foreground_ari, image_miou
from encoscope.nave.features import Maps, encode_images
from encoscope.nave.segmentation import Segmentation
from encoscope.nave.settings import NaveSettings
from encoscope.nave.single_image import segment_maps
from encoscope.progress import Progress, track
from encoscope.regions import Region
from encoscope.store import content_key

_log = logging.getLogger("encoscope")
_NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True)
class MaskedImage:
    """An image with its panoptic mask, and boxes where it has any.

    Attributes:
        example: The image's file with its mask, as ``PanopticImages`` gives it.
        boxes: ``[boxes, 4]``.
    """

    example: AnnotatedImage
    boxes: np.ndarray


def measure_segments(segments: BaselineSegments, image: LoadedImage, masked: MaskedImage) -> dict[str, Any]:
    """Measure the segments of one image in every way.

    Args:
        segments: The segments.
        image: The image.
        masked: Its mask and boxes.

    Returns:
        The mIoU, also where each connected region is named by itself ("region miou"); boundary F, foreground ARI, the
        IoUs of ``score_localization``, and the numbers of segments and regions.

    Raises:
        ImageError: the mask has another size.
    """
    category, segment, thing = (plane.astype(np.int64) for plane in masked.example.annotation)
    if segments.labels.shape != category.shape:
        raise ImageError(f"{image.path}: the mask has {category.shape} pixels, the image {segments.labels.shape}")
    apart = number_regions(segments.regions, (category.shape[0], category.shape[1]))
    return {
        "segments": segments.count,
        "regions": len(segments.regions),
        "miou": image_miou(segments.labels, category, "many-to-one", void=VOID),
        "region miou": image_miou(apart, category, "many-to-one", void=VOID),
        "boundary f": boundary_score(segments.labels, segment, void=VOID).f,
        "foreground ari": foreground_ari(segments.labels, thing, void=VOID),
        **score_localization(segments, masked.boxes if len(masked.boxes) else _NO_BOXES),
    }


def number_regions(regions: Sequence[Region], shape: tuple[int, int]) -> Int64[np.ndarray, "height width"]:
    """Number connected regions.

    Args:
        regions: The regions.
        shape: (height, width) of the image.

    Returns:
        The position of each pixel's region in the sequence; -1 for a pixel of none.
    """
    labels = np.full(shape, -1, dtype=np.int64)
    for index, region in enumerate(regions):
        x0, y0, x1, y1 = region.outer_box
        labels[y0 : y1 + 1, x0 : x1 + 1][region.crop] = index
    return labels


def open_network_cache(encoder: Encoder, *, fresh: bool = False, random_state: int = RANDOM_STATE) -> MeasurementCache:
    """Open the cache of what is measured with one network.

    Args:
        encoder: The network.
        fresh: Forget what an earlier run measured.
        random_state: The seed of clusters.

    Returns:
        The cache.
    """
    manifest = {"task": "nave-defaults", "version": __version__, "seed": random_state}
    return open_cache(manifest | identify_encoder(encoder), [encoder], fresh=fresh)


def measure_settings(
    encoder: Encoder,
    requested: Sequence[Mapping[str, Any]],
    images: Sequence[MaskedImage],
    cache: MeasurementCache,
    *,
    full: bool,
    random_state: int = RANDOM_STATE,
    label: str = "NAVE",
    progress: Progress = None,
) -> list[Measurements]:
    """Measure NAVE with several settings; an interrupted run resumes where it stopped.

    Args:
        encoder: The network.
        requested: Keyword arguments of ``segment``, a mapping for each setting, all of one size.
        images: The images.
        cache: From `open_network_cache`.
        full: Every measure; if not, the mIoU alone, which takes a fraction of the time.
        random_state: The seed of clusters.
        label: What is counted, for the progress line.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The values of each setting, in order. Images that cannot be read are left out with a warning.

    Raises:
        ImageError: no image can be read.
    """
    settings = [NaveSettings.of(encoder, **options, random_state=random_state) for options in requested]
    # named by the options: what these leave open is the preset's, which stays as it is
    names = [content_key({"full": full, "options": dict(options)}) for options in requested]
    layers = tuple(info.name for info in encoder.layers if any(info.name in each.layers for each in settings))
    rows: list[list[Mapping[str, Any]]] = [[] for _ in settings]
    paths: list[Path] = []
    skipped: list[SkippedImage] = []
    for masked in track(images, len(images), label, progress, shorter="--limit N"):
        try:
            identity = _identify(masked, full)
            keys = [f"{identity}-{name}" for name in names]
            missing = [index for index, key in enumerate(keys) if cache.get(key) is None]
            if missing:
                image = read_image(masked.example.path, channels=encoder.preprocess.channels)
                maps = _encode(encoder, image, [settings[index] for index in missing], layers)
                shares = CategoryShares(masked.example.annotation[0].astype(np.int64))
                for index in missing:
                    own = maps.select(layers, settings[index].layers)
                    segmentation = segment_maps(encoder, [image], own, settings[index])[0][0]
                    if full:
                        labels = segmentation.labels.astype(np.int64)
                        segments = BaselineSegments(labels, tuple(segmentation.regions()))
                        cache.put(keys[index], measure_segments(segments, image, masked))
                    else:
                        cache.put(keys[index], {"miou": shares.compute_miou(segmentation)})
        except (ImageError, MissingError) as error:
            _log.warning("left out: %s", error)
            skipped.append(SkippedImage(str(masked.example.path), str(error)))
            continue
        paths.append(masked.example.path)
        for index, key in enumerate(keys):
            rows[index].append(cache.get(key) or {})
    if not paths:
        raise ImageError(f"no image could be measured: {skipped[0].reason if skipped else 'there is none'}")
    return [Measurements(tuple(values), tuple(paths), tuple(skipped)) for values in rows]


def _identify(masked: MaskedImage, full: bool) -> str:
    """By the boxes too, where they matter."""
    if not full:
        return identify_example(masked.example, None)
    boxes = AnnotatedImage(masked.example.path, masked.boxes)
    return f"{identify_example(masked.example, None)}-{identify_example(boxes, None).rpartition('-')[2]}"


def _encode(encoder: Encoder, image: LoadedImage, settings: Sequence[NaveSettings], layers: tuple[str, ...]) -> Maps:
    (maps,) = encode_images(encoder, [image], replace(settings[0], layers=layers, weighting="equal"))
    return maps


class CategoryShares:
    """The categories within each cell of a grid, counted once for each grid: labels that come from cells share them.

    Args:
        category: The category of each pixel, -1 where nothing is annotated.
    """

    def __init__(self, category: Int64[np.ndarray, "height width"]) -> None:
        self.counted = category != VOID
        self.names, dense = np.unique(category[self.counted], return_inverse=True)
        self.dense = np.zeros(category.shape, dtype=np.int64)
        self.dense[self.counted] = dense
        self._tables: dict[tuple, np.ndarray] = {}

    def compute_miou(self, segmentation: Segmentation) -> float:
        """Compute what ``image_miou`` gives for the segmentation's labels, by majority, from its cells alone.

        Args:
            segmentation: A segmentation of the image.

        Returns:
            Mean IoU over the image's categories; NaN where nothing is annotated.

        Raises:
            ImageError: the mask has another size.
        """
        if self.dense.shape != segmentation.labels.shape:
            raise ImageError(
                f"{segmentation.path}: the mask has {self.dense.shape} pixels, the image {segmentation.labels.shape}"
            )
        if not len(self.names):
            return float("nan")
        labels = segmentation.grid_labels
        key = (segmentation.geometry, segmentation.grid)
        if key not in self._tables:
            rows, columns = segmentation.geometry.cells_of_pixels(segmentation.grid)
            cells = rows[:, None] * labels.shape[1] + columns[None, :]
            flat = (cells * len(self.names) + self.dense)[self.counted]
            counts = np.bincount(flat, minlength=labels.size * len(self.names))
            self._tables[key] = counts.reshape(labels.size, len(self.names))
        members = np.arange(int(labels.max()) + 1)[:, None] == labels.reshape(1, -1)
        table = members.astype(np.int64) @ self._tables[key]
        return float(np.nanmean(compute_ious(table, assign_many_to_one(table))))
