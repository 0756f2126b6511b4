"""What a network gives for a seeded input: kept beside every cached result, and compared before it is used again.

A digest knows weights, settings and code; whatever else changes what a network computes shows here. The outputs are
kept as a few sums with random signs, in which every value has its share, so that a trial is small.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoscope.computation import draw_signs
from encoscope.defaults import PRECISION
from encoscope.encoder.capture import draw_random_pixels
from encoscope.encoder.types import Observation
from encoscope.errors import EncoscopeError

if TYPE_CHECKING:
    from encoscope.encoder.encoder import Encoder

_SUMS = 8  # of each output
_TOLERANCE = {"fp32": 0.005, "fp16": 0.03, "bf16": 0.1}  # a GPU's TF32 is fp32 here
_ROUNDING = {"fp32": 1e-5, "fp16": 0.003, "bf16": 0.02}  # of the whole, where what differs between two inputs is small
_RANDOM = 1e-4  # two runs on one device differ by a hundredth of this
_MORE_RUNS = 6  # where random numbers were drawn and two runs agree


@dataclass(frozen=True)
class TrialOutput:
    """One output of a network for the two trial inputs.

    Attributes:
        shape: Its shape for one image.
        size: The root of the mean square of the mean of both outputs, and of half their difference.
        sums: Random sums of both, in units of the root of the sum of squares, ``[2][sums]``.
        gradient: Whether it passes a gradient to the input.
    """

    shape: tuple[int, ...]
    size: tuple[float, float]
    sums: tuple[tuple[float, ...], tuple[float, ...]]
    gradient: bool

    def agrees(self, other: TrialOutput, tolerance: float, rounding: float) -> bool:
        """Tell whether another output is the same but for rounding.

        Args:
            other: The other output.
            tolerance: Of the sums, as a share of each part's size.
            rounding: Of the sums, as a share of the whole.

        Returns:
            True if it is.
        """
        if self.shape != other.shape or self.gradient != other.gradient:
            return False
        whole = max(*self.size, *other.size, 1e-30)
        for index in range(2):
            allowed = tolerance * max(self.size[index], other.size[index]) + rounding * whole
            mine, theirs = np.array(self.sums[index]), np.array(other.sums[index])
            if np.abs(self.size[index] * mine - other.size[index] * theirs).max() > 3 * allowed:
                return False
        return True


@dataclass(frozen=True)
class TrialRun:
    """What a network gives for the trial inputs.

    Attributes:
        outputs: "features", "logits" if there are any, and layers, each with its output.
        random: Whether the network gives another output each time.
    """

    outputs: Mapping[str, TrialOutput] = field(default_factory=dict)
    random: bool = False

    def select(self, layers: Sequence[str]) -> TrialRun:
        """Keep features, logits and some layers.

        Args:
            layers: The layers' names.

        Returns:
            The trial of these.
        """
        names = ["features", "logits", *(name for layer in layers for name in (layer, f"{layer}@cls"))]
        return TrialRun({name: self.outputs[name] for name in names if name in self.outputs}, self.random)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            name: {
                "shape": list(output.shape),
                "size": [float(f"{size:.6g}") for size in output.size],
                "sums": [[round(value, 5) for value in part] for part in output.sums],
                "gradient": output.gradient,
            }
            for name, output in self.outputs.items()
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialRun:
        """Read what ``as_dict`` gave.

        Args:
            plain: The plain values.

        Returns:
            The trial.
        """
        return cls(
            {
                name: TrialOutput(
                    tuple(output["shape"]),
                    (float(output["size"][0]), float(output["size"][1])),
                    (tuple(output["sums"][0]), tuple(output["sums"][1])),
                    bool(output["gradient"]),
                )
                for name, output in plain.items()
            }
        )


def find_difference(kept: Any, trial: TrialRun, precision: str = PRECISION) -> str | None:
    """Compare a trial that was kept beside a result with the present network's.

    Args:
        kept: What ``TrialRun.as_dict`` gave when the result was made; None where nothing was kept.
        trial: The network's trial now.
        precision: The precision of the network's forward pass.

    Returns:
        The name of the first output that differs, or that was not kept; None if all agree.
    """
    try:
        outputs = TrialRun.from_dict(kept).outputs
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        outputs = {}
    for name, output in trial.outputs.items():
        other = outputs.get(name)
        if other is None or not output.agrees(other, _TOLERANCE[precision], _ROUNDING[precision]):
            return name
    return None


def list_hooks(module: nn.Module) -> tuple[int, ...]:
    """List the hooks of a network that are not this package's: what they change shows in a trial alone.

    Args:
        module: The network.

    Returns:
        A number for each, as long as it is there.
    """
    return tuple(
        id(hook)
        for child in module.modules()
        for kind in (child._forward_hooks, child._forward_pre_hooks, child._backward_hooks)
        for hook in list(kind.values())
        if not str(getattr(hook, "__module__", "")).startswith("encoscope.")
    )


def list_settings(module: nn.Module) -> tuple[Any, ...]:
    """List the numbers and texts among the attributes of modules, which an installed library's forward may read.

    A digest does not know them, for they may differ between versions and machines; a trial knows what they do.

    Args:
        module: The network.

    Returns:
        Their values.
    """
    plain = (bool, int, float, complex, str, type(None))
    return tuple(
        (name, value if isinstance(value, plain) else tuple(value))
        for child in module.modules()
        for name, value in vars(child).items()
        if not name.startswith("_") and name != "training"
        if isinstance(value, plain)
        or (isinstance(value, (tuple, list)) and all(isinstance(item, plain) for item in value))
    )


def run_trial(encoder: Encoder, layers: Sequence[str]) -> TrialRun:
    """Run a network twice on two seeded inputs.

    Args:
        encoder: The network.
        layers: Names of layers.

    Returns:
        What it gives.

    Raises:
        EncoscopeError: A forward pass that fails.
    """
    pixels = _draw_inputs(encoder)
    with torch.inference_mode(False), torch.enable_grad(), _preserved_random_state() as drew:  # whatever the caller set
        options = {"features": True, "logits": encoder.outputs is not None}  # finding the logits runs the network, too
        first = _list_outputs(encoder.observe(pixels, layers, **options))
        used = drew()
        leaf = pixels.clone().requires_grad_()
        try:
            second = _list_outputs(encoder.observe(leaf, layers, gradients=True, **options))
            flags = {name: _reaches(tensor, leaf) for name, tensor in second.items()}
        except EncoscopeError:  # inference mode inside: tensors that no gradient can be computed from
            second = _list_outputs(encoder.observe(pixels, layers, **options))
            flags = dict.fromkeys(second, False)
        if _is_coarse(encoder):  # other kernels with gradients may round otherwise
            second = _list_outputs(encoder.observe(pixels, layers, **options))
        differs = _differ(first, second)
        for _ in range(_MORE_RUNS if used and not differs else 0):
            differs = differs or _differ(first, _list_outputs(encoder.observe(pixels, layers, **options)))
    outputs = {name: _summarize(tensor, flags[name]) for name, tensor in first.items()}
    return TrialRun(outputs, differs)


def _is_coarse(encoder: Encoder) -> bool:
    """Whether the network computes in half precision."""
    first = next(encoder.module.parameters(), None)
    return encoder.precision != "fp32" or (first is not None and first.dtype in (torch.float16, torch.bfloat16))


def _draw_inputs(encoder: Encoder) -> Tensor:
    """Noise, and a smooth image: [2, C, H, W]."""
    channels, (height, width) = encoder.preprocess.channels, encoder.preprocess.size
    noise = draw_random_pixels(1, channels, (height, width), None)
    coarse = draw_random_pixels(1, channels, (5, 5), None)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    pixels = torch.cat([noise, smooth])
    first = next(encoder.module.parameters(), None)
    return pixels if first is None else pixels.to(first.device, first.dtype if first.is_floating_point() else None)


def _list_outputs(observation: Observation) -> dict[str, Tensor]:
    outputs = {"features": observation.features, "logits": observation.logits}
    for name, activation in observation.activations.items():
        outputs[name] = activation.maps
        outputs[f"{name}@cls"] = activation.prefix
    return {name: tensor for name, tensor in outputs.items() if tensor is not None}


def _reaches(tensor: Tensor, leaf: Tensor) -> bool:
    """Whether the graph of a tensor leads to the input."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is leaf:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def _differ(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    for name, tensor in first.items():
        left, right = (torch.nan_to_num(each.detach().double(), nan=1.0) for each in (tensor, second[name]))
        if (left - right).norm() > _RANDOM * left.norm():
            return True
    return False


