"""Pictures by any visualization method, each kept as soon as it is made and never made again, several at a time."""

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
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.progress import Progress
from encoscope.progress import track_steps as progress_steps
from encoscope.store import JournaledFolder, content_key
from encoscope.units import parse_unit
from encoscope.vital import Visualization, Vital
from encoscope.vital.baselines.maco import compute_mean_magnitude
from encoscope.vital.baselines.plugin import EIGHTHS
from encoscope.vital.baselines.registry import BaselineOptions, SynthesisPlan, find_planner
from encoscope.vital.run import SynthesisSubject, run_synthesis
from encoscope.vital.synthesis.loop import run_stages
from encoscope.vital.visualization import file_name

CANDIDATES = 100  # whole images of a channel that are searched for its patches
_SPECTRUM = 500  # photos whose mean magnitude MACO takes
_AREA = sum(eighths**2 for eighths in EIGHTHS) / 64  # of Plug-In Inversion's seven sizes together, in full pictures


@dataclass(frozen=True)
class Trial:
    """Pictures of some units by one method under one setting.

    method: "vital" or another of ``methods.NAMES``. settings: the method's own (for VITAL, arguments of ``Vital``), and
    for others ``size``, [height, width] of the picture.
    units: made together where ``together``, else one by one. steps: of the optimisation. digest: the encoder's.
    folder: where all trials keep their pictures. spectrum: a .npy file with MACO's magnitudes. load: further arguments
    of ``encoscope.load``; what they change is in the digest.
    """

    model: str
    digest: str
    references: str
    method: str
    units: tuple[str, ...]
    steps: int
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    spectrum: Path | None = None
    load: tuple[tuple[str, Any], ...] = ()

    @property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return encoder_of(self.model, self.load) if self.load else encoder_of(self.model)

    @property
    def together(self) -> bool:
        """Whether what shares the batch changes a picture."""
        return self.method == "deepinversion"

    @property
    def home(self) -> Path:
        """The folder of this method's pictures under this setting."""
        made = {"digest": self.digest, "references": self.references, "method": self.method, "steps": self.steps}
        made |= {"settings": dict(self.settings), "seed": self.seed} | ({"with": self.units} if self.together else {})
        return self.folder / f"{self.method}-{content_key(made)}"

    def picture(self, unit: str) -> Path:
        """Where a unit's picture is kept; beside it, written last, a .json with the seconds it took."""
        return self.home / f"{file_name(unit)}.png"

    @property
    def pictures(self) -> list[Path]:
        """One for each unit."""
        return [self.picture(unit) for unit in self.units]

    def parts(self) -> list[Trial]:
        """What is still to be made, in pieces that are made at once."""
        missing = tuple(unit for unit in self.units if not self.picture(unit).with_suffix(".json").is_file())
        if self.together:
            return [self] if missing else []
        return [replace(self, units=(unit,)) for unit in missing]

    def seconds(self) -> float:
        """The median processor time of a picture."""
        return median(json.loads(path.with_suffix(".json").read_text())["seconds"] for path in self.pictures)


def in_batches(trial: Trial, size: int) -> list[Trial]:
    """A trial as several of at most ``size`` units, where they are made together; else itself."""
    if not trial.together:
        return [trial]
    return [replace(trial, units=trial.units[first : first + size]) for first in range(0, len(trial.units), size)]


def make(trial: Trial) -> None:
    """Make a trial's pictures and keep them."""
    encoder = trial.encoder
    if encoder.digest != trial.digest:
        raise UsageError(f"{trial.model} has changed since the experiment began: start over in another folder")
    start = time.process_time()
    found = produced(encoder, trial)
    seconds = (time.process_time() - start) / len(found)
    folder = JournaledFolder(trial.home)
    for made in found:
        path = trial.picture(made.unit)
        with folder.write(path.name) as temporary:
            made.picture.save(temporary)
        about = {"seconds": seconds, "steps": made.steps, "activation": made.activation, "settings": made.settings}
        with folder.write(path.with_suffix(".json").name) as temporary:
            results.write(temporary, about)


def make_all(trials: Sequence[Trial], *, workers: int = 1, label: str = "pictures", progress: Progress = None) -> None:
    """Make what is missing of some trials, in order, one thread a worker: small networks gain nothing by more."""
    parts = [part for trial in trials for part in trial.parts()]
    total = sum(len(part.units) for part in parts)
    with progress_steps(total, label, progress) as count:
        for part in _worked(parts, min(workers, len(parts))):
            count(len(part.units))


