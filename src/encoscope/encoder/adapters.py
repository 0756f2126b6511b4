"""Merge adapters of the library peft (LoRA, DoRA) into the weights that they adapt.

The weight of a layer becomes ``W + s B A`` with ``s = lora_alpha / r``, or ``lora_alpha / sqrt(r)`` for rank-stabilized
LoRA. DoRA gives each output the norm that it has learned: ``m (W + s B A) / |W + s B A|``. A file of weights holds W,
A, B and m, but not ``lora_alpha``: that is in ``adapter_config.json``. Whatever cannot be merged exactly is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.state_names import condense_names, format_names
from encoscope.encoder.weights_file import StateDict, find_state_dicts, find_weights_file, read_weights_file
from encoscope.errors import EncoscopeError, MissingError

ADAPTER_CONFIG = "adapter_config.json"
"""The name of an adapter's configuration beside its file."""
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_CURE = "merge it where it was trained (peft: model.merge_and_unload()), and save that state_dict()"
_MERGED_SHARE, _MERGED_STDS = 0.75, 8.0  # of adapters' changes, and of what chance gives
# What this module understands of a configuration. Any other entry that is set may change the computation.
_UNDERSTOOD = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
_ROUNDING = 1e-5
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # they leave the adapted weights as they were

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.(?:(?P<adapter>[^.]+)\.)?(?P<kind>weight|bias)")
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?")
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<rest>.+)")


@dataclass
class _Adapter:
    """The tensors that adapt one module."""

    factors: dict[str, Tensor] = field(default_factory=dict)  # A, B
    bias: Tensor | None = None  # of the layer B
    magnitude: Tensor | None = None
    embedding: bool = False


def locate_adapter(path: Path) -> tuple[Path, Path | None]:
    """Find the files of a checkpoint that may be an adapter.

    Args:
        path: A file of weights, or a folder that ``save_pretrained`` wrote, of peft or of another library.

    Returns:
        The file of weights, and the adapter's configuration beside it; None if there is none.

    Raises:
        MissingError: For a folder without weights.
    """
    if path.is_dir():
        file = next((path / name for name in _FILES if (path / name).is_file()), None)
        if file is not None and (path / ADAPTER_CONFIG).is_file():
            return file, path / ADAPTER_CONFIG
        file = find_weights_file(path)
        if file is None:
            raise MissingError(
                f"checkpoint {path} is a folder without model.safetensors, and without {_FILES[0]} and "
                f"{ADAPTER_CONFIG}: name the file of weights in it"
            )
        return locate_adapter(file)
    config = path.parent / ADAPTER_CONFIG
    return path, config if config.is_file() else None


def read_adapter(path: Path) -> StateDict | None:
    """Read a file that holds an adapter alone, without the weights that it adapts.

    Args:
        path: As for ``locate_adapter``.

    Returns:
        The adapter's tensors; None if the file has no adapter's configuration beside it, or holds a whole network.

    Raises:
        MissingError: For a folder without weights, and for a file that does not exist.
        EncoscopeError: For a damaged file.
    """
    file, config = locate_adapter(path)
    if config is None:
        return None
    if file.name in _FILES:
        _read_config(config, f"adapter {path}")  # says so at once where it is of another kind
    for _, state in find_state_dicts(read_weights_file(file)):
        if has_adapter(state) and not _find_adapted_weights(state):
            return state
    return None


