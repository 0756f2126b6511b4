"""One runner for all tables: what each image says of each method, kept as it is measured, and summed up with intervals.

A table is a list of contenders and a task. The task looks at one image at a time and gives a few values; these are kept
in a journal named after everything that shapes them, so tables that share a row share its work, too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from encoscope._version import __version__
from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.images import LoadedImage, SkippedImage, read_image
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.progress import Progress, track

_log = logging.getLogger("encoscope")


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and what is known of it: boxes, label maps, or nothing (an empty array)."""

    path: Path
    truth: np.ndarray = field(default_factory=lambda: np.zeros(0))


@runtime_checkable
class Examples(Protocol):
    """Examples in their order, as often as they are asked for: a list, or what reads them one at a time."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[AnnotatedImage]: ...


@dataclass(frozen=True)
class Task:
    """What is measured on every image.

    name: with ``settings``, what tells its values from those of other tasks. look: from a contender, a photo, the truth
    and a number of parts (for matched contenders) to values: numbers, NaN where there is none, or lists of them.
    parts: which of these values of NAVE is the number of parts that matched contenders get.
    """

    name: str
    look: Callable[[Baseline, LoadedImage, np.ndarray, int | None], Mapping[str, Any]]
    parts: str = "candidates"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MeasuredExample:
    """Values of the images that could be read, in their order; skipped: the others."""

    rows: tuple[Mapping[str, Any], ...]
    paths: tuple[Path, ...]
    skipped: tuple[SkippedImage, ...] = ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def array(self, name: str) -> Float[np.ndarray, " images"]:
        """One value of every image."""
        return np.array([row[name] for row in self.rows], dtype=np.float64)

    def interval(self, name: str, seed: int = 0) -> Interval | None:
        """The mean of a value with its bootstrap interval; None where no image has it."""
        return interval(self.array(name), seed)

    def mean(self, name: str) -> float | None:
        """The mean of a value over the images that have it."""
        values = self.array(name)
        return None if np.isnan(values).all() else float(np.nanmean(values))


def run(
    task: Task,
    contender: Baseline,
    examples: Examples,
    *,
    like: MeasuredExample | int | None = None,
    fresh: bool = False,
    label: str = "",
    progress: Progress = None,
) -> MeasuredExample:
    """Measure every image, going on where an interrupted run stopped.

    like: what NAVE measured on the same images, or a fixed number: how many parts a matched contender makes of each.
    fresh: forget what is there. label: for the progress bar. Images that cannot be read are left out with a warning.

    Raises:
        ImageError: no image can be read. EncoscopeError: as the contender, for what is wrong with it.
    """
    manifest = {"task": task.name, "asked": dict(task.settings), "version": __version__, **contender.manifest()}
    if isinstance(like, MeasuredExample):
        counts = {path: int(row[task.parts]) for path, row in zip(like.paths, like.rows, strict=True)}
    else:
        counts = {}
    rows, paths, skipped = [], [], []
    with MeasurementCache(manifest, fresh=fresh) as journal:
        for example in track(examples, len(examples), label or contender.method, progress):
            parts = (like if isinstance(like, int) else counts.get(example.path)) if contender.matched else None
            try:
                name = _identity(example, parts)
                values = journal.get(name)
                if values is None:
                    channels = 3 if contender.encoder is None else contender.encoder.preprocess.channels
                    photo = read_image(example.path, channels=channels)
                    values = task.look(contender, photo, example.truth, parts)
                    journal.put(name, values)
                    values = journal.get(name) or {}
            except (ImageError, MissingError) as error:
                _log.warning("left out: %s", error)
                skipped.append(SkippedImage(str(example.path), str(error)))
                continue
            rows.append(values)
            paths.append(example.path)
    if not rows:
        reason = skipped[0].reason if skipped else "the dataset is empty"
        raise ImageError(f"no image could be measured: {reason}")
    return MeasuredExample(tuple(rows), tuple(paths), tuple(skipped))


def interval(values: Float[np.ndarray, " images"], seed: int = 0) -> Interval | None:
    """The mean over images with its bootstrap interval; None where no image has a value."""
    return None if np.isnan(values).all() else bootstrap(values, seed=seed)


def difference(
    first: MeasuredExample, second: MeasuredExample, of: Callable[[MeasuredExample], np.ndarray], seed: int = 0
) -> Interval | None:
    """The paired difference of a value over the images that both have; None where there is none."""
    there = dict(zip(second.paths, of(second), strict=True))
    pairs = [(value, there[path]) for path, value in zip(first.paths, of(first), strict=True) if path in there]
    pairs = [pair for pair in pairs if not np.isnan(pair).any()]
    if not pairs:
        return None
    one, two = np.array(pairs, dtype=np.float64).T
    return bootstrap_difference(one, two, seed=seed)


def unique(skipped: Iterable[SkippedImage]) -> tuple[SkippedImage, ...]:
    """Each image once, however many methods stumbled over it."""
    return tuple({item.path: item for item in skipped}.values())


def short(dataset: str) -> str:
    """A dataset string for a title: names of files and folders without those above them."""
    name, colon, rest = dataset.partition(":")
    if not colon:
        return Path(dataset).name
    return f"{name}:" + "#".join(Path(part).name for part in rest.split("#"))


def _identity(example: AnnotatedImage, parts: int | None) -> str:
    """What tells one look at one image from another: its bytes, what is known of it, the number of parts."""
    try:
        file = hashlib.sha256(example.path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {example.path}") from error
    except OSError as error:
        raise EncoscopeError(f"cannot read {example.path}: {error.strerror or error}") from error
    truth = np.ascontiguousarray(example.truth)
    digest = hashlib.sha256(f"{truth.dtype.str}{truth.shape}".encode() + truth.tobytes()).hexdigest()
    return f"{file[:32]}-{digest[:16]}" + (f"-{parts}" if parts is not None else "")
