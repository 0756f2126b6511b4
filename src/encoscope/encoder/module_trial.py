"""One run of a network on noise: the shapes of its modules' outputs, and which module reads which output."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import OutputLocation, draw_random_pixels, evaluation_mode, removing_hooks
from encoscope.encoder.containers import find_first_tensor, list_tensors
from encoscope.encoder.functions import FunctionRecorder
from encoscope.encoder.outputs import find_output_tensor

BATCH = 2
"""Images in the trial run; tells the batch axis from windows, heads and tokens."""

OutputKey: TypeAlias = tuple[str, int | None]
"""A module's name, and which of the tensors in its output; None for a module that returns one tensor."""


@dataclass(frozen=True)
class ModuleTrial:
    """What one run showed.

    Attributes:
        shapes: The shapes of each module's last output, in the order in which those calls ended.
        calls: How often each module was called.
        followers: For each module the modules that read its output as it is, in the order of their last calls, and
            those that read it after its functions.
        functions: For modules whose output the network uses after norms or activations that are functions: all
            functions up to there.
        outputs: The width K of the network's output if that is ``[batch, K]``, else None.
        dense: The number of channels K of the network's output if that is ``[batch, K, height, width]`` at the image's
            own resolution, as that of a segmentation network; else None.
    """

    shapes: Mapping[OutputKey, tuple[int, ...]]
    calls: Mapping[str, int]
    followers: Mapping[str, list[str]]
    functions: Mapping[str, tuple[str, ...]]
    outputs: int | None
    dense: int | None = None

    @property
    def locations(self) -> dict[OutputKey, OutputLocation]:
        """Where in a forward pass the outputs are found."""
        return {(name, index): OutputLocation(name, self.calls[name], index) for name, index in self.shapes}


def run_module_trial(
    module: nn.Module, size: tuple[int, int], channels: int, forward: Callable[[Tensor], Any] | None = None
) -> ModuleTrial:
    """Run a network on two images of noise.

    Args:
        module: The network.
        size: (height, width) of its own input in pixels.
        channels: Number of input channels.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        What the run showed.
    """
    shapes: dict[str, dict[OutputKey, tuple[int, ...]]] = {}
    calls: dict[str, int] = {}
    names = {child: name for name, child in module.named_modules() if name}
    producers = _Producers()
    sources: dict[str, list[str]] = {}
    pixels = draw_random_pixels(BATCH, channels, size, next(module.parameters(), None))
    recorder = FunctionRecorder(pixels)

    def enter(child: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        recorder.enter(names[child], list_tensors([*args, *kwargs.values()]))

    def note(child: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        name, tensor = names[child], find_first_tensor(output)
        recorder.leave(name, tensor, list_tensors(output))
        if tensor is None:
            return
        calls[name] = calls.get(name, 0) + 1
        sources.pop(name, None)
        sources[name] = producers.list_names(next(iter(list_tensors([*args, *kwargs.values()])), None))
        shapes.pop(name, None)
        shapes[name] = dict(_list_shapes(name, output, tensor))
        for each in list_tensors(output):
            producers.add(each, name)

    with evaluation_mode(module), torch.no_grad(), removing_hooks([]) as handles, recorder:
        handles.extend(child.register_forward_pre_hook(enter, with_kwargs=True) for child in names)
        handles.extend(child.register_forward_hook(note, with_kwargs=True) for child in names)
        returned = (forward or module)(pixels)
    recorder.finish(list_tensors(returned))
    output, functions = find_output_tensor(returned), recorder.find_functions()

    wide = output is not None and output.ndim == 2 and output.shape[0] == BATCH
    followers: dict[str, list[str]] = {}
    for name, producing in sources.items():
        for source in producing:
            followers.setdefault(source, []).append(name)
    for name in functions:
        followers[name] = [*followers.get(name, []), *recorder.list_readers(name)]
    flat = {key: shape for outputs in shapes.values() for key, shape in outputs.items()}
    dense = output is not None and output.ndim == 4 and tuple(output.shape[2:]) == size
    width = None if output is None else output.shape[1] if wide or dense else None
    return ModuleTrial(flat, calls, followers, functions, width if wide else None, width if dense else None)


class _Producers:
    """Which modules returned a tensor, by the tensor itself: copies and results of other operations are others."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], list[str]]] = {}

    def add(self, tensor: Tensor, name: str) -> None:
        names = [*self.list_names(tensor), name]
        self._known[id(tensor)] = (weakref.ref(tensor), names)

    def list_names(self, tensor: Tensor | None) -> list[str]:
        known = None if tensor is None else self._known.get(id(tensor))
        # A deleted tensor's id may belong to another tensor now.
        return known[1] if known is not None and known[0]() is tensor else []


def _list_shapes(name: str, output: Any, main: Tensor) -> Iterator[tuple[OutputKey, tuple[int, ...]]]:
    """The shapes of a module's tensors of real numbers, without attention matrices beside the first."""
    if output is main:
        yield (name, None), tuple(main.shape)
        return
    preferred = isinstance(output, Mapping) and output.get("last_hidden_state") is main
    listed: list[Tensor] = []
    for index, tensor in enumerate(list_tensors(output)):
        again = any(tensor is other for other in listed)
        listed.append(tensor)
        if again or not tensor.is_floating_point():
            continue
        square = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2]
        attention = main.ndim == 3 and square and tensor.shape[-1] in main.shape[:2]
        if tensor is main or not (preferred or attention):
            yield (name, index), tuple(tensor.shape)
