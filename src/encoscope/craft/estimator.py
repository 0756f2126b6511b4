"""CRAFT (Fel et al. 2023): the concepts a network makes up a class of, from its images' patches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.craft.bank import ConceptBank
from encoscope.craft.factorization import check_non_negative, compute_relative_error, factorize
from encoscope.craft.importance import compute_importances
from encoscope.craft.references import find_class_files
from encoscope.craft.settings import CraftSettings
from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder, as_encoder
from encoscope.encoder.capture import draw_random_pixels
from encoscope.errors import EncoscopeError, UsageError
from encoscope.estimator import Estimator
from encoscope.images import Channels, LoadedImage, SkippedImage, read_images
from encoscope.probing import Patch, compute_patch_values
from encoscope.progress import Progress, track
from encoscope.results import record_model
from encoscope.settings import refuse_unknown
from encoscope.store.passes import Mean, Shard, run_pass
from encoscope.units import Unit, parse_unit


class Craft(Estimator):
    """The concepts of a class: directions in a layer, their importance, and the patches that show each.

    Patches' activations, averaged over space, are factorized (section 3.1); importances are measured on whole images
    (section 3.3). `CraftSettings` says what each setting means and what its default is; None leaves the preset's own.

    Args:
        encoder: The frozen network: an encoder, a module or a source string.
        unit: The class, ``class:NAME`` or ``class:INDEX``.
        preset: "default", "paper" or "authors"; the three are the same.
        n_concepts: How many concepts.
        layer: A layer without negative activations.
        n_images: Images of the class at most.
        patch_size: The side of the patches in pixels.
        n_samples: Masks for the importances, a power of two.
        n_crops: Patches shown for each concept.
        random_state: The seed of everything random.
        batch_size: Patches at a time; it does not change the result.
        cache_dir: The folder for the ids of files; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Attributes:
        bank_: The concepts, a ConceptBank.

    Example:
        >>> craft = Craft("zoo:resnet-caltech101", "class:sunflower").fit("images/")  # doctest: +SKIP
        >>> craft.bank_.importances  # doctest: +SKIP

    Source: CRAFT (Fel et al. 2023).
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str,
        unit: Unit | str,
        *,
        preset: str | None = None,
        n_concepts: int | None = None,
        layer: str | None = None,
        n_images: int | None = None,
        patch_size: int | None = None,
        n_samples: int | None = None,
        n_crops: int | None = None,
        random_state: int = CraftSettings.random_state,
        batch_size: int = BATCH_SIZE,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.unit = unit
        self.preset = preset
        self.n_concepts = n_concepts
        self.layer = layer
        self.n_images = n_images
        self.patch_size = patch_size
        self.n_samples = n_samples
        self.n_crops = n_crops
        self.random_state = random_state
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Any, y: None = None) -> Craft:
        """Find the concepts in images of the class.

        Args:
            X: A dataset string, a folder or files; of its labels those of the class count, without labels all.
            y: Not used; it is there as in all of scikit-learn's estimators.

        Returns:
            Itself, fitted.

        Raises:
            UsageError: For a unit that is no class, a layer with negative activations, and settings that cannot be.
            MissingError: When there is no image of the class.
            EncoscopeError: When there are fewer patches than concepts, or no image can be read.
        """
        names = [name for name in CraftSettings.infos() if name != "preset"]
        settings = CraftSettings.from_preset(self.preset, **{name: getattr(self, name) for name in names})
        if self.batch_size < 1:
            raise UsageError(f"batch_size is a number from 1 on, not {self.batch_size}")
        encoder = as_encoder(self.encoder)
        unit = parse_unit(self.unit, encoder)
        if not unit.is_class:
            raise UsageError(f"concepts are those of a class, such as class:0, not of {unit.text}")
        self.bank_ = _find_concepts(encoder, unit, X, settings, self.batch_size, self.cache_dir, self.progress)
        return self


def find_concepts(
    encoder: Encoder | nn.Module | str,
    unit: Unit | str,
    references: Any,
    *,
    preset: str | None = None,
    n_concepts: int | None = None,
    layer: str | None = None,
    n_images: int | None = None,
    patch_size: int | None = None,
    n_samples: int | None = None,
    n_crops: int | None = None,
    random_state: int = CraftSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    **unknown: Any,
) -> ConceptBank:
    """Find the concepts of a class, without visualizations; `Craft` says what each argument means.

    Args:
        encoder: An encoder, a module, or a source string.
        unit: The class, ``class:NAME`` or ``class:INDEX``.
        references: A dataset string, a folder or files.
        preset: The preset.
        n_concepts: How many concepts.
        layer: A layer without negative activations.
        n_images: Images of the class at most.
        patch_size: The side of the patches in pixels.
        n_samples: Masks for the importances, a power of two.
        n_crops: Patches shown for each concept.
        random_state: The seed of everything random.
        batch_size: Patches at a time.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The concepts, the most important first.

    Raises:
        UsageError: For a unit that is no class, a layer with negative activations, and settings that cannot be.
        MissingError: When there is no image of the class.
        EncoscopeError: When there are fewer patches than concepts, or no image can be read.

    Source: CRAFT (Fel et al. 2023).
    """
    refuse_unknown("concepts", unknown, [*CraftSettings.infos(), "batch_size", "progress"])
    craft = Craft(
        encoder,
        unit,
        preset=preset,
        n_concepts=n_concepts,
        layer=layer,
        n_images=n_images,
        patch_size=patch_size,
        n_samples=n_samples,
        n_crops=n_crops,
        random_state=random_state,
        batch_size=batch_size,
        progress=progress,
    )
    return craft.fit(references).bank_