def has_adapter(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dictionary holds an adapter.

    Args:
        state: The dictionary.

    Returns:
        Whether the names are those that adapters have.
    """
    return any(".base_layer." in name or ".lora_" in name or ".modules_to_save." in name for name in state)


def merge_adapter(state: StateDict, path: Path) -> StateDict:
    """Merge the adapter in a state dictionary into the weights beside it.

    Args:
        state: The weights of a network with an adapter, by the names that peft gives them.
        path: The checkpoint's file; the adapter's configuration has to be beside it.

    Returns:
        The merged weights by the names that the network has without the adapter.

    Raises:
        EncoscopeError: If the adapter cannot be merged exactly, saying why.
    """
    where = f"checkpoint {path}"
    adapters, weights = _separate(state, where)
    if not adapters:
        return weights
    if not any(_find_weight(weights, name, adapter) for name, adapter in adapters.items()):
        raise EncoscopeError(
            f"{where} holds an adapter alone, without the weights that it adapts and without {ADAPTER_CONFIG} beside "
            f"it: {_CURE}"
        )
    config = locate_adapter(path)[1]
    if config is None:
        raise EncoscopeError(
            f"{where} holds a LoRA adapter whose scale (lora_alpha) is not in the file: put {ADAPTER_CONFIG} beside "
            f"it, or {_CURE}"
        )
    settings = _read_config(config, where)
    merged = _merge_all(adapters, weights, settings, where)
    decided = _has_magnitudes(adapters, weights) if settings.get("use_dora") else _holds_changes(weights, merged)
    if decided and any(_differs(weights[name], value) for name, value in merged.items()):
        raise EncoscopeError(
            f"{where} holds weights that its adapter is merged into already (peft: model.merge_adapter()): save them "
            "after model.unmerge_adapter(), or the state_dict() of model.merge_and_unload()"
        )
    return weights | merged


def apply_adapter(module: nn.Module, adapter: StateDict, path: Path) -> bool:
    """Merge an adapter that was saved alone into a network with the weights that it adapts.

    Args:
        module: The network; its weights are changed. A linear layer that was trained anew beside the adapter with
            another number of outputs replaces the network's own.
        adapter: The adapter's tensors.
        path: The adapter's file or folder.

    Returns:
        Whether a layer has another number of outputs now, so that the network's own class names do not hold.

    Raises:
        EncoscopeError: If the adapter does not fit the network, or cannot be merged exactly.
    """
    where = f"adapter {path}"
    config = locate_adapter(path)[1]
    if config is None:
        raise EncoscopeError(f"{where} has no {ADAPTER_CONFIG} beside it")
    settings = _read_config(config, where)
    start = settings.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise EncoscopeError(f"{where} changed the weights that it adapts ({start} initialization): {_CURE}")
    adapters, saved = _separate(adapter, where)
    own = module.state_dict()
    prefix = _find_prefix([*adapters, *saved], own, where)
    saved = {prefix(name): value for name, value in saved.items()}
    adapters = {prefix(name): tensors for name, tensors in adapters.items()}
    merged = saved | _merge_all(adapters, own | saved, settings, where)
    resized = [name for name, value in merged.items() if own[name].shape != value.shape]
    for name in resized:
        _resize_linear(module, name, merged[name], where)
    module.load_state_dict(merged, strict=False)
    return bool(resized)


def _separate(state: StateDict, where: str) -> tuple[dict[str, _Adapter], StateDict]:
    """The adapters by the name of the module that they adapt, and all other tensors by their names without peft."""
    adapters: dict[str, _Adapter] = defaultdict(_Adapter)
    weights: StateDict = {}
    names: set[str] = set()
    saved: dict[str, StateDict] = {}  # modules that were trained beside the adapter
    wrapped = {name.rpartition(".base_layer.")[0] for name in state if ".base_layer." in name}
    foreign: list[str] = []

    def strip(name: str) -> str:
        return name.replace(".base_layer.", ".").removesuffix(".base_layer")

    for name, value in state.items():
        match = _FACTOR.fullmatch(name) or _EMBEDDING.fullmatch(name) or _MAGNITUDE.fullmatch(name)
        if match is not None:
            parts = match.groupdict()
            adapter = adapters[strip(parts["module"])]
            if "factor" not in parts:
                adapter.magnitude = value
            elif parts.get("kind") == "bias":
                adapter.bias = value
            else:
                adapter.factors[parts["factor"]] = value
                adapter.embedding = "kind" not in parts
            names.add(parts["adapter"] or "")
        elif (kept := _SAVED.fullmatch(name)) is not None:
            saved[strip(kept["module"])] = saved.get(strip(kept["module"]), {}) | {kept["rest"]: value}
        elif ".lora_" in name or any(
            name.startswith(f"{owner}.") and not name.startswith(f"{owner}.base_layer.") for owner in wrapped
        ):
            foreign.append(name)
        else:
            weights[strip(name).replace(".original_module.", ".")] = value
    if foreign:
        raise EncoscopeError(
            f"{where} holds an adapter of a kind that cannot be merged "
            f"({format_names(condense_names(foreign, state), 3)}): {_CURE}"
        )
    if len(names) > 1:
        raise EncoscopeError(f"{where} holds several adapters ({', '.join(sorted(names))}): {_CURE}")
    for name, adapter in adapters.items():
        if adapter.factors.keys() != {"A", "B"}:
            raise EncoscopeError(f"{where}: the adapter of {name} lacks one of its factors A and B")
    for module, tensors in saved.items():
        for name, value in tensors.items():
            first, _, rest = name.partition(".")
            weights[f"{module}.{rest if rest and first in {'default', *names} else name}"] = value
    return dict(adapters), weights


def _read_config(config: Path, where: str) -> dict[str, Any]:
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it holds no settings")
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"{where}: {config} cannot be read: {error}") from error
    kind = str(settings.get("peft_type", "LORA"))
    if kind != "LORA":
        raise EncoscopeError(f"{where} is an adapter of the kind {kind}, which cannot be merged: {_CURE}")
    unknown = [name for name, value in settings.items() if value and name not in _UNDERSTOOD]
    if unknown:
        raise EncoscopeError(f"{where} is an adapter with {', '.join(unknown)}, which cannot be merged: {_CURE}")
    if not isinstance(settings.get("lora_alpha"), int | float):
        raise EncoscopeError(f"{where}: {config} states no lora_alpha")
    return settings


def _find_weight(weights: Mapping[str, Tensor], module: str, adapter: _Adapter) -> str | None:
    """The name of the tensor that an adapter adapts."""
    kinds = ("weight", "in_proj_weight")  # the latter of nn.MultiheadAttention
    return next((f"{module}.{kind}" for kind in kinds if f"{module}.{kind}" in weights), None)


def _find_adapted_weights(state: StateDict) -> bool:
    """Whether a dictionary holds weights that its adapters adapt."""
    try:
        adapters, weights = _separate(state, "")
    except EncoscopeError:
        return True  # refused where it is read
    return any(_find_weight(weights, name, adapter) for name, adapter in adapters.items())


def _merge_all(
    adapters: Mapping[str, _Adapter], weights: Mapping[str, Tensor], settings: Mapping[str, Any], where: str
) -> StateDict:
    merged: StateDict = {}
    for module, adapter in adapters.items():
        name = _find_weight(weights, module, adapter)
        if name is None:
            raise EncoscopeError(f"{where}: the weight of {module}, which its adapter adapts, is not there: {_CURE}")
        rank = adapter.factors["A"].shape[0]
        alpha = _match_pattern(settings.get("alpha_pattern"), module, settings["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        if bool(settings.get("use_dora")) != (adapter.magnitude is not None):
            raise EncoscopeError(
                f"{where}: the magnitude of {module} and use_dora in {ADAPTER_CONFIG} do not go together"
            )
        value = _merge(weights[name], adapter, scale, transposed=bool(settings.get("fan_in_fan_out")))
        if value is None:
            raise EncoscopeError(f"{where}: the adapter of {module} has other shapes than its weight: {_CURE}")
        merged[name] = value
        if adapter.bias is not None:
            bias = f"{module}.bias"
            if bias not in weights:
                raise EncoscopeError(f"{where}: the adapter of {module} adapts a bias that the layer does not have")
            merged[bias] = (weights[bias].float() + scale * adapter.bias.float()).to(weights[bias].dtype)
    return merged


def _holds_changes(weights: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> bool:
    """Whether weights contain the changes that adapters make to them, as if these had been added before.

    The part of a weight that lies in the direction of its change is then about as large as the change; else it is as
    small as chance has it, or a little larger.
    """
    part = size = variance = 0.0
    for name, value in merged.items():
        own = weights[name].double()
        change = value.double() - own
        part += float((own * change).sum())
        size += float((change**2).sum())
        variance += float((own**2).sum() * (change**2).sum()) / own.numel()
    return size > 0 and part > _MERGED_SHARE * size and part > _MERGED_STDS * math.sqrt(variance)


def _has_magnitudes(adapters: Mapping[str, _Adapter], weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have the norms that DoRA's adapters give them, as if these had been merged before."""
    for module, adapter in adapters.items():
        name = _find_weight(weights, module, adapter)
        if name is None or adapter.magnitude is None:
            return False
        weight, magnitude = weights[name].double(), adapter.magnitude.double().flatten().abs()
        allowed = max(_ROUNDING, 2 * torch.finfo(weights[name].dtype).eps) * magnitude
        norms = [weight.transpose(0, axis).flatten(1).norm(dim=1) for axis in (0, 1)]
        if not any(
            norm.shape == magnitude.shape and bool(((norm - magnitude).abs() <= allowed).all()) for norm in norms
        ):
            return False
    return True


def _differs(weight: Tensor, merged: Tensor) -> bool:
    """Whether merging changes a weight by more than rounding."""
    allowed = max(_ROUNDING, 2 * torch.finfo(weight.dtype).eps) * weight.double().abs().max()
    return bool((merged.double() - weight.double()).abs().max() > allowed)


def _match_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern (of peft's own form) that the end of a module's name matches."""
    name = module.rpartition("base_model.model.")[2]
    return next((v for pattern, v in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", name)), default)


def _merge(weight: Tensor, adapter: _Adapter, scale: float, *, transposed: bool) -> Tensor | None:
    """The merged weight; None if the shapes do not fit."""
    a, b = (adapter.factors[key].detach().to(torch.promote_types(weight.dtype, torch.float32)) for key in ("A", "B"))
    if a.ndim != b.ndim or a.shape[0] != b.shape[1] or any(side != 1 for side in b.shape[2:]):
        return None  # a convolution in groups, for example
    delta = scale * torch.einsum("or,ri->oi", b.flatten(1), a.flatten(1)).reshape(b.shape[0], *a.shape[1:])
    if adapter.embedding or (
        weight.ndim == 2 and weight.shape[::-1] == delta.shape and (transposed or weight.shape != delta.shape)
    ):
        delta = delta.T  # the layer keeps its weight as [inputs, outputs]
        rows = 1
    else:
        rows = 0
    if delta.shape != weight.shape:
        return None
    merged = weight.to(delta.dtype) + delta
    if adapter.magnitude is not None:
        magnitude = adapter.magnitude.to(delta.dtype).flatten()
        if magnitude.numel() != merged.shape[rows]:
            return None
        norm = merged.transpose(0, rows).flatten(1).norm(dim=1)
        factor = (magnitude / norm).reshape([-1 if axis == rows else 1 for axis in range(merged.ndim)])
        merged = merged * factor
    return merged.to(weight.dtype)


def _find_prefix(names: list[str], own: Mapping[str, Tensor], where: str) -> Any:
    """A function that turns the names of an adapter, of modules or tensors, into those of the network."""
    known = {".".join(parts[:end]) for parts in (name.split(".") for name in own) for end in range(1, len(parts) + 1)}
    removed = {".".join(names[0].split(".")[:end]) + "." for end in range(1, names[0].count(".") + 1)} | {""}
    added = {".".join(name.split(".")[:end]) + "." for name in known for end in (1, 2)} | {""}
    for short in sorted(removed, key=len):
        if all(name.startswith(short) for name in names):
            for extra in sorted(added, key=len):
                if all(extra + name[len(short) :] in known for name in names):
                    return lambda name, short=short, extra=extra: extra + name[len(short) :]
    tails = [name.rpartition("base_model.model.")[2] for name in names]
    lost = condense_names([tail for tail in tails if tail not in known])
    raise EncoscopeError(f"{where} does not fit this network, which has no {format_names(lost, 3)}")


def _resize_linear(module: nn.Module, name: str, value: Tensor, where: str) -> None:
    """Give the linear layer of a tensor the number of outputs that the tensor has."""
    owner_name, _, kind = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    fits = isinstance(owner, nn.Linear) and (kind == "bias" or value.shape[1:] == owner.weight.shape[1:])
    if not fits or not isinstance(owner, nn.Linear):
        raise EncoscopeError(
            f"{where} does not fit this network: {name} is {'x'.join(map(str, value.shape))} in the file, "
            f"{'x'.join(map(str, module.state_dict()[name].shape))} in the network"
        )
    if owner.out_features != len(value):
        wider = nn.Linear(owner.in_features, len(value), owner.bias is not None).to(value.dtype)
        module.set_submodule(owner_name, wider)
        if hasattr(module, "num_classes"):
            setattr(module, "num_classes", len(value))  # noqa: B010
