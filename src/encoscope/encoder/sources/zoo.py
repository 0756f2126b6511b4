"""``zoo:NAME``: the networks that ship with the package."""

from __future__ import annotations

from torch import nn

from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.sources import openclip, timm
from encoscope.encoder.sources.base import LoadedModel, SourceRequest
from encoscope.errors import EncoscopeError
from encoscope.images import Preprocess
from encoscope.zoo import registry


def build(request: SourceRequest) -> LoadedModel:
    """The network of the registry's record, with its preprocessing and class names."""
    entry = registry.entry(request.name)

    def make(classes: int | None = None, channels: int | None = None) -> nn.Module:
        if entry.library == "open_clip":
            return openclip.create_open_clip(f"local-dir:{entry.file.parent}", random_state=request.random_state).visual
        arguments = {**entry.kwargs, **({} if classes is None else {"num_classes": classes})}
        return timm.create_network(
            entry.architecture, random_state=request.random_state, in_chans=channels, **arguments
        )

    module = make() if request.checkpoint is None else load_checkpoint(request.checkpoint, make)
    if request.pretrained:
        state = registry.weights(entry)
        if entry.library == "open_clip":
            state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise EncoscopeError(f"zoo:{request.name}'s weights do not fit its architecture: {said}") from error
    classes = entry.classes if request.pretrained and entry.library == "timm" else None
    return LoadedModel(module, Preprocess(**entry.preprocess), classes or None, classifier=entry.library == "timm")
