"""What VITAL's tables and figures work with: networks, real images, visualizations by any method, and their measures.

Visualizations are kept as they are made, under what makes them: an experiment that was stopped resumes, and experiments
that show the same visualization make it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.classes import find_class_index
from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import LabelledImages
from encoscope.probing import Probe, probe
from encoscope.reproduce.inputs import choose_heldout_dataset, select_network_classes
from encoscope.reproduce.vital.image_cache import (
    CANDIDATES,
    Trial,
    count_equal_steps,
    discard_images,
    load_cached_encoder,
    load_spectrum,
    load_step_cost,
    make_missing_images,
    split_batches,
)
from encoscope.reproduce.vital.judge import list_judged_classes
from encoscope.reproduce.vital.published import STAND_INS, WEIGHTS
from encoscope.store import content_key, get_cache_dir
from encoscope.units import Unit, channel_unit, parse_unit
from encoscope.vital import Vital
from encoscope.vital.references.patches import find_patch_references
from encoscope.vital.references.references import References

DEFAULTS: Mapping[str, Any] = {
    "steps": 0,
    "seeds": 1,
    "compute": "equal",
    "crops": 4,
    "classes": "",
    "workers": 1,
}
"""Settings of all of VITAL's experiments. steps: of VITAL, 0 for 2,000 (500 and, of channels, 200 for the zoo's).
seeds: visualizations of a unit by each method. compute: "equal" gives the other methods VITAL's processor time, "paper"
their own numbers of steps. crops: views a step of MACO and Fourier, which the paper does not tell. classes: names with
commas between them. workers: processes, one thread each."""

OWN_STEPS: Mapping[str, int] = {"fourier": 512, "maco": 256, "deepinversion": 2000, "plugin": 2807}
"""Steps of the other methods where compute is "paper": as they were published."""

_ZOO_STEPS = {"class": 500, "inner": 200}
_STEPS = 2000
_SHOWN = 10  # classes or channels where no limit is set
_TOP = 50  # strongest real images of a channel


class Bench:
    """One network with its images.

    Args:
        request: the experiment's request; its first dataset is what visualizations are made from.
        settings: the experiment's settings, ``DEFAULTS`` among them.
        model: model string of the network.

    Raises:
        UsageError: without a dataset, and for settings that cannot be.
    """

    def __init__(self, request: EvaluationRequest, settings: Mapping[str, Any], model: str) -> None:
        if not request.datasets:
            raise UsageError(
                "VITAL's experiments need --dataset, labelled images of the network's classes: caltech101:ROOT#train, "
                "or a folder with a folder for each class"
            )
        check_settings(settings)
        self.request, self.settings, self.model = request, settings, model
        self.references = request.datasets[0]
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
        """The names of its classes, numbers where they have no names."""
        return self.encoder.classes or tuple(map(str, range(self.encoder.outputs or 0)))

    @cached_property
    def images(self) -> LabelledImages:
        """The images that visualizations are made from, labelled with the network's classes."""
        return select_network_classes(self.encoder, self.references, self.references)

    @cached_property
    def real_images(self) -> LabelledImages:
        """The images that visualizations are compared with: of the second dataset, the test split, or the same."""
        other = choose_heldout_dataset(self.request.datasets)
        return self.images if other is None else select_network_classes(self.encoder, other, other)

    @property
    def labelled(self) -> tuple[str, ...]:
        """The datasets whose labels were matched with the network's classes so far."""
        other = choose_heldout_dataset(self.request.datasets)
        compared = (other,) if other is not None and "real_images" in vars(self) else ()
        return ((self.references,) if "images" in vars(self) else ()) + compared

    @cached_property
    def folder(self) -> Path:
        """The folder that keeps visualizations from these images."""
        identity = {"first": str(self.images.paths[0].resolve()), "count": len(self.images)}
        return get_cache_dir("experiments", "vital-paper", content_key(identity))

    def choose_classes(self, count: int = _SHOWN, preferred: Iterable[str] = ()) -> list[int]:
        """Choose the classes to visualize: those named in the settings, else ``--limit`` of them.

        Args:
            count: number of classes where no limit is set.
            preferred: names to take, those that the network and the images have. Without any, classes are drawn at
                random among those with images whose names the judge was taught.

        Returns:
            Indices of classes.

        Raises:
            UsageError: if the settings name a class that the network does not have.
        """
        known = sorted(set(self.images.labels))
        if self.settings["classes"]:
            return [self.find_class(name.strip()) for name in str(self.settings["classes"]).split(",")]
        number = self.request.limit or count
        liked: list[int] = []
        for name in preferred:
            with suppress(UsageError):
                liked.append(find_class_index(name, self.names))
        liked = [label for label in dict.fromkeys(liked) if label in known]
        if liked:
            return liked[:number]
        judged = set(list_judged_classes(str(self.settings.get("judge", "zoo:")), self.names))
        order = np.random.default_rng(self.request.seed).permutation([index for index in known if index in judged])
        return sorted(order[:number].tolist())

    def find_class(self, name: str) -> int:
        """Find a class by name or number.

        Args:
            name: the name, or the number in digits.

        Returns:
            The index of the class.

        Raises:
            UsageError: for a class that the network does not have.
        """
        if name.isascii() and name.isdigit() and int(name) < len(self.names):
            return int(name)
        return find_class_index(name, self.names)

    def name_unit(self, unit: str) -> str:
        """Name a unit in a caption: a class by its name.

        Args:
            unit: the unit, such as ``class:3``.

        Returns:
            The name of the class, or the unit's own text.
        """
        return self.names[int(unit.removeprefix("class:"))] if unit.startswith("class:") else unit

    @cached_property
    def layer(self) -> str:
        """The layer of the channels: the last stage or block, or the setting ``layer``."""
        requested = str(self.settings.get("layer", ""))
        return self.encoder.layer(requested).name if requested else self.encoder.depths[-1]

    @cached_property
    def probe(self) -> Probe:
        """Every image's value of every channel of the layer; kept in the cache."""
        return probe(self.encoder, self.references, self.layer, progress=self.request.progress)

    def choose_channels(self, count: int = _SHOWN, draw: int = 0) -> list[str]:
        """Choose the channels to visualize: those in the settings, else at random among those whose value varies.

        Args:
            count: number of channels where no limit is set.
            draw: which of several random choices.

        Returns:
            Channels as units, such as ``layer4:7``.

        Raises:
            UsageError: if the settings name something other than numbers.
        """
        if self.settings.get("channels"):
            numbers = [text.strip() for text in str(self.settings["channels"]).split(",")]
            wrong = next((text for text in numbers if not text.isdigit()), None)
            if wrong is not None:
                raise UsageError(f"channels are numbers with commas between them, not {wrong!r}")
            return [channel_unit(self.layer, int(text)).text for text in numbers]
        number = self.request.limit or count
        varying = np.flatnonzero(self.probe.values.max(0) > self.probe.values.min(0))
        order = np.random.default_rng([self.request.seed, draw]).permutation(varying)
        return [channel_unit(self.layer, int(channel)).text for channel in sorted(order[:number])]

    def strongest_activations(self, unit: str) -> Float[np.ndarray, " images"]:
        """Return a channel's values on its 50 strongest images, which its visualizations are compared with.

        Args:
            unit: a channel of the layer.

        Returns:
            The values in ascending order.
        """
        return np.sort(self.probe.values[:, int(unit.rpartition(":")[2])])[-_TOP:]

    def search_patches(self, units: Sequence[str]) -> list[References]:
        """Search the top patches of channels, in one pass for all; each visualization reads its own from the cache.

        Args:
            units: channels of the layer.

        Returns:
            The patches of each channel.
        """
        parsed = [parse_unit(unit, self.encoder) for unit in units]
        return find_patch_references(
            self.references,
            self.encoder,
            parsed,
            search="patches",
            geometry="model",
            n_candidates=CANDIDATES,
            progress=self.request.progress,
        )

    def create_estimator(self, units: Sequence[Unit | str], **settings: Any) -> Vital:
        """Create VITAL itself, for what a kept image does not tell: transparency, facets, directions.

        Args:
            units: what it visualizes; they say how many steps it makes.
            settings: further arguments of ``Vital``.

        Returns:
            The estimator, not fitted.
        """
        texts = [unit.text if isinstance(unit, Unit) else unit for unit in units]
        usual: dict[str, Any] = {"preset": "paper", "n_candidates": CANDIDATES, "random_state": self.request.seed}
        usual |= {"progress": self.request.progress, "steps": self.count_steps(texts)}
        return Vital(self.encoder, units, **{**usual, **settings})

    def count_steps(self, units: Sequence[str]) -> int:
        """Return VITAL's number of steps for units.

        Args:
            units: units of one kind, classes or channels.

        Returns:
            The setting ``steps``, or the default of the network and the kind.
        """
        if self.settings["steps"]:
            return int(self.settings["steps"])
        kind = "class" if units[0].startswith("class:") else "inner"
        return _ZOO_STEPS[kind] if self.model.startswith("zoo:") else _STEPS

    def visualize(
        self,
        method: str,
        units: Sequence[str],
        settings: Mapping[str, Any] | None = None,
        *,
        draw: int = 0,
        together: int = 64,
        label: str = "",
        control: bool = False,
    ) -> list[Path]:
        """Visualize units by a method; images that are kept are not made again.

        Args:
            method: "vital" or the name of another method.
            units: what is visualized.
            settings: of the method.
            draw: which of several images of a unit; it is added to the seed.
            together: how many images DeepInversion makes at once.
            label: name of the progress bar; by default the method.
            control: whether the untrained network is visualized.

        Returns:
            An image file for each unit.
        """
        own = {**self._usual_settings(method), **(settings or {})}
        trial = Trial(
            f"{self.model}@untrained" if control else self.model,
            load_cached_encoder(f"{self.model}@untrained", self.load_options).digest
            if control
            else self.encoder.digest,
            self.references,
            method,
            tuple(units),
            self._count_method_steps(method, units, own),
            self.folder,
            own,
            self.request.seed + draw,
            self._spectrum(own.get("size")) if method == "maco" else None,
            self.load_options,
        )
        trials = split_batches(trial, together)
        if self.request.fresh:
            discard_images(trials, self._discarded)
        kind = "classes" if units[0].startswith("class:") else "units"
        make_missing_images(
            trials,
            workers=int(self.settings["workers"]),
            label=f"{label or method}, {len(units)} {kind}",
            progress=self.request.progress,
        )
        return [path for batch in trials for path in batch.image_paths]

    def visualize_seeds(
        self, method: str, units: Sequence[str], settings: Mapping[str, Any] | None = None, **options: Any
    ) -> SeededImages:
        """Visualize units as many times as there are seeds.

        Args:
            method: "vital" or the name of another method.
            units: what is visualized.
            settings: of the method.
            options: further arguments of ``visualize``.

        Returns:
            The image files by seed.
        """
        seeds = range(int(self.settings["seeds"]))
        return SeededImages([self.visualize(method, units, settings, draw=draw, **options) for draw in seeds])

    def measure_cost(self, unit: str) -> float:
        """Measure a VITAL step's processor time in plain passes, once; the folder keeps it.

        Args:
            unit: the unit that is visualized.

        Returns:
            The cost, at least 1.
        """
        trial, baseline = (
            Trial(
                self.model,
                self.encoder.digest,
                self.references,
                method,
                (unit,),
                self.count_steps([unit]),
                self.folder,
                load=self.load_options,
            )
            for method in ("vital", "fourier")
        )
        path = self.folder / f"cost-{self.encoder.digest[:12]}-{unit.partition(':')[0]}.txt"
        return load_step_cost(path, self.encoder, trial, baseline)

    def _usual_settings(self, method: str) -> dict[str, Any]:
        """The paper's settings of the other methods: Fourier has MACO's."""
        if method == "maco":
            return {"n_views": self.settings["crops"]}
        return {"views": "crops", "lr": 1.0, "n_views": self.settings["crops"]} if method == "fourier" else {}

    def _count_method_steps(self, method: str, units: Sequence[str], settings: Mapping[str, Any]) -> int:
        steps = self.count_steps(units)
        if method == "vital":
            return steps
        if self.settings["compute"] == "paper":
            return OWN_STEPS[method]
        return count_equal_steps(method, settings, round(self.measure_cost(units[0]) * steps))

    def _spectrum(self, size: Sequence[int] | None) -> Path:
        height, width = size or self.encoder.preprocess.size
        path = self.folder / f"spectrum-{self.encoder.digest[:12]}-{height}x{width}.npy"
        return load_spectrum(path, self.encoder, self.images.paths, (height, width))


