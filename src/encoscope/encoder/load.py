"""Load an encoder by the name of its source."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from encoscope.defaults import DEVICE, PRECISION, RANDOM_STATE
from encoscope.devices import find_device
from encoscope.encoder.adapters import apply_adapter, read_adapter
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.input_channels import spread_over_channels
from encoscope.encoder.layouts import TokenLayout
from encoscope.encoder.reset import UntrainedMaker
from encoscope.encoder.sources.base import LoadedModel, SourceRequest
from encoscope.encoder.types import CLASS_ORDERS, ClassOrder
from encoscope.errors import UsageError, explain_calls
from encoscope.images.stated import StatedPreprocess, check_normalization
from encoscope.images.trial import describe_assumption
from encoscope.zoo.registry import DEFAULT_MODEL, DefaultModel

_log = logging.getLogger("encoscope")

_SOURCES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "py": "python",
    "zoo": "zoo",
    "hf": "hf",
    "hub": "hub",
    "openclip": "openclip",
}

_FILE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".dcm", ".npy", ".csv")


@explain_calls
def load(
    source: str = DEFAULT_MODEL,
    *,
    untrained: bool | UntrainedMaker = False,
    checkpoint: str | Path | None = None,
    device: str | torch.device = DEVICE,
    random_state: int = RANDOM_STATE,
    trust: bool = False,
    precision: str = PRECISION,
    class_order: ClassOrder | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    input_size: int | tuple[int, int] | None = None,
    interpolation: str | None = None,
    bands: Sequence[int] | None = None,
    channels: int | None = None,
    allow_missing: Sequence[str] = (),
    allow_unused: Sequence[str] = (),
    logits: str | int | None = None,
    token_layout: TokenLayout | tuple[tuple[int, int], int] | None = None,
) -> Encoder:
    """Load an encoder from a library, a hub, the package's own weights or your own code.

    Args:
        source: "timm:NAME", "torchvision:NAME", "hf:OWNER/NAME", "hf:FOLDER", "openclip:ARCH[/TAG]",
            "hub:OWNER/REPO:ENTRY", "hub:FOLDER:ENTRY", "zoo:NAME" or "py:module:function". It may end in "@untrained"
            or in "@FILE", a checkpoint. Where it is left out, the zoo's ImageNet network is taken, which a message to
            the log says.
        untrained: True uses random weights. A function that returns the network with random weights is kept for
            controls: see ``Encoder``.
        checkpoint: A .safetensors or torch file with the weights; None uses the source's own weights. A folder or file
            that the library peft saved as an adapter is merged into the source's own weights.
        device: Where the network runs: "cpu", "cuda", "cuda:1", ...; "auto" is the GPU if there is one.
        random_state: Seed of the random weights.
        trust: Allow code from a hub's repository to run.
        precision: Of the forward pass: "fp32", or "bf16" or "fp16", which use autocast.
        class_order: How labels that are no class names stand for classes ("numeric", "text", "index", "none"); see
            ``Encoder``.
        mean: Mean of each channel, or one for all, for values in [0, 1]; None takes the source's own.
        std: Standard deviation of each channel, or one for all, for values in [0, 1]; None takes the source's own.
        input_size: Side, or (height, width), of the network's input in pixels; None takes the source's own.
        interpolation: How images are resized: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming"; None
            takes the source's own.
        bands: Which bands of an image are the network's channels, numbered from 1, such as (4, 3, 2); None takes images
            of as many channels, or grey and color.
        channels: Number of channels of the input, where the network takes any number or a trial cannot tell; None finds
            it.
        allow_missing: Names of tensors or modules, or patterns such as "blocks.*.ls1.*": what the weights may lack and
            what so stays random.
        allow_unused: Likewise what the weights may hold though the network has no place for it.
        logits: Which of the network's outputs are the logits, if it gives several; see ``Encoder``.
        token_layout: Where the patch tokens stand in the network's sequences, if that cannot be found: a TokenLayout,
            or ((rows, columns), prefix).

    Returns:
        The encoder, in evaluation mode on the device.

    Raises:
        UsageError: For an unknown name or device, for a checkpoint where no model is named, for arguments that
            contradict each other, and for a network whose own preprocessing is not supported and is not stated.
        MissingError: For weights that are not available, and for a library that is not installed.
        EncoscopeError: For weights that are damaged or do not fit the network.

    Example:
        >>> load("timm:resnet10t", untrained=True, random_state=1, device="cpu").source
        'timm:resnet10t@untrained'
    """
    if isinstance(source, DefaultModel):
        _note_default(source, checkpoint)
    scheme, name, suffix = _parse_source(source)
    make_untrained = None if isinstance(untrained, bool) else untrained
    untrained = untrained is True
    if suffix == "untrained":
        untrained = True
    elif suffix:
        if checkpoint is not None:
            raise UsageError(f"two checkpoints were given: {suffix!r} in {source!r}, and {str(checkpoint)!r}")
        checkpoint = suffix
    if untrained and checkpoint is not None:
        raise UsageError("untrained and a checkpoint contradict each other: use one of them")
    if class_order is not None and class_order not in CLASS_ORDERS:
        raise UsageError(f"class_order is one of {', '.join(CLASS_ORDERS)}, not {class_order!r}")
    target = find_device(device)
    stated = StatedPreprocess(mean, std, input_size, interpolation, bands, channels)
    file = None if checkpoint is None else Path(checkpoint)
    adapter = None if file is None else read_adapter(file)
    request = SourceRequest(
        name,
        untrained,
        file if adapter is None else None,
        random_state,
        trust,
        _as_patterns(allow_missing),
        _as_patterns(allow_unused),
        adapter is not None,
    )
    model = importlib.import_module(f"encoscope.encoder.sources.{_SOURCES[scheme]}").build_model(request)
    full_source = f"{scheme}:{name}" + ("@untrained" if untrained else f"@{checkpoint}" if checkpoint else "")
    encoder = model if isinstance(model, Encoder) else _make_encoder(model, full_source, stated, precision)
    encoder.state_preprocess(stated)
    encoder.source = full_source
    if file is not None and adapter is not None:
        resized = apply_adapter(encoder.module, adapter, file)
        encoder.classes = None if resized else encoder.classes
        request.record["merged_adapter"] = True
    encoder._origin = (f"{scheme}:{name}", trust)
    encoder._make_untrained = make_untrained or encoder._make_untrained
    if logits is not None:
        encoder.choose_logits(logits)
    encoder.record |= {"weights": request.record} if request.record else {}
    if precision != "fp32":
        encoder.precision = precision
    if class_order is not None:
        encoder.class_order = class_order
    if token_layout is not None:
        encoder.state_token_layout(token_layout)
    encoder.module.eval().to(target)
    return encoder


def _note_default(source: str, checkpoint: str | Path | None) -> None:
    """Say which network is taken where none was named."""
    if checkpoint is not None:
        raise UsageError(f"no model was named: which network are the weights {checkpoint} of?")
    _log.info("no model was named: %s is taken, which was trained on ImageNet-1k", source)


def _make_encoder(model: LoadedModel, source: str, stated: StatedPreprocess, precision: str) -> Encoder:
    if model.problem is not None and not stated.complete:
        raise UsageError(model.problem)
    preprocess = model.preprocess
    if preprocess.rescale == 1 / 255 and not preprocess.rescale_offset:  # else they are for another scale
        check_normalization(preprocess.mean, preprocess.std)
    encoder = Encoder(
        model.module,
        size=preprocess.size,
        mean=(0.5,),
        std=(0.5,),
        channels=preprocess.channels,
        classes=model.classes,
        source=source,
        precision=precision,
        forward=model.forward,
        classifier=model.classifier,
    )
    mean, std = (
        spread_over_channels(values, (), preprocess.channels, name)
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std))
    )
    encoder.preprocess = replace(preprocess, mean=mean, std=std)  # not by the constructor, whose mean is for [0, 1]
    if model.assumed is not None and not stated.complete:
        note = describe_assumption(source, model.assumed, stated.apply(encoder.preprocess))
        encoder.preprocess_notes = (note,)
        _log.warning("%s", note)
    return encoder


def _as_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _suggest_source(name: str) -> str:
    """The end of the message about a source string without a source."""
    import timm

    base = name.partition("@")[0]
    if timm.is_model(base.partition(".")[0]):
        return f"; did you mean timm:{name}?"
    if base == "python" or base.startswith("Encoder("):
        return "; an encoder made from a module has no source string: pass the encoder itself"
    return ""


def _parse_source(source: str) -> tuple[str, str, str]:
    """("timm", "resnet18", "untrained") for "timm:resnet18@untrained"; the last is "" if there is no suffix."""
    if not isinstance(source, str):
        raise UsageError(f"a source is a text such as 'timm:resnet50', not {source!r}")
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in _SOURCES:
        if not colon and (Path(source).exists() or Path(source).suffix.lower() in _FILE_SUFFIXES):
            raise UsageError(f"{source!r} is a file, not a model: the model comes first, then the images")
        forms = ", ".join(f"{known}:..." for known in _SOURCES)
        hint = _suggest_source(source) if not colon else ""
        raise UsageError(f"unknown model {source!r}: it needs a source, one of {forms}{hint}")
    name, _, suffix = rest.partition("@")
    if not name:
        raise UsageError(f"{source!r} names no model")
    return scheme, name, suffix
