"""How two encoders differ on the same images: what they treat alike, how their layers and features correspond."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from encoscope.analysis.comparison import Agreement, Comparison
from encoscope.analysis.comparison_pass import BATCH, ComparedImage, ComparedNetworks, ComparisonPartial
from encoscope.analysis.settings import CompareSettings
from encoscope.encoder import Encoder, as_encoder, untrained_copy
from encoscope.errors import UsageError, explain_calls
from encoscope.images import Channels, LoadedImage, SkippedImage, count_classes, draw_images, list_images, read_images
from encoscope.metrics import bootstrap
from encoscope.metrics.layer_cka import MINIBATCH
from encoscope.metrics.matching import match_units
from encoscope.progress import Progress, track
from encoscope.store.passes import Shard, run_pass

LAYERS = 12
"""At most so many layers of each network are compared, spread evenly over its depth."""


@explain_calls
def compare(
    first: Encoder | nn.Module | str,
    second: Encoder | nn.Module | str,
    images: Any,
    *,
    n_clusters: Sequence[int] | None = None,
    limit: int | None = None,
    random_state: int = CompareSettings.random_state,
    progress: Progress = None,
) -> Comparison:
    """Compare what two encoders treat alike, layer by layer and feature by feature; one batch is held at a time.

    Agreement of segmentations (NAVE, each encoder's default layers) stands beside the most (the first encoder and the
    mirrored image) and the least (its untrained copy) that can be expected. Matched features stand beside those
    that are matched when each image is paired with another one. `CompareSettings` says what each setting means and what
    its default is.

    Args:
        first: An encoder, a network or a source string.
        second: Another, or the same one before or after training.
        images: A folder, a dataset string, images, or a stream of these; at least four that can be read.
        n_clusters: The granularities of the segmentations.
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels; of a
            stream the first.
        random_state: The seed.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The comparison, to print, save or plot.

    Raises:
        UsageError: fewer than four images that can be read.
        MissingError: files that are absent.
        EncoscopeError: as ``segment``.

    Example:
        ::

            model = "zoo:resnet-caltech101"
            print(encoscope.compare(model, f"{model}@untrained", "images/", n_clusters=(3, 5)))

    Source: Nguyen et al. 2021, Do Wide and Deep Networks Learn the Same Things? (CKA in minibatches).
    """
    settings = CompareSettings.from_preset(n_clusters=n_clusters, limit=limit, random_state=random_state)
    settings = replace(settings, n_clusters=tuple(sorted(set(settings.n_clusters))))
    first, second = as_encoder(first), as_encoder(second)
    channels = _choose_channels(first, second)
    untrained = _copy_untrained(first, random_state)
    is_same = untrained is not None and untrained.digest == second.digest  # it would stand there twice
    networks = ComparedNetworks(
        first=first,
        second=second,
        untrained=None if is_same else untrained,
        layers=(_spread_layers(first), _spread_layers(second)),
        n_clusters=settings.n_clusters,
        random_state=random_state,
    )
    items = _mix(draw_images(images, limit, random_state), random_state)

    def source(shard: Shard) -> Iterator[tuple[int, list[LoadedImage | SkippedImage]]]:
        stream = read_images(items, channels=channels)
        total = len(items) if hasattr(items, "__len__") else None
        yield from _split_batches(track(stream, total, "compare", progress, shorter="--limit N"), shard)

    partial = run_pass(source, ComparisonPartial(networks))
    if len(partial.images) < 4:
        raise UsageError(f"a comparison needs at least 4 readable images, not {len(partial.images)}")
    sums = partial.finalize()
    matches, by_chance = match_units(sums.correlations), match_units(sums.permuted)
    return Comparison(
        names=(first.source, second.source),
        digests=(first.digest, second.digest),
        warnings=(*first.warnings, *second.warnings),
        images=len(partial.images),
        agreements=tuple(_list_agreements(partial.images, networks.n_clusters, random_state)),
        layers=networks.layers,
        cka=sums.cka,
        matches=matches,
        correlations=sums.correlations[matches[:, 0], matches[:, 1]],
        chance=sums.permuted[by_chance[:, 0], by_chance[:, 1]],
        ranked=tuple((image.path, image.score) for image in sorted(partial.images, key=lambda image: image.score)),
        sheet=partial.draw_sheet(),
        random_state=random_state,
        skipped=tuple(item for _, item in partial.skipped),
        preprocessing=(first.record_preprocess(), second.record_preprocess()),
        records=(dict(first.record), dict(second.record)),
        settings=settings.as_dict(),
        classes=_count_classes(images, [image.path for image in partial.images]),
    )


def _mix(images: Any, random_state: int) -> Any:
    """Put images in an order of their own, so that a minibatch holds all classes; a stream stays as it is."""
    if isinstance(images, str | os.PathLike):
        images = list_images(images).paths
    if not isinstance(images, list | tuple):
        return images
    return [images[index] for index in np.random.default_rng(random_state).permutation(len(images))]


def _split_batches(
    stream: Iterator[LoadedImage | SkippedImage], shard: Shard
) -> Iterator[tuple[int, list[LoadedImage | SkippedImage]]]:
    """The batches of a shard, each with the number of its first image; a shard has whole minibatches of CKA."""
    for start in count(0, BATCH):
        batch = list(islice(stream, BATCH))
        if not batch:
            return
        if start // MINIBATCH % shard.count == shard.index:
            yield start, batch


def _count_classes(images: Any, paths: Sequence[str | None]) -> dict[str, int]:
    """How many images of each class were compared; empty for images without labels or files."""
    if not isinstance(images, str | os.PathLike):
        return {}
    labels = list_images(images).find_labels([Path(path) for path in paths if path is not None])
    return count_classes(labels or [])


def _list_agreements(images: Sequence[ComparedImage], numbers: Sequence[int], random_state: int) -> Iterator[Agreement]:
    for index, k in enumerate(numbers):
        floors = [image.untrained[index] for image in images if image.untrained is not None]
        yield Agreement(
            k,
            bootstrap([image.agreement[index] for image in images], random_state=random_state),
            bootstrap([image.mirrored[index] for image in images], random_state=random_state),
            bootstrap(floors, random_state=random_state) if floors else None,
        )


def _choose_channels(first: Encoder, second: Encoder) -> Channels:
    """The channels that images are read with: color is made grey for a network of one channel."""
    ours, theirs = first.preprocess.channels, second.preprocess.channels
    if ours != theirs and {ours, theirs} != {1, 3}:
        raise UsageError(
            f"{first.source} takes {ours} channels and {second.source} {theirs}: no image is an input of both"
        )
    if first.preprocess.bands != second.preprocess.bands:
        raise UsageError(f"{first.source} and {second.source} read other bands of the files: state the same for both")
    return first.preprocess.bands or max(ours, theirs)


def _copy_untrained(encoder: Encoder, random_state: int) -> Encoder | None:
    try:
        return untrained_copy(encoder, random_state=random_state)
    except UsageError:
        return None


def _spread_layers(encoder: Encoder) -> tuple[str, ...]:
    """Stages or blocks, at most ``LAYERS`` of them, the first and the last among them."""
    names = encoder.depths
    indices = np.unique(np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int))
    return tuple(names[index] for index in indices)