class SeededImages:
    """Image files of units, by seed.

    Args:
        paths: for each seed, the file of each unit.
    """

    def __init__(self, paths: Sequence[Sequence[Path]]) -> None:
        self.paths = paths

    @property
    def first(self) -> Sequence[Path]:
        """One image of each unit."""
        return self.paths[0]

    @property
    def all(self) -> list[Path]:
        """All images, seed after seed."""
        return [path for paths in self.paths for path in paths]

    def __len__(self) -> int:
        return len(self.paths) * len(self.first)

    def of_unit(self, index: int) -> list[Path]:
        """Return the images of one unit.

        Args:
            index: position of the unit.

        Returns:
            A file for each seed.
        """
        return [paths[index] for paths in self.paths]

    def average_seeds(self, values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " units"]:
        """Average a value over seeds: units, not images, are what is drawn at random.

        Args:
            values: a value of each image, in the order of ``all``.

        Returns:
            The mean of each unit.
        """
        return np.asarray(values, dtype=np.float64).reshape(len(self.paths), -1).mean(0)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the settings that all of VITAL's experiments have.

    Args:
        settings: ``DEFAULTS``, as they are set.

    Raises:
        UsageError: for a number that is too small, and for an unknown compute.
    """
    for name, minimum in (("steps", 0), ("seeds", 1), ("crops", 1), ("workers", 1)):
        if settings[name] < minimum:
            raise UsageError(f"{name} is a number from {minimum} on, not {settings[name]}")
    if settings["compute"] not in ("equal", "paper"):
        raise UsageError(f"compute is equal or paper, not {settings['compute']!r}")


def is_papers_network(bench: Bench, network: str) -> bool:
    """Tell whether ours is the paper's own network, so that a difference from its figure means something.

    Args:
        bench: our network.
        network: the paper's name for it.

    Returns:
        True for the same weights and ImageNet's 1,000 classes.
    """
    return bench.model == WEIGHTS[network] and bench.encoder.outputs == 1000


def resolve_networks(request: EvaluationRequest, names: Sequence[str]) -> dict[str, str]:
    """Resolve which model stands for each of the paper's networks.

    "NAME=MODEL" names the network that a model is or stands for; "paper" takes the paper's weights; another model is
    the network whose weights it names, or stands for the first one without a model. Without models, the zoo's stand-ins
    are taken.

    Args:
        request: its ``models``.
        names: the paper's names of the networks.

    Returns:
        Model strings by network, in the order of ``names``; a network without a model is left out.

    Raises:
        UsageError: for a network that is none of ``names``.
    """
    if not request.models:
        return {name: STAND_INS[name] for name in names if name in STAND_INS}
    resolved: dict[str, str] = {}
    unnamed = [text for text in request.models if "=" not in text]
    for text in request.models:
        name, equals, model = text.partition("=")
        if equals and name not in names:
            raise UsageError(f"no network {name!r}{suggest_nearest(name, names)}: the networks are {', '.join(names)}")
        resolved |= {name: model} if equals else {}
    if "paper" in unnamed:
        resolved |= {name: WEIGHTS[name] for name in names if name not in resolved}
    known = {WEIGHTS[name]: name for name in names}
    for text in unnamed:
        name = known.get(text) or next((name for name in names if name not in resolved), None)
        if text != "paper" and name is not None:
            resolved[name] = text
    return {name: resolved[name] for name in names if name in resolved}


def prepare_benches(
    request: EvaluationRequest, defaults: Mapping[str, Any], names: Sequence[str] = ("ResNet50",)
) -> tuple[dict[str, Any], dict[str, Bench]]:
    """Prepare the settings of an experiment, and a bench for each of its networks that has a model.

    Args:
        request: the experiment's request.
        defaults: settings of this experiment besides ``DEFAULTS``, by name with their defaults.
        names: the paper's names of the networks.

    Returns:
        The settings, and the benches by network.

    Raises:
        UsageError: for an unknown setting, and where no network has a model.
    """
    settings = request.settings({**DEFAULTS, **defaults})
    benches = {name: Bench(request, settings, model) for name, model in resolve_networks(request, names).items()}
    if not benches:
        raise UsageError(f"no model for any of {', '.join(names)}: give --model MODEL")
    return settings, benches
