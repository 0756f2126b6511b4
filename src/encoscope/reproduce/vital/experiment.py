"""What the comparison of visualization methods works with: networks, photos, trials under equal compute, the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation.report import Report
from encoscope.images import open_dataset
from encoscope.images.sets import LabelledImages
from encoscope.reproduce.vital.image_cache import (
    Trial,
    encoder_of,
    in_batches,
    kept_cost,
    kept_spectrum,
    make_all,
    steps_of,
)
from encoscope.reproduce.vital.judge import PROMPTS, Judge, Real, class_row, known_to, real_photos
from encoscope.store import get_cache_dir

PARTS = ("classes", "untrained", "methods", "channels")
_TOGETHER = 10  # pictures that DeepInversion makes at once


@dataclass(frozen=True)
class ComparisonSettings:
    """What was asked for; see the command's options."""

    data: str
    model: str = "zoo:resnet-caltech101"
    judge: str = "zoo:clip-caltech101"
    steps: int = 500
    limit: int | None = None
    classes: int = 30
    search: int = 2
    channels: int = 30
    channel_steps: int = 200
    layer: str | None = None
    parts: tuple[str, ...] = PARTS
    workers: int = 1
    seed: int = 0
    folder: Path | None = None
    out: Path = Path("benchmarks/results")
    command: str | None = None
    progress: bool | None = None


