"""What VITAL's tables and figures work with: networks, photos, pictures of units by any method, and what they measure.

Pictures are kept as they are made, under what makes them: an experiment that was stopped goes on, and experiments that
show the same picture make it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import LabelledImages, open_dataset
from encoscope.probing import Probe, probe
from encoscope.reproduce.inputs import held_out, networks, of_the_network
from encoscope.reproduce.vital.image_cache import (
    CANDIDATES,
    Trial,
    encoder_of,
    in_batches,
    kept_cost,
    kept_spectrum,
    make_all,
    steps_of,
)
from encoscope.reproduce.vital.judge import known_to
from encoscope.reproduce.vital.published import WEIGHTS
from encoscope.store import content_key, get_cache_dir
from encoscope.units import channel_unit, find_class_index, parse_unit
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
"""What all of VITAL's experiments can be asked. steps: of VITAL, 0 for 2,000 (500 and, of channels, 200 for the zoo's).
seeds: pictures of a unit by each method. compute: "equal" gives the other methods VITAL's processor time, "paper" their
own numbers of steps. crops: views a step of MACO and Fourier, which the paper does not tell. classes: names with commas
between them. workers: processes, one thread each."""

OWN_STEPS: Mapping[str, int] = {"fourier": 512, "maco": 256, "deepinversion": 2000, "plugin": 2807}
"""Steps of the other methods where compute is "paper": as they were published."""

_ZOO_STEPS = {"class": 500, "inner": 200}
_STEPS = 2000
_SHOWN = 10  # classes or channels where no limit is given
_TOP = 50  # strongest real images of a channel


class Bench:
    """One network with its photos. asked: the settings, ``DEFAULTS`` among them."""

    def __init__(self, request: EvaluationRequest, asked: Mapping[str, Any], model: str) -> None:
        if not request.datasets:
            raise UsageError(
                "VITAL's experiments need --dataset, labelled photos of the network's classes: caltech101:ROOT#train, "
                "or a folder with a folder for each class"
            )
        check(asked)
        self.request, self.asked, self.model = request, asked, model
        self.references = request.datasets[0]
        self._made_anew: set[Path] = set()

    @cached_property
    def how(self) -> tuple[tuple[str, Any], ...]:
        """How the network is loaded."""
        return tuple(sorted({**self.request.load, "random_state": self.request.seed}.items()))

    @cached_property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return encoder_of(self.model, self.how)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its classes, numbers where they have no names."""
        return self.encoder.classes or tuple(map(str, range(self.encoder.outputs or 0)))

    @cached_property
    def photos(self) -> LabelledImages:
        """The photos that pictures are made from, labelled with the network's classes."""
        return of_the_network(self.encoder, open_dataset(self.references), self.references)

    @cached_property
    def real(self) -> LabelledImages:
        """The photos that pictures are compared with: of the second dataset, else of the test split, else the same."""
        other = held_out(self.request.datasets)
        return self.photos if other is None else of_the_network(self.encoder, open_dataset(other), other)

    @cached_property
    def folder(self) -> Path:
        """Where pictures from these photos are kept."""
        about = {"first": str(self.photos.paths[0].resolve()), "count": len(self.photos)}
        return get_cache_dir("experiments", "vital-paper", content_key(about))

    def classes(self, count: int = _SHOWN, preferred: Iterable[str] = ()) -> list[int]:
        """The classes to picture: those named in the settings, else ``--limit`` of them (``count`` if not said).

        preferred: names to take, those that the network and the photos have. Else they are drawn at random among those
        with photos whose names the judge was taught.
        """
        there = sorted(set(self.photos.labels))
        if self.asked["classes"]:
            return [self.named(name.strip()) for name in str(self.asked["classes"]).split(",")]
        number = self.request.limit or count
        liked: list[int] = []
        for name in preferred:
            with suppress(UsageError):
                liked.append(find_class_index(name, self.names))
        liked = [label for label in dict.fromkeys(liked) if label in there]
        if liked:
            return liked[:number]
        known = set(known_to(str(self.asked.get("judge", "zoo:")), self.names))
        order = np.random.default_rng(self.request.seed).permutation([index for index in there if index in known])
        return sorted(order[:number].tolist())

    def named(self, name: str) -> int:
        """A class by name or number. UsageError for one that is not there."""
        if name.isascii() and name.isdigit() and int(name) < len(self.names):
            return int(name)
        return find_class_index(name, self.names)

    def title(self, unit: str) -> str:
        """A unit in a caption: a class by its name."""
        return self.names[int(unit.removeprefix("class:"))] if unit.startswith("class:") else unit

    @cached_property
    def layer(self) -> str:
        """The layer of the channels: the last stage or block, or the setting ``layer``."""
        asked = str(self.asked.get("layer") or "")
        return self.encoder.layer(asked).name if asked else self.encoder.depths[-1]

    @cached_property
    def probe(self) -> Probe:
        """Every photo's value of every channel of the layer; kept in the cache."""
        return probe(self.encoder, self.references, self.layer, progress=self.request.progress)

    def channels(self, count: int = _SHOWN, draw: int = 0) -> list[str]:
        """Channels that do not lie still, at random: ``--limit`` of them (``count`` if not said)."""
        if self.asked.get("channels"):
            numbers = [part.strip() for part in str(self.asked["channels"]).split(",")]
            wrong = next((text for text in numbers if not text.isdigit()), None)
            if wrong is not None:
                raise UsageError(f"channels are numbers with commas between them, not {wrong!r}")
            return [channel_unit(self.layer, int(text)).text for text in numbers]
        number = self.request.limit or count
        lively = np.flatnonzero(self.probe.values.max(0) > self.probe.values.min(0))
        order = np.random.default_rng([self.request.seed, draw]).permutation(lively)
        return [channel_unit(self.layer, int(channel)).text for channel in sorted(order[:number])]

    def strongest(self, unit: str) -> Float[np.ndarray, " images"]:
        """A channel's values on its strongest photos: what its pictures are compared with."""
        return np.sort(self.probe.values[:, int(unit.rpartition(":")[2])])[-_TOP:]

    def search(self, units: Sequence[str]) -> list[References]:
        """The top patches of channels, in one pass for all; each picture then finds its own in the cache."""
        parsed = [parse_unit(unit, self.encoder) for unit in units]
        how: dict[str, Any] = {"scoring": "preselect", "candidates": CANDIDATES, "progress": self.request.progress}
        return find_patch_references(self.references, self.encoder, parsed, **how)

    def estimator(self, units: Sequence[str], **settings: Any) -> Vital:
        """VITAL itself, for what a kept picture does not tell: transparency, facets, directions. It keeps its runs."""
        how: dict[str, Any] = {"scoring": "preselect", "candidates": CANDIDATES, "random_state": self.request.seed}
        return Vital(self.encoder, **{"steps": self.steps(units), **how, **settings})

    def steps(self, units: Sequence[str]) -> int:
        """VITAL's steps for some units."""
        if self.asked["steps"]:
            return int(self.asked["steps"])
        kind = "class" if units[0].startswith("class:") else "inner"
        return _ZOO_STEPS[kind] if self.model.startswith("zoo:") else _STEPS

    def pictures(
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
        """A picture of each unit, made or found.

        settings: the method's own. draw: which of several. together: how many DeepInversion makes at once.
        control: by the untrained network.
        """
        own = {**self._usual(method, settings or {}), **(settings or {})}
        trial = Trial(
            f"{self.model}@untrained" if control else self.model,
            encoder_of(f"{self.model}@untrained", self.how).digest if control else self.encoder.digest,
            self.references,
            method,
            tuple(units),
            self._number(method, units, own),
            self.folder,
            own,
            self.request.seed + draw,
            self._spectrum(own.get("size")) if method == "maco" else None,
            self.how,
        )
        trials = in_batches(trial, together)
        for part in trials:
            self._forget(part)
        about = f"{label or method}, {len(units)} {'classes' if units[0].startswith('class:') else 'units'}"
        make_all(trials, workers=int(self.asked["workers"]), label=about, progress=self.request.progress)
        return [path for part in trials for path in part.pictures]

    def drawn(self, method: str, units: Sequence[str], settings: Mapping[str, Any] | None = None, **how: Any) -> Draws:
        """As many pictures of each unit as there are seeds."""
        found = [self.pictures(method, units, settings, draw=draw, **how) for draw in range(int(self.asked["seeds"]))]
        return Draws(found)

    def _usual(self, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The paper's settings of the other methods: Fourier has MACO's."""
        if method == "maco":
            return {"crops": self.asked["crops"]}
        return {"views": "crops", "lr": 1.0, "crops": self.asked["crops"]} if method == "fourier" else {}

    def _number(self, method: str, units: Sequence[str], settings: Mapping[str, Any]) -> int:
        steps = self.steps(units)
        if method == "vital":
            return steps
        if self.asked["compute"] == "paper":
            return OWN_STEPS[method]
        return steps_of(method, settings, round(self.cost(units[0]) * steps))

    def cost(self, unit: str) -> float:
        """A VITAL step's processor time in plain passes, measured once and kept."""
        one, other = (
            Trial(
                self.model,
                self.encoder.digest,
                self.references,
                method,
                (unit,),
                self.steps([unit]),
                self.folder,
                load=self.how,
            )
            for method in ("vital", "fourier")
        )
        kept = self.folder / f"cost-{self.encoder.digest[:12]}-{unit.partition(':')[0]}.txt"
        return kept_cost(kept, self.encoder, one, other)

    def _spectrum(self, size: Sequence[int] | None) -> Path:
        height, width = size or self.encoder.preprocess.size
        kept = self.folder / f"spectrum-{self.encoder.digest[:12]}-{height}x{width}.npy"
        return kept_spectrum(kept, self.encoder, self.photos.paths, (height, width))

    def _forget(self, trial: Trial) -> None:
        """With ``--fresh`` a run makes its pictures anew, each once."""
        if not self.request.fresh:
            return
        for path in trial.pictures:
            if path not in self._made_anew:
                path.with_suffix(".json").unlink(missing_ok=True)
                self._made_anew.add(path)


class Draws:
    """Pictures of some units, by seed."""

    def __init__(self, pictures: Sequence[Sequence[Path]]) -> None:
        self.pictures = pictures

    @property
    def first(self) -> Sequence[Path]:
        """One picture of each unit."""
        return self.pictures[0]

    @property
    def all(self) -> list[Path]:
        """All of them, seed after seed."""
        return [path for paths in self.pictures for path in paths]

    def __len__(self) -> int:
        return len(self.pictures) * len(self.first)

    def of(self, place: int) -> list[Path]:
        """The pictures of one unit."""
        return [paths[place] for paths in self.pictures]

    def by_unit(self, values: Float[np.ndarray, " pictures"]) -> Float[np.ndarray, " units"]:
        """The mean over seeds of a value of ``all``: units, not pictures, are what is drawn at random."""
        return np.asarray(values, dtype=np.float64).reshape(len(self.pictures), -1).mean(0)


def check(asked: Mapping[str, Any]) -> None:
    """UsageError for settings that cannot be."""
    for name, least in (("steps", 0), ("seeds", 1), ("crops", 1), ("workers", 1)):
        if asked[name] < least:
            raise UsageError(f"{name} is a number from {least} on, not {asked[name]}")
    if asked["compute"] not in ("equal", "paper"):
        raise UsageError(f"compute is equal or paper, not {asked['compute']!r}")


def comparable(bench: Bench, network: str) -> bool:
    """Whether ours is the paper's own network, so that a difference from its figure means something."""
    return bench.model == WEIGHTS[network] and bench.encoder.outputs == 1000


def figures(
    request: EvaluationRequest, extra: Mapping[str, Any], names: Sequence[str] = ("ResNet50",)
) -> tuple[dict[str, Any], dict[str, Bench]]:
    """The settings of an experiment, and a bench for each of its networks that has a model. UsageError without any."""
    asked = request.settings({**DEFAULTS, **extra})
    benches = {name: Bench(request, asked, model) for name, model in networks(request, names).items()}
    if not benches:
        raise UsageError(f"no model for any of {', '.join(names)}: give --model MODEL")
    return asked, benches
