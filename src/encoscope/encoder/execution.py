"""Run a network: errors become one line, and a batch that does not fit the memory is halved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import evaluation_mode, removing_hooks
from encoscope.errors import EncoscopeError

_log = logging.getLogger("encoscope")

Result = TypeVar("Result")


def run_guarded(
    module: nn.Module, source: str, run: Callable[[], Result], *, gradients: bool = False, hint: str = ""
) -> Result:
    """Call a function with a network in evaluation mode.

    Args:
        module: The network.
        source: The network's name in messages.
        run: The function.
        gradients: Whether gradients are enabled.
        hint: The end of the message if it fails.

    Returns:
        What the function returns.

    Raises:
        EncoscopeError: For any exception of the function but EncoscopeErrors and ``torch.OutOfMemoryError``, which
            are raised unchanged.
    """
    try:
        with evaluation_mode(module), torch.set_grad_enabled(gradients), _plain_encoder_layers(module):
            return run()
    except (EncoscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:500]
        raise EncoscopeError(f"the forward pass of {source} failed: {type(error).__name__}: {detail}{hint}") from error


@contextmanager
def _plain_encoder_layers(module: nn.Module) -> Iterator[None]:
    """Let torch's own transformer layers compute step by step.

    They compute all steps at once unless one of their modules has a hook, and the last bits differ: without this,
    observing a layer would change logits.
    """
    with removing_hooks([]) as handles:
        for child in module.modules():
            if isinstance(child, nn.TransformerEncoderLayer):
                handles.append(child.register_forward_hook(lambda *_: None))
        yield


def run_in_halves(run: Callable[[Tensor], Result], pixels: Tensor) -> list[Result]:
    """Call a function on a batch, and on its halves in turn if the memory does not suffice.

    Args:
        run: The function; it is called on ``[n, channels, height, width]`` with n from 1 to the size of the batch.
        pixels: The batch, ``[batch, channels, height, width]``.

    Returns:
        The results for consecutive pieces of the batch, in order.

    Raises:
        EncoscopeError: If one image alone does not fit the memory.
    """
    try:
        return [run(pixels)]
    except torch.OutOfMemoryError as error:
        if len(pixels) == 1:
            raise EncoscopeError(
                f"one image of {pixels.shape[2]}x{pixels.shape[3]} does not fit the memory of {pixels.device}: "
                "use a smaller size, or the CPU"
            ) from error
    # Outside the except block: the error's traceback would keep the failed run's tensors alive.
    half = (len(pixels) + 1) // 2
    _log.warning("out of memory on %s with %d images at once: continuing with %d", pixels.device, len(pixels), half)
    if pixels.device.type == "cuda":
        torch.cuda.empty_cache()
    return [*run_in_halves(run, pixels[:half]), *run_in_halves(run, pixels[half:])]
