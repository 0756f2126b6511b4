"""FALCON as an estimator and as one call: fitted on a probing set, then asked for units."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from encoscope import metrics
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.falcon.captions.build import load_default_captions
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.context import DescriptionContext
from encoscope.falcon.crops import ImageEmbedder
from encoscope.falcon.description import Description, Descriptions
from encoscope.falcon.evaluation import CONTROLS
from encoscope.falcon.groups import DescribedGroup, find_groups
from encoscope.falcon.heldout import TextVectors
from encoscope.falcon.pipeline import describe_units
from encoscope.falcon.settings import FalconSettings, Mode
from encoscope.falcon.spaces import Space, build_space, parse_units
from encoscope.progress import Progress
from encoscope.units import Unit
from encoscope.vlm import VLM
from encoscope.vlm import load as load_vlm


class Falcon:
    """Concepts for an encoder's features, channels, groups, directions and classes (FALCON, ICML 2023).

    vlm: an image-text model or its name; by default the captions' own. captions: a store or its folder; by default the
    zoo's vocabulary. preset: "paper" or "authors"; any field of ``Settings`` may be given beside it. holdout: share of
    the probing set kept to test descriptions, or a dataset of its own; 0 for no test. control: "permuted", "captions",
    or both: figures without the unit's own images, or without its own captions. cache: the folder for stores.

    After ``fit``: settings_, captions_, vlm_, and spaces_, what was probed, by space.
    """

    def __init__(
        self,
        encoder: Encoder,
        vlm: VLM | str | None = None,
        captions: CaptionStore | str | os.PathLike[str] | None = None,
        *,
        preset: str = "paper",
        holdout: Any = 0.2,
        control: str | Sequence[str] = (),
        cache: str | os.PathLike[str] | None = None,
        progress: Progress = None,
        **settings: Any,
    ) -> None:
        self.encoder = encoder
        self.vlm = vlm
        self.captions = captions
        self.preset = preset
        self.holdout = holdout
        self.control = control
        self.cache = cache
        self.progress = progress
        self.settings = settings

    def fit(self, probe: Any) -> Falcon:
        """Take a probing set: a dataset (probed when a unit needs it), a Probe, or several of different layers.

        Raises UsageError for settings that cannot be, MissingError for captions or a model that are not there, and
        EncoscopeError for captions of another model.
        """
        self.settings_ = FalconSettings.of(self.preset, **self.settings)
        wanted = [self.control] if isinstance(self.control, str) else list(self.control)
        unknown = next((name for name in wanted if name not in CONTROLS), None)
        if unknown is not None:
            raise UsageError(f"control is {' or '.join(CONTROLS)}, not {unknown!r}")
        self.controls_ = wanted
        self.vlm_, self.captions_ = _matching(self.vlm, self.captions, self.progress)
        cache = None if self.cache is None else Path(self.cache)
        self.probe_ = probe
        self.spaces_: dict[str, Space] = {}
        self.context_ = DescriptionContext(
            encoder=self.encoder,
            vlm=self.vlm_,
            store=self.captions_,
            embedder=ImageEmbedder(
                self.encoder, self.vlm_, share=self.settings_.mask, cache=cache, progress=self.progress
            ),
            settings=self.settings_,
            texts=TextVectors(self.vlm_),
            holdout=_named(self.holdout),
            progress=self.progress,
        )
        return self

    def space(self, unit: Unit) -> Space:
        """What the unit's space looks like on the probing set; probed when first asked for."""
        self._check()
        name = unit.space
        if name not in self.spaces_:
            self.spaces_[name] = build_space(
                self.encoder,
                name,
                self.probe_,
                self.holdout,
                self.settings_,
                progress=self.progress,
                cache=self.cache,
            )
        return self.spaces_[name]

    def describe(self, units: Any) -> Description | Descriptions:
        """One unit's description, or several units': texts, Units, a list of them, "all" features, LAYER:all.

        Captions are scanned once for all units together, and each image is decoded and passed once.
        """
        self._check()
        wanted, single = parse_units(units, self.encoder)
        spaces = {unit.space: self.space(unit) for unit in wanted}
        found = describe_units(wanted, spaces, self.context_, self.controls_)
        return found[0] if single else found

    def groups(
        self,
        place: str = "features",
        mode: Mode | str | None = None,
        *,
        more_than: int = 10,
        largest: int = 4,
        embed: bool = True,
    ) -> list[DescribedGroup]:
        """The groups of features (or of a layer's channels, or classes) that are highly activated together.

        mode: the settings' own by default; see `find_groups`. embed: find out which are interpretable, by the mean
        pairwise cosine of their crops.
        """
        self._check()
        mode = mode or self.settings_.mode
        unit = parse_units(f"{place}:all", self.encoder)[0][0]
        found = self.space(unit)
        groups = find_groups(found.fit.h, found.thresholds.alpha, mode=mode, more_than=more_than, largest=largest)
        units = [group_unit(unit, group.members) for group in groups]
        images = [[found.fit.ids[row] for row in group.images] for group in groups]
        if embed:
            pairs = [(member, image) for member, ids in zip(units, images, strict=True) for image in ids]
            paths = dict(zip(found.fit.ids, found.fit.paths, strict=True))
            self.context_.embedder.embed(pairs, paths=paths)
        result = []
        for group, member, ids in zip(groups, units, images, strict=True):
            vectors = self.context_.embedder.get_crop_vectors(member, ids) if embed else np.zeros((0, 1), np.float32)
            clarity = metrics.clarity(vectors) if len(vectors) > 1 else None
            result.append(
                DescribedGroup(
                    unit=member.text,
                    members=group.members,
                    images=tuple(ids),
                    clarity=clarity,
                    interpretable=clarity is not None and clarity > self.settings_.clear,
                )
            )
        return result

    def _check(self) -> None:
        if not hasattr(self, "context_"):
            raise UsageError("this Falcon has no probing set yet: call fit with a dataset or a Probe")


