"""What VITAL's tables and figures work with: networks, photos, pictures of units by any method, and what they measure.

Pictures are kept as they are made, under what makes them: an experiment that was stopped goes on, and experiments that
show the same picture make it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError, nearest
from encoscope.experiments.report import Report, Request
from encoscope.experiments.runner import short
from encoscope.experiments.vital_figures import Judge, first_of_each, known_to
from encoscope.experiments.vital_paper import STAND_INS, WEIGHTS
from encoscope.experiments.vital_trials import (
    CANDIDATES,
    Trial,
    encoder_of,
    in_batches,
    kept_cost,
    kept_spectrum,
    make_all,
    steps_of,
)
from encoscope.images import LabelledPhotos, dataset
from encoscope.plots import contact_sheet
from encoscope.probe import probe
from encoscope.store import cache_dir, key
from encoscope.units import channel_unit, class_index, class_label, plain_name
from encoscope.vital.top import patch_references

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

    def __init__(self, request: Request, asked: Mapping[str, Any], model: str) -> None:
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
        return tuple(sorted({**self.request.load, "seed": self.request.seed}.items()))

    @cached_property
    def encoder(self) -> Encoder:
        """The network that is looked into."""
        return encoder_of(self.model, self.how)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its classes, numbers where they have no names."""
        return self.encoder.classes or tuple(map(str, range(self.encoder.outputs or 0)))

    @cached_property
    def photos(self) -> LabelledPhotos:
        """The photos that pictures are made from, labelled with the network's classes."""
        return of_the_network(self.encoder, dataset(self.references), self.references)

    @cached_property
    def real(self) -> LabelledPhotos:
        """The photos that pictures are compared with: of the second dataset, else of the test split, else the same."""
        other = held_out(self.request.datasets)
        return self.photos if other is None else of_the_network(self.encoder, dataset(other), other)

    @cached_property
    def folder(self) -> Path:
        """Where pictures from these photos are kept."""
        about = {"first": str(self.photos.paths[0].resolve()), "count": len(self.photos)}
        return cache_dir("experiments", "vital-paper", key(about))

    def classes(self, count: int = _SHOWN, preferred: Iterable[str] = ()) -> list[int]:
        """The classes to picture: those named in the settings, else ``--limit`` of them (``count`` if not said).

        preferred: names to take where the network has them all. Others are drawn at random among those with photos
        whose names the judge was taught.
        """
        there = sorted(set(self.photos.labels))
        if self.asked["classes"]:
            return [self.named(name.strip()) for name in str(self.asked["classes"]).split(",")]
        number = self.request.limit or count
        plain = {plain_name(name): index for index, name in enumerate(self.names)}
        liked = [plain.get(plain_name(name)) for name in preferred]
        if liked and all(index in there for index in liked):
            return [index for index in liked if index is not None][:number]
        known = set(known_to(str(self.asked.get("judge", "zoo:")), self.names))
        order = np.random.default_rng(self.request.seed).permutation([index for index in there if index in known])
        return sorted(order[:number].tolist())

    def named(self, name: str) -> int:
        """A class by name or number. UsageError for one that is not there."""
        if name.isascii() and name.isdigit() and int(name) < len(self.names):
            return int(name)
        return class_index(name, self.names)

    @cached_property
    def layer(self) -> str:
        """The layer of the channels: the last stage or block, or the setting ``layer``."""
        asked = str(self.asked.get("layer") or "")
        return self.encoder.layer(asked).name if asked else self.encoder.depths[-1]

    @cached_property
    def values(self) -> Float[np.ndarray, "images channels"]:
        """Every photo's value of every channel of the layer; kept in the cache."""
        return probe(self.encoder, self.references, self.layer, progress=self.request.progress).values

    def channels(self, count: int = _SHOWN, draw: int = 0) -> list[str]:
        """Channels that do not lie still, at random: ``--limit`` of them (``count`` if not said)."""
        if self.asked.get("channels"):
            numbers = [part.strip() for part in str(self.asked["channels"]).split(",")]
            wrong = next((text for text in numbers if not text.isdigit()), None)
            if wrong is not None:
                raise UsageError(f"channels are numbers with commas between them, not {wrong!r}")
            return [channel_unit(self.layer, int(text)).text for text in numbers]
        number = self.request.limit or count
        lively = np.flatnonzero(self.values.max(0) > self.values.min(0))
        order = np.random.default_rng([self.request.seed, draw]).permutation(lively)
        return [channel_unit(self.layer, int(channel)).text for channel in sorted(order[:number])]

    def strongest(self, unit: str) -> Float[np.ndarray, " images"]:
        """A channel's values on its strongest photos: what its pictures are compared with."""
        return np.sort(self.values[:, int(unit.rpartition(":")[2])])[-_TOP:]

    def search(self, units: Sequence[str]) -> None:
        """Find the top patches of channels in one pass for all; each picture then finds its own in the cache."""
        parsed = [channel_unit(self.layer, int(unit.rpartition(":")[2])) for unit in units]
        how: dict[str, Any] = {"scoring": "preselect", "candidates": CANDIDATES, "progress": self.request.progress}
        patch_references(self.references, self.encoder, parsed, **how)

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


