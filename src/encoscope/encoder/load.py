"""Get an encoder by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from encoscope.encoder.encoder import Encoder
from encoscope.encoder.sources.base import LoadedModel, SourceRequest
from encoscope.errors import UsageError

_SOURCES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "py": "python",
    "zoo": "zoo",
    "hf": "hf",
    "hub": "hub",
    "openclip": "openclip",
}


def load(
    source: str,
    *,
    untrained: bool = False,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    random_state: int = 0,
    trust: bool = False,
    precision: str = "fp32",
) -> Encoder:
    """An encoder from a library, a hub, the package's own weights or one's own code.

    source: "timm:NAME", "torchvision:NAME", "hf:OWNER/NAME" or "hf:FOLDER", "openclip:ARCH[/TAG]",
        "hub:OWNER/REPO:ENTRY" or "hub:FOLDER:ENTRY", "zoo:NAME", "py:module:function"; it may end in "@untrained" or
        "@FILE" (a checkpoint).
    untrained: random weights, from ``random_state``. checkpoint: a .safetensors or torch file with the weights.
    device: "auto" is the GPU if there is one. trust: allow code from a "hub:" repository to run.
    precision: "fp32", or "bf16" or "fp16" by autocast.

    Raises UsageError for names that are not known, MissingError for weights that cannot be had.
    """
    scheme, name, suffix = _parse(source)
    if suffix == "untrained":
        untrained = True
    elif suffix:
        if checkpoint is not None:
            raise UsageError(f"two checkpoints were given: {suffix!r} in {source!r}, and {str(checkpoint)!r}")
        checkpoint = suffix
    if untrained and checkpoint is not None:
        raise UsageError("untrained and a checkpoint contradict each other: give one of them")
    where = _device(device)
    request = SourceRequest(name, untrained, None if checkpoint is None else Path(checkpoint), random_state, trust)
    built = importlib.import_module(f"encoscope.encoder.sources.{_SOURCES[scheme]}").build(request)
    encoder = built if isinstance(built, Encoder) else _encoder(built, precision)
    encoder.source = f"{scheme}:{name}" + ("@untrained" if untrained else f"@{checkpoint}" if checkpoint else "")
    if precision != "fp32":
        encoder.precision = precision
    encoder.module.eval().to(where)
    return encoder


def _encoder(model: LoadedModel, precision: str) -> Encoder:
    chosen = model.preprocess
    return Encoder(
        model.module,
        size=chosen.size,
        mean=chosen.mean,
        std=chosen.std,
        interpolation=chosen.interpolation,
        crop=chosen.crop,
        channels=chosen.channels,
        classes=model.classes,
        precision=precision,
        forward=model.forward,
        classifier=model.classifier,
    )


def _parse(source: str) -> tuple[str, str, str]:
    """("timm", "resnet18", "untrained") of "timm:resnet18@untrained"; the last part is "" if there is none."""
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in _SOURCES:
        forms = ", ".join(f"{known}:..." for known in _SOURCES)
        hint = f"; did you mean timm:{source}?" if not colon and source else ""
        raise UsageError(f"unknown model {source!r}: write where it comes from, one of {forms}{hint}")
    name, _, suffix = rest.partition("@")
    if not name:
        raise UsageError(f"{source!r} names no model")
    return scheme, name, suffix


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}: give auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs")
    return found
