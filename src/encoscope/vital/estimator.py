"""VITAL as an estimator: ``fit`` gathers what references have in common, ``synthesize`` makes the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.probing.patches import PRESELECTED, Scoring
from encoscope.progress import Progress
from encoscope.units import Unit, parse_unit
from encoscope.vital.baselines.registry import SynthesisPlan
from encoscope.vital.features import FeatureReader, Relevance, relevance_reaches
from encoscope.vital.matching import Matching
from encoscope.vital.objective import DistributionObjective
from encoscope.vital.recipes import Preset, Recipe, choose_recipe, override_recipe
from encoscope.vital.references.facets import POOL, split_facets
from encoscope.vital.references.patches import find_patch_references
from encoscope.vital.references.prototypes import compute_prototype
from encoscope.vital.references.references import References, Source, find_class_references
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.run import Preview, SynthesisSubject, run_synthesis
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import start_from_noise
from encoscope.vital.synthesis.transforms import Roll
from encoscope.vital.visualization import Visualization

_JITTER = 30 / 224  # of the picture's side
_EXTENSION = "relevance is gradient x input, this library's extension: the paper's LRP does not reach here"


@dataclass(frozen=True)
class Target:
    """A picture to make. name: the unit's text, with a number where the unit has several facets.

    references: the images behind the statistics; None where the statistics were given.
    """

    unit: Unit
    name: str
    recipe: Recipe
    relevance: Relevance | None
    prototype: Prototype
    references: References | None = None
    facet: Mapping[str, Any] | None = None


class Vital:
    """Pictures of units in which activations are distributed as in real images (VITAL).

    steps: of the optimisation. preset: "paper", or "authors" for their code where the two differ. relevance: "auto" is
    none for classes, and for other units LRP, or gradient x input where LRP does not reach; "none", "lrp",
    "guided-backprop", "gradient-input", or a callable (encoder, pixels, unit, layers) -> {layer: maps}.
    matching: "sort", or "moments" for comparison. layers, weights: in place of the recipe's. smooth: a_TV = a_l2 in
    place of the recipe's, or the two of them. number: references of a unit. patch, scoring, candidates: how patches are
    searched, see ``patch_references``. size: (height, width) of the pictures, the network's own if left out.
    jitter: pixels, 30 for 224 in proportion if left out. lr: Adam's. batch: pictures made together; left out, one on
    the CPU, where more is no faster, and eight on a GPU. cache: keep statistics, and states of runs, so that a stopped
    run goes on.
    random_state: seed; a picture's numbers depend on it and on the unit's text, never on what shares its batch.

    Attributes after ``fit``: ``targets_``, a ``Target`` for each picture, with its statistics.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        steps: int = 2000,
        preset: Preset = "paper",
        relevance: Relevance = "auto",
        matching: Matching = "sort",
        layers: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        smooth: float | Sequence[float] | None = None,
        number: int = 50,
        patch: int | None = None,
        scoring: Scoring = "stride",
        candidates: int = PRESELECTED,
        size: tuple[int, int] | None = None,
        jitter: int | None = None,
        lr: float = 1.0,
        batch: int | None = None,
        cache: bool = True,
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.steps = steps
        self.preset: Preset = preset
        self.relevance: Relevance = relevance
        self.matching: Matching = matching
        self.layers = layers
        self.weights = weights
        self.smooth = smooth
        self.number = number
        self.patch = patch
        self.scoring: Scoring = scoring
        self.candidates = candidates
        self.size = size
        self.jitter = jitter
        self.lr = lr
        self.batch = batch
        self.cache = cache
        self.random_state = random_state

    def fit(
        self,
        references: Source | Mapping[str, Prototype | References],
        units: Sequence[Unit | str] | Unit | str,
        *,
        facets: int | None = None,
        progress: Progress = None,
    ) -> Vital:
        """Gather the statistics of each unit's references.

        references: a dataset (string, folder, list of files; for classes also images in memory): of a class, the
            images with its label; of any other unit, its top patches in there. Or, by the unit's text, statistics
            or ``References`` (those of another encoder's targets, for a control).
        facets: so many pictures of each unit, one for each cluster of its 1,000 top patches (of all images of a class).

        Raises UsageError for unknown units and settings that contradict, MissingError where there are no references.
        """
        self._check()
        parsed = [parse_unit(unit, self.encoder) for unit in ([units] if isinstance(units, str | Unit) else units)]
        if not parsed:
            raise UsageError("no units given")
        ways = [self._way(unit) for unit in parsed]  # wrong settings fail before the first image
        groups: list[Sequence[References | Prototype]] = []
        if isinstance(references, Mapping):
            groups += [[_given(references, unit)] for unit in parsed]
        else:
            groups += self._references(references, parsed, facets, progress)
        self.targets_ = []
        for unit, (made, relevance), parts in zip(parsed, ways, groups, strict=True):
            reader = self._reader(made, relevance)
            for place, part in enumerate(parts):
                if isinstance(part, References):
                    images, found = part, compute_prototype(reader, part, unit, cache=self.cache, progress=progress)
                else:
                    images, found = None, part
                if relevance == "gradient-input" and self.relevance == "auto":
                    found = replace(found, notes=(*found.notes, _EXTENSION))
                name = unit.text if images is None else images.unit
                facet = {"number": place + 1, "of": len(parts)} if facets else None
                self.targets_.append(Target(unit, name, made, relevance, found, images, facet))
        return self

    def synthesize(
        self, *, progress: Progress = None, preview: Preview | None = None, fresh: bool = False
    ) -> list[Visualization]:
        """Make the pictures of the fitted units, in order; see ``stream``."""
        return list(self.stream(progress=progress, preview=preview, fresh=fresh))

    def stream(
        self, *, progress: Progress = None, preview: Preview | None = None, fresh: bool = False
    ) -> Iterator[Visualization]:
        """Make the pictures of the fitted units, one batch after the other, and hand each on as it is done.

        preview: is handed the pictures of the batch at work now and then, and when the run is interrupted.
        fresh: neither go on with a run that was stopped, nor take one that is done.
        """
        if not hasattr(self, "targets_"):
            raise UsageError("Vital has no references yet: call fit before synthesize")
        batch = self.batch or (1 if self.encoder.device.type == "cpu" else 8)
        for _, alike in groupby(self.targets_, _way_of):
            targets = list(alike)
            for first in range(0, len(targets), batch):
                part = targets[first : first + batch]
                subjects = [_subject(target) for target in part]
                yield from run_synthesis(
                    self.encoder,
                    self.plan(part),
                    subjects,
                    seed=self.random_state,
                    cache=self.cache and not callable(part[0].relevance),
                    fresh=fresh,
                    preview=preview,
                    progress=progress,
                )

    def plan(self, targets: Sequence[Target]) -> SynthesisPlan:
        """What the synthesis loop is to do for targets of one recipe and relevance."""
        made, relevance = targets[0].recipe, targets[0].relevance
        size = self.size or self.encoder.preprocess.size
        jitter = round(_JITTER * min(size)) if self.jitter is None else self.jitter
        objective = DistributionObjective(
            self._reader(made, relevance),
            [target.unit for target in targets],
            [target.prototype for target in targets],
            made,
            matching=self.matching,
            weighted=relevance is not None and self.preset == "authors",
        )
        stage = Stage(
            start=lambda _, generators: start_from_noise(
                self.encoder.preprocess, size, generators, self.encoder.device
            ),
            steps=self.steps,
            optimizer=Optimizer(self.lr),
            transform=Roll(jitter),
        )
        settings = {
            "method": "vital",
            "preset": self.preset,
            "recipe": made.name,
            "layers": list(made.layers),
            "weights": list(made.weights),
            "tv": made.tv,
            "l2": made.l2,
            "matching": self.matching,
            "relevance": "none" if relevance is None else relevance if isinstance(relevance, str) else "own",
            "steps": self.steps,
            "size": list(size),
            "jitter": jitter,
            "lr": self.lr,
            "number": self.number,
        }
        return SynthesisPlan((stage,), objective, settings)

    def _check(self) -> None:
        for name in ("steps", "number", "batch", "patch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is a number from 1 on, not {value}")
        if self.matching not in ("sort", "moments"):
            raise UsageError(f"matching is 'sort' or 'moments', not {self.matching!r}")
        if self.size not in (None, self.encoder.preprocess.size) and not self.encoder.resizable:
            height, width = self.encoder.preprocess.size
            raise UsageError(f"{self.encoder.source} takes {height} x {width} pixels only: leave size out")

    def _way(self, unit: Unit) -> tuple[Recipe, Relevance | None]:
        """The recipe of a unit, and its relevance."""
        relevance: Relevance | None = None if self.relevance == "none" else self.relevance
        if relevance == "auto":
            relevance = None if unit.kind == "class" else "lrp"
        made = choose_recipe(self.encoder, unit, preset=self.preset, relevance=relevance is not None)
        if self.layers is not None:
            made = override_recipe(self.encoder, unit, made, self.layers, self.weights)
        elif self.weights is not None:
            made = override_recipe(self.encoder, unit, made, made.layers, self.weights)
        if self.smooth is not None:
            tv, l2 = (self.smooth, self.smooth) if isinstance(self.smooth, int | float) else self.smooth
            made = replace(made, tv=tv, l2=l2)
        if (
            self.relevance == "auto"
            and relevance == "lrp"
            and not relevance_reaches(self.encoder, unit, made.layers, "lrp")
        ):
            relevance = "gradient-input"
        return made, relevance

    def _reader(self, made: Recipe, relevance: Relevance | None) -> FeatureReader:
        return FeatureReader(self.encoder, made.layers, relevance, scaled=self.preset == "authors")

    def _references(
        self, source: Source, units: Sequence[Unit], facets: int | None, progress: Progress
    ) -> list[list[References]]:
        """The references of each unit, several groups where facets were asked for."""
        count = self.number if facets is None else POOL
        inside = [unit for unit in dict.fromkeys(units) if unit.kind != "class"]
        patches: dict[Unit, References] = {}
        if inside:
            found = find_patch_references(
                source,
                self.encoder,
                inside,
                count=count,
                patch=self.patch,
                scoring=self.scoring,
                candidates=self.candidates,
                whole=self.preset == "authors",
                progress=progress,
            )
            patches = dict(zip(inside, found, strict=True))
        groups = []
        for unit in units:
            if unit.kind == "class":
                most = self.number if facets is None else None
                pool = find_class_references(source, self.encoder, unit, count=most, seed=self.random_state)
            else:
                pool = patches[unit]
            if facets is None:
                groups.append([pool])
                continue
            how: dict[str, Any] = {"number": self.number, "seed": self.random_state, "progress": progress}
            groups.append(split_facets(self.encoder, unit, pool, facets, **how))
        return groups