def networks(request: Request, names: Sequence[str]) -> dict[str, str]:
    """The model of each of the paper's networks, by its name.

    "NAME=MODEL" names the network it is or stands for; "paper" takes the paper's weights; another model is the network
    whose weights it names, or stands for the first one without a model. Nothing given: the zoo's stand-ins.
    """
    if not request.models:
        return {name: STAND_INS[name] for name in names if name in STAND_INS}
    found: dict[str, str] = {}
    plain = [text for text in request.models if "=" not in text]
    for text in request.models:
        name, equals, model = text.partition("=")
        if equals and name not in names:
            raise UsageError(f"no network {name!r}{nearest(name, names)}: there are {', '.join(names)}")
        found |= {name: model} if equals else {}
    if "paper" in plain:
        found |= {name: WEIGHTS[name] for name in names if name not in found}
    known = {WEIGHTS[name]: name for name in names}
    for text in plain:
        name = known.get(text) or next((name for name in names if name not in found), None)
        if text != "paper" and name is not None:
            found[name] = text
    return {name: found[name] for name in names if name in found}


def comparable(bench: Bench, network: str) -> bool:
    """Whether ours is the paper's own network, so that a difference from its figure means something."""
    return bench.model == WEIGHTS[network] and bench.encoder.outputs == 1000


def held_out(datasets: Sequence[str]) -> str | None:
    """The dataset of the photos that pictures are compared with; None where there is none but the references'."""
    if len(datasets) > 1:
        return datasets[1]
    return f"{datasets[0].removesuffix('#train')}#test" if datasets[0].endswith("#train") else None


def of_the_network(encoder: Encoder, photos: LabelledPhotos, text: str) -> LabelledPhotos:
    """The photos labelled with the network's classes, those of other labels left out. UsageError where none is left."""
    if encoder.outputs is None:
        raise UsageError(f"{encoder.source} is no classifier: VITAL's experiments picture classes")
    if not photos.labels:
        raise UsageError(f"{text!r} has no labels: name labelled photos, such as caltech101:ROOT#train")
    place: dict[str, int] = {}
    for index in range(encoder.outputs):
        label = class_label(encoder, index, photos.classes)
        if label is not None:
            place.setdefault(label, index)
    kept = [
        (path, place[photos.classes[label]])
        for path, label in zip(photos.paths, photos.labels, strict=True)
        if photos.classes[label] in place
    ]
    if not kept:
        raise UsageError(
            f"no label of {text!r} is a class of {encoder.source}: give photos of its classes, in folders of their "
            "names (for ImageNet, of their WordNet numbers)"
        )
    names = encoder.classes or tuple(map(str, range(encoder.outputs)))
    return LabelledPhotos(tuple(path for path, _ in kept), tuple(label for _, label in kept), names)


def judge_of(bench: Bench, notes: list[str]) -> Judge | None:
    """The independent image-text model; None, with a note, where its weights are not there."""
    source = str(bench.asked["judge"])
    try:
        return Judge.load(source, bench.names, known_to(source, bench.names))
    except MissingError as error:
        notes.append(f"No zero-shot figures: {error}.")
        return None


def real_of(bench: Bench, classes: Sequence[int]) -> tuple[list[Path], list[int]]:
    """Real photos of some classes, at most ``photos`` of each."""
    return first_of_each(bench.real, set(classes), int(bench.asked["photos"]))


def likeliest(
    bench: Bench, images: Sequence[Path]
) -> tuple[Float[np.ndarray, "images classes"], Int[np.ndarray, " images"]]:
    """The network's probabilities, and its answers."""
    shares = bench.encoder.logits(list(images)).softmax(1).cpu().double().numpy()
    return shares, shares.argmax(1)


def sheet(cells: Sequence[tuple[Any, str]], columns: int, cell: int = 180) -> Image.Image:
    """Pictures (files, images, arrays) in rows with their captions."""
    opened = [Image.open(picture) if isinstance(picture, Path) else picture for picture, _ in cells]
    return Image.fromarray(contact_sheet(opened, [caption for _, caption in cells], columns, cell=cell))


def report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    benches: Mapping[str, Bench],
    *,
    notes: Sequence[str] = (),
    pictures: Mapping[str, Image.Image] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """The report of an experiment, with notes on what stands in for the paper's networks, photos and compute."""
    some = next(iter(benches.values()))
    request, asked = some.request, some.asked
    what, _, number = name.partition("-")
    kind = number.rstrip("0123456789")
    shown = {"table": "Table", "fig": "Fig."}[kind]
    return Report(
        name,
        f"{what.upper()}, {shown} {number.removeprefix(kind)}: {title}",
        rows,
        [*notes, *_provenance(benches)],
        pictures or {},
        {
            "models": {network: bench.model for network, bench in benches.items()},
            "datasets": list(request.datasets),
            "limit": request.limit,
            **asked,
            **(settings or {}),
        },
        request.seed,
    )


def _provenance(benches: Mapping[str, Bench]) -> list[str]:
    some = next(iter(benches.values()))
    foreign = [f"{bench.model} for {network}" for network, bench in benches.items() if bench.model != WEIGHTS[network]]
    notes = []
    if foreign:
        notes.append(
            f"Stand-ins, which reproduce no figure of the paper: {', '.join(foreign)}. Its own weights: --model paper "
            "with ImageNet's photos."
        )
    other = held_out(some.request.datasets)
    against = f"compared with photos of {short(other)}" if other else "compared with the same photos"
    notes.append(f"Pictures from photos of {short(some.references)}, {against}.")
    return notes