def _summarize(tensor: Tensor, gradient: bool) -> TrialOutput:
    both = torch.nan_to_num(tensor.detach().cpu().float(), nan=1.0).double().flatten(1).numpy()
    parts = np.stack([both.mean(0), (both[0] - both[1]) / 2])
    sizes = np.sqrt((parts**2).mean(1))
    sums = parts @ draw_signs(_SUMS, parts.shape[1]).T / np.sqrt(parts.shape[1])
    sums /= np.maximum(sizes, 1e-30)[:, None]
    return TrialOutput(
        tuple(tensor.shape[1:]),
        (float(sizes[0]), float(sizes[1])),
        (tuple(sums[0].tolist()), tuple(sums[1].tolist())),
        gradient,
    )


@contextmanager
def _preserved_random_state() -> Iterator[Any]:
    """Put all generators back after the block; yields a function that tells whether torch's or NumPy's was used."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002

    def snapshot() -> list[Any]:
        states = [torch.get_rng_state().tolist(), *(torch.cuda.get_rng_state(device).tolist() for device in devices)]
        return [*states, [np.asarray(part).tolist() for part in np.random.get_state()]]  # noqa: NPY002

    before = snapshot()
    try:
        with torch.random.fork_rng(devices=devices):
            yield lambda: snapshot() != before
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
