"""Find which of a network's outputs are the logits, and the linear layer that gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import draw_random_pixels, evaluation_mode, removing_hooks
from encoscope.encoder.containers import find_first_tensor
from encoscope.errors import EncoscopeError, UsageError

_BATCH = 2  # images in the trial run


@dataclass(frozen=True)
class OutputChoice:
    """What a network's output is taken for.

    Attributes:
        key: The output that is read as logits, such as "logits", "1" or "heads.main"; "" for a network that returns one
            tensor, or whose first tensor is taken because no other output can be meant; None if it is not certain.
        width: The number of logits; None if the output has no row of values for each image.
        head: The name of the linear layer (or 1x1 convolution) that gives them; None if there is no such layer.
        reason: Why this output is taken; "" where there is no other.
        candidates: The width of each output that could be the logits, by key.
    """

    key: str | None
    width: int | None
    head: str | None
    reason: str = ""
    candidates: Mapping[str, int] = field(default_factory=dict)

    def describe_candidates(self) -> str:
        """List the outputs that could be the logits."""
        return ", ".join(f"{key} ({width} wide)" for key, width in self.candidates.items())

    def read(self, output: Any) -> Tensor | None:
        """Find the logits, or the tensor that stands for them, in what the network returned.

        Args:
            output: What the network returned.

        Returns:
            The tensor; None if the output has none.
        """
        if self.key:
            return dict(list_outputs(output)).get(self.key)
        return find_output_tensor(output)

    def read_features(self, output: Any) -> Tensor | None:
        """Find the output that holds pooled features, beside the logits.

        Args:
            output: What the network returned.

        Returns:
            The only other output with a row of values for each image; None if there is none, or several.
        """
        others = [tensor for key, tensor in list_outputs(output) if key in self.candidates and key != self.key]
        return others[0] if len(others) == 1 else None


def find_output_tensor(output: Any) -> Tensor | None:
    """Find the tensor that is the network's output.

    Args:
        output: What the network returned.

    Returns:
        The ``logits`` of an output object that has them, else the first tensor; None if there is no tensor.
    """
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    return find_first_tensor(output)


def pool_output(output: Any) -> Tensor:
    """Give the features of a network without a head: its 2-D output, pooler output, class token, or mean over space.

    Args:
        output: What the network returned.

    Returns:
        ``[batch, features]``.

    Raises:
        EncoscopeError: If it holds no tensor.
    """
    pooled = output.get("pooler_output") if isinstance(output, dict) else None
    tensor = pooled if isinstance(pooled, Tensor) else find_first_tensor(output)
    if tensor is None:
        raise EncoscopeError(f"the network's output ({type(output).__name__}) holds no tensor")
    if tensor.ndim == 4:
        return tensor.mean((2, 3))
    if tensor.ndim == 3:
        return tensor[:, 0]
    return tensor.flatten(1)


def list_outputs(output: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """List the tensors in what a network returned.

    Args:
        output: A tensor, or tuples, lists and mappings of them.
        key: The key of ``output`` in what contains it.

    Yields:
        Each tensor with its key: names and indices that lead to it, with dots between them.
    """
    if isinstance(output, Tensor):
        yield key, output
        return
    items: Any = output.items() if isinstance(output, Mapping) else ()
    if isinstance(output, (tuple, list)):
        items = zip(getattr(output, "_fields", range(len(output))), output, strict=True)
    for name, value in items:
        yield from list_outputs(value, f"{key}.{name}" if key else str(name))


def refuse_detections(output: Any, source: str) -> None:
    """Refuse a network that gives a list of objects for each image.

    Args:
        output: What the network returned.
        source: The network's name in messages.

    Raises:
        UsageError: For a list of mappings, as detectors return.
    """
    if isinstance(output, (tuple, list)) and output and all(isinstance(item, Mapping) for item in output):
        names = ", ".join(map(str, output[0]))
        raise UsageError(
            f"{source} is a detector: it gives {names} for each image, after normalizing and resizing by itself; "
            "use the network inside it that computes the maps, such as Encoder(module.backbone)"
        )


def choose_output(
    module: nn.Module,
    size: tuple[int, int],
    channels: int,
    forward: Callable[[Tensor], Any],
    *,
    source: str = "",
    classes: int | None = None,
    requested: str | None = None,
) -> OutputChoice:
    """Run a network on random pixels and find its logits.

    Of several outputs with a row of values for each image one is taken if it is certain: the user's choice; the one
    called logits; the only one as wide as there are classes; or the one that a linear layer computes from another of
    the outputs.

    Args:
        module: The network.
        size: (height, width) of its own input in pixels.
        channels: Number of input channels.
        forward: Calls the network.
        source: The network's name in messages.
        classes: The number of class names, or of classes that the network states; None if neither is known.
        requested: The key of the output that the user says is the logits.

    Returns:
        The choice.

    Raises:
        UsageError: If there is no output of the requested key.
    """
    linear: list[tuple[str, Tensor, Tensor | None]] = []  # kept alive, so that the same memory means the same tensor
    names: dict[nn.Module, str] = {
        child: name for name, child in module.named_modules() if isinstance(child, (nn.Linear, nn.Conv2d))
    }

    def note(child: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensor = find_first_tensor(output)
        if tensor is not None and tensor.flatten(1).shape[1] == tensor.shape[1]:
            linear.append((names[child], tensor, find_first_tensor(args)))

    def run(batch: int) -> Any:
        linear.clear()
        pixels = draw_random_pixels(batch, channels, size, next(module.parameters(), None))
        with evaluation_mode(module), torch.no_grad(), removing_hooks([]) as handles:
            handles.extend(child.register_forward_hook(note) for child in names)
            return forward(pixels)

    batch = _BATCH
    try:
        output = run(batch)
    except torch.OutOfMemoryError:
        batch = 1
        output = run(batch)
    outputs = {key: tensor for key, tensor in list_outputs(output) if tensor.ndim == 2 and len(tensor) == batch}
    widths = {key: tensor.shape[1] for key, tensor in outputs.items()}

    def make(key: str, reason: str = "") -> OutputChoice:
        tensor = outputs[key] if key in outputs else find_output_tensor(output)
        wide = tensor is not None and tensor.ndim == 2 and len(tensor) == batch
        head = next((name for name, result, _ in linear if wide and _is_same(result, tensor)), None)
        return OutputChoice(key, tensor.shape[1] if tensor is not None and wide else None, head, reason, widths)

    if requested is not None:
        key = _find_requested(requested, widths, source)
        return make(key, "as requested" if key else "")
    if len(outputs) < 2:
        return make(next(iter(outputs), ""))
    if "logits" in outputs:
        return make("logits", "it is called logits")
    fitting = [key for key, width in widths.items() if width == classes]
    if len(fitting) == 1:
        return make(fitting[0], f"it alone has {classes} values, one for each class")
    last = _find_last(outputs, linear)
    if last is not None:
        return make(last[0], f"layer {last[1]} computes it from output {last[2]}")
    return OutputChoice(None, None, None, "", widths)


def _find_requested(requested: str, widths: Mapping[str, int], source: str) -> str:
    if requested in widths:
        return requested
    listed = ", ".join(f"{key} ({width} wide)" for key, width in widths.items() if key)
    has = f"it has {listed}" if listed else "it gives one tensor" if widths else "it has none with a row for each image"
    raise UsageError(f"{source} has no output {requested!r} that could be logits: {has}")


def _find_last(
    outputs: Mapping[str, Tensor], linear: Sequence[tuple[str, Tensor, Tensor | None]]
) -> tuple[str, str, str] | None:
    """Of two outputs, one of which is a linear layer of the other: that one, the layer, and the other."""
    if len(outputs) != 2:
        return None
    for layer, result, argument in linear:
        keys = [key for key, tensor in outputs.items() if _is_same(result, tensor)]
        others = [key for key, tensor in outputs.items() if argument is not None and _is_same(argument, tensor)]
        if keys and others and keys != others:
            return keys[0], layer, others[0]
    return None


def _is_same(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.data_ptr() == b.data_ptr() and a.numel() == b.numel()
