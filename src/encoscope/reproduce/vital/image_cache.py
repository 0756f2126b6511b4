"""Visualizations by any method, each kept as soon as it is made and never made again, by one process or several."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from encoscope import results
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, is_same_network, load, record_trial
from encoscope.errors import UsageError
from encoscope.progress import Progress, track_steps
from encoscope.store import JournaledFolder, content_key
from encoscope.units import parse_unit
from encoscope.vital import Visualization, Vital
from encoscope.vital.baselines.maco import compute_mean_magnitude
from encoscope.vital.baselines.plugin import EIGHTHS
from encoscope.vital.baselines.registry import find_planner
from encoscope.vital.run import run_synthesis
from encoscope.vital.settings import make_settings
from encoscope.vital.synthesis.loop import run_stages
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.target import Target
from encoscope.vital.visualization import make_file_name

CANDIDATES = 100
"""Images of a channel that are searched for its patches."""
_SPECTRUM = 500  # images whose mean magnitude MACO takes
_AREA = (
    sum(eighths**2 for eighths in EIGHTHS) / 64
)  # of Plug-In Inversion's seven sizes together, in images of full size


@dataclass(frozen=True)
class Trial:
    """Visualizations of several units by one method with one set of settings.

    Attributes:
        model: model string of the network.
        digest: digest of the network's weights.
        references: dataset string of the images that VITAL takes references from.
        method: "vital" or the name of another method, see ``encoscope.vital.baselines.registry``.
        units: what is visualized, such as ``class:3``.
        steps: steps of the optimization.
        folder: folder in which all trials keep their images.
        settings: of the method (for VITAL, arguments of ``Vital``); for others also ``size``, the image's
            ``[height, width]``.
        seed: seed of the optimization.
        spectrum: a .npy file with MACO's magnitudes; None for other methods.
        load: further arguments of ``encoscope.load``, as pairs; what they change is in the digest.
    """

    model: str
    digest: str
    references: str
    method: str
    units: tuple[str, ...]
    steps: int
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = RANDOM_STATE
    spectrum: Path | None = None
    load: tuple[tuple[str, Any], ...] = ()

    @property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return load_cached_encoder(self.model, self.load) if self.load else load_cached_encoder(self.model)

    @property
    def together(self) -> bool:
        """Whether the other units of a batch change the image of a unit."""
        return self.method == "deepinversion"

    @property
    def folder_of_settings(self) -> Path:
        """The folder of this method's images with these settings."""
        identity = {"digest": self.digest, "references": self.references, "method": self.method, "steps": self.steps}
        identity |= {"settings": dict(self.settings), "seed": self.seed} | (
            {"with": self.units} if self.together else {}
        )
        return self.folder / f"{self.method}-{content_key(identity)}"

    def image_path(self, unit: str) -> Path:
        """Return the file of a unit's image; a .json file beside it, written last, says that it is finished.

        Args:
            unit: one of ``units``.

        Returns:
            The path of the .png file.
        """
        return self.folder_of_settings / f"{make_file_name(unit)}.png"

    @property
    def image_paths(self) -> list[Path]:
        """The file of each unit's image."""
        return [self.image_path(unit) for unit in self.units]

    def missing_trials(self) -> list[Trial]:
        """Split what is not finished into trials that are made at once.

        Returns:
            The whole trial where its units are made together, else a trial for each missing unit; none if all is
            finished.
        """
        missing = tuple(unit for unit in self.units if not self._is_finished(unit))
        if self.together:
            return [self] if missing else []
        return [replace(self, units=(unit,)) for unit in missing]

    def _is_finished(self, unit: str) -> bool:
        """Whether a unit's image is there, of a network that gives the same outputs."""
        path = self.image_path(unit).with_suffix(".json")
        if not path.is_file():
            return False
        kept = json.dumps(json.loads(path.read_text(encoding="utf-8")).get("trial"))
        return _is_same_network(self.encoder, kept)

    def median_seconds(self) -> float:
        """Read the median processor time of an image, in seconds.

        Returns:
            The median over the units.
        """
        return median(json.loads(path.with_suffix(".json").read_text())["seconds"] for path in self.image_paths)


