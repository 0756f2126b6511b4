"""Load the weights of a checkpoint file into a network, whatever the file's format, and log what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from encoscope.encoder.weights_file import StateDict, find_state_dicts, read_weights_file
from encoscope.encoder.weights_match import MIN_MATCHED_SHARE, StateCandidate, StateConverter, find_best_candidate
from encoscope.errors import EncoscopeError

_log = logging.getLogger("encoscope")

# Names in checkpoints of self-supervised training, whose head is a projection and not a classifier.
_PROJECTIONS = (
    "teacher",
    "student",
    "encoder_q",
    "encoder_k",
    "momentum",
    "projector",
    "projection",
    "online",
    "target_",
)


@runtime_checkable
class NetworkBuilder(Protocol):
    """A function that builds a network with random weights."""

    def __call__(self, classes: int | None = None, channels: int | None = None) -> nn.Module:
        """Build the network.

        Args:
            classes: Number of outputs of its classifier; None is the network's own, 0 removes the classifier.
            channels: Number of input channels; None is the network's own.

        Returns:
            The network.
        """
        ...


def load_checkpoint(path: Path, build_network: NetworkBuilder, converter: StateConverter | None = None) -> nn.Module:
    """Build a network and load the weights of a file into it.

    The entry of the file ("state_dict", "teacher", ...) and the prefix of its names ("module.", "backbone.",
    "encoder_q.", ...) are those that match the network best. If the file has another number of classes or of input
    channels, the network is built with that number. Tensors that are missing, unused or dropped are logged.

    Args:
        path: A .safetensors or torch file.
        build_network: Builds the network.
        converter: Converts the names and shapes that a family of networks was published with to the network's own;
            None if no conversion is known.

    Returns:
        The network with the file's weights.

    Raises:
        MissingError: If the file does not exist.
        EncoscopeError: If the file cannot be read without running code, or does not fit the network.
    """
    module = build_network()
    chosen = find_best_candidate(list(find_state_dicts(read_weights_file(path))), module, converter)
    if chosen is None or not chosen.state:
        raise EncoscopeError(f"checkpoint {path} holds no weights that match this network")
    if chosen.label:
        _log.info("checkpoint %s: weights taken from %s", path.name, chosen.label)
    module = _rebuild(module, chosen, build_network, path)
    _load_state(module, chosen, path)
    return module


def _rebuild(module: nn.Module, chosen: StateCandidate, build_network: NetworkBuilder, path: Path) -> nn.Module:
    """Build the network for the file's number of classes and channels; without a head if the file has none."""
    mismatched = _find_mismatched_shapes(module, chosen.state)
    channels = _find_channels(module, mismatched)
    head = _find_head(module)
    weight = chosen.state.get(f"{head}.weight")
    projection = any(word in name for word in _PROJECTIONS for name in (chosen.label, *chosen.others))
    classes = weight.shape[0] if weight is not None and f"{head}.weight" in mismatched and not projection else None
    if channels is not None or classes is not None:
        module = build_network(classes=classes, channels=channels)
    if head is None:
        return module
    if weight is None or projection or f"{head}.weight" in _find_mismatched_shapes(module, chosen.state):
        for parameter in ("weight", "bias"):
            chosen.state.pop(f"{head}.{parameter}", None)
        reason = "has no classifier for this network" if weight is None else "has another head"
        _log.warning("checkpoint %s %s: the network's %s is removed", path.name, reason, head)
        _drop_heads(module, chosen.state)
    elif classes is not None:
        _log.warning(
            "checkpoint %s has a head of %d classes: the network's %s was built anew", path.name, classes, head
        )
    return module


def _find_channels(module: nn.Module, mismatched: Mapping[str, tuple[int, ...]]) -> int | None:
    """The file's number of input channels, if only that differs between its first convolution and the network's."""
    first = next(((name, tuple(value.shape)) for name, value in module.state_dict().items() if value.ndim == 4), None)
    if first is None or first[0] not in mismatched:
        return None
    (outputs, _, *kernel), shape = first[1], mismatched[first[0]]
    return shape[1] if len(shape) == 4 and (shape[0], *shape[2:]) == (outputs, *kernel) else None


def _find_mismatched_shapes(module: nn.Module, state: StateDict) -> dict[str, tuple[int, ...]]:
    """The file's shapes that differ from the network's, in the network's order."""
    own = module.state_dict().items()
    return {name: tuple(state[name].shape) for name, value in own if name in state and state[name].shape != value.shape}


def _find_weighted_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    named = module.named_modules()
    return [(name, child) for name, child in named if name and next(child.parameters(recurse=False), None) is not None]


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _find_head(module: nn.Module) -> str | None:
    """The last linear layer (or 1x1 convolution) if no weights come after it: the place of a classifier."""
    weighted = _find_weighted_modules(module)
    return weighted[-1][0] if weighted and _is_head(weighted[-1][1]) else None


def _drop_heads(module: nn.Module, state: StateDict) -> None:
    """Replace the last linear layers of the network by identities, as far as the checkpoint has no weights for them."""
    for name, child in reversed(_find_weighted_modules(module)):
        if not _is_head(child) or f"{name}.weight" in state:
            break
        module.set_submodule(name, nn.Identity())
    if hasattr(module, "num_classes"):
        setattr(module, "num_classes", 0)  # noqa: B010


def _load_state(module: nn.Module, chosen: StateCandidate, path: Path) -> None:
    own = module.state_dict()
    for name, shape in _find_mismatched_shapes(module, chosen.state).items():
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: {name} is {_format_shape(shape)} in the "
            f"file, {_format_shape(own[name].shape)} in the network"
        )
    known = own.keys() & chosen.state.keys()
    if len(known) < MIN_MATCHED_SHARE * len(own):
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: only {len(known)} of its {len(own)} tensors are in the file"
            f" (the file has {_shorten(chosen.state)}; the network has {_shorten(own)})"
        )
    module.load_state_dict({name: chosen.state[name] for name in known}, strict=False)
    missing = [name for name in own if name not in known and not name.endswith("num_batches_tracked")]
    unused = [*(name for name in chosen.state if name not in known), *chosen.others]
    if missing:
        _log.warning(
            "checkpoint %s: %d tensors of the network are not in it and keep random values: %s",
            path.name,
            len(missing),
            _shorten(missing),
        )
    if unused:
        _log.warning("checkpoint %s: %d tensors in it are not used: %s", path.name, len(unused), _shorten(unused))


def _format_shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _shorten(names: Iterable[str], count: int = 4) -> str:
    """The first names as a text."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
