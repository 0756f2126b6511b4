"""Point at places of an image and see what else is like them, there and in other images."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image
from torch import nn

from encoscope import plots
from encoscope.encoder import Encoder, as_encoder, untrained_copy
from encoscope.errors import ImageError, UsageError, explain_calls
from encoscope.images import LoadedImage, SkippedImage, draw_images, read_image, read_images
from encoscope.nave.feature_colors import find_otsu_threshold
from encoscope.nave.features import EncodedImage, encode_stream
from encoscope.nave.inputs import ImageLike, is_single
from encoscope.nave.segmentation import Segmentation
from encoscope.nave.settings import (
    BATCH_SIZE,
    Clusters,
    Layers,
    NaveSettings,
    Resolution,
    SimilarSettings,
    Size,
    Upsampler,
    Weighting,
)
from encoscope.nave.similarity_maps import Match, SimilarityMap, SimilarityMaps
from encoscope.nave.similarity_ranking import SimilarityRanking
from encoscope.nave.single_image import segment_with
from encoscope.nave.target_features import TargetFeatures, grow_region, take_random_targets, take_targets
from encoscope.nave.targets import QueryTargets, mask_targets, parse_box, parse_points, read_labels, weigh_cells
from encoscope.progress import Progress, track
from encoscope.results import record_model
from encoscope.settings import refuse_unknown
from encoscope.store.passes import Shard, run_pass

CONTROLS = ("untrained",)
PREVIEW = 640
"""The long side, in pixels, of the images that a result keeps to draw on."""

_SEGMENTING = NaveSettings.GROUPING_ALONE
_FEATURES = ("preset", "weighting", "normalization", "resolution", "size", "upsampler")

_log = logging.getLogger("encoscope")


@explain_calls
def similar(
    encoder: Encoder | nn.Module | str,
    image: ImageLike,
    images: Any = None,
    *,
    at: Any = None,
    not_at: Any = None,
    box: Sequence[float] | None = None,
    segment: int | None = None,
    labels: Segmentation | str | os.PathLike[str] | np.ndarray | None = None,
    preset: str | None = None,
    n_clusters: Clusters | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    min_region: float | None = None,
    n_init: int | None = None,
    tolerance: str | None = None,
    threshold: float | None = None,
    n_random: int | None = None,
    n_maps: int | None = None,
    control: str | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    **unknown: Any,
) -> SimilarityMaps:
    """Show where an encoder sees the like of places in an image, in this image and in others.

    The score of a cell is the largest cosine of its composite features with those of a place that was asked for, minus
    the largest with those of a place that was not. A point is its cell; a box, or a segment, is the mean of its cells'
    unit vectors. A region is all cells above ``threshold`` that are connected to a place that was asked for; in another
    image, to its most similar place. Cosines alone say little, as all features of a network may be alike: each figure
    stands beside that of random places, which are the same arrangement of cells at random positions of ``image`` and of
    a sample of ``images``.

    Args:
        encoder: An encoder, a module, or a source string.
        image: The image that is pointed at.
        images: Other images to search: a folder, a dataset string, a list, a torch Dataset; None for none.
        at: (x, y) of a point, column and row in pixels of the upright image, or a list of points.
        not_at: The same of points whose like is not asked for.
        box: (x0, y0, x1, y1), both corners inside.
        segment: The number of a cluster, of ``labels`` or of the segmentation by these settings.
        labels: A segmentation of the image: a result, its folder, an image of labels, or an array.
        preset: "default", "paper" or "authors"; None is "default".
        n_clusters: As for ``segment``; goes with ``segment`` without ``labels``.
        layers: As for ``segment``.
        grouping: As for ``segment``; goes with ``segment`` without ``labels``.
        weighting: As for ``segment``.
        normalization: As for ``segment``.
        resolution: As for ``segment``.
        size: As for ``segment``.
        upsampler: As for ``segment``.
        min_region: As for ``segment``; goes with ``segment`` without ``labels``.
        n_init: As for ``segment``; goes with ``segment`` without ``labels``.
        tolerance: As for ``segment``; goes with ``segment`` without ``labels``.
        threshold: The score that cells of a region exceed; None is 0 with ``not_at``, else Otsu's of the asked image.
        n_random: Random places that figures are compared with.
        n_maps: How many other images keep their maps; the ranking lists all.
        control: "untrained" searches with random weights, too, with the same places; None for no control.
        random_state: The seed of the random places, and of a segmentation.
        batch_size: Images at a time; it does not change the result.
        progress: None shows a bar on a terminal; True, False, or a callable.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The maps, and the other images in the order of their most similar place.

    Raises:
        UsageError: For settings that cannot be, and places that are not in the image.
        ImageError: For an image that cannot be read; unreadable files of a folder are left out with a warning.
        MissingError: For a file or weights that are not there.

    Example:
        >>> maps = encoscope.similar("zoo:tf_efficientnet_lite0", "cat.jpg", "photos/", at=(120, 80))  # doctest: +SKIP
        >>> maps.ranking[0].path, maps.ranking[0].similarity  # doctest: +SKIP
        >>> maps.save("similar")  # doctest: +SKIP

    Source: Cosines of NAVE's composite features (Algorithm 1, lines 5 to 11).
    """
    own = ("encoder", "image", "images", "unknown")
    refuse_unknown("similar", unknown, [name for name in inspect.signature(similar).parameters if name not in own])
    targets = QueryTargets(parse_points("at", at), parse_points("not_at", not_at), parse_box(box), segment)
    segmenting: dict[str, Any] = dict(
        zip(_SEGMENTING, (n_clusters, grouping, min_region, n_init, tolerance), strict=True)
    )
    changes = segmenting | {"weighting": weighting, "normalization": normalization, "resolution": resolution}
    changes |= {"size": size, "upsampler": upsampler}
    requested = NaveSettings.without_layers(preset, **changes, random_state=random_state)
    options = SimilarSettings.from_preset(preset, threshold=threshold, n_random=n_random, n_maps=n_maps)
    _check(targets, segmenting, labels is not None, requested, control, images, batch_size)
    known = None if labels is None else read_labels(labels)
    encoder = as_encoder(encoder)
    settings = NaveSettings.of(encoder, preset, layers=layers, **changes, random_state=random_state)
    loaded = image if isinstance(image, LoadedImage) else read_image(image, channels=encoder.preprocess.image_channels)
    encoder.warn_if_random()
    if segment is not None and known is None:
        known = _segment(encoder, loaded, settings)
    masks = mask_targets(targets, (loaded.height, loaded.width), known)
    recorded = {name: value for name, value in settings.as_dict().items() if name in _FEATURES}
    recorded |= {name: value for name, value in options.as_dict().items() if name != "preset"}
    if segment is not None:
        recorded |= _record_segments(labels, settings)
    search = _Search(loaded, images, targets, masks, settings, options, recorded, batch_size, progress)
    maps = search.run(encoder)
    if control is None:
        return maps
    return replace(maps, control=search.run(untrained_copy(encoder, random_state=random_state + 1)))


def _check(
    targets: QueryTargets,
    segmenting: dict[str, Any],
    has_labels: bool,
    settings: NaveSettings,
    control: str | None,
    images: Any,
    batch_size: int,
) -> None:
    """What does not go together, before a network is loaded."""
    if has_labels and targets.segment is None:
        raise UsageError("labels say which segments there are: give segment, too")
    idle = next((name for name, value in segmenting.items() if value is not None), None)
    if idle is not None and (targets.segment is None or has_labels):
        raise UsageError(f"{idle} goes with a segment that is similarity_map here: give segment, and no labels")
    if isinstance(settings.n_clusters, tuple):
        raise UsageError(f"a segment is one of one number of clusters, not {settings.n_clusters}")
    if control is not None and control not in CONTROLS:
        raise UsageError(f"control is {' or '.join(CONTROLS)}, not {control!r}")
    if hasattr(images, "__next__"):
        raise UsageError("images are read twice, for random places first: give a list, not a one-shot iterator")
    if batch_size < 1:
        raise UsageError(f"batch_size is the number of images at a time, at least 1, not {batch_size}")


def _segment(encoder: Encoder, image: LoadedImage, settings: NaveSettings) -> Integer[np.ndarray, "height width"]:
    (result,) = segment_with(encoder, [image], settings)
    if isinstance(result, SkippedImage):
        raise ImageError(result.reason)
    return result[1].labels


def _record_segments(labels: Any, settings: NaveSettings) -> dict[str, Any]:
    """Where the segments come from."""
    if labels is None:
        return {name: getattr(settings, name) for name in _SEGMENTING}
    return {"labels": os.fspath(labels) if isinstance(labels, str | os.PathLike) else "own"}


@dataclass(frozen=True, eq=False)
class _Search:
    """One search, to be run with several encoders."""

    image: LoadedImage
    images: Any
    targets: QueryTargets
    masks: tuple[list[np.ndarray], list[np.ndarray]]
    settings: NaveSettings
    options: SimilarSettings
    recorded: dict[str, Any]
    batch_size: int
    progress: Progress

    def run(self, encoder: Encoder) -> SimilarityMaps:
        (encoded,) = encode_stream(encoder, [self.image], self.settings, 1)
        assert isinstance(encoded, EncodedImage)
        query, seeds = self._make_query(encoder, encoded)
        scores = query.score(encoded.features)
        values = scores[0].reshape(encoded.features.grid).float().cpu().numpy()
        typical = float(np.median(scores[1:].float().cpu().numpy()))
        threshold = self.options.threshold
        if threshold is None:
            threshold = 0.0 if self.targets.not_at else find_otsu_threshold(values.ravel().astype(np.float64))
        region = grow_region(values, threshold, seeds)
        maps, ranking, skipped = self._rank(encoder, query, threshold).finalize()
        return SimilarityMaps(
            targets=self.targets,
            query=_map_of(encoded, values, region, threshold, None),
            maps=maps,
            ranking=ranking,
            typical=typical,
            threshold=threshold,
            settings=self.recorded,
            seed=self.settings.random_state,
            model=record_model(encoder, self.settings.layers),
            skipped=skipped,
        )

    def _make_query(
        self, encoder: Encoder, encoded: EncodedImage
    ) -> tuple[TargetFeatures, Bool[np.ndarray, "rows columns"]]:
        """The vectors of the places and of random ones, and the cells of the places that are asked for."""
        positives, negatives = (
            [weigh_cells(mask, encoded.geometry, encoded.grid) for mask in part] for part in self.masks
        )
        if encoded.features.pixels < 2:
            raise UsageError("the features have a single cell: take other layers, or a larger size or resolution")
        query = take_targets(encoded.features, self.image.id, positives, negatives)
        generator = np.random.default_rng(self.settings.random_state)
        drawn = self._draw()
        counts = [len(part) for part in np.array_split(np.arange(self.options.n_random), 1 + len(drawn))]
        others = read_images(drawn, channels=encoder.preprocess.image_channels)
        pool = encode_stream(encoder, chain([self.image], others), self.settings, self.batch_size)
        for item, count in zip(pool, counts, strict=True):
            if count and isinstance(item, EncodedImage):
                query = query.joined(
                    take_random_targets(item.features, item.image.id, positives, negatives, count, generator)
                )
        return query, np.any([weights > 0 for weights in positives], axis=0)

    def _draw(self) -> list[Any]:
        """The other images that random places are in, each from another one where there are enough."""
        if self.images is None or self.options.n_random < 2:
            return []
        if is_single(self.images):
            return [self.images]
        return list(draw_images(self.images, self.options.n_random - 1, self.settings.random_state))

    def _rank(self, encoder: Encoder, query: TargetFeatures, threshold: float) -> SimilarityRanking:
        """The maps of the most similar images, the most similar place of each, and what was left out."""

        def read_shard(shard: Shard) -> Iterator[tuple[Match | SkippedImage, str, Callable[[], SimilarityMap] | None]]:
            images = shard.select(self._read(encoder))
            for item in encode_stream(encoder, images, self.settings, self.batch_size):
                if isinstance(item, SkippedImage):
                    _log.warning("left out: %s", item.reason)
                    yield item, "", None
                elif item.image.id != self.image.id:
                    yield self._match(item, query, threshold)

        return run_pass(read_shard, SimilarityRanking(self.options.n_maps))

    def _match(
        self, item: EncodedImage, query: TargetFeatures, threshold: float
    ) -> tuple[Match, str, Callable[[], SimilarityMap]]:
        """The most similar place of an image, its id, and what makes its map."""
        scores = query.score(item.features).float()
        best = scores.amax(1).cpu().numpy()
        values = scores[0].reshape(item.features.grid).cpu().numpy()
        index = np.unravel_index(int(values.argmax()), values.shape)
        x, y = _find_pixel(item, (int(index[0]), int(index[1])))
        chance = best[query.elsewhere(item.image.id)]
        reached = float((chance >= best[0]).mean())
        best_match = Match(item.image.path, x, y, float(best[0]), float(np.median(chance)), reached)

        def draw() -> SimilarityMap:
            seeds = np.zeros(values.shape, dtype=bool)
            seeds[index] = True
            return _map_of(item, values, grow_region(values, threshold, seeds), threshold, best_match)

        return best_match, item.image.id, draw

    def _read(self, encoder: Encoder) -> Any:
        if self.images is None:
            return []
        channels = encoder.preprocess.image_channels
        if is_single(self.images):
            return [read_image(self.images, channels=channels)]
        total = len(self.images) if hasattr(self.images, "__len__") and not isinstance(self.images, str) else None
        return track(read_images(self.images, channels=channels), total, "similar", self.progress)


def _map_of(
    encoded: EncodedImage,
    values: np.ndarray,
    region: Bool[np.ndarray, "rows columns"],
    threshold: float,
    best_match: Match | None,
) -> SimilarityMap:
    preview = Image.fromarray(plots.to_rgb(encoded.image.pixels))
    preview.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
    return SimilarityMap(
        path=encoded.image.path,
        values=values.astype(np.float32),
        region=region,
        threshold=threshold,
        preview=np.asarray(preview),
        geometry=encoded.geometry,
        grid=encoded.grid,
        best_match=best_match,
    )


def _find_pixel(encoded: EncodedImage, cell: tuple[int, int]) -> tuple[int, int]:
    """The pixel (x, y) of the original image in the middle of a cell."""
    rows, columns = encoded.geometry.cells_of_pixels(encoded.grid)
    y, x = (int(np.abs(axis - index).argmin()) for axis, index in zip((rows, columns), cell, strict=True))
    inside_y, inside_x = np.flatnonzero(rows == rows[y]), np.flatnonzero(columns == columns[x])
    return int(inside_x[len(inside_x) // 2]), int(inside_y[len(inside_y) // 2])