def discard_images(trials: Sequence[Trial], discarded: set[Path]) -> None:
    """Make finished images of trials count as missing, each of them once.

    Args:
        trials: trials whose images are made anew.
        discarded: images that were discarded before and are left alone; the others are added.
    """
    for trial in trials:
        for path in trial.image_paths:
            if path not in discarded:
                path.with_suffix(".json").unlink(missing_ok=True)
                discarded.add(path)


def split_batches(trial: Trial, size: int) -> list[Trial]:
    """Split a trial into several of at most ``size`` units, if its units are made together.

    Args:
        trial: the trial.
        size: largest number of units of a batch.

    Returns:
        The batches; only the trial itself where each unit is made by itself.
    """
    if not trial.together:
        return [trial]
    return [replace(trial, units=trial.units[first : first + size]) for first in range(0, len(trial.units), size)]


def make_images(trial: Trial) -> None:
    """Make the images of a trial and keep them.

    Args:
        trial: the trial; all its images are made, finished or not.

    Raises:
        UsageError: if the model's weights are others than those the trial was planned with.
    """
    encoder = trial.encoder
    if encoder.digest != trial.digest:
        raise UsageError(f"{trial.model} has changed since the experiment began: start over in another folder")
    start = time.process_time()
    visualizations = synthesize_trial(encoder, trial)
    seconds = (time.process_time() - start) / len(visualizations)
    folder = JournaledFolder(trial.folder_of_settings)
    for visualization in visualizations:
        path = trial.image_path(visualization.unit)
        with folder.write(path.name) as temporary:
            visualization.picture.save(temporary)
        record = {
            "seconds": seconds,
            "steps": visualization.steps,
            "activation": visualization.activation,
            "settings": visualization.settings,
            "trial": record_trial(encoder),
        }
        with folder.write(path.with_suffix(".json").name) as temporary:
            results.write(temporary, record)


def make_missing_images(
    trials: Sequence[Trial], *, workers: int = 1, label: str = "images", progress: Progress = None
) -> None:
    """Make those images of trials that are not finished, in order.

    Args:
        trials: the trials.
        workers: number of processes, each with one thread: small networks run no faster with more.
        label: name of the progress bar.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
    """
    batches = [batch for trial in trials for batch in trial.missing_trials()]
    total = sum(len(batch.units) for batch in batches)
    with track_steps(total, label, progress) as count:
        for batch in _run_batches(batches, min(workers, len(batches))):
            count(len(batch.units))


def _run_batches(batches: Sequence[Trial], workers: int) -> Iterator[Trial]:
    if workers <= 1:
        for batch in batches:
            make_images(batch)
            yield batch
        return
    # a forked torch may hang in its thread pool: fresh processes
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_single_thread) as pool:
        pending = {pool.submit(make_images, batch): batch for batch in batches}
        try:
            for done in as_completed(pending):
                done.result()
                yield pending[done]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


@cache
def _is_same_network(encoder: Encoder, kept: str) -> bool:
    """Whether a network gives the outputs that were kept, once for each: a difference is said once."""
    return is_same_network(encoder, json.loads(kept), what="visualizations")


@cache
def load_cached_encoder(model: str, load_options: tuple[tuple[str, Any], ...] = ()) -> Encoder:
    """Load an encoder, once in each process.

    Args:
        model: model string.
        load_options: further arguments of ``encoscope.load``, as pairs.

    Returns:
        The encoder.
    """
    return load(model, **dict(load_options))


def synthesize_trial(encoder: Encoder, trial: Trial) -> list[Visualization]:
    """Make the images of a trial in memory.

    Args:
        encoder: the trial's network.
        trial: the trial.

    Returns:
        A visualization of each unit.
    """
    if trial.method == "vital":
        return fit_vital(encoder, trial).synthesize()
    units = [parse_unit(text, encoder) for text in trial.units]
    plan = plan_synthesis(encoder, trial)
    targets = [Target.of(unit) for unit in units]
    return run_synthesis(encoder, plan, targets, random_state=trial.seed, cache=False, progress=False)


