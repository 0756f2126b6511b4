"""``hf:OWNER/NAME``, ``hf:FOLDER`` (of ``save_pretrained``), ``hf:TYPE@untrained``: transformers' vision networks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encoscope._offline import explain_hub_error, hugging_face_access, missing_weights_error
from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed, require_package
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.images.processors import load_processor, read_preprocess

_log = logging.getLogger("encoscope")

# Types whose own class is not the image network itself: the class that is.
_TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "vit_mae": "ViTModel",  # as published it drops three quarters of the patches
}


def build(request: SourceRequest) -> LoadedModel:
    """The network with its image processor's preprocessing and, for a trained classifier, class names."""
    with require_package("transformers", "hf:", "hf"):
        import transformers
    with hugging_face_access():
        config = _config(request, transformers)
        cls = _class(config, transformers)
        vision = getattr(config, "vision_config", config) if cls.__name__ in _TOWERS.values() else config
        if request.pretrained:
            try:
                options = {"trust_remote_code": request.trust, "output_loading_info": True}
                module, info = cls.from_pretrained(request.name, **options)
            except (OSError, ValueError, RuntimeError) as error:
                raise missing_weights_error(f"hf:{request.name}", explain_hub_error(error)) from error
            _report(module, sorted(info["missing_keys"]), request.name)
        else:
            module = _make(cls, vision, request)
        processor = load_processor(request.name, transformers)

    def remake(classes: int | None = None, channels: int | None = None) -> nn.Module:
        vision.update({"num_labels": classes} if classes else {})
        vision.update({"num_channels": channels} if channels else {})
        return _make(cls, vision, request)

    if request.checkpoint is not None:
        module = load_checkpoint(request.checkpoint, remake)
    return LoadedModel(module, read_preprocess(processor, vision), _classes(config, module), _forward(module))


def _config(request: SourceRequest, transformers: Any) -> Any:
    name = request.name
    types = transformers.CONFIG_MAPPING
    if "/" not in name and not Path(name).is_dir() and name in types:
        if request.pretrained:
            raise UsageError(f"hf:{name} is a type of network, not a trained one: give OWNER/NAME, or --untrained")
        return types[name]()
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise MissingError(f"hf:{name}: the folder holds no config.json; it should be one that save_pretrained wrote")
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=request.trust)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(f"hf:{name} runs Python code of its own: allow it with --trust (trust=True)") from error
        if "/" not in name:
            raise UsageError(f"hf:{name}: no folder and no type of network{suggest_nearest(name, types)}") from error
        raise MissingError(
            f"hf:{name}: its configuration is not in the cache, and the hub cannot be reached or has no such model: "
            "give a folder that save_pretrained wrote"
        ) from error


def _class(config: Any, transformers: Any) -> Any:
    """The saved class if it classifies images, the image tower of an image-text model, else the bare network."""
    saved = (getattr(config, "architectures", None) or [""])[0]
    if saved.endswith("ForImageClassification") and hasattr(transformers, saved):
        return getattr(transformers, saved)
    if config.model_type in _TOWERS:
        return getattr(transformers, _TOWERS[config.model_type])
    return transformers.AutoModel


def _make(cls: Any, config: Any, request: SourceRequest) -> nn.Module:
    with fixed_seed(request.random_state):
        try:
            return cls.from_config(config) if cls.__name__ == "AutoModel" else cls(config)
        except (ValueError, TypeError, ImportError) as error:
            said = " ".join(str(error).split())[:200]
            raise EncoscopeError(f"hf:{request.name} cannot be built from its configuration: {said}") from error


def _report(module: nn.Module, missing: list[str], name: str) -> None:
    """Drops a pooler that was saved without weights, as of masked autoencoders, and tells what else is random."""
    if any(key.startswith("pooler.") for key in missing) and hasattr(module, "pooler"):
        setattr(module, "pooler", None)  # noqa: B010
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        some = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        _log.warning("hf:%s: %d tensors were saved without values and stay random: %s", name, len(missing), some)


def _forward(module: nn.Module) -> Any:
    """The call for any input size where the network can interpolate its position embeddings."""
    import inspect

    if "interpolate_pos_encoding" not in inspect.signature(module.forward).parameters:
        return None

    def forward(pixels: Tensor) -> Any:
        return module(pixels, interpolate_pos_encoding=True)

    return forward


def _classes(config: Any, module: nn.Module) -> tuple[str, ...] | None:
    """The configuration's label names, unless they are transformers' placeholders LABEL_0, LABEL_1, ..."""
    labels = getattr(config, "id2label", None)
    if not labels or not type(module).__name__.endswith("ForImageClassification"):
        return None
    names = tuple(labels[index] for index in sorted(labels))
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names
