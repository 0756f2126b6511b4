"""From VITAL's targets and settings to what the synthesis loop is to do; and from one target to several pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.vital.features import FeatureReader
from encoscope.vital.objective import DistributionObjective
from encoscope.vital.references.patches import choose_patch_size
from encoscope.vital.scaling import choose_lr, choose_parametrization, choose_scale, require_colors
from encoscope.vital.settings import VitalSettings
from encoscope.vital.synthesis.loop import Images, Optimizer, Stage
from encoscope.vital.synthesis.parametrization import (
    Parametrization,
    Pixels,
    pixel_bounds,
    start_from_noise,
    start_pyramid,
)
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.synthesis.random import Generators
from encoscope.vital.synthesis.transforms import Beside, Chain, Roll, Transform, WholeOrPart
from encoscope.vital.target import Target
from encoscope.vital.terms import GramDiversity, KeepImage, ObjectiveTerm, choose_kept_layers

_JITTER = 30 / 224  # of the image's side


def plan_synthesis(
    encoder: Encoder,
    targets: Sequence[Target],
    settings: VitalSettings,
    reader: FeatureReader,
    start_image: Float[Tensor, "1 channels height width"] | None = None,
) -> SynthesisPlan:
    """Plan what the synthesis loop is to do for targets of one recipe and relevance.

    Args:
        encoder: The encoder.
        targets: The targets.
        settings: The settings.
        reader: How images are read for these targets.
        start_image: The normalized image to begin with; None begins with noise.

    Returns:
        The plan, with all settings that decide the result.
    """
    recipe, relevance = targets[0].recipe, targets[0].relevance
    size = settings.size or encoder.preprocess.size
    jitter = round(_JITTER * min(size)) if settings.jitter is None else settings.jitter
    view = settings.choose_view(encoder)
    scale, parametrization = choose_scale(recipe, settings), choose_parametrization(recipe, settings)
    lr = choose_lr(recipe, settings, encoder.preprocess)

    transform: Transform = Roll(jitter)
    if view == "crops":
        transform = Chain((transform, WholeOrPart(encoder.preprocess.size)))
    terms: list[ObjectiveTerm] = []
    if settings.diversity:
        terms.append(GramDiversity(recipe.layers[-1], settings.diversity))
    if start_image is not None:
        transform = Beside(transform, start_image)
        strengths = [target.strength or 1.0 for target in targets]
        terms.append(KeepImage(encoder, choose_kept_layers(recipe.layers), strengths))
    objective = DistributionObjective(
        reader,
        [target.unit for target in targets],
        [target.prototype for target in targets],
        recipe,
        matching=settings.matching,
        weighted=relevance is not None and settings.authors,
        relative=scale == "references",
        terms=terms,
        beside=start_image is not None,
    )

    def start(_: Images | None, generators: Generators) -> Parametrization:
        if parametrization == "pyramid":
            colors = [require_colors(target.prototype) for target in targets]
            return start_pyramid(encoder.preprocess, size, colors, generators, encoder.device, start_image)
        if start_image is not None:
            copies = start_image.to(encoder.device).expand(len(targets), *start_image.shape[1:])
            return Pixels(copies, *pixel_bounds(encoder.preprocess))
        return start_from_noise(encoder.preprocess, size, generators, encoder.device)

    record = {
        "method": "vital",
        **settings.as_dict(),
        "recipe": recipe.name,
        "parametrization": parametrization,
        "scale": scale,
        "lr": lr,
        "layers": list(recipe.layers),
        "weights": list(recipe.weights),
        "own_weight": recipe.own_weight,
        "tv_weight": recipe.tv_weight,
        "l2_weight": recipe.l2_weight,
        "relevance": "none" if relevance is None else relevance if isinstance(relevance, str) else "own",
        "size": list(size),
        "view": view,
        "jitter": jitter,
        "patch_size": choose_patch_size(encoder, settings.patch_size),
        "patch_geometry": settings.patch_geometry,
    }
    if start_image is not None:
        digest = hashlib.sha256(start_image.contiguous().numpy().tobytes()).hexdigest()
        record["start"] = {"image": record["start"], "sha256": digest}
    stage = Stage(start=start, steps=settings.steps, optimizer=Optimizer(lr), transform=transform)
    return SynthesisPlan((stage,), objective, record, together=bool(settings.diversity))


def prepare_start(encoder: Encoder, settings: VitalSettings) -> Float[Tensor, "1 channels height width"] | None:
    """Read the image that visualizations begin as.

    Args:
        encoder: The encoder.
        settings: The settings, with the image and the size.

    Returns:
        The normalized image; None where visualizations begin with noise.

    Raises:
        UsageError: For several images, and for a size that is not the image's once it is prepared.
        ImageError: For an image that cannot be read.
    """
    if settings.start is None:
        return None
    size = settings.size or encoder.preprocess.size
    if settings.size in (None, encoder.preprocess.size):
        pixels = encoder.prepare(settings.start).pixels
    else:
        pixels = encoder.prepare(settings.start, size=min(size)).pixels
    if len(pixels) != 1:
        raise UsageError(f"start is one image, not {len(pixels)}")
    if tuple(pixels.shape[2:]) != tuple(size):
        raise UsageError(f"start is prepared as {pixels.shape[2]} x {pixels.shape[3]} pixels: give this as size")
    return pixels.float().cpu()


def multiply_target(target: Target, settings: VitalSettings) -> list[Target]:
    """Make a target for each picture of a unit or facet: its variants, or one for each strength beside a photo.

    Args:
        target: The target.
        settings: The settings.

    Returns:
        The targets, whose names tell them apart; the target itself where one picture is made.
    """
    if settings.start is not None:
        return [
            replace(target, name=f"{target.name} strength {strength:g}", strength=strength)
            for strength in settings.strengths
        ]
    if settings.n_variants is None:
        return [target]
    count = settings.n_variants
    return [
        replace(target, name=f"{target.name} variant {number}", variant={"number": number, "of": count})
        for number in range(1, count + 1)
    ]
