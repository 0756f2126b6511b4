"""FALCON as an estimator that is fitted on a probing set and then describes units, and as single calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from torch import nn

from encoscope import metrics
from encoscope.defaults import BATCH_SIZE, FEATURES
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.estimator import Estimator
from encoscope.falcon.captions.build import match_captions
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.context import DescriptionContext
from encoscope.falcon.described_groups import DescribedGroup, DescribedGroups
from encoscope.falcon.description import Description, Descriptions
from encoscope.falcon.embedding import ImageEmbedder, TextVectors
from encoscope.falcon.feature_groups import find_groups, make_group_unit
from encoscope.falcon.pipeline import describe_units
from encoscope.falcon.settings import CONTROLS, HOLDOUT, FalconSettings, GroupSettings
from encoscope.falcon.spaces import Space, build_space
from encoscope.images import SkippedImage
from encoscope.progress import Progress
from encoscope.results import record_model
from encoscope.settings import refuse_unknown
from encoscope.units import Unit, parse_units
from encoscope.vlm import VLM
from encoscope.zoo.registry import DEFAULT_MODEL

_SHARED = ("probe", "captions", "vlm", "holdout", "control", "batch_size", "cache_dir", "progress")


class Falcon(Estimator):
    """Find concepts for an encoder's features, channels, groups, directions and classes.

    `FalconSettings` says what each setting means and what its default is; None leaves the preset's own value.

    Args:
        encoder: The frozen network: an encoder, a module or a source string; the default as in ``load``.
        vlm: An image-text model or its name; None takes the one that the captions were embedded with.
        captions: A caption store or its folder; None takes the vocabulary that ships with the package.
        preset: "default", "paper" or "authors"; None is "default".
        mode: "threshold" or "exact": how images are selected.
        alpha_stds: Alpha is the mean plus this many standard deviations.
        alpha: The threshold itself, in place of ``alpha_stds``.
        epsilon: An image below it is lowly activating.
        beta: The least similarity of a counterfactual, in [-1, 1].
        n_counterfactuals: The most counterfactuals of a unit.
        min_images: The images that have to pass alpha.
        top_k_if_empty: The number of strongest images that are used where too few pass alpha; 0 for none.
        max_images: The most images of a unit, strongest first.
        mask_threshold: The share of a GradCAM's range from which on it is cropped, in (0, 1].
        captions_per_crop: The best captions of a crop that words are taken from.
        n_concepts: The words, phrases and images that are kept.
        score: "cosine" or "softmax".
        contrast: Drop the words that counterfactuals share.
        spurious_threshold: The score from which a word of the counterfactuals is dropped.
        random_sets: Random sets of images that the threshold is calibrated on.
        spurious_quantile: The quantile of a word's scores over those sets that is its threshold, in (0, 1).
        fallback: "dissect" or "none": what labels units that FALCON finds no word for.
        rank: "score" or "specific": the order of words.
        clarity_threshold: The mean cosine of crops above which a unit counts as interpretable.
        holdout: The share of the probing set that is kept to test descriptions, or a dataset of its own; 0 for no test.
        control: "permuted" (other units' images), "captions" (random captions), or both: controls of the test.
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        cache_dir: The folder for what was probed and embedded; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Attributes:
        encoder_: The encoder.
        settings_: The settings.
        vlm_: The image-text model.
        captions_: The caption store.
        spaces_: What was probed, by space.
        context_: What all descriptions share.

    Example:
        >>> falcon = encoscope.Falcon("zoo:resnet-caltech101").fit("photos/")  # doctest: +SKIP
        >>> falcon.describe(["features:31", "class:panda"]).save("descriptions")  # doctest: +SKIP

    Source: FALCON (Kalibhat and others, ICML 2023).
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str = DEFAULT_MODEL,
        *,
        vlm: VLM | str | None = None,
        captions: CaptionStore | str | os.PathLike[str] | None = None,
        preset: str | None = None,
        mode: str | None = None,
        alpha_stds: float | None = None,
        alpha: float | None = None,
        epsilon: float | None = None,
        beta: float | None = None,
        n_counterfactuals: int | None = None,
        min_images: int | None = None,
        top_k_if_empty: int | None = None,
        max_images: int | None = None,
        mask_threshold: float | None = None,
        captions_per_crop: int | None = None,
        n_concepts: int | None = None,
        score: str | None = None,
        contrast: bool | None = None,
        spurious_threshold: float | None = None,
        random_sets: int | None = None,
        spurious_quantile: float | None = None,
        fallback: str | None = None,
        rank: str | None = None,
        clarity_threshold: float | None = None,
        holdout: Any = HOLDOUT,
        control: str | Sequence[str] = CONTROLS,
        random_state: int = FalconSettings.random_state,
        batch_size: int = BATCH_SIZE,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.vlm = vlm
        self.captions = captions
        self.preset = preset
        self.mode = mode
        self.alpha_stds = alpha_stds
        self.alpha = alpha
        self.epsilon = epsilon
        self.beta = beta
        self.n_counterfactuals = n_counterfactuals
        self.min_images = min_images
        self.top_k_if_empty = top_k_if_empty
        self.max_images = max_images
        self.mask_threshold = mask_threshold
        self.captions_per_crop = captions_per_crop
        self.n_concepts = n_concepts
        self.score = score
        self.contrast = contrast
        self.spurious_threshold = spurious_threshold
        self.random_sets = random_sets
        self.spurious_quantile = spurious_quantile
        self.fallback = fallback
        self.rank = rank
        self.clarity_threshold = clarity_threshold
        self.holdout = holdout
        self.control = control
        self.random_state = random_state
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Any, y: None = None) -> Falcon:
        """Take a probing set. It is probed when a unit needs it.

        Args:
            X: A dataset string, a folder, a list of files, a Probe, or a list of Probes of several layers.
            y: Not used; it is there as in all of scikit-learn's estimators.

        Returns:
            The estimator itself.

        Raises:
            UsageError: For settings that cannot be.
            MissingError: For captions or a model that are not there.
            EncoscopeError: For captions of another model.
        """
        settings = {name: getattr(self, name) for name in FalconSettings.infos()}
        self.settings_ = FalconSettings.from_preset(settings.pop("preset"), **settings)
        self.controls_ = [self.control] if isinstance(self.control, str) else list(self.control)
        unknown = next((name for name in self.controls_ if name not in CONTROLS), None)
        if unknown is not None:
            raise UsageError(f"control is {' or '.join(CONTROLS)}, not {unknown!r}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size is the number of images at a time, at least 1, not {self.batch_size}")
        self.encoder_ = as_encoder(self.encoder)
        self.vlm_, self.captions_ = match_captions(
            self.vlm, self.captions, cache_dir=self.cache_dir, progress=self.progress
        )
        self.probe_ = X
        self.spaces_: dict[str, Space] = {}
        self.context_ = DescriptionContext(
            encoder=self.encoder_,
            vlm=self.vlm_,
            store=self.captions_,
            embedder=ImageEmbedder(
                self.encoder_,
                self.vlm_,
                mask_threshold=self.settings_.mask_threshold,
                cache_dir=None if self.cache_dir is None else Path(self.cache_dir),
                progress=self.progress,
            ),
            settings=self.settings_,
            texts=TextVectors(self.vlm_),
            batch_size=self.batch_size,
            holdout=_name_holdout(self.holdout),
            progress=self.progress,
        )
        return self

    @property
    def skipped_(self) -> list[SkippedImage]:
        """Images of the probing set that could not be read."""
        self._check_fitted()
        return list(dict.fromkeys(image for space in self.spaces_.values() for image in space.skipped))

    def find_space(self, unit: Unit) -> Space:
        """Find the space of a unit on the probing set; it is probed when it is first needed.

        Args:
            unit: The unit.

        Returns:
            Its space, with the representations of all images and the thresholds.

        Raises:
            UsageError: For a probe of another layer or model.
            EncoscopeError: For too few images.
        """
        self._check_fitted()
        name = unit.space
        if name not in self.spaces_:
            self.spaces_[name] = build_space(
                self.encoder_,
                name,
                self.probe_,
                self.holdout,
                self.settings_,
                progress=self.progress,
                cache_dir=self.cache_dir,
            )
        return self.spaces_[name]

    @overload
    def describe(self, units: Literal["all"]) -> Descriptions: ...  # pyright: ignore[reportOverlappingOverload]
    @overload
    def describe(self, units: str | Unit) -> Description: ...
    @overload
    def describe(self, units: Sequence[str | Unit]) -> Descriptions: ...
    def describe(self, units: str | Unit | Sequence[str | Unit]) -> Description | Descriptions:
        """Describe one unit or several. The captions are searched once for all, and each image is decoded once.

        Args:
            units: A text such as "features:31", a Unit, a list of these, "all" (every feature), or LAYER:all.

        Returns:
            A Description for one unit; Descriptions for a list, "all" and LAYER:all (write ["layer3:all"] where types
            are checked).

        Raises:
            UsageError: For wrong units, and a probe of another layer or model.
            EncoscopeError: For too few images, and for images that have changed since they were probed.
        """
        self._check_fitted()
        parsed, single = parse_units(units, self.encoder_)
        spaces = {unit.space: self.find_space(unit) for unit in parsed}
        descriptions = describe_units(parsed, spaces, self.context_, self.controls_)
        return descriptions[0] if single else descriptions

    def find_groups(
        self,
        layer: str = FEATURES,
        *,
        mode: str | None = None,
        more_than: int | None = None,
        largest: int | None = None,
        embed: bool = True,
    ) -> DescribedGroups:
        """Find the groups of features, channels or classes that are highly activated together.

        Args:
            layer: "features", "class", or a layer's name.
            mode: "threshold" or "exact", as in `encoscope.falcon.find_groups`; None is that of the settings.
            more_than: A group is shared by more images than this.
            largest: The most members of a group in mode "threshold".
            embed: Embed the groups' crops, to find out which groups are interpretable.

        Returns:
            The groups, those of most images first. Each has a name that `describe` takes.

        Raises:
            UsageError: For an unknown layer or mode, and numbers that cannot be.
        """
        self._check_fitted()
        first = parse_units(f"{layer}:all", self.encoder_)[0][0]
        space = self.find_space(first)
        images = space.fit
        settings = GroupSettings.from_preset(more_than=more_than, largest=largest)
        mode = mode or self.settings_.mode
        groups = find_groups(images.h, space.thresholds.alpha, mode=mode, **settings.as_dict())
        units = [make_group_unit(first, group.members) for group in groups]
        ids = [[images.ids[row] for row in group.images] for group in groups]
        embedder = self.context_.embedder
        if embed:
            pairs = [(unit, image) for unit, members in zip(units, ids, strict=True) for image in members]
            paths = dict(zip(images.ids, images.paths, strict=True))
            embedder.embed(pairs, paths=paths, batch_size=self.batch_size)
        described = []
        for group, unit, members in zip(groups, units, ids, strict=True):
            vectors = embedder.get_crop_vectors(unit, members) if embed else np.zeros((0, 1), np.float32)
            clarity = metrics.clarity(vectors) if len(vectors) > 1 else None
            described.append(
                DescribedGroup(
                    unit=unit.text,
                    members=group.members,
                    images=tuple(members),
                    clarity=clarity,
                    interpretable=clarity is not None and clarity > self.settings_.clarity_threshold,
                )
            )
        return DescribedGroups(
            tuple(described),
            record_model(self.encoder_, [layer]),
            self.settings_.as_dict() | settings.as_dict() | {"mode": mode},
            self.settings_.random_state,
            tuple(self.skipped_),
        )


