"""One runner for all tables: what is measured on each image of each method, kept at once, and summed up with intervals.

A table is a list of baselines and a task. The task measures one image at a time and gives a few values; these are kept
in a cache named after everything that shapes them, so tables that share a row share its work, too.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from encoscope._version import __version__
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.file_kind import require_ordinary_file
from encoscope.images import LoadedImage, SkippedImage, read_image
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.progress import Progress, track
from encoscope.store.passes import Shard, run_pass

_log = logging.getLogger("encoscope")


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image's file and what is known of the image.

    Attributes:
        path: The file.
        annotation: Boxes, label maps, or nothing (an empty array).
    """

    path: Path
    annotation: np.ndarray = field(default_factory=lambda: np.zeros(0))


@runtime_checkable
class AnnotatedImages(Protocol):
    """Annotated images in their order, as often as needed: a list, or what reads them one at a time."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[AnnotatedImage]: ...


@dataclass(frozen=True)
class MeasuringTask:
    """What is measured on every image.

    Attributes:
        name: With ``settings``, what tells its values from those of other tasks.
        measure: From a baseline, an image, its annotation and a number of segments (for matched baselines) to values by
            name: numbers, NaN where there is none, or lists of them.
        count: Which of these values of NAVE is the number of segments for matched baselines.
        settings: What else shapes the values.
        judge: The network that the task itself uses, if it uses one.
    """

    name: str
    measure: Callable[[Baseline, LoadedImage, np.ndarray, int | None], Mapping[str, Any]]
    count: str = "candidates"
    settings: Mapping[str, Any] = field(default_factory=dict)
    judge: Encoder | None = None


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured on a set of images.

    Attributes:
        rows: The values of each image that could be read, in the images' order.
        paths: The images' files.
        skipped: The images that could not be read.
    """

    rows: tuple[Mapping[str, Any], ...]
    paths: tuple[Path, ...]
    skipped: tuple[SkippedImage, ...] = ()

    def __len__(self) -> int:
        """Count the images that could be read."""
        return len(self.rows)

    def array(self, name: str) -> Float[np.ndarray, " images"]:
        """Give one value of every image.

        Args:
            name: Of the value.

        Returns:
            ``[images]``
        """
        return np.array([row[name] for row in self.rows], dtype=np.float64)

    def interval(self, name: str, random_state: int = RANDOM_STATE) -> Interval | None:
        """Compute the mean of a value with its bootstrap interval.

        Args:
            name: Of the value.
            random_state: Of the bootstrap.

        Returns:
            The interval; None where no image has the value.
        """
        return compute_interval(self.array(name), random_state)

    def mean(self, name: str) -> float | None:
        """Compute the mean of a value over the images that have it.

        Args:
            name: Of the value.

        Returns:
            The mean; None where no image has the value.
        """
        values = self.array(name)
        return None if np.isnan(values).all() else float(np.nanmean(values))


