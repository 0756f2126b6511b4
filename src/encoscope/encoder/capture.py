"""Record the outputs of modules during a forward pass, and leave the network as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from encoscope.encoder.containers import ModuleOutput, find_first_tensor, list_tensors, replace_tensor
from encoscope.encoder.functions import following_functions
from encoscope.encoder.lock import hold_module


class _Stop(BaseException):
    """Ends a forward pass early. Networks that catch Exception do not catch it."""


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode for the block, and restore every submodule's training flag afterwards.

    Other threads wait until the block ends.

    Args:
        module: The network.

    Yields:
        Nothing.
    """
    with hold_module(module):
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


@dataclasses.dataclass(frozen=True)
class OutputLocation:
    """Where in a forward pass a layer's tensor is found.

    Attributes:
        module: The module's name.
        calls: How often one forward pass calls the module. The output of this call is the layer's.
        index: Which of the tensors in the output; None takes the one that ``find_first_tensor`` finds.
        functions: The functions that the network applies to this tensor, the last of which gives the layer's tensor.
    """

    module: str
    calls: int = 1
    index: int | None = None
    functions: tuple[str, ...] = ()

    def find_tensor(self, output: ModuleOutput) -> Tensor | None:
        """Find the layer's tensor, before any functions.

        Args:
            output: What the module returned.

        Returns:
            The tensor; None if there is none.
        """
        if self.index is None:
            return find_first_tensor(output)
        tensors = list_tensors(output)
        return tensors[self.index] if self.index < len(tensors) else None


@dataclasses.dataclass(frozen=True)
class RecordedOutput:
    """A layer's output in one forward pass.

    Attributes:
        value: A copy in the network's own layout: nothing that the network does later changes it. With gradients
            enabled it is part of the graph, as a branch.
        edge: Where the gradient of the output itself is found in the graph, for ``torch.autograd.grad``; None without
            a graph.
    """

    value: Tensor
    edge: GradientEdge | None


@contextmanager
def watching_outputs(
    module: nn.Module,
    locations: Mapping[str, OutputLocation],
    watch: Callable[[str, int, Tensor], Tensor | None],
) -> Iterator[None]:
    """Call a function with the tensors of layers during the forward passes that are run in the block.

    Args:
        module: The network.
        locations: The layers by name.
        watch: Called with a layer's name, the number of the call in this block from 1, and the layer's tensor itself.
            What it returns takes the tensor's place in the network; None leaves it.

    Yields:
        Nothing.
    """
    counts = dict.fromkeys(locations, 0)

    def tell(name: str, tensor: Tensor) -> Tensor | None:
        counts[name] += 1
        return watch(name, counts[name], tensor)

    follows = any(location.functions for location in locations.values())
    watch_functions = following_functions(module) if follows else nullcontext()
    with hold_module(module), removing_hooks([]) as handles, watch_functions as follower:

        def make_hook(name: str, location: OutputLocation) -> Callable[..., ModuleOutput]:
            def hook(_module: nn.Module, _args: Any, output: ModuleOutput) -> ModuleOutput:
                tensor = location.find_tensor(output)
                if tensor is None:
                    return None
                if follower is not None and location.functions:
                    follower.follow(tensor, location.functions, lambda result: tell(name, result))
                    return None
                other = tell(name, tensor)
                return None if other is None else replace_tensor(output, tensor, other)

            return hook

        for name, location in locations.items():
            handles.append(module.get_submodule(location.module).register_forward_hook(make_hook(name, location)))
        yield


@contextmanager
def recording_outputs(
    module: nn.Module, locations: Mapping[str, OutputLocation], *, stop: bool = False
) -> Iterator[dict[str, RecordedOutput]]:
    """Record outputs of layers in the forward pass that is run in the block.

    The network goes on with its own tensors, so that the pass computes what it computes without being recorded.

    Args:
        module: The network.
        locations: The layers by name.
        stop: End the pass as soon as all outputs are recorded; the block must then suppress nothing and end at once.

    Yields:
        The recorded outputs by name; it fills during the pass.
    """
    recorded: dict[str, RecordedOutput] = {}
    missing = {name: location.calls for name, location in locations.items()}

    def record(name: str, call: int, tensor: Tensor) -> None:
        if call <= locations[name].calls:
            edge = get_gradient_edge(tensor) if torch.is_grad_enabled() and tensor.requires_grad else None
            recorded[name] = RecordedOutput(tensor.clone(), edge)
        if call >= locations[name].calls:
            missing.pop(name, None)
        if stop and not missing:
            raise _Stop

    with watching_outputs(module, locations, record):
        yield recorded


def capture(
    module: nn.Module,
    pixels: Tensor,
    locations: Mapping[str, OutputLocation],
    *,
    stop: bool = True,
    forward: Callable[[Tensor], ModuleOutput] | None = None,
) -> tuple[dict[str, Tensor], ModuleOutput]:
    """Run a network on a batch and keep copies of the outputs of some of its layers.

    With gradients enabled the copies can be differentiated with respect to the pixels. Training flags are not changed;
    see ``evaluation_mode``.

    Args:
        module: The network.
        pixels: ``[batch, channels, height, width]``, normalized. The network gets a copy, which it may change.
        locations: The layers to capture by name.
        stop: End the pass as soon as all outputs are captured; otherwise it runs to its end.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        ``{name: output tensor in the network's own layout}``, and the network's output, which is None if the pass was
        ended early.
    """
    with recording_outputs(module, locations, stop=stop) as recorded:
        try:
            result = (forward or module)(pixels.clone())
        except _Stop:
            result = None
    return {name: output.value for name, output in recorded.items()}, result


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
