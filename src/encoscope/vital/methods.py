"""Visualize units by any of the methods: VITAL, and those it is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.encoder.untrained_copy import untrained_copy
from encoscope.errors import UsageError, explain_calls
from encoscope.progress import Progress
from encoscope.results import ResultList
from encoscope.settings import refuse_unknown
from encoscope.units import Unit, is_all, parse_units
from encoscope.vital.baselines.registry import find_planner
from encoscope.vital.estimator import Vital
from encoscope.vital.references.references import References, Source
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.run import VisualizationPreview, judge_visualization, run_synthesis
from encoscope.vital.settings import (
    DEFAULT_METHOD,
    FRAMES,
    METHOD_SETTINGS,
    Relevance,
    Size,
    VitalSettings,
    check_request,
    make_settings,
)
from encoscope.vital.target import Target
from encoscope.vital.visualization import Visualization


@overload
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    method: str = DEFAULT_METHOD,
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
    n_facets: None = None,
    n_variants: None = None,
    diversity: float | None = None,
    start: Any = None,
    strengths: None = None,
    patch_size: int | None = None,
    search: str | None = None,
    n_candidates: int | None = None,
    size: Size | None = None,
    view: str | None = None,
    jitter: int | None = None,
    lr: float | None = None,
    views: str | None = None,
    n_views: int | None = None,
    crop_side: float | None = None,
    optimizer: str | None = None,
    magnitude: Any = None,
    statistics_weight: float | None = None,
    control: str | None = None,
    preview: VisualizationPreview | None = None,
    frames: int = FRAMES,
    fresh: bool = False,
    random_state: int = VitalSettings.random_state,
    batch_size: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Visualization: ...
@overload
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    n_facets: int,
    **settings: Any,
) -> ResultList[Visualization]: ...
@overload
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    n_variants: int,
    **settings: Any,
) -> ResultList[Visualization]: ...
@overload
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    strengths: Sequence[float],
    **settings: Any,
) -> ResultList[Visualization]: ...
@overload
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Sequence[Unit | str],
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    method: str = DEFAULT_METHOD,
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
    views: str | None = None,
    n_views: int | None = None,
    crop_side: float | None = None,
    optimizer: str | None = None,
    magnitude: Any = None,
    statistics_weight: float | None = None,
    control: str | None = None,
    preview: VisualizationPreview | None = None,
    frames: int = FRAMES,
    fresh: bool = False,
    random_state: int = VitalSettings.random_state,
    batch_size: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> ResultList[Visualization]: ...
@explain_calls
def visualize(
    encoder: Encoder | nn.Module | str,
    units: Sequence[Unit | str] | Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    method: str = DEFAULT_METHOD,
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
    views: str | None = None,
    n_views: int | None = None,
    crop_side: float | None = None,
    optimizer: str | None = None,
    magnitude: Any = None,
    statistics_weight: float | None = None,
    control: str | None = None,
    preview: VisualizationPreview | None = None,
    frames: int = FRAMES,
    fresh: bool = False,
    random_state: int = VitalSettings.random_state,
    batch_size: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **unknown: Any,
) -> Visualization | ResultList[Visualization]:
    """Show what units look like to an encoder: VITAL's visualization with transparency, or another method's.

    `VitalSettings` says what each of VITAL's settings means and what its default is; the other methods have
    `FourierSettings`, `MacoSettings`, `DeepInversionSettings` and `PluginSettings`. None leaves the method's own value.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50".
        units: One unit or several: "class:golden retriever", "layer4:485", a group, a direction, "features:31",
            "blocks.7@cls:12".
        references: A dataset of real images (string, folder, list), statistics by the unit's text, or a file of them
            that ``encoscope.recipes.statistics`` made. None takes the statistics of classes that ship with a zoo
            encoder. Of the other methods only MACO needs images.
        method: "vital", "fourier", "maco", "deepinversion" or "plugin".
        preset: "default", "paper" or "authors" (VITAL's only); None is "default".
        steps: Steps of the optimization.
        relevance: What activations are multiplied by (vital).
        matching: "sort" or "moments" (vital).
        parametrization: "pyramid", "pixels" or "auto" (vital).
        scale: What losses count in: "references", "absolute" or "auto" (vital).
        layers: The layers that are matched, in place of the recipe's (vital).
        weights: A weight for each layer, in place of the recipe's (vital).
        tv_weight: Weight of total variation (vital, deepinversion).
        l2_weight: Weight of the l2 norm (vital, deepinversion).
        n_references: References of a unit (vital).
        select: A class's references: "labels", or "top" for those that the network itself scores highest (vital).
        n_facets: So many visualizations of each unit, one for each cluster of its images (vital).
        n_variants: So many pictures of each unit, which begin differently (vital).
        diversity: Weight of the variants' likeness to each other (vital).
        start: An image to begin with: what of the unit is in it is drawn out (vital).
        strengths: How much the references count beside ``start``, a visualization for each (vital).
        patch_size: Side of patches that are references, in pixels (vital).
        search: "maps" or "patches": how top patches are found (vital).
        n_candidates: Score patches only in so many images of a unit (vital).
        size: (height, width) in pixels; None is the network's own.
        view: What of it the network sees in a step: "whole", "crops" or "auto", crops above its own size (vital).
        jitter: Largest shift of the image in a step, in pixels (vital).
        lr: Adam's learning rate (all but maco).
        views: "wander" or "crops" (fourier).
        n_views: Views of the image a step (fourier with crops, maco, plugin).
        crop_side: Mean side of the crops, as a share of the image's (maco).
        optimizer: "adam" or "nadam" (maco).
        magnitude: The magnitude spectrum, in place of that of the references (maco).
        statistics_weight: Weight of the distance to batch normalization's statistics (deepinversion).
        control: "untrained" also makes each visualization with random weights, from the same references (vital); see
            ``Visualization.controls``.
        preview: Receives the unfinished visualizations of the current batch now and then.
        frames: So many images on the way are kept, for ``Visualization.save_animation``.
        fresh: Neither resume a run that was stopped nor take a finished one.
        random_state: The seed of everything random.
        batch_size: Visualizations made together; None is one on the CPU and eight on a GPU, and all for deepinversion,
            where each depends on the others in its batch.
        cache: Whether statistics and the states of runs are kept, so that a stopped run is resumed.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        A Visualization for one unit; a list for several units, facets, variants or strengths.

    Raises:
        UsageError: For unknown units and settings, for settings that do not belong to the method, and for values that
            cannot be.
        MissingError: Where there are no references.

    Example:
        >>> vis = encoscope.visualize("zoo:resnet-caltech101", "class:sunflower", steps=500)  # doctest: +SKIP
        >>> vis.save("sunflower")  # doctest: +SKIP

    Source: VITAL (Gorgun, Schiele and Fischer 2025), Algorithm 1.
    """
    refuse_unknown("visualize", unknown, _KNOWN)
    stream = visualize_stream(
        encoder,
        units,
        references,
        method=method,
        preset=preset,
        steps=steps,
        relevance=relevance,
        matching=matching,
        parametrization=parametrization,
        scale=scale,
        layers=layers,
        weights=weights,
        tv_weight=tv_weight,
        l2_weight=l2_weight,
        n_references=n_references,
        select=select,
        n_facets=n_facets,
        n_variants=n_variants,
        diversity=diversity,
        start=start,
        strengths=strengths,
        patch_size=patch_size,
        search=search,
        n_candidates=n_candidates,
        size=size,
        view=view,
        jitter=jitter,
        lr=lr,
        views=views,
        n_views=n_views,
        crop_side=crop_side,
        optimizer=optimizer,
        magnitude=magnitude,
        statistics_weight=statistics_weight,
        control=control,
        preview=preview,
        frames=frames,
        fresh=fresh,
        random_state=random_state,
        batch_size=batch_size,
        cache=cache,
        cache_dir=cache_dir,
        progress=progress,
    )
    visualizations = ResultList(stream)
    single = isinstance(units, str | Unit) and not is_all(units)
    single = single and n_facets is None and n_variants is None and strengths is None
    return visualizations[0] if single else visualizations


@explain_calls
def visualize_stream(
    encoder: Encoder | nn.Module | str,
    units: Sequence[Unit | str] | Unit | str,
    references: Source | Mapping[str, Prototype | References] | None = None,
    *,
    method: str = DEFAULT_METHOD,
    preset: str | None = None,
    control: str | None = None,
    preview: VisualizationPreview | None = None,
    frames: int = FRAMES,
    fresh: bool = False,
    random_state: int = VitalSettings.random_state,
    batch_size: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **settings: Any,
) -> Iterator[Visualization]:
    """Do what `visualize` does, and give each visualization as soon as it is done.

    Args:
        encoder: An encoder, a module, or a source string.
        units: One unit or several.
        references: Real images, statistics by the unit's text, or a file of statistics.
        method: The method's name.
        preset: The preset.
        control: "untrained", or None.
        preview: Receives the unfinished visualizations of the current batch.
        frames: So many images on the way are kept.
        fresh: Neither resume a run that was stopped nor take a finished one.
        random_state: The seed of everything random.
        batch_size: Visualizations made together.
        cache: Whether statistics and the states of runs are kept.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **settings: The method's settings.

    Returns:
        An iterator over the visualizations, in the units' order. Wrong units and settings are refused at once.

    Raises:
        UsageError: As for `visualize`.
    """
    checked = make_settings(method, preset, **settings)
    check_request(method, settings.get("n_facets"), references, control, select=settings.get("select"))
    encoder = as_encoder(encoder)
    parsed = parse_units(units, encoder)[0]
    run: dict[str, Any] = {"cache": cache, "cache_dir": cache_dir, "progress": progress, "random_state": random_state}
    if frames < 0:
        raise UsageError(f"frames is a number from 0 on, not {frames}")
    shown = {"preview": preview, "fresh": fresh}
    if method == "vital":
        own = {name: value for name, value in settings.items() if name in VitalSettings.infos()}
        chosen = {"preset": preset, **own, "batch_size": batch_size, **run}
        return _stream_vital(encoder, parsed, references, control, {**shown, "frames": frames}, chosen)
    return _stream_baseline(encoder, parsed, references, checked, batch_size, {**run, **shown, "frames": frames})


_KNOWN = [
    *dict.fromkeys(name for kind in METHOD_SETTINGS.values() for name in kind.infos()),
    *("method", "control", "preview", "frames", "fresh", "batch_size", "cache", "cache_dir", "progress"),
]


def _stream_vital(
    encoder: Encoder,
    units: Sequence[Unit],
    references: Any,
    control: str | None,
    shown: dict[str, Any],
    settings: dict[str, Any],
) -> Iterator[Visualization]:
    vital = Vital(encoder, units, **settings).fit(references)
    copy = None if control is None else untrained_copy(encoder, random_state=settings["random_state"] + 1)
    for target, visualization in zip(vital.targets_, vital.stream(**shown), strict=True):
        if copy is None or target.references is None:
            yield visualization
            continue
        other = Vital(copy, target.unit, **{**settings, "n_facets": None}).fit({target.unit.text: target.references})
        (made_by_copy,) = other.synthesize(fresh=shown["fresh"])
        judged = judge_visualization(encoder, made_by_copy, target.unit)
        yield replace(visualization, controls=(replace(made_by_copy, control=control, judged=judged),))


def _stream_baseline(
    encoder: Encoder,
    units: Sequence[Unit],
    images: Any,
    settings: Any,
    batch_size: int | None,
    run: dict[str, Any],
) -> Iterator[Visualization]:
    plan = find_planner(settings.METHOD)
    together = settings.METHOD == "deepinversion"
    number = batch_size or (len(units) if together else 1 if encoder.device.type == "cpu" else 8)
    starts = range(0, len(units), number)
    for first in starts:
        batch = units[first : first + number]
        targets = [Target.of(unit) for unit in batch]
        runs_left = 0 if first else len(starts)
        yield from run_synthesis(encoder, plan(encoder, batch, settings, images), targets, **run, runs_left=runs_left)
