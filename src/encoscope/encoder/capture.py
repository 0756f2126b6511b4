"""Record the outputs of modules during a forward pass, and leave the network as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

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


def list_items(output: ModuleOutput) -> list[Any]:
    """List what a container holds.

    Args:
        output: What a module returned.

    Returns:
        The values of a mapping, the items of a tuple or list, the fields of a dataclass; nothing of anything else.
    """
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, (tuple, list)):
        return list(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return []


def list_tensors(output: ModuleOutput) -> list[Tensor]:
    """List the tensors in a module's output.

    Args:
        output: What the module returned: a tensor, or tuples, lists, mappings and dataclasses of tensors.

    Returns:
        The tensors in order, those of containers within containers too.
    """
    if isinstance(output, Tensor):
        return [output]
    return [tensor for item in list_items(output) for tensor in list_tensors(item)]


def find_first_tensor(output: ModuleOutput) -> Tensor | None:
    """Find the tensor that carries a module's output.

    Args:
        output: What the module returned: a tensor, or tuples, lists, mappings and dataclasses of tensors.

    Returns:
        The output itself if it is a tensor, else its ``last_hidden_state``, else the first tensor of real numbers in
        it, else its first tensor; None if it holds no tensor.
    """
    preferred = output.get("last_hidden_state") if isinstance(output, Mapping) else None
    if isinstance(preferred, Tensor):
        return preferred
    tensors = list_tensors(output)
    return next((tensor for tensor in tensors if tensor.is_floating_point()), tensors[0] if tensors else None)


@dataclasses.dataclass(frozen=True)
class OutputLocation:
    """Where in a forward pass a layer's tensor is found.

    Attributes:
        module: The module's name.
        calls: How often one forward pass calls the module. The output of this call is the layer's.
        index: Which of the tensors in the output; None takes the one that ``find_first_tensor`` finds.
    """

    module: str
    calls: int = 1
    index: int | None = None

    def find_tensor(self, output: ModuleOutput) -> Tensor | None:
        """Find the layer's tensor.

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
    counts = dict.fromkeys(locations, 0)

    def record(name: str, location: OutputLocation) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: ModuleOutput) -> None:
            tensor = location.find_tensor(output)
            if tensor is None:
                return
            counts[name] += 1
            if counts[name] <= location.calls:
                edge = get_gradient_edge(tensor) if torch.is_grad_enabled() and tensor.requires_grad else None
                recorded[name] = RecordedOutput(tensor.clone(), edge)
            if stop and all(counts[other] >= locations[other].calls for other in locations):
                raise _Stop

        return hook

    with removing_hooks([]) as handles:
        for name, location in locations.items():
            child = module.get_submodule(location.module)
            handles.append(child.register_forward_hook(record(name, location)))
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
