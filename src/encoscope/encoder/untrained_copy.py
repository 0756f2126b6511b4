"""The same network before it learned anything: the control that every explanation of an encoder can have."""

from __future__ import annotations

from encoscope.encoder.encoder import Encoder
from encoscope.encoder.load import load
from encoscope.errors import EncoscopeError, UsageError


def untrained_copy(encoder: Encoder, *, random_state: int = 0) -> Encoder:
    """The same architecture with fresh random weights. Raises UsageError where the source cannot make one."""
    source = encoder.source.partition("@")[0]
    try:
        twin = load(
            source, untrained=True, random_state=random_state, device=str(encoder.device), precision=encoder.precision
        )
    except EncoscopeError as error:
        raise UsageError(f"no untrained control for {encoder.source}: {error}") from error
    if twin.preprocess.channels != encoder.preprocess.channels:
        raise UsageError(
            f"no untrained control for {encoder.source}: without its weights it takes {twin.preprocess.channels} "
            f"channels, not {encoder.preprocess.channels}"
        )
    return twin