def _worked(parts: Sequence[Trial], workers: int) -> Iterator[Trial]:
    if workers <= 1:
        for part in parts:
            make(part)
            yield part
        return
    # a forked torch may hang in its thread pool: fresh processes
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_single_thread) as pool:
        waiting = {pool.submit(make, part): part for part in parts}
        try:
            for done in as_completed(waiting):
                done.result()
                yield waiting[done]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


@cache
def encoder_of(model: str, how: tuple[tuple[str, Any], ...] = ()) -> Encoder:
    """An encoder, loaded once a process."""
    return load(model, **dict(how))


def produced(encoder: Encoder, trial: Trial) -> list[Visualization]:
    """The trial's pictures, in memory."""
    if trial.method == "vital":
        return fitted(encoder, trial).synthesize(progress=False)
    units = [parse_unit(text, encoder) for text in trial.units]
    made = plan_of(encoder, trial)
    return run_synthesis(
        encoder, made, [SynthesisSubject.of(unit) for unit in units], seed=trial.seed, cache=False, progress=False
    )


def fitted(encoder: Encoder, trial: Trial) -> Vital:
    """VITAL with the statistics of the trial's units."""
    how: dict[str, Any] = {"steps": trial.steps, "cache": False, "random_state": trial.seed}
    how |= {"scoring": "preselect", "candidates": CANDIDATES, **trial.settings}
    return Vital(encoder, **how).fit(trial.references, list(trial.units), progress=False)


def plan_of(encoder: Encoder, trial: Trial) -> SynthesisPlan:
    """What the synthesis loop is to do for a trial."""
    if trial.method == "vital":
        estimator = fitted(encoder, trial)
        return estimator.plan(estimator.targets_)
    extra = dict(trial.settings)
    if trial.method == "maco" and trial.spectrum is not None:
        extra["magnitude"] = np.load(trial.spectrum)
    size = extra.pop("size", None)
    units = [parse_unit(text, encoder) for text in trial.units]
    options = BaselineOptions(steps=trial.steps, size=None if size is None else (size[0], size[1]), extra=extra)
    return find_planner(trial.method)(encoder, units, options)


def steps_of(method: str, settings: Mapping[str, Any], passes: int) -> int:
    """How many steps a method has for a number of forward and backward passes of one picture of full size."""
    if method == "plugin":
        return max(1, round(len(EIGHTHS) * passes / (_AREA * settings.get("ensemble", 8))))
    views = settings.get("crops", 32) if method == "maco" else 1
    views = settings.get("crops", 1) if method == "fourier" and settings.get("views") == "crops" else views
    return max(1, round(passes / views))


def step_cost(encoder: Encoder, one: Trial, other: Trial, *, steps: int = 8, rounds: int = 5) -> float:
    """How many times the processor time of ``other``'s step one step of ``one`` takes, both measured in turn."""
    plans = [plan_of(encoder, replace(trial, steps=steps)) for trial in (one, other)]
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for plan, times in zip(plans, spent, strict=True):
            start = time.process_time()
            run_stages(plan.stages, plan.objective, one.units[:1], progress=False)
            times.append(time.process_time() - start)
    return median(spent[0]) / median(spent[1])


def kept_cost(kept: Path, encoder: Encoder, one: Trial, other: Trial) -> float:
    """``step_cost``, at least 1, measured once and kept in a file."""
    if not kept.is_file():
        with results.atomic_write(kept) as temporary:
            temporary.write_text(f"{max(1.0, step_cost(encoder, one, other)):.2f}\n", encoding="utf-8")
    return float(kept.read_text(encoding="utf-8"))


def kept_spectrum(kept: Path, encoder: Encoder, paths: Sequence[Path], size: tuple[int, int]) -> Path:
    """MACO's magnitudes of photos spread over a list, computed once and kept in a file."""
    if not kept.is_file():
        chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, min(_SPECTRUM, len(paths))).astype(int)]
        pixels = (encoder.prepare(path).pixels for path in chosen)
        magnitude = compute_mean_magnitude(pixels, encoder.preprocess, size)
        with results.atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, magnitude.cpu().numpy())
    return kept
