"""The same network with random weights: a control for every explanation of an encoder."""

from __future__ import annotations

from encoscope.encoder.encoder import Encoder
from encoscope.encoder.load import load
from encoscope.errors import EncoscopeError, UsageError


def untrained_copy(encoder: Encoder, *, random_state: int = 0) -> Encoder:
    """Make an encoder of the same architecture with random weights.

    Args:
        encoder: The encoder, made by ``load``.
        random_state: Seed of the random weights.

    Returns:
        The untrained encoder, on the same device and with the same precision.

    Raises:
        UsageError: If the encoder's source cannot give a network without its weights, or gives one for another number
            of input channels.
    """
    source = encoder.source.partition("@")[0]
    try:
        copy = load(
            source, untrained=True, random_state=random_state, device=str(encoder.device), precision=encoder.precision
        )
    except EncoscopeError as error:
        raise UsageError(f"no untrained control for {encoder.source}: {error}") from error
    if copy.preprocess.channels != encoder.preprocess.channels:
        raise UsageError(
            f"no untrained control for {encoder.source}: without its weights it takes {copy.preprocess.channels} "
            f"channels, not {encoder.preprocess.channels}"
        )
    copy.class_order = encoder.class_order
    copy.preprocess = encoder.preprocess  # the same input for both, whatever the user stated
    return copy
