"""``openclip:ARCH`` and ``openclip:ARCH/TAG``: the image tower of an open_clip model."""

from __future__ import annotations

from typing import Any

from encoscope._offline import explain_hub_error, hugging_face_access, missing_weights_error, quiet_libraries
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed, require_package, try_reading
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images.openclip import find_settings, needs_quick_gelu, read_settings


def build_model(request: SourceRequest) -> LoadedModel:
    """Build the image tower of an open_clip model.

    Args:
        request: The network; its name is ARCH or ARCH/TAG, ``local-dir:FOLDER`` or ``hf-hub:OWNER/REPO``.

    Returns:
        The tower with open_clip's own preprocessing. Its output is the image embedding, so it has no classes.

    Raises:
        UsageError: For an unknown architecture or tag, and if the tag is missing.
        MissingError: For weights that are not available, and if open_clip is not installed.
        EncoscopeError: For a checkpoint that does not fit.
    """
    with require_package("open_clip", "openclip:", "clip"):
        import open_clip
    located = request.name.startswith(("local-dir:", "hf-hub:"))
    architecture, _, tag = (request.name, "", "") if located else request.name.partition("/")
    if not located and architecture not in open_clip.list_models():
        raise UsageError(
            f"unknown open_clip model {architecture!r}{suggest_nearest(architecture, open_clip.list_models())}"
        )
    if "naflex" in architecture.lower():
        raise UsageError(
            f"openclip:{architecture} takes patches of images of any shape (NaFlex), which is not supported: use a "
            "model of a fixed size"
        )
    if not located:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if tag and tag not in tags:
            raise UsageError(
                f"open_clip model {architecture!r} has no weights {tag!r}; it has {', '.join(tags) or 'none'}"
            )
        if request.pretrained and not tag:
            if not tags:
                raise missing_weights_error(f"openclip:{architecture}", "open_clip has none for it")
            raise UsageError(
                f"openclip:{architecture} has several weights: add one, such as openclip:{architecture}/{tags[0]}"
            )

    with hugging_face_access():
        try:
            model = create_open_clip(
                architecture,
                random_state=request.random_state,
                tag=tag or None,
                weights=request.pretrained,
                quick_gelu=not located and needs_quick_gelu(architecture, tag),
            )
        except (OSError, RuntimeError) as error:
            raise missing_weights_error(f"openclip:{request.name}", explain_hub_error(error)) from error
    tower = model.visual
    settings = tower.preprocess_cfg
    if not located and not request.pretrained:
        settings = find_settings(architecture, tag, settings)
    if request.checkpoint is not None:
        tower = load_checkpoint(request, lambda classes=None, channels=None: tower)
    preprocess, problem = try_reading(lambda: read_settings(settings))
    assumed = None if located or tag or request.checkpoint is None else f"open_clip's settings for {architecture}"
    return LoadedModel(tower, preprocess, classifier=False, assumed=assumed, problem=problem)


def create_open_clip(
    architecture: str,
    *,
    random_state: int = RANDOM_STATE,
    tag: str | None = None,
    weights: bool = False,
    quick_gelu: bool = False,
) -> Any:
    """Build a whole open_clip model: the image tower and the text tower.

    Args:
        architecture: open_clip's name of the architecture, ``local-dir:FOLDER`` or ``hf-hub:OWNER/REPO``.
        random_state: Seed of random weights.
        tag: open_clip's name of the weights.
        weights: Load the weights; otherwise they are random.
        quick_gelu: Use QuickGELU whatever the architecture's own activation is.

    Returns:
        The model.
    """
    import open_clip

    with fixed_seed(random_state), quiet_libraries():
        return open_clip.create_model(
            architecture, pretrained=tag if weights else None, load_weights=weights, force_quick_gelu=quick_gelu
        )