def fit_vital(encoder: Encoder, trial: Trial) -> Vital:
    """Fit VITAL on the references of a trial's units.

    Args:
        encoder: the trial's network.
        trial: a trial with the method "vital".

    Returns:
        The fitted estimator.
    """
    settings: dict[str, Any] = {"steps": trial.steps, "cache": False, "random_state": trial.seed, "progress": False}
    settings |= {"preset": "paper", "n_candidates": CANDIDATES, **trial.settings}
    return Vital(encoder, list(trial.units), **settings).fit(trial.references)


def plan_synthesis(encoder: Encoder, trial: Trial) -> SynthesisPlan:
    """Plan the synthesis of a trial.

    Args:
        encoder: the trial's network.
        trial: a trial of any method.

    Returns:
        The plan that the synthesis loop follows.
    """
    if trial.method == "vital":
        estimator = fit_vital(encoder, trial)
        return estimator.plan(estimator.targets_)
    settings = dict(trial.settings)
    if trial.method == "maco" and trial.spectrum is not None:
        settings["magnitude"] = np.load(trial.spectrum)
    units = [parse_unit(text, encoder) for text in trial.units]
    return find_planner(trial.method)(encoder, units, make_settings(trial.method, steps=trial.steps, **settings), None)


def count_equal_steps(method: str, settings: Mapping[str, Any], passes: int) -> int:
    """Count the steps that a method can make with a number of passes, so that methods are compared at equal compute.

    Args:
        method: name of a method other than "vital".
        settings: the method's settings; ``n_views`` and ``views`` change what a step costs.
        passes: number of forward and backward passes of one image of full size.

    Returns:
        The number of steps, at least 1.
    """
    if method == "plugin":
        return max(1, round(len(EIGHTHS) * passes / (_AREA * settings.get("n_views", 8))))
    views = settings.get("n_views", 32) if method == "maco" else 1
    views = settings.get("n_views", 1) if method == "fourier" and settings.get("views") == "crops" else views
    return max(1, round(passes / views))


def measure_step_cost(encoder: Encoder, trial: Trial, baseline: Trial, *, steps: int = 8, rounds: int = 5) -> float:
    """Measure how much more processor time one step of a trial takes than one step of a baseline; both run in turn.

    Args:
        encoder: the network of both.
        trial: the trial whose step is measured.
        baseline: the trial that it is compared with.
        steps: steps of a round.
        rounds: number of rounds; the median of the rounds counts.

    Returns:
        The ratio of the two times.
    """
    plans = [plan_synthesis(encoder, replace(each, steps=steps)) for each in (trial, baseline)]
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for plan, times in zip(plans, seconds, strict=True):
            start = time.process_time()
            run_stages(plan.stages, plan.objective, trial.units[:1], progress=False)
            times.append(time.process_time() - start)
    return median(seconds[0]) / median(seconds[1])


def load_step_cost(path: Path, encoder: Encoder, trial: Trial, baseline: Trial) -> float:
    """Read the cost of a step from a file, or measure it and write the file.

    Args:
        path: the file.
        encoder: the network of both.
        trial: the trial whose step is measured.
        baseline: the trial that it is compared with.

    Returns:
        The ratio of ``measure_step_cost``, but at least 1.
    """
    if not path.is_file():
        with results.atomic_write(path) as temporary:
            temporary.write_text(f"{max(1.0, measure_step_cost(encoder, trial, baseline)):.2f}\n", encoding="utf-8")
    return float(path.read_text(encoding="utf-8"))


def load_spectrum(path: Path, encoder: Encoder, paths: Sequence[Path], size: tuple[int, int]) -> Path:
    """Return the file of MACO's magnitudes; compute them, from images spread over a list, if it does not exist.

    Args:
        path: the .npy file.
        encoder: the network; its preprocessing says what pixels are.
        paths: image files.
        size: ``(height, width)`` of the spectrum's images, in pixels.

    Returns:
        ``path``.
    """
    if not path.is_file():
        selection = [paths[index] for index in np.linspace(0, len(paths) - 1, min(_SPECTRUM, len(paths))).astype(int)]
        pixels = (encoder.prepare(image).pixels for image in selection)
        magnitude = compute_mean_magnitude(pixels, encoder.preprocess, size)
        with results.atomic_write(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, magnitude.cpu().numpy())
    return path