@overload
def describe(  # pyright: ignore[reportOverlappingOverload]
    encoder: Encoder | nn.Module | str,
    units: Literal["all"],
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    epsilon: float | None = None,
    beta: float | None = None,
    n_counterfactuals: int | None = None,
    min_images: int | None = None,
    top_k_if_empty: int | None = None,
    max_images: int | None = None,
    mask_threshold: float | None = None,
    captions_per_crop: int | None = None,
    n_concepts: int | None = None,
    score: str | None = None,
    contrast: bool | None = None,
    spurious_threshold: float | None = None,
    random_sets: int | None = None,
    spurious_quantile: float | None = None,
    fallback: str | None = None,
    rank: str | None = None,
    clarity_threshold: float | None = None,
    holdout: Any = HOLDOUT,
    control: str | Sequence[str] = CONTROLS,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Descriptions: ...
@overload
def describe(
    encoder: Encoder | nn.Module | str,
    units: str | Unit,
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    epsilon: float | None = None,
    beta: float | None = None,
    n_counterfactuals: int | None = None,
    min_images: int | None = None,
    top_k_if_empty: int | None = None,
    max_images: int | None = None,
    mask_threshold: float | None = None,
    captions_per_crop: int | None = None,
    n_concepts: int | None = None,
    score: str | None = None,
    contrast: bool | None = None,
    spurious_threshold: float | None = None,
    random_sets: int | None = None,
    spurious_quantile: float | None = None,
    fallback: str | None = None,
    rank: str | None = None,
    clarity_threshold: float | None = None,
    holdout: Any = HOLDOUT,
    control: str | Sequence[str] = CONTROLS,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Description: ...
@overload
def describe(
    encoder: Encoder | nn.Module | str,
    units: Sequence[str | Unit],
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    epsilon: float | None = None,
    beta: float | None = None,
    n_counterfactuals: int | None = None,
    min_images: int | None = None,
    top_k_if_empty: int | None = None,
    max_images: int | None = None,
    mask_threshold: float | None = None,
    captions_per_crop: int | None = None,
    n_concepts: int | None = None,
    score: str | None = None,
    contrast: bool | None = None,
    spurious_threshold: float | None = None,
    random_sets: int | None = None,
    spurious_quantile: float | None = None,
    fallback: str | None = None,
    rank: str | None = None,
    clarity_threshold: float | None = None,
    holdout: Any = HOLDOUT,
    control: str | Sequence[str] = CONTROLS,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Descriptions: ...
@explain_calls
def describe(
    encoder: Encoder | nn.Module | str,
    units: str | Unit | Sequence[str | Unit],
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    epsilon: float | None = None,
    beta: float | None = None,
    n_counterfactuals: int | None = None,
    min_images: int | None = None,
    top_k_if_empty: int | None = None,
    max_images: int | None = None,
    mask_threshold: float | None = None,
    captions_per_crop: int | None = None,
    n_concepts: int | None = None,
    score: str | None = None,
    contrast: bool | None = None,
    spurious_threshold: float | None = None,
    random_sets: int | None = None,
    spurious_quantile: float | None = None,
    fallback: str | None = None,
    rank: str | None = None,
    clarity_threshold: float | None = None,
    holdout: Any = HOLDOUT,
    control: str | Sequence[str] = CONTROLS,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **unknown: Any,
) -> Description | Descriptions:
    """Say in words what units of an encoder stand for (FALCON).

    `FalconSettings` says what each setting means and what its default is; None leaves the preset's own value.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50".
        units: A text such as "features:31", "class:panda" or "layer3:5,9", a Unit, a list of these, "all" (every
            feature), or LAYER:all.
        probe: The images to look at: a dataset string, a folder, a list of files, a Probe, or Probes of several layers.
        captions: A caption store or its folder; None takes the vocabulary that ships with the package.
        vlm: An image-text model or its name; None takes the one that the captions were embedded with.
        preset: "default", "paper" or "authors"; None is "default".
        mode: "threshold" or "exact": how images are selected.
        alpha_stds: Alpha is the mean plus this many standard deviations.
        alpha: The threshold itself, in place of ``alpha_stds``.
        epsilon: An image below it is lowly activating.
        beta: The least similarity of a counterfactual, in [-1, 1].
        n_counterfactuals: The most counterfactuals of a unit.
        min_images: The images that have to pass alpha.
        top_k_if_empty: The number of strongest images that are used where too few pass alpha; 0 for none.
        max_images: The most images of a unit, strongest first.
        mask_threshold: The share of a GradCAM's range from which on it is cropped, in (0, 1].
        captions_per_crop: The best captions of a crop that words are taken from.
        n_concepts: The words, phrases and images that are kept.
        score: "cosine" or "softmax".
        contrast: Drop the words that counterfactuals share.
        spurious_threshold: The score from which a word of the counterfactuals is dropped.
        random_sets: Random sets of images that the threshold is calibrated on.
        spurious_quantile: The quantile of a word's scores over those sets that is its threshold, in (0, 1).
        fallback: "dissect" or "none": what labels units that FALCON finds no word for.
        rank: "score" or "specific": the order of words.
        clarity_threshold: The mean cosine of crops above which a unit counts as interpretable.
        holdout: The share of the probe that is kept to test descriptions, or a dataset of its own; 0 for no test.
        control: "permuted" (other units' images), "captions" (random captions), or both: controls of the test.
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        cache_dir: The folder for what is probed and embedded; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        A Description for one unit; Descriptions for a list, "all" and LAYER:all.

    Raises:
        UsageError: For wrong units and settings, and a probe of another layer or model.
        MissingError: For data, captions or weights that are not there.
        EncoscopeError: For captions of another model, and for too few images.

    Example:
        >>> desc = encoscope.describe("zoo:resnet-caltech101", "features:31", probe="photos/")  # doctest: +SKIP
        >>> [(concept.word, concept.score) for concept in desc.concepts]  # doctest: +SKIP

    Source: FALCON, section 3.
    """
    refuse_unknown("describe", unknown, [*FalconSettings.infos(), *_SHARED])
    falcon = Falcon(
        encoder,
        vlm=vlm,
        captions=captions,
        preset=preset,
        mode=mode,
        alpha_stds=alpha_stds,
        alpha=alpha,
        epsilon=epsilon,
        beta=beta,
        n_counterfactuals=n_counterfactuals,
        min_images=min_images,
        top_k_if_empty=top_k_if_empty,
        max_images=max_images,
        mask_threshold=mask_threshold,
        captions_per_crop=captions_per_crop,
        n_concepts=n_concepts,
        score=score,
        contrast=contrast,
        spurious_threshold=spurious_threshold,
        random_sets=random_sets,
        spurious_quantile=spurious_quantile,
        fallback=fallback,
        rank=rank,
        clarity_threshold=clarity_threshold,
        holdout=holdout,
        control=control,
        random_state=random_state,
        batch_size=batch_size,
        cache_dir=cache_dir,
        progress=progress,
    )
    return falcon.fit(probe).describe(units)


@explain_calls
def groups(
    encoder: Encoder | nn.Module | str,
    layer: str = FEATURES,
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    mask_threshold: float | None = None,
    clarity_threshold: float | None = None,
    more_than: int | None = None,
    largest: int | None = None,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **unknown: Any,
) -> DescribedGroups:
    """Find the groups of features that many images highly activate together, and which of them are interpretable.

    Args:
        encoder: An encoder, a module, or a source string.
        layer: "features", "class", or a layer's name.
        probe: The images to look at, as in `describe`.
        captions: A caption store or its folder, which names the image-text model; None takes the package's own.
        vlm: An image-text model or its name; None takes the captions' own.
        preset: "default", "paper" or "authors"; None is "default".
        mode: "threshold" (all members pass alpha) or "exact" (the images with exactly this set); None is the preset's.
        alpha_stds: Alpha is the mean plus this many standard deviations.
        alpha: The threshold itself, in place of ``alpha_stds``.
        mask_threshold: The share of a GradCAM's range from which on it is cropped, in (0, 1].
        clarity_threshold: The mean cosine of crops above which a group counts as interpretable.
        more_than: A group is shared by more images than this.
        largest: The most members of a group in mode "threshold".
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        cache_dir: The folder for what is probed and embedded; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The groups, those of most images first. Give a group's ``unit`` to `describe` to have it in words.

    Raises:
        UsageError: For an unknown layer, wrong settings, and a probe of another layer or model.
        MissingError: For data, captions or weights that are not there.
        EncoscopeError: For captions of another model, and for too few images.

    Example:
        >>> groups = encoscope.groups("zoo:resnet-caltech101", probe="photos/")  # doctest: +SKIP

    Source: FALCON, section 3.4, and the authors' code.
    """
    known = ("layer", "preset", "mode", "alpha_stds", "alpha", "mask_threshold", "clarity_threshold")
    refuse_unknown("groups", unknown, [*known, "more_than", "largest", "random_state", *_SHARED])
    GroupSettings.from_preset(more_than=more_than, largest=largest)  # before the network is loaded
    falcon = Falcon(
        encoder,
        vlm=vlm,
        captions=captions,
        preset=preset,
        mode=mode,
        alpha_stds=alpha_stds,
        alpha=alpha,
        mask_threshold=mask_threshold,
        clarity_threshold=clarity_threshold,
        holdout=0,
        random_state=random_state,
        batch_size=batch_size,
        cache_dir=cache_dir,
        progress=progress,
    )
    return falcon.fit(probe).find_groups(layer, more_than=more_than, largest=largest)


def _name_holdout(holdout: Any) -> float | str:
    """How a result states what is held out."""
    if holdout is None or isinstance(holdout, int | float):
        return float(holdout or 0)
    return os.fspath(holdout) if isinstance(holdout, str | os.PathLike) else type(holdout).__name__
