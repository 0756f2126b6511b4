"""``zoo:NAME``: the networks that ship with the package, or have their weights in a package of their own."""

from __future__ import annotations

from torch import nn

from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.sources import openclip, timm
from encoscope.encoder.sources.base import LoadedModel, SourceRequest
from encoscope.errors import EncoscopeError
from encoscope.images import Preprocess
from encoscope.zoo import registry
from encoscope.zoo.packages import match_in_order


def build_model(request: SourceRequest) -> LoadedModel:
    """Build a network of the zoo.

    Args:
        request: The network; its name is one of the registry's.

    Returns:
        The network with its preprocessing and class names.

    Raises:
        UsageError: For an unknown name.
        MissingError: If the file of weights is missing.
        EncoscopeError: For weights that are damaged or do not fit.
    """
    entry = registry.find_entry(request.name)

    def build_network(classes: int | None = None, channels: int | None = None) -> nn.Module:
        if entry.library == "open_clip":
            folder = registry.verify_weights(entry).parent
            return openclip.create_open_clip(f"local-dir:{folder}", random_state=request.random_state).visual
        arguments = {**entry.kwargs, **({} if classes is None else {"num_classes": classes})}
        return timm.create_network(
            entry.architecture, random_state=request.random_state, in_chans=channels, **arguments
        )

    module = build_network() if request.checkpoint is None else load_checkpoint(request, build_network)
    if request.pretrained:
        state = registry.load_weights(entry)
        if entry.library == "open_clip":
            state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        if entry.package is not None:
            state = match_in_order(state, module.state_dict())
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:200]
            raise EncoscopeError(f"zoo:{request.name}'s weights do not fit its architecture: {detail}") from error
    classes = entry.classes if request.pretrained and entry.library == "timm" else None
    return LoadedModel(module, Preprocess(**entry.preprocess), classes or None, classifier=entry.library == "timm")