class MeasuredImages:
    """The values of a shard's images: ``partial_fit``, ``merge`` with those of others, ``finalize``."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Path, Mapping[str, Any]]] = {}
        self._skipped: dict[int, SkippedImage] = {}

    def partial_fit(self, position: int, path: Path, values: Mapping[str, Any] | SkippedImage) -> MeasuredImages:
        """Add an image.

        Args:
            position: Its number in the dataset.
            path: Its file.
            values: What was measured on it, or why it was left out.

        Returns:
            Itself.
        """
        if isinstance(values, SkippedImage):
            self._skipped[position] = values
        else:
            self._rows[position] = (path, values)
        return self

    def merge(self, other: MeasuredImages) -> MeasuredImages:
        """Add another shard's images.

        Args:
            other: Its values.

        Returns:
            Itself.
        """
        self._rows |= other._rows
        self._skipped |= other._skipped
        return self

    def finalize(self) -> Measurements:
        """Give all values in the images' order.

        Returns:
            The measurements.

        Raises:
            ImageError: No image could be measured.
        """
        skipped = [self._skipped[position] for position in sorted(self._skipped)]
        if not self._rows:
            reason = skipped[0].reason if skipped else "the dataset is empty"
            raise ImageError(f"no image could be measured: {reason}")
        measured = [self._rows[position] for position in sorted(self._rows)]
        return Measurements(tuple(row for _, row in measured), tuple(path for path, _ in measured), tuple(skipped))


def measure_images(
    task: MeasuringTask,
    baseline: Baseline,
    images: AnnotatedImages,
    *,
    like: Measurements | int | None = None,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    label: str = "",
    progress: Progress = None,
) -> Measurements:
    """Measure every image; an interrupted run resumes where it stopped.

    Args:
        task: What is measured.
        baseline: The method.
        images: The images.
        like: How many segments a matched baseline makes of each image: a fixed number, or what NAVE measured on the
            same images.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        label: For the progress bar; by default the method.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The values. Images that cannot be read are left out with a warning.

    Raises:
        ImageError: no image can be read.
        EncoscopeError: as the baseline.
    """
    manifest = {"task": task.name, "settings": dict(task.settings), "version": __version__, **baseline.manifest()}
    if isinstance(like, Measurements):
        counts = {path: int(row[task.count]) for path, row in zip(like.paths, like.rows, strict=True)}
    else:
        counts = {}
    networks = [network for network in (baseline.encoder, task.judge) if network is not None]
    cache = open_cache(manifest, networks, fresh=fresh, cache_dir=cache_dir)

    def measure(example: AnnotatedImage) -> Mapping[str, Any] | SkippedImage:
        n_segments = (like if isinstance(like, int) else counts.get(example.path)) if baseline.matched else None
        try:
            name = identify_example(example, n_segments)
            values = cache.get(name)
            if values is None:
                channels = 3 if baseline.encoder is None else baseline.encoder.preprocess.image_channels
                image = read_image(example.path, channels=channels)
                cache.put(name, task.measure(baseline, image, example.annotation, n_segments))
                values = cache.get(name) or {}
        except (ImageError, MissingError) as error:
            _log.warning("left out: %s", error)
            return SkippedImage(str(example.path), str(error))
        return values

    def read_shard(shard: Shard) -> Iterator[tuple[int, Path, Mapping[str, Any] | SkippedImage]]:
        examples = track(images, len(images), label or baseline.method, progress, shorter="--limit N")
        for position, example in shard.select(enumerate(examples)):
            yield position, example.path, measure(example)

    return run_pass(read_shard, MeasuredImages()).finalize()


def open_cache(
    manifest: Mapping[str, Any],
    networks: Sequence[Encoder],
    *,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> MeasurementCache:
    """Open the cache of values that networks had a part in.

    Args:
        manifest: All that shapes the values.
        networks: The networks; the values are kept only where these give the same outputs again.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.

    Returns:
        The cache.
    """
    return MeasurementCache(
        manifest,
        fresh=fresh,
        cache_dir=cache_dir,
        about={"trials": [record_trial(network) for network in networks]},
        accepts=lambda beside: _are_same_networks(networks, beside.get("trials")),
        keep=not any(network.trial().random for network in networks),
    )


def compute_interval(values: Float[np.ndarray, " images"], random_state: int = RANDOM_STATE) -> Interval | None:
    """Compute the mean over images with its bootstrap interval.

    Args:
        values: ``[images]``, NaN where an image has none.
        random_state: Of the bootstrap.

    Returns:
        The interval; None where no image has a value.
    """
    return None if np.isnan(values).all() else bootstrap(values, random_state=random_state)


def compute_difference(
    first: Measurements,
    second: Measurements,
    of: Callable[[Measurements], np.ndarray],
    random_state: int = RANDOM_STATE,
) -> Interval | None:
    """Compute the paired difference of a value over the images that both have.

    Args:
        first: Measurements.
        second: Measurements that are subtracted.
        of: Gives the value of every image, ``[images]``.
        random_state: Of the bootstrap.

    Returns:
        The mean difference with its bootstrap interval; None where no image has both.
    """
    others = dict(zip(second.paths, of(second), strict=True))
    pairs = [(value, others[path]) for path, value in zip(first.paths, of(first), strict=True) if path in others]
    pairs = [pair for pair in pairs if not np.isnan(pair).any()]
    if not pairs:
        return None
    left, right = np.array(pairs, dtype=np.float64).T
    return bootstrap_difference(left, right, random_state=random_state)


def drop_duplicates(skipped: Iterable[SkippedImage]) -> tuple[SkippedImage, ...]:
    """Keep each skipped image once, however many methods could not read it.

    Args:
        skipped: Skipped images.

    Returns:
        One entry for each path.
    """
    return tuple({item.path: item for item in skipped}.values())


def shorten_dataset(dataset: str) -> str:
    """Shorten a dataset string for a title: names of files and folders without those above them.

    Args:
        dataset: The dataset string, or a folder.

    Returns:
        The short form.

    Example:
        >>> shorten_dataset("coco:/data/images#/data/boxes.json")
        'coco:images#boxes.json'
    """
    name, colon, rest = dataset.partition(":")
    if not colon:
        return Path(dataset).name
    return f"{name}:" + "#".join(Path(part).name for part in rest.split("#"))


def _are_same_networks(networks: Sequence[Encoder], kept: Any) -> bool:
    if not isinstance(kept, list) or len(kept) != len(networks):
        return not networks
    return all(is_same_network(network, trial, (), "values") for network, trial in zip(networks, kept, strict=True))


def identify_example(example: AnnotatedImage, n_segments: int | None) -> str:
    """Tell one measured image from another: by its bytes, its annotation and the number of segments.

    Args:
        example: The image and its annotation.
        n_segments: The number of segments that a matched baseline makes.

    Returns:
        What its values are kept under.

    Raises:
        MissingError: no such file.
        EncoscopeError: a file that cannot be read.
    """
    require_ordinary_file(example.path)
    try:
        file = hashlib.sha256(example.path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {example.path}") from error
    except OSError as error:
        raise EncoscopeError(f"cannot read {example.path}: {error.strerror or error}") from error
    annotation = np.ascontiguousarray(example.annotation)
    digest = hashlib.sha256(f"{annotation.dtype.str}{annotation.shape}".encode() + annotation.tobytes()).hexdigest()
    return f"{file[:32]}-{digest[:16]}" + (f"-{n_segments}" if n_segments is not None else "")
