"""Read what modules put out during a forward pass, and leave the network as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ModuleOutput = Any  # whatever a module's forward returns


class _Stop(BaseException):
    """Ends a forward pass once all that was asked for has been seen; networks that catch Exception do not catch it."""


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own training flag again afterwards."""
    flags = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in flags:
            child.training = training


@contextmanager
def removing_hooks(handles: list[Any]) -> Iterator[list[Any]]:
    """Removes the hooks whose handles the block appended, whatever happens in it."""
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def find_first_tensor(output: ModuleOutput) -> Tensor | None:
    """The tensor that carries a module's output: itself, ``last_hidden_state``, or a tuple's or mapping's first."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        preferred = output.get("last_hidden_state")
        output = [preferred] if isinstance(preferred, Tensor) else list(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for found in map(find_first_tensor, output) if found is not None), None)
    return None


def capture(
    module: nn.Module,
    pixels: Tensor,
    calls: Mapping[str, int],
    *,
    stop: bool = True,
    forward: Callable[[Tensor], ModuleOutput] | None = None,
) -> tuple[dict[str, Tensor], ModuleOutput]:
    """Run ``module(pixels)`` and keep the outputs of some of its modules.

    calls: for each wanted module's name, how often the network calls it in one forward pass; the last call counts.
    stop: end the pass once everything was seen; otherwise it runs to the end.

    Returns ({name: output tensor in the network's own layout}, the network's output or None if it was ended early).
    Works with gradients on: the kept tensors are the ones the rest of the network was computed from. Training flags
    are left alone; see ``evaluating``.
    """
    wanted = {name: module.get_submodule(name) for name in calls}
    kept: dict[str, Tensor] = {}
    seen = dict.fromkeys(calls, 0)

    def keep(name: str) -> Callable[..., ModuleOutput]:
        def hook(_module: nn.Module, _args: Any, output: ModuleOutput) -> ModuleOutput:
            tensor = find_first_tensor(output)
            if tensor is None:
                return None
            kept[name] = tensor
            seen[name] += 1
            if stop and all(seen[other] >= calls[other] for other in calls):
                raise _Stop
            # The network goes on with a copy: a later in-place operation must not change what was kept.
            return tensor.clone() if output is tensor else None

        return hook

    with removing_hooks([]) as handles:
        for name, child in wanted.items():
            handles.append(child.register_forward_hook(keep(name)))
        try:
            result = (forward or module)(pixels)
        except _Stop:
            result = None
    return kept, result


def draw_random_pixels(batch: int, channels: int, size: tuple[int, int], like: Tensor | None) -> Tensor:
    """Seeded noise as a trial input, on the device and in the type of ``like``."""
    noise = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))
    return noise if like is None else noise.to(like.device, like.dtype)
