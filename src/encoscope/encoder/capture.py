"""Record the outputs of modules during a forward pass, and leave the network as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ModuleOutput = Any  # whatever a module's forward returns


class _Stop(BaseException):
    """Ends a forward pass early. Networks that catch Exception do not catch it."""


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode for the block, and restore every submodule's training flag afterwards.

    Args:
        module: The network.

    Yields:
        Nothing.
    """
    flags = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in flags:
            child.training = training


@contextmanager
def removing_hooks(handles: list[Any]) -> Iterator[list[Any]]:
    """Remove hooks at the end of the block, even if the block raises.

    Args:
        handles: The list to which the block appends the handles of its hooks.

    Yields:
        The same list.
    """
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def find_first_tensor(output: ModuleOutput) -> Tensor | None:
    """Find the tensor that carries a module's output.

    Args:
        output: What the module returned: a tensor, or tuples, lists and mappings of tensors.

    Returns:
        The output itself if it is a tensor, else its ``last_hidden_state``, else the first tensor in it; None if it
        holds no tensor.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        preferred = output.get("last_hidden_state")
        output = [preferred] if isinstance(preferred, Tensor) else list(output.values())
    if isinstance(output, (tuple, list)):
        return next((tensor for tensor in map(find_first_tensor, output) if tensor is not None), None)
    return None


def capture(
    module: nn.Module,
    pixels: Tensor,
    calls: Mapping[str, int],
    *,
    stop: bool = True,
    forward: Callable[[Tensor], ModuleOutput] | None = None,
) -> tuple[dict[str, Tensor], ModuleOutput]:
    """Run a network on a batch and keep the outputs of some of its modules.

    With gradients enabled, the rest of the network is computed from the tensors that are returned. Training flags are
    not changed; see ``evaluation_mode``.

    Args:
        module: The network.
        pixels: ``[batch, channels, height, width]``, normalized.
        calls: For the name of each module to capture, how often the network calls it in one forward pass. The last
            call's output is kept.
        stop: End the pass as soon as all outputs are captured; otherwise it runs to its end.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        ``{name: output tensor in the network's own layout}``, and the network's output, which is None if the pass was
        ended early.
    """
    modules = {name: module.get_submodule(name) for name in calls}
    outputs: dict[str, Tensor] = {}
    counts = dict.fromkeys(calls, 0)

    def keep(name: str) -> Callable[..., ModuleOutput]:
        def hook(_module: nn.Module, _args: Any, output: ModuleOutput) -> ModuleOutput:
            tensor = find_first_tensor(output)
            if tensor is None:
                return None
            outputs[name] = tensor
            counts[name] += 1
            if stop and all(counts[other] >= calls[other] for other in calls):
                raise _Stop
            # The network continues with a copy, so that a later in-place operation does not change what was kept.
            return tensor.clone() if output is tensor else None

        return hook

    with removing_hooks([]) as handles:
        for name, child in modules.items():
            handles.append(child.register_forward_hook(keep(name)))
        try:
            result = (forward or module)(pixels)
        except _Stop:
            result = None
    return outputs, result


def draw_random_pixels(batch: int, channels: int, size: tuple[int, int], like: Tensor | None) -> Tensor:
    """Draw normal noise as the input of a trial run; the same noise in every call.

    Args:
        batch: Number of images.
        channels: Number of channels.
        size: (height, width) in pixels.
        like: A tensor whose device and type the noise gets, such as a weight; None for float32 on the CPU.

    Returns:
        ``[batch, channels, height, width]``.
    """
    noise = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))
    return noise if like is None else noise.to(like.device, like.dtype)
