"""``hf:OWNER/NAME``, ``hf:FOLDER`` (of ``save_pretrained``), ``hf:TYPE@untrained``: transformers' vision networks."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encoscope._offline import explain_hub_error, hugging_face_access, missing_weights_error
from encoscope.encoder.adapters import ADAPTER_CONFIG
from encoscope.encoder.checkpoints import check_missing, load_checkpoint
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed, require_package, try_reading
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.images import Preprocess
from encoscope.images.processors import assume_preprocess, load_processor, read_preprocess

_log = logging.getLogger("encoscope")

# The class of the image network for types whose own class is another one.
_TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    "vit_mae": "ViTModel",  # the published class drops three quarters of the patches
}


def build_model(request: SourceRequest) -> LoadedModel:
    """Build a vision network of transformers.

    Args:
        request: The network; its name is a name on the hub, a folder of ``save_pretrained``, or a type of network.

    Returns:
        The network with its image processor's preprocessing and, for a trained classifier, class names.

    Raises:
        UsageError: For an unknown name, and for a type of network without ``untrained`` or a checkpoint.
        MissingError: For weights that are not available, and if transformers is not installed.
        EncoscopeError: For a network that cannot be built from its configuration, and for a checkpoint that does not
            fit.
    """
    with require_package("transformers", "hf:", "hf"):
        import transformers
    with hugging_face_access():
        is_type = _is_type(request.name, transformers)
        _refuse_adapter(request)
        config = _load_config(request, transformers)
        cls = _choose_class(config, transformers)
        _refuse_patches(config, request.name)
        vision = getattr(config, "vision_config", config) if cls.__name__ in _TOWERS.values() else config
        if request.pretrained:
            try:
                options = {"trust_remote_code": request.trust, "output_loading_info": True}
                module, info = cls.from_pretrained(request.name, **options)
            except (OSError, ValueError, RuntimeError) as error:
                raise missing_weights_error(f"hf:{request.name}", explain_hub_error(error)) from error
            _check_missing(module, sorted(info["missing_keys"]), request)
        else:
            module = _build_network(cls, vision, request)
        preprocess, assumed, problem = _read_preprocess(request, config, vision, is_type)

    def build_network(classes: int | None = None, channels: int | None = None) -> nn.Module:
        vision.update({"num_labels": classes} if classes else {})
        vision.update({"num_channels": channels} if channels else {})
        return _build_network(cls, vision, request)

    if request.checkpoint is not None:
        module = load_checkpoint(request, build_network)
    if request.untrained:
        assumed = None  # weights that were never trained fit no preprocessing better than another
    classes, forward = _read_classes(config, module), _make_forward(module)
    return LoadedModel(module, preprocess, classes, forward, assumed=assumed, problem=problem)


def _is_type(name: str, transformers: Any) -> bool:
    """Whether the name is a type of network and not a model."""
    return "/" not in name and not Path(name).is_dir() and name in transformers.CONFIG_MAPPING


def _read_preprocess(
    request: SourceRequest, config: Any, vision: Any, is_type: bool
) -> tuple[Preprocess, str | None, str | None]:
    """The saved image processor's preprocessing; without one, that of the type, and whose it is; what is wrong."""
    try:
        processor = None if is_type else load_processor(request.name, config, trust=request.trust)
    except UsageError as error:
        return Preprocess(channels=getattr(vision, "num_channels", 3)), None, str(error)
    if processor is None:
        return *assume_preprocess(vision, config), None
    preprocess, problem = try_reading(lambda: read_preprocess(processor, vision))
    return preprocess, None, problem and f"hf:{request.name}: {problem}"


def _load_config(request: SourceRequest, transformers: Any) -> Any:
    name = request.name
    types = transformers.CONFIG_MAPPING
    if _is_type(name, transformers):
        if request.pretrained:
            raise UsageError(f"hf:{name} is a type of network, not a trained one: use OWNER/NAME, or --untrained")
        return types[name]()
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise MissingError(
            f"hf:{name}: the folder holds no config.json; it has to be a folder that save_pretrained wrote"
        )
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=request.trust)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UsageError(f"hf:{name} runs Python code of its own: allow it with --trust (trust=True)") from error
        if "/" not in name:
            raise UsageError(
                f"hf:{name}: there is no such folder and no such type of network{suggest_nearest(name, types)}"
            ) from error
        raise MissingError(
            f"hf:{name}: its configuration is not in the cache, and the hub cannot be reached or has no such model: "
            "use a folder that save_pretrained wrote"
        ) from error


def _refuse_adapter(request: SourceRequest) -> None:
    """Refuse a folder with an adapter beside its weights, unless the user says what becomes of it."""
    folder = Path(request.name)
    if not request.pretrained or request.adapter or not (folder / ADAPTER_CONFIG).is_file():
        return
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"hf:{request.name} is an adapter alone: name the network that it adapts, with --checkpoint {request.name}"
        )
    raise UsageError(
        f"hf:{request.name} has an adapter beside its weights: merge it with --checkpoint {request.name}, or move "
        f"{ADAPTER_CONFIG} away to leave it out"
    )


def _choose_class(config: Any, transformers: Any) -> Any:
    """The saved class if it classifies images, the image tower of an image-text model, else the plain network."""
    saved = (getattr(config, "architectures", None) or [""])[0]
    if saved.endswith("ForImageClassification") and hasattr(transformers, saved):
        return getattr(transformers, saved)
    if config.model_type in _TOWERS:
        return getattr(transformers, _TOWERS[config.model_type])
    return transformers.AutoModel


def _refuse_patches(config: Any, name: str) -> None:
    """Refuse networks that take an image as a sequence of patches with its shape beside it."""
    if config.model_type.startswith("siglip2"):
        raise UsageError(
            f"hf:{name} ({config.model_type}) takes patches of images of any shape (NaFlex), which is not supported: "
            "use a model of a fixed size (type siglip), or timm:naflexvit_base_patch16_siglip"
        )


def _build_network(cls: Any, config: Any, request: SourceRequest) -> nn.Module:
    with fixed_seed(request.random_state):
        try:
            return cls.from_config(config) if cls.__name__ == "AutoModel" else cls(config)
        except (ValueError, TypeError, ImportError) as error:
            detail = " ".join(str(error).split())[:200]
            raise EncoscopeError(f"hf:{request.name} cannot be built from its configuration: {detail}") from error


def _check_missing(module: nn.Module, missing: list[str], request: SourceRequest) -> None:
    """Remove a pooler that was saved without weights, as for masked autoencoders; refuse what else stays random."""
    if any(key.startswith("pooler.") for key in missing) and hasattr(module, "pooler"):
        setattr(module, "pooler", None)  # noqa: B010
        request.record["removed"] = ["pooler"]
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        request.record["missing"] = check_missing(f"hf:{request.name}", missing, module.state_dict(), request)


def _make_forward(module: nn.Module) -> Any:
    """A function that interpolates position embeddings to the input's size, if the network can do that."""
    if "interpolate_pos_encoding" not in inspect.signature(module.forward).parameters:
        return None

    def forward(pixels: Tensor) -> Any:
        return module(pixels, interpolate_pos_encoding=True)

    return forward


def _read_classes(config: Any, module: nn.Module) -> tuple[str, ...] | None:
    """The configuration's label names, unless they are transformers' placeholders LABEL_0, LABEL_1, ..."""
    labels = getattr(config, "id2label", None)
    if not labels or not type(module).__name__.endswith("ForImageClassification"):
        return None
    names = tuple(labels[index] for index in sorted(labels))
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names
