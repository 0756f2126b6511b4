"""Run a network: its errors in one line, and what does not fit the memory in halves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import evaluation_mode
from encoscope.errors import EncoscopeError

_log = logging.getLogger("encoscope")

Result = TypeVar("Result")


def run_guarded(module: nn.Module, source: str, run: Callable[[], Result], *, gradients: bool = False) -> Result:
    """``run()`` with the network in evaluation mode, with or without gradients; errors become an EncoscopeError."""
    try:
        with evaluation_mode(module), torch.set_grad_enabled(gradients):
            return run()
    except (EncoscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        raise EncoscopeError(f"the forward pass of {source} failed: {type(error).__name__}: {said}") from error


def run_in_halves(run: Callable[[Tensor], Result], pixels: Tensor) -> list[Result]:
    """[run(pixels)]; where the GPU's memory does not suffice, the results for its halves in order, and so on."""
    try:
        return [run(pixels)]
    except torch.OutOfMemoryError as error:
        if len(pixels) == 1:
            raise EncoscopeError(
                f"one image of {pixels.shape[2]}x{pixels.shape[3]} does not fit the memory of {pixels.device}: "
                "give a smaller size, or use the CPU"
            ) from error
    # Outside the except block: the error's traceback would keep the failed run's tensors alive.
    half = (len(pixels) + 1) // 2
    _log.warning("out of memory on %s with %d images at once: going on with %d", pixels.device, len(pixels), half)
    if pixels.device.type == "cuda":
        torch.cuda.empty_cache()
    return [*run_in_halves(run, pixels[:half]), *run_in_halves(run, pixels[half:])]