def describe(
    encoder: Encoder,
    units: Any,
    *,
    probe: Any,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str = "paper",
    holdout: Any = 0.2,
    control: str | Sequence[str] = (),
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    **settings: Any,
) -> Description | Descriptions:
    """What units of an encoder stand for, in words (FALCON).

    units: such as "features:31", "class:panda", "layer3:5,9", a list of these, or "all" features. One gives a
        Description, several give Descriptions. probe: a dataset, or what ``probe`` made of one. The rest: see `Falcon`.

    Raises UsageError for wrong units and settings and for a probe of another layer or model; MissingError for data,
    captions or weights that are not there; EncoscopeError for captions of another model and for too few images.
    """
    falcon = Falcon(
        encoder,
        vlm,
        captions,
        preset=preset,
        holdout=holdout,
        control=control,
        cache=cache,
        progress=progress,
        **settings,
    )
    return falcon.fit(probe).describe(units)


def group_unit(one: Unit, members: Sequence[int]) -> Unit:
    """Several channels of a unit's space as one unit."""
    channels = tuple(int(member) for member in members)
    text = ",".join(map(str, channels))
    if one.kind == "features":
        return Unit(f"features:{text}", "features", channels=channels)
    if one.kind == "class":
        return replace(one, text=f"class:{text}", channels=channels)
    return Unit(f"{one.layer}:{text}", "channel" if len(channels) == 1 else "group", one.layer, channels)


def _named(holdout: Any) -> float | str:
    """How a result tells what was kept for the test."""
    if holdout is None or isinstance(holdout, int | float):
        return float(holdout or 0)
    return os.fspath(holdout) if isinstance(holdout, str | os.PathLike) else type(holdout).__name__


def _matching(
    vlm: VLM | str | None, captions: CaptionStore | str | os.PathLike[str] | None, progress: Progress
) -> tuple[VLM, CaptionStore]:
    """An image-text model and captions that fit each other, from what was given of them."""
    store = captions if captions is None or isinstance(captions, CaptionStore) else CaptionStore.load(captions)
    if store is None:
        model = load_vlm(vlm) if isinstance(vlm, str) else vlm
        store = load_default_captions(model, progress=progress)
        return model or load_vlm(store.vlm_source), store
    model = load_vlm(vlm or store.vlm_source) if vlm is None or isinstance(vlm, str) else vlm
    store.check(model)
    return model, store