class ComparisonExperiment:
    """An experiment in progress: what was asked for, what it needs (found once), the table so far."""

    def __init__(self, asked: ComparisonSettings) -> None:
        unknown = set(asked.parts) - set(PARTS)
        if unknown:
            raise UsageError(f"unknown part {sorted(unknown)[0]!r}: {', '.join(PARTS)}")
        if "#" in asked.data:
            raise UsageError(f"give {asked.data.partition('#')[0]} without a split: train makes pictures, test judges")
        self.asked = asked
        self.folder = asked.folder or get_cache_dir("experiments", "vital-zoo")
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.pictures: dict[str, Image.Image] = {}
        self.extra: dict[str, Any] = {}
        self.chosen: dict[str, dict[str, Any]] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return encoder_of(self.asked.model)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its classes."""
        if self.encoder.classes is None:
            raise UsageError(f"{self.asked.model} names no classes: take a classifier trained on this dataset")
        return self.encoder.classes

    @property
    def references(self) -> str:
        """The photos that pictures are made from."""
        return f"{self.asked.data}#train"

    @cached_property
    def held_out(self) -> LabelledImages:
        """The photos that pictures are compared with."""
        return open_dataset(f"{self.asked.data}#test")

    @cached_property
    def judge(self) -> Judge | None:
        """The independent image-text model; None where its weights are not there."""
        try:
            return Judge.load(self.asked.judge, self.names, self.judged, PROMPTS)
        except MissingError as error:
            self.notes.append(f"No judge: {error}.")
            return None

    @property
    def judged(self) -> list[int]:
        """The classes that the judge chooses from: those whose names the zoo's own model was taught."""
        return known_to(self.asked.judge, self.names)

    @cached_property
    def real(self) -> Real:
        """What network and judge make of held-out photos of the classes that are pictured."""
        wanted = {*range(len(self.names))[: self.asked.limit], *self.compared}
        return real_photos(self.encoder, self.judge, self.held_out, wanted)

    @cached_property
    def compared(self) -> list[int]:
        """The classes of the comparison, at random from those the judge knows."""
        order = np.random.default_rng(self.asked.seed).permutation(self.judged)
        return sorted(order[: self.asked.classes].tolist())

    @cached_property
    def searched(self) -> list[int]:
        """The classes that settings are searched on, none of them compared."""
        order = np.random.default_rng(self.asked.seed).permutation(self.judged)
        return sorted(order[self.asked.classes :][: self.asked.search].tolist())

    def trial(self, method: str, settings: Mapping[str, Any], units: Sequence[str], steps: int) -> Trial:
        """Pictures of some units of the trained network."""
        spectrum = self.spectrum() if method == "maco" else None
        asked = self.asked
        return Trial(
            asked.model,
            self.encoder.digest,
            self.references,
            method,
            tuple(units),
            steps,
            self.folder,
            settings,
            asked.seed,
            spectrum,
        )

    def trials(
        self, method: str, settings: Mapping[str, Any], units: Sequence[str], passes: int, steps: int | None = None
    ) -> list[Trial]:
        """The same, with the steps that some passes make; VITAL's steps are what passes were counted by."""
        number = (steps or self.asked.steps) if method == "vital" else steps_of(method, settings, passes)
        return in_batches(self.trial(method, settings, units, number), _TOGETHER)

    def best(self, method: str, options: Sequence[dict[str, Any]], passes: int) -> dict[str, Any]:
        """The settings whose pictures of the searched classes the judge is surest of (else the network itself)."""
        if not self.searched or len(options) == 1:
            return options[0]
        units = [f"class:{self.names[label]}" for label in self.searched]
        runs = [self.trials(method, settings, units, passes) for settings in options]
        self.make([trial for run in runs for trial in run], f"{method}, search")
        scores = [self.certainty([path for trial in run for path in trial.pictures]) for run in runs]
        return options[int(np.argmax(scores))]

    def certainty(self, pictures: Sequence[Path]) -> float:
        """How sure the judge is of the searched classes, or the network where there is no judge."""
        if self.judge is not None:
            return self.judge.certainty(pictures, self.searched)
        shares = self.encoder.logits(list(pictures)).log_softmax(1)
        return float(shares[range(len(pictures)), self.searched].mean())

    def cost(self, unit: str, steps: int) -> float:
        """A VITAL step's processor time in plain passes, measured once and kept."""
        one, other = (self.trial(method, {}, [unit], steps) for method in ("vital", "fourier"))
        kept = self.folder / f"cost-{self.encoder.digest[:12]}-{unit.partition(':')[0]}.txt"
        return kept_cost(kept, self.encoder, one, other)

    def spectrum(self) -> Path:
        """MACO's magnitudes, of photos spread over the references, computed once."""
        kept = self.folder / f"spectrum-{self.encoder.digest[:12]}.npy"
        return kept_spectrum(kept, self.encoder, open_dataset(self.references).paths, self.encoder.preprocess.size)

    def make(self, trials: Sequence[Trial], label: str) -> None:
        """Make what is missing."""
        make_all(trials, workers=self.asked.workers, label=label, progress=self.asked.progress)

    def row(self, trials: Sequence[Trial], labels: Sequence[int]) -> dict[str, Any]:
        """The figures of the trials' pictures."""
        pictures = [path for trial in trials for path in trial.pictures]
        found = class_row(self.encoder, self.judge, self.real, pictures, labels, self.asked.seed)
        return found | {"seconds": self.seconds(trials), "steps": trials[0].steps}

    def seconds(self, trials: Sequence[Trial]) -> float:
        """Processor time of a picture."""
        return float(np.median([trial.seconds() for trial in trials]))

    def sheet(self, name: str, pictures: Sequence[Path], captions: Sequence[str], columns: int) -> None:
        """Keep a contact sheet for the report."""
        found = [np.asarray(Image.open(path)) for path in pictures]
        self.pictures[name] = Image.fromarray(plots.draw_contact_sheet(found, captions, columns, cell=128))

    def report(self) -> Report:
        """The table so far."""
        asked = self.asked
        about = "train photos are references, test photos real ones"
        notes = [
            f"Network {asked.model}, judge {asked.judge} (top-1 among {len(self.judged)} names); {about}; "
            f"{asked.steps} steps of VITAL; seed {asked.seed}.",
            "Intervals are 95 % bootstrap intervals over classes, channels or photos. KID is of the network's pooled "
            "features, to be read beside real photos against real photos; its spread is over subsets.",
            "Share of real: the judge's accuracy on pictures by its accuracy on held-out photos of the same classes.",
            *self.notes,
        ]
        settings = {
            "steps": asked.steps,
            "model": asked.model,
            "judge": asked.judge,
            "channel_steps": asked.channel_steps,
        }
        settings |= {
            "compared": [self.names[i] for i in self.compared],
            "searched": [self.names[i] for i in self.searched],
        }
        return Report(
            "vital-zoo",
            "VITAL and the methods it is compared with, on Caltech-101",
            self.rows,
            tuple(dict.fromkeys(notes)),
            self.pictures,
            settings | self.extra,
            asked.seed,
        )

    def write(self) -> None:
        """Write it."""
        self.report().write(self.asked.out, self.asked.command)
