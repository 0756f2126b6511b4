"""How a notebook shows an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from encoscope.encoder.types import LayerInfo
from encoscope.errors import EncoscopeError
from encoscope.images import Preprocess

if TYPE_CHECKING:
    from encoscope.encoder.encoder import Encoder

_DIGITS = 12  # of the digest


def encoder_to_html(encoder: Encoder, digest: str | None) -> str:
    """Describe an encoder in HTML.

    Args:
        encoder: The encoder. Its layers are found by a trial run if they are not known yet.
        digest: Its digest; None if that was not computed, which takes a moment for a large network.

    Returns:
        Two tables: source, network, digest, preprocessing, device and classes; and the stem, stages and blocks.
    """
    facts = {"source": encoder.source, "network": type(encoder.module).__name__}
    if digest is not None:
        facts["digest"] = digest[:_DIGITS]
    facts |= {"input": _describe_preprocess(encoder.preprocess), "device": f"{encoder.device}, {encoder.precision}"}
    if encoder.preprocess_notes:
        facts["notes"] = "; ".join(encoder.preprocess_notes)
    try:
        layers = encoder.layers
    except EncoscopeError as error:  # a network whose forward pass fails is shown, too
        return _facts_table(facts | {"layers": str(error)})
    outputs = encoder.outputs
    facts["classes"] = "none" if outputs is None else str(outputs)
    shown = [layer for layer in layers if layer.role != "inner"] or layers
    if len(shown) < len(layers):
        facts["layers"] = f"{len(layers)}, of which {len(layers) - len(shown)} inner layers are not shown"
    return _facts_table(facts) + _layer_table(shown)


def _describe_preprocess(preprocess: Preprocess) -> str:
    height, width = preprocess.size
    mean, std = (
        ", ".join(f"{value:.3g}" for value in values) for values in (preprocess.unit_mean, preprocess.unit_std)
    )
    resize = "" if preprocess.resize == "short" else f"{preprocess.resize}, "
    order = "" if preprocess.channel_order == "rgb" else f", {preprocess.channel_order}"
    return (
        f"{height} x {width} pixels, {preprocess.channels} channels{order}, {resize}{preprocess.interpolation}, "
        f"crop {preprocess.crop:.3g}, mean {mean}, std {std}"
    )


def _facts_table(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table>{rows}</table>"


def _layer_table(layers: Sequence[LayerInfo]) -> str:
    heading = "".join(f"<th>{name}</th>" for name in ("layer", "role", "kind", "channels", "grid", "prefix tokens"))
    rows = "".join(
        f"<tr><td><code>{escape(layer.name)}</code></td><td>{layer.role}</td><td>{layer.kind}</td>"
        f"<td>{layer.channels}</td><td>{layer.grid[0]} x {layer.grid[1]}</td><td>{layer.prefix}</td></tr>"
        for layer in layers
    )
    return f"<table><tr>{heading}</tr>{rows}</table>"
