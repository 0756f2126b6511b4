"""The same network with random weights: a control for every explanation of an encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.load import load
from encoscope.encoder.reset import UntrainedMaker, reset_weights
from encoscope.encoder.sources.base import fixed_seed
from encoscope.encoder.wrappers import unwrap_module
from encoscope.errors import EncoscopeError, UsageError


def untrained_copy(encoder: Encoder, *, random_state: int = RANDOM_STATE) -> Encoder:
    """Make an encoder of the same architecture with random weights.

    They come from the function that the encoder was given for this (``untrained=``), else from the source that it was
    loaded from, else from the ``reset_parameters`` of a copied network's own modules.

    Args:
        encoder: The encoder; it is not changed.
        random_state: Seed of the random weights.

    Returns:
        The untrained encoder, on the same device and with the same precision.

    Raises:
        UsageError: If the encoder's source cannot give a network without its weights, or gives one for another number
            of input channels; if no ``reset_parameters`` draws a weight anew; and if the network is called by a
            function of the user's own, which would call the trained network.
    """
    try:
        if encoder._make_untrained is not None:
            return _make_untrained(encoder, encoder._make_untrained, random_state)
        if encoder._origin is None:
            return _reset_copy(encoder, random_state)
        source, trust = encoder._origin
        untrained = load(
            source,
            untrained=True,
            random_state=random_state,
            device=str(encoder.device),
            precision=encoder.precision,
            trust=trust,
            logits=encoder._requested_logits,
        )
    except EncoscopeError as error:
        raise UsageError(f"no untrained control for {encoder.source}: {error}") from error
    untrained.class_order = encoder.class_order
    if untrained.preprocess.channels != encoder.preprocess.channels:
        raise UsageError(
            f"no untrained control for {encoder.source}: without its weights it takes {untrained.preprocess.channels} "
            f"channels, not {encoder.preprocess.channels}"
        )
    if encoder.token_layout is not None:
        untrained.state_token_layout(encoder.token_layout)
    untrained.preprocess = encoder.preprocess  # the same input for both, whatever the user stated
    return untrained


def _make_untrained(encoder: Encoder, make: UntrainedMaker, random_state: int) -> Encoder:
    with fixed_seed(random_state):
        try:
            untrained = make()
        except Exception as error:  # the user's own code
            raise EncoscopeError(
                f"the function untrained= failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
    if isinstance(untrained, Encoder):
        untrained.module.eval().to(encoder.device)
        untrained.source = _name_untrained(encoder)
        return untrained
    if not isinstance(untrained, nn.Module):
        raise EncoscopeError(
            f"the function untrained= returned {type(untrained).__name__}, not a torch.nn.Module or an Encoder"
        )
    return _replace_module(encoder, unwrap_module(untrained))


def _reset_copy(encoder: Encoder, random_state: int) -> Encoder:
    try:
        module = copy.deepcopy(encoder.module).cpu()
    except Exception as error:  # tensors with a history, handles of other libraries
        detail = " ".join(str(error).split())[:200]
        raise EncoscopeError(f"the network cannot be copied ({detail}): give untrained=, a function") from error
    reset_weights(module, random_state)
    return _replace_module(encoder, module)


def _replace_module(encoder: Encoder, module: nn.Module) -> Encoder:
    """The same encoder around another network."""
    other = copy.copy(encoder)
    for name in list(vars(other)):
        if isinstance(getattr(Encoder, name, None), cached_property):  # what was found of the first network
            del vars(other)[name]
    other._digest = None
    other.record = {}
    other._forward = _rebind(encoder._forward, encoder.module, module)
    other.module = module.eval().to(encoder.device)
    other.source = _name_untrained(encoder)
    return other


def _rebind(forward: Callable[..., Any] | None, module: nn.Module, other: nn.Module) -> Callable[..., Any] | None:
    """The same method of another network; None for None."""
    owner = getattr(forward, "__self__", forward)
    if forward is None or owner is None:
        return None
    for name, child in module.named_modules():
        if child is owner:
            counterpart = other.get_submodule(name)
            return counterpart if owner is forward else getattr(counterpart, getattr(forward, "__name__", ""))
    raise EncoscopeError(
        "it is called by a function of its own (forward=), which would call the trained network: give untrained=, a "
        "function that returns an Encoder"
    )


def _name_untrained(encoder: Encoder) -> str:
    return f"{encoder.source.partition('@')[0]}@untrained"
