"""What the comparison of visualization methods works with: network, images, trials at equal compute, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import LabelledImages, list_images, open_dataset
from encoscope.reproduce.sheets import draw_sheet
from encoscope.reproduce.vital.image_cache import (
    Trial,
    count_equal_steps,
    discard_images,
    load_cached_encoder,
    load_spectrum,
    load_step_cost,
    make_missing_images,
    split_batches,
)
from encoscope.reproduce.vital.judge import (
    PROMPTS,
    Judge,
    RealImages,
    list_judged_classes,
    measure_real_images,
    summarize_class_images,
)
from encoscope.reproduce.vital.published import STAND_INS
from encoscope.store import get_cache_dir

NAME = "vital-zoo"
SECTIONS = ("classes", "untrained", "methods", "channels")
"""The sections of the experiment, in the order in which they run."""
SETTINGS: Mapping[str, Any] = {
    "judge": "zoo:clip-caltech101",
    "steps": 500,
    "classes": 30,
    "search": 2,
    "channels": 30,
    "channel_steps": 200,
    "layer": "",
    "sections": ",".join(SECTIONS),
    "workers": 1,
    "folder": "",
}
"""What can be set, with the defaults. judge: an image-text model. steps: of VITAL on a class. classes: number of
classes that every method visualizes. search: number of further classes that settings are searched on. channels: number
of channels. channel_steps: steps of VITAL on a channel. layer: of the channels, by default the last stage. sections:
names with commas between them. workers: processes, one thread each. folder: where images are kept, by default in the
cache."""
_BATCH = 10  # images that DeepInversion makes at once


class MethodComparison:
    """A comparison in progress: the request, what it needs (loaded once), and the table so far.

    Args:
        request: one dataset without a split (train images are references, test images real ones), at most one model
            (by default the zoo's ResNet), settings as in ``SETTINGS``; ``limit`` is the number of classes where all
            classes are visualized.

    Raises:
        UsageError: for an unknown section, for no dataset, one with a split or several, and for several models.
    """

    def __init__(self, request: EvaluationRequest) -> None:
        self.request, self.settings = request, request.settings(SETTINGS)
        self.sections = tuple(name.strip() for name in str(self.settings["sections"]).split(","))
        unknown = set(self.sections) - set(SECTIONS)
        if unknown:
            raise UsageError(f"unknown section {sorted(unknown)[0]!r}: {', '.join(SECTIONS)}")
        if len(request.datasets) != 1 or len(request.models) > 1:
            raise UsageError(f"{NAME} takes one --dataset, such as caltech101:ROOT, and at most one --model")
        (self.dataset,) = request.datasets
        if "#" in self.dataset:
            raise UsageError(
                f"give {self.dataset.partition('#')[0]} without a split: train images are references, test images are "
                "what visualizations are compared with"
            )
        self.model = request.models[0] if request.models else STAND_INS["ResNet50"]
        self.folder = (
            Path(self.settings["folder"]) if self.settings["folder"] else get_cache_dir("experiments", "vital-zoo")
        )
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.sheets: dict[str, Image.Image] = {}
        self.chosen: dict[str, dict[str, Any]] = {}
        self._discarded: set[Path] = set()

    @cached_property
    def load_options(self) -> tuple[tuple[str, Any], ...]:
        """How the network is loaded."""
        return tuple(sorted({**self.request.load, "random_state": self.request.seed}.items()))

    @cached_property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return load_cached_encoder(self.model, self.load_options)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of its classes."""
        if self.encoder.classes is None:
            raise UsageError(f"{self.model} names no classes: take a classifier trained on this dataset")
        return self.encoder.classes

    @property
    def references(self) -> str:
        """The dataset string of the references."""
        return f"{self.dataset}#train"

    @cached_property
    def heldout(self) -> LabelledImages:
        """The images that visualizations are compared with."""
        return open_dataset(f"{self.dataset}#test")

    @cached_property
    def judge(self) -> Judge | None:
        """The independent image-text model; None where its weights are missing."""
        try:
            return Judge.load(self.settings["judge"], self.names, self.judged, PROMPTS)
        except MissingError as error:
            self.notes.append(f"No judge: {error}.")
            return None

    @property
    def judged(self) -> list[int]:
        """The classes that the judge chooses from: those whose names the zoo's own model was taught."""
        return list_judged_classes(self.settings["judge"], self.names)

    @cached_property
    def all_classes(self) -> list[int]:
        """The classes of the first section: all, or the first ``limit`` of them."""
        return list(range(len(self.names)))[: self.request.limit]

    @cached_property
    def real(self) -> RealImages:
        """What network and judge make of held-out images of the classes that are visualized."""
        return measure_real_images(self.encoder, self.judge, self.heldout, {*self.all_classes, *self.compared})

    @cached_property
    def compared(self) -> list[int]:
        """The classes of the comparison, at random from those the judge knows."""
        order = np.random.default_rng(self.request.seed).permutation(self.judged)
        return sorted(order[: self.settings["classes"]].tolist())

    @cached_property
    def searched(self) -> list[int]:
        """The classes that settings are searched on, none of them compared."""
        order = np.random.default_rng(self.request.seed).permutation(self.judged)
        return sorted(order[self.settings["classes"] :][: self.settings["search"]].tolist())

    def create_trial(self, method: str, settings: Mapping[str, Any], units: Sequence[str], steps: int) -> Trial:
        """Create the trial that visualizes units of the trained network.

        Args:
            method: "vital" or the name of another method.
            settings: of the method.
            units: what is visualized.
            steps: steps of the optimization.

        Returns:
            The trial; nothing is made.
        """
        return Trial(
            self.model,
            self.encoder.digest,
            self.references,
            method,
            tuple(units),
            steps,
            self.folder,
            settings,
            self.request.seed,
            self._spectrum() if method == "maco" else None,
            self.load_options,
        )

    def create_equal_trials(
        self, method: str, settings: Mapping[str, Any], units: Sequence[str], passes: int, steps: int | None = None
    ) -> list[Trial]:
        """Create the trials that visualize units with the steps that a number of passes allows.

        Args:
            method: "vital" or the name of another method.
            settings: of the method.
            units: what is visualized.
            passes: forward and backward passes of an image, for methods other than VITAL.
            steps: steps of VITAL, which the passes were counted by; by default those of a class.

        Returns:
            The trials, several where the method makes images together.
        """
        number = (steps or self.settings["steps"]) if method == "vital" else count_equal_steps(method, settings, passes)
        return split_batches(self.create_trial(method, settings, units, number), _BATCH)

    def search_settings(self, method: str, options: Sequence[dict[str, Any]], passes: int) -> dict[str, Any]:
        """Search the settings whose images of the searched classes the judge is surest of (else the network itself).

        Args:
            method: "vital" or the name of another method.
            options: settings to try, the default ones first.
            passes: forward and backward passes of an image.

        Returns:
            One of the options; the first one where there are no classes to search on.
        """
        if not self.searched or len(options) == 1:
            return options[0]
        units = [f"class:{self.names[label]}" for label in self.searched]
        runs = [self.create_equal_trials(method, settings, units, passes) for settings in options]
        self.make([trial for run in runs for trial in run], f"{method}, search")
        scores = [self._certainty([path for trial in run for path in trial.image_paths]) for run in runs]
        return options[int(np.argmax(scores))]

    def measure_cost(self, unit: str, steps: int) -> float:
        """Measure a VITAL step's processor time in plain passes, once; the folder keeps it.

        Args:
            unit: the unit that is visualized.
            steps: steps of VITAL.

        Returns:
            The cost, at least 1.
        """
        trial, baseline = (self.create_trial(method, {}, [unit], steps) for method in ("vital", "fourier"))
        path = self.folder / f"cost-{self.encoder.digest[:12]}-{unit.partition(':')[0]}.txt"
        return load_step_cost(path, self.encoder, trial, baseline)

    def make(self, trials: Sequence[Trial], label: str) -> None:
        """Make the missing images of trials.

        Args:
            trials: the trials.
            label: name of the progress bar.
        """
        if self.request.fresh:
            discard_images(trials, self._discarded)
        make_missing_images(trials, workers=self.settings["workers"], label=label, progress=self.request.progress)

    def summarize(self, trials: Sequence[Trial], labels: Sequence[int]) -> dict[str, Any]:
        """Summarize the images of trials in a row of the table.

        Args:
            trials: finished trials of classes.
            labels: the class of each image, in order.

        Returns:
            The measures, the processor time of an image and the number of steps.
        """
        paths = [path for trial in trials for path in trial.image_paths]
        row = summarize_class_images(self.encoder, self.judge, self.real, paths, labels, self.request.seed)
        return row | {"seconds": compute_seconds(trials), "steps": trials[0].steps}

    def add_sheet(self, name: str, paths: Sequence[Path], captions: Sequence[str], columns: int) -> None:
        """Draw a contact sheet for the report.

        Args:
            name: name of its file.
            paths: image files.
            captions: a caption for each.
            columns: number of images in a row.
        """
        self.sheets[name] = draw_sheet(list(zip(paths, captions, strict=True)), columns, cell=128)

    def build_report(self, search: Mapping[str, Sequence[Mapping[str, Any]]]) -> Report:
        """Build the report of the rows so far.

        Args:
            search: the settings that are tried, by row.

        Returns:
            The report.
        """
        steps, judge = self.settings["steps"], self.settings["judge"]
        notes = [
            f"Network {self.model}, judge {judge} (top-1 among {len(self.judged)} names); train images are references, "
            f"test images real ones; {steps} steps of VITAL; seed {self.request.seed}.",
            "Intervals are 95 % bootstrap intervals over classes, channels or images. KID is of the network's pooled "
            "features, to be read beside real images against real images; its spread is over subsets.",
            "Share of real: the judge's accuracy on visualizations by its accuracy on held-out images of the same "
            "classes.",
            *self.notes,
        ]
        settings = {
            "steps": steps,
            "model": self.model,
            "judge": judge,
            "channel_steps": self.settings["channel_steps"],
            "compared": [self.names[index] for index in self.compared],
            "searched": [self.names[index] for index in self.searched],
            "search": {name: list(options) for name, options in search.items()},
        }
        title = "VITAL and the methods it is compared with, on Caltech-101"
        return Report(NAME, title, self.rows, tuple(dict.fromkeys(notes)), self.sheets, settings, self.request.seed)

    def _certainty(self, paths: Sequence[Path]) -> float:
        """How sure the judge is of the searched classes, or the network where there is no judge."""
        if self.judge is not None:
            return self.judge.compute_certainty(paths, self.searched)
        shares = self.encoder.logits(list(paths)).log_softmax(1)
        return float(shares[range(len(paths)), self.searched].mean())

    def _spectrum(self) -> Path:
        """MACO's magnitudes, of images spread over the references, computed once."""
        path = self.folder / f"spectrum-{self.encoder.digest[:12]}.npy"
        return load_spectrum(path, self.encoder, list_images(self.references).paths, self.encoder.preprocess.size)


def compute_seconds(trials: Sequence[Trial]) -> float:
    """Compute the processor time of an image.

    Args:
        trials: finished trials.

    Returns:
        The median over the trials, in seconds.
    """
    return float(np.median([trial.median_seconds() for trial in trials]))
