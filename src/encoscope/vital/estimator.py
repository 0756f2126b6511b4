"""VITAL as an estimator: ``fit`` computes the statistics of references, ``synthesize`` makes the visualizations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError
from encoscope.estimator import Estimator
from encoscope.progress import Progress
from encoscope.results import ResultList
from encoscope.units import Unit, parse_units
from encoscope.vital.features import FeatureReader, check_relevance
from encoscope.vital.planning import multiply_target, plan_synthesis, prepare_start
from encoscope.vital.recipes import Recipe, choose_recipe, find_published_recipe, override_recipe
from encoscope.vital.references.facets import POOL, split_facets
from encoscope.vital.references.patches import find_patch_references
from encoscope.vital.references.prototypes import compute_prototype
from encoscope.vital.references.references import References, Source, find_class_references
from encoscope.vital.references.shipped import load_shipped, load_statistics
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.run import VisualizationPreview, run_synthesis
from encoscope.vital.scaling import check_statistics, scale_regularizers
from encoscope.vital.settings import FRAMES, Relevance, Size, VitalSettings, check_request, is_statistics_file
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.target import Target
from encoscope.vital.visualization import Visualization


class Vital(Estimator):
    """Visualize units by images whose activations are distributed as in real images (VITAL).

    `VitalSettings` says what each setting means and what its default is; None leaves the preset's own value. A
    visualization depends on ``random_state`` and on the unit's text, not on what else is in the batch.

    Args:
        encoder: The frozen network: an encoder, a module or a source string.
        units: One unit or several, such as "class:golden retriever", "layer4:485", "features:31".
        preset: "default", "paper" or "authors"; None is "default".
        steps: Steps of the optimization.
        relevance: What activations are multiplied by: "auto", "none", "lrp", "guided-backprop", "gradient-input", or a
            callable (encoder, pixels, unit, layers) -> {layer: maps}.
        matching: "sort", or "moments" for comparison.
        parametrization: "pyramid", "pixels" or "auto".
        scale: What losses count in: "references", "absolute" or "auto".
        layers: The layers that are matched, in place of the recipe's.
        weights: A weight for each layer, in place of the recipe's.
        tv_weight: Weight of total variation, in place of the recipe's.
        l2_weight: Weight of the l2 norm, in place of the recipe's.
        n_references: References of a unit.
        select: A class's references: "labels", or "top" for those that the network itself scores highest.
        n_facets: So many visualizations of each unit, one for each cluster of its 1,000 top patches (of all images of a
            class).
        n_variants: So many pictures of each unit, which begin differently.
        diversity: Weight of the variants' likeness to each other.
        start: An image to begin with, in place of noise.
        strengths: How much the references count beside ``start``, a visualization for each.
        patch_size: Side of the patches that are references of units inside the network, in pixels.
        search: "maps" or "patches": how top patches are found.
        n_candidates: Score patches only in so many images of a unit.
        size: (height, width) of the visualizations in pixels; None is the network's own.
        view: What of it the network sees in a step: "whole", "crops" or "auto", crops above the network's own size.
        jitter: Largest shift of the image in a step, in pixels; None is 30 for 224, in proportion for other sizes.
        lr: Adam's learning rate.
        random_state: The seed of everything random.
        batch_size: Visualizations made together; None is one on the CPU, where more is no faster, and eight on a GPU.
        cache: Whether statistics and the states of runs are kept, so that a stopped run is resumed.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Attributes:
        encoder_: The encoder.
        targets_: A `Target` for each visualization, with its statistics.

    Example:
        >>> vital = encoscope.Vital("timm:resnet50", ["layer4:485"], steps=500).fit("photos/")  # doctest: +SKIP
        >>> (visualization,) = vital.synthesize()  # doctest: +SKIP

    Source: VITAL (Gorgun, Schiele and Fischer 2025), Algorithm 1.
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str,
        units: Sequence[Unit | str] | Unit | str,
        *,
        preset: str | None = None,
        steps: int | None = None,
        relevance: Relevance | None = None,
        matching: str | None = None,
        parametrization: str | None = None,
        scale: str | None = None,
        layers: Sequence[str] | str | None = None,
        weights: Sequence[float] | None = None,
        tv_weight: float | None = None,
        l2_weight: float | None = None,
        n_references: int | None = None,
        select: str | None = None,
        n_facets: int | None = None,
        n_variants: int | None = None,
        diversity: float | None = None,
        start: Any = None,
        strengths: Sequence[float] | None = None,
        patch_size: int | None = None,
        search: str | None = None,
        n_candidates: int | None = None,
        size: Size | None = None,
        view: str | None = None,
        jitter: int | None = None,
        lr: float | None = None,
        random_state: int = VitalSettings.random_state,
        batch_size: int | None = None,
        cache: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.units = units
        self.preset = preset
        self.steps = steps
        self.relevance = relevance
        self.matching = matching
        self.parametrization = parametrization
        self.scale = scale
        self.layers = layers
        self.weights = weights
        self.tv_weight = tv_weight
        self.l2_weight = l2_weight
        self.n_references = n_references
        self.select = select
        self.n_facets = n_facets
        self.n_variants = n_variants
        self.diversity = diversity
        self.start = start
        self.strengths = strengths
        self.patch_size = patch_size
        self.search = search
        self.n_candidates = n_candidates
        self.size = size
        self.view = view
        self.jitter = jitter
        self.lr = lr
        self.random_state = random_state
        self.batch_size = batch_size
        self.cache = cache
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Source | Mapping[str, Prototype | References] | None = None, y: None = None) -> Vital:
        """Compute the statistics of each unit's references.

        Args:
            X: A dataset (string, folder, list of files; for classes also images in memory): of a class, its images
                with the class's label are taken; of any other unit, the top patches in it. Or, by the unit's text,
                statistics or ``References`` (those of another encoder's targets, for a control). Or a .safetensors file
                of the statistics of classes. None takes those that ship with a zoo encoder.
            y: Not used; it is there as in all of scikit-learn's estimators.

        Returns:
            Itself, fitted.

        Raises:
            UsageError: For unknown units, and for settings that cannot be.
            MissingError: Where there are no references.
        """
        settings = self._settings()
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size is a number from 1 on, not {self.batch_size}")
        if isinstance(self.units, Sequence) and not len(self.units):
            raise UsageError("no units given")
        self.encoder_ = encoder = as_encoder(self.encoder)
        settings.choose_view(encoder)
        self._start_image = prepare_start(encoder, settings)
        units, _ = parse_units(self.units, encoder)
        methods = [self._choose_method(unit, settings) for unit in units]  # wrong settings fail before the first image
        groups: list[Sequence[References | Prototype]] = []
        check_request("vital", self.n_facets, X, None, select=settings.select)
        if X is None:
            X = load_shipped(encoder, units)
        elif is_statistics_file(X):
            X = load_statistics(encoder, units, Path(X))
        if isinstance(X, Mapping):
            groups += [[_take(X, unit)] for unit in units]
        else:
            groups += self._find_references(X, units, settings)
        self.targets_ = []
        for unit, (recipe, relevance, note), facets in zip(units, methods, groups, strict=True):
            reader = self._reader(recipe, relevance, settings)
            for number, source in enumerate(facets, 1):
                if isinstance(source, References):
                    references = source
                    prototype = compute_prototype(
                        reader, source, unit, cache=self.cache, cache_dir=self.cache_dir, progress=self.progress
                    )
                else:
                    references, prototype = None, source
                if note:
                    prototype = replace(prototype, notes=(*prototype.notes, note))
                name = unit.text if references is None else references.unit
                check_statistics(recipe, settings, prototype)
                facet = {"number": number, "of": len(facets)} if settings.n_facets else None
                target = Target(unit, name, recipe, relevance, prototype, references, facet)
                self.targets_ += multiply_target(target, settings)
        return self

    def synthesize(
        self, *, preview: VisualizationPreview | None = None, frames: int = FRAMES, fresh: bool = False
    ) -> ResultList[Visualization]:
        """Make the visualizations of the fitted units.

        Args:
            preview: Receives the unfinished visualizations of the current batch now and then.
            frames: So many images on the way are kept, for ``Visualization.save_animation``.
            fresh: Neither resume a run that was stopped nor take a finished one.

        Returns:
            The visualizations, in the order of ``targets_``.

        Raises:
            UsageError: When nothing was fitted.
        """
        return ResultList(self.stream(preview=preview, frames=frames, fresh=fresh))

    def stream(
        self, *, preview: VisualizationPreview | None = None, frames: int = FRAMES, fresh: bool = False
    ) -> Iterator[Visualization]:
        """Make the visualizations of the fitted units, batch by batch, and give each as soon as it is done.

        Args:
            preview: Receives the unfinished visualizations of the current batch now and then, and when the run is
                interrupted.
            frames: So many images on the way are kept, for ``Visualization.save_animation``.
            fresh: Neither resume a run that was stopped nor take a finished one.

        Yields:
            The visualizations, in the order of ``targets_``.

        Raises:
            UsageError: When nothing was fitted.
        """
        self._check_fitted()
        batches = self._make_batches()
        for index, batch in enumerate(batches):
            yield from run_synthesis(
                self.encoder_,
                self.plan(batch),
                batch,
                random_state=self.random_state,
                cache=self.cache and not callable(batch[0].relevance),
                cache_dir=self.cache_dir,
                fresh=fresh,
                preview=preview,
                frames=frames,
                progress=self.progress,
                runs_left=0 if index else len(batches),
            )

    def plan(self, targets: Sequence[Target]) -> SynthesisPlan:
        """Plan what the synthesis loop is to do for targets of one recipe and relevance.

        Args:
            targets: The targets.

        Returns:
            The plan, with all settings that decide the result.
        """
        settings = self._settings()
        reader = self._reader(targets[0].recipe, targets[0].relevance, settings)
        return plan_synthesis(self.encoder_, targets, settings, reader, self._start_image)

    def _make_batches(self) -> list[list[Target]]:
        """The targets that are made together."""
        settings = self._settings()
        if settings.diversity and settings.n_variants:  # the variants of a unit look at each other
            size = settings.n_variants
            return [list(self.targets_[first : first + size]) for first in range(0, len(self.targets_), size)]
        size = self.batch_size or (1 if self.encoder_.device.type == "cpu" else 8)
        groups = [list(group) for _, group in groupby(self.targets_, _batch_key)]
        return [group[first : first + size] for group in groups for first in range(0, len(group), size)]

    def _settings(self) -> VitalSettings:
        names = [name for name in VitalSettings.infos() if name != "preset"]
        return VitalSettings.from_preset(self.preset, **{name: getattr(self, name) for name in names})

    def _choose_method(self, unit: Unit, settings: VitalSettings) -> tuple[Recipe, Relevance | None, str]:
        """The recipe of a unit, its relevance, and what a reader has to know of that."""
        encoder = self.encoder_
        relevance = None if settings.relevance == "none" else settings.relevance
        # What a concept is like is at one position, so that whole references do not stand for it.
        known = find_published_recipe(encoder.module, [info.name for info in encoder.layers])
        is_default = settings.preset == "default" and known is None and unit.kind != "direction"
        if relevance == "auto":
            relevance = None if unit.is_class or is_default else "lrp"
        recipe = choose_recipe(
            encoder,
            unit,
            authors=settings.authors,
            relevance=relevance is not None,
            own_layer=is_default and relevance is None,
        )
        if settings.layers:
            recipe = override_recipe(encoder, unit, recipe, settings.layers, settings.weights or None)
        elif settings.weights:
            recipe = override_recipe(encoder, unit, recipe, recipe.layers, settings.weights)
        recipe = scale_regularizers(recipe, settings)
        if settings.tv_weight is not None:
            recipe = replace(recipe, tv_weight=settings.tv_weight)
        if settings.l2_weight is not None:
            recipe = replace(recipe, l2_weight=settings.l2_weight)
        if relevance is None:
            return recipe, None, ""
        try:
            note = check_relevance(encoder, unit, recipe.layers, relevance)
        except UsageError:
            if settings.relevance != "auto":
                raise
            relevance = "gradient-input"
            note = check_relevance(encoder, unit, recipe.layers, relevance)
        return recipe, relevance, note

    def _reader(self, recipe: Recipe, relevance: Relevance | None, settings: VitalSettings) -> FeatureReader:
        return FeatureReader(
            self.encoder_, recipe.layers, relevance, scaled=settings.authors, own=bool(recipe.own_weight)
        )

    def _find_references(
        self, source: Source, units: Sequence[Unit], settings: VitalSettings
    ) -> list[list[References]]:
        """The references of each unit, several groups of them with facets."""
        n_facets, n_references = settings.n_facets, settings.n_references
        inside = [unit for unit in dict.fromkeys(units) if not unit.is_class]
        patches: dict[Unit, References] = {}
        if inside:
            pools = find_patch_references(
                source,
                self.encoder_,
                inside,
                count=n_references if n_facets is None else POOL,
                patch_size=settings.patch_size,
                search=settings.search,
                n_candidates=settings.n_candidates,
                geometry=settings.patch_geometry,
                whole_images=settings.authors,
                cache_dir=self.cache_dir,
                progress=self.progress,
            )
            patches = dict(zip(inside, pools, strict=True))
        groups = []
        for unit in units:
            if unit.is_class:
                count = n_references if n_facets is None else None
                if settings.select == "top":
                    count = n_references if n_facets is None else POOL
                pool = find_class_references(
                    source,
                    self.encoder_,
                    unit,
                    select=settings.select,
                    count=count,
                    random_state=settings.random_state,
                    cache_dir=self.cache_dir,
                    progress=self.progress,
                )
            else:
                pool = patches[unit]
            if n_facets is None:
                groups.append([pool])
                continue
            groups.append(
                split_facets(
                    self.encoder_,
                    unit,
                    pool,
                    n_facets,
                    n_references=n_references,
                    random_state=settings.random_state,
                    progress=self.progress,
                )
            )
        return groups


def _take(references: Mapping[str, Prototype | References], unit: Unit) -> Prototype | References:
    if unit.text not in references:
        raise UsageError(f"references were given for {', '.join(references) or 'nothing'}, not for {unit.text}")
    return references[unit.text]


def _batch_key(target: Target) -> tuple[Recipe, Relevance | None, bool]:
    """What targets must have in common to be made in one batch."""
    return target.recipe, target.relevance, target.unit.kind == "direction"
