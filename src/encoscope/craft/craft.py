"""CRAFT (Fel et al. 2023): the concepts a network makes up a class of, from its images' patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.craft.bank import ConceptBank
from encoscope.craft.factorization import check_non_negative, compute_relative_error, factorize
from encoscope.craft.importance import compute_importances
from encoscope.craft.references import find_class_files
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.probing import Patch, compute_patch_values
from encoscope.progress import Progress, track
from encoscope.units import Unit, parse_unit


def find_concepts(
    encoder: Encoder,
    unit: Unit | str,
    references: Any,
    *,
    number: int = 5,
    layer: str | None = None,
    images: int = 100,
    patch: int | None = None,
    crops: int = 8,
    samples: int = 32,
    seed: int = 0,
    batch: int = 32,
    progress: Progress = None,
) -> ConceptBank:
    """The concepts of a class: directions in a layer, their importance, and the patches that show each.

    unit: ``class:NAME`` or ``class:INDEX``. references: a dataset string, a folder or files; of its labels those of the
    class count, without labels all. number: of concepts. layer: one without negative activations; left out, the last
    stage. images: at most so many of the class. patch: side in pixels on an image whose short side is the network's,
    every int(0.8 patch); left out, 64, or half of a smaller network's input. crops: patches shown a concept, one an
    image. samples: masks for the Sobol indices, a power of two (see ``importances``).

    Patches' activations, averaged over space, are factorised (section 3.1); importances are on whole images (3.3).

    Raises UsageError for units that are no class, layers with negative activations and wrong numbers; MissingError when
    there is no image of the class; EncoscopeError when there are fewer patches or concepts than asked for.
    """
    wanted = parse_unit(unit, encoder)
    if wanted.kind != "class":
        raise UsageError(f"concepts are those of a class, such as class:0, not of {wanted.text}")
    for name, given in (("images", images), ("crops", crops), ("batch", batch)):
        if given < 1:
            raise UsageError(f"{name} is a number from 1 on, not {given}")
    if samples < 2 or samples & (samples - 1):
        raise UsageError(f"samples is a power of two, from 2 on, not {samples}")
    where = encoder.layer(layer).name if layer is not None else encoder.depths[-1]
    side = min(64, min(encoder.preprocess.size) // 2) if patch is None else patch
    if side < 2:
        raise UsageError(f"patch is a number of pixels from 2 on, not {side}")
    files, notes = find_class_files(references, encoder, wanted, images, seed)
    names = [str(path) for path in files]

    def reading(pixels: Tensor) -> Float[Tensor, "patches channels"]:
        maps = encoder.activations(pixels, where)[where].maps
        check_non_negative(maps.cpu().numpy(), where)
        return maps.mean((2, 3))

    patches: list[Patch] = []
    rows: list[np.ndarray] = []
    for found, values in compute_patch_values(
        encoder, names, reading, side=side, stride=int(0.8 * side), batch_size=batch, progress=progress
    ):
        patches += found
        rows.append(values)
    activations = np.concatenate(rows)
    shares, directions = factorize(activations, number, seed)
    directions = directions.astype(np.float32)  # as they are stored
    kept = list(dict.fromkeys(patch.id for patch in patches))

    parts: list[np.ndarray] = []
    skipped: list[SkippedImage] = []
    waiting: list[Tensor] = []
    for item in track(_once(names), len(names), "importance", progress):
        if isinstance(item, SkippedImage):
            skipped.append(item)
        else:
            waiting.append(encoder.prepare(item).pixels)
        if len(waiting) == batch:
            parts.append(_importances(encoder, waiting, where, directions, wanted.index, samples, seed, batch))
            waiting = []
    if waiting:
        parts.append(_importances(encoder, waiting, where, directions, wanted.index, samples, seed, batch))
    if not parts:
        raise EncoscopeError(f"no image of {wanted.text} could be read")
    weights = np.concatenate(parts).mean(0)
    order = np.lexsort((np.arange(number), -weights))
    return ConceptBank(
        unit=wanted.text,
        layer=where,
        directions=directions[order],
        importances=weights[order],
        crops=tuple(_top(patches, shares[:, concept], crops) for concept in order),
        error=compute_relative_error(activations, shares, directions),
        images=tuple(kept),
        model={"source": encoder.source, "digest": encoder.digest, "layers": [where]},
        settings={"number": number, "patch": side, "samples": samples, "crops": crops, "of_images": images},
        seed=seed,
        notes=notes,
        skipped=tuple(skipped),
    )


def _once(names: list[str]) -> Any:
    """The photos of files, each content once, and what could not be read."""
    seen: set[str] = set()
    for item in read_images(names):
        if isinstance(item, LoadedImage):
            if item.id in seen:
                continue
            seen.add(item.id)
        yield item


def _importances(
    encoder: Encoder,
    pixels: list[Tensor],
    layer: str,
    directions: np.ndarray,
    index: int,
    samples: int,
    seed: int,
    batch: int,
) -> np.ndarray:
    together = torch.cat(pixels)
    return compute_importances(encoder, together, layer, directions, index, samples=samples, seed=seed, batch=batch)


def _top(patches: list[Patch], shares: np.ndarray, count: int) -> tuple[Patch, ...]:
    """The patches that hold most of a concept, one an image; ties by id, then by place."""
    best: dict[str, Patch] = {}
    for place in sorted(range(len(patches)), key=lambda place: (-shares[place], patches[place].id, place)):
        patch = patches[place]
        if len(best) == count or shares[place] <= 0:
            break
        best.setdefault(patch.id, replace(patch, score=float(shares[place])))
    return tuple(best.values())