def _find_concepts(
    encoder: Encoder,
    unit: Unit,
    references: Any,
    settings: CraftSettings,
    batch_size: int,
    cache_dir: str | os.PathLike[str] | None,
    progress: Progress,
) -> ConceptBank:
    name = encoder.layer(settings.layer).name if settings.layer is not None else _choose_layer(encoder)
    side = settings.patch_size or min(64, min(encoder.preprocess.size) // 2)
    if side < 2:
        raise UsageError(f"patch_size is a number of pixels from 2 on, not {side}")
    seed, number = settings.random_state, settings.n_concepts
    files, notes = find_class_files(references, encoder, unit, settings.n_images, seed, cache_dir=cache_dir)
    names = [str(path) for path in files]

    def read_maps(pixels: Tensor) -> Float[Tensor, "patches channels"]:
        maps = encoder.activations(pixels, name)[name].maps
        check_non_negative(maps.cpu().numpy(), name)
        return maps.mean((2, 3))

    patches: list[Patch] = []
    rows: list[np.ndarray] = []
    for batch, values in compute_patch_values(
        encoder, names, read_maps, side=side, stride=int(0.8 * side), batch_size=batch_size, progress=progress
    ):
        patches += batch
        rows.append(values)
    activations = np.concatenate(rows)
    shares, directions = factorize(activations, number, seed)
    directions = directions.astype(np.float32)  # as they are stored
    kept = list(dict.fromkeys(patch.id for patch in patches))

    skipped: list[SkippedImage] = []

    def source(shard: Shard) -> Iterator[tuple[np.ndarray, int]]:
        """The importances of the images of a shard, summed up over a batch."""
        for batch in _prepare_batches(encoder, list(shard.select(names)), batch_size, skipped, progress):
            importances = compute_importances(
                encoder,
                batch,
                name,
                directions,
                unit.index,
                samples=settings.n_samples,
                random_state=seed,
                batch=batch_size,
            )
            yield importances.sum(0), len(importances)

    mean = run_pass(source, Mean())
    if not mean.count:
        raise EncoscopeError(f"no image of {unit.text} could be read")
    weights = mean.finalize()
    order = np.lexsort((np.arange(number), -weights))
    return ConceptBank(
        unit=unit.text,
        layer=name,
        directions=directions[order],
        importances=weights[order],
        crops=tuple(_top(patches, shares[:, concept], settings.n_crops) for concept in order),
        error=compute_relative_error(activations, shares, directions),
        images=tuple(kept),
        model=record_model(encoder, [name], trial=[name]),
        settings=_record(settings, side),
        seed=seed,
        notes=notes,
        skipped=tuple(skipped),
    )


def _choose_layer(encoder: Encoder) -> str:
    """The last of the layers at the network's depths without negative values; the last of all if each has some.

    One image of noise tells: the output of a ReLU is never negative, and that of any other step soon is.
    """
    depths, own = encoder.depths, encoder.preprocess
    noise = draw_random_pixels(1, own.channels, own.size, next(encoder.module.parameters(), None))
    lowest = {name: float(seen.maps.min()) for name, seen in encoder.activations(noise, depths).items()}
    return next((name for name in reversed(depths) if lowest[name] >= 0), depths[-1])


def _prepare_batches(
    encoder: Encoder, names: list[str], batch_size: int, skipped: list[SkippedImage], progress: Progress
) -> Iterator[Tensor]:
    """The images of files as the network takes them; what could not be read is added to ``skipped``."""
    waiting: list[Tensor] = []
    for item in track(_read_once(names, encoder.preprocess.image_channels), len(names), "importance", progress):
        if isinstance(item, SkippedImage):
            skipped.append(item)
        else:
            waiting.append(encoder.prepare(item).pixels)
        if len(waiting) == batch_size:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def _read_once(names: list[str], channels: Channels) -> Any:
    """The images of files, each content once, and what could not be read."""
    seen: set[str] = set()
    for item in read_images(names, channels=channels):
        if isinstance(item, LoadedImage):
            if item.id in seen:
                continue
            seen.add(item.id)
        yield item


def _record(settings: CraftSettings, patch_size: int) -> dict[str, Any]:
    """The settings for a result document; layer and seed have their own places in it."""
    plain = settings.as_dict() | {"patch_size": patch_size}
    return {name: value for name, value in plain.items() if name not in ("layer", "random_state")}


def _top(patches: list[Patch], shares: np.ndarray, count: int) -> tuple[Patch, ...]:
    """The patches that hold most of a concept, one of an image; ties by id, then by position."""
    best: dict[str, Patch] = {}
    for index in sorted(range(len(patches)), key=lambda index: (-shares[index], patches[index].id, index)):
        patch = patches[index]
        if len(best) == count or shares[index] <= 0:
            break
        best.setdefault(patch.id, replace(patch, score=float(shares[index])))
    return tuple(best.values())