def visualize(
    encoder: Encoder,
    unit: Unit | str,
    references: Source | Mapping[str, Prototype] | None = None,
    *,
    progress: Progress = None,
    **settings: Any,
) -> Visualization:
    """What a unit looks like to an encoder: VITAL's picture of it, with transparency.

    unit: ``class:golden retriever``, ``layer4:485``, a group, a direction, ``features:31``, ``blocks.7@cls:12``.
    references: a dataset of real images (string, folder, list), or statistics by the unit's text; left out, the
    statistics of the class that ship with a zoo encoder. settings: those of ``Vital``; ``seed`` is its random_state.

    Raises UsageError for unknown units and settings, MissingError where there are no references.
    """
    if "seed" in settings:
        settings["random_state"] = settings.pop("seed")
    if references is None:
        from encoscope.vital.references.shipped import load_shipped

        references = load_shipped(encoder, [parse_unit(unit, encoder)])
    return Vital(encoder, **settings).fit(references, unit, progress=progress).synthesize(progress=progress)[0]


def _given(references: Mapping[str, Prototype | References], unit: Unit) -> Prototype | References:
    if unit.text not in references:
        raise UsageError(f"references were given for {', '.join(references) or 'nothing'}, not for {unit.text}")
    return references[unit.text]


def _way_of(target: Target) -> tuple[Recipe, Relevance | None, bool]:
    """What targets must have in common to be made in one batch."""
    return target.recipe, target.relevance, target.unit.kind == "direction"


def _subject(target: Target) -> SynthesisSubject:
    found = target.prototype
    return SynthesisSubject(target.unit, target.name, found.references, found.activation, found.notes, target.facet)
