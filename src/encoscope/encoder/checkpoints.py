"""Put the weights of a checkpoint file, however it was wrapped, into a network, and say what did not fit."""

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

# Self-supervised schemes: what they call the head is a projection, not a classifier.
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
    """Builds the network, with another number of classes or input channels when asked; 0 classes: without its head."""

    def __call__(self, classes: int | None = None, channels: int | None = None) -> nn.Module:
        """The network with fresh weights."""
        ...


def load_checkpoint(path: Path, make: NetworkBuilder, converter: StateConverter | None = None) -> nn.Module:
    """The network ``make`` builds, with the weights of the file.

    Wrappers ("state_dict", "teacher", ...) and prefixes ("module.", "backbone.", "encoder_q.", ...) are found by
    what matches. A head for another number of classes, and a first layer for another number of channels, are
    remade where ``make`` can do that. What is missing, left over or dropped is logged. ``converter`` turns a
    family's published names and shapes into the network's own.

    Raises MissingError when there is no file, EncoscopeError when it cannot be read safely or does not fit.
    """
    module = make()
    chosen = find_best_candidate(list(find_state_dicts(read_weights_file(path))), module, converter)
    if chosen is None or not chosen.state:
        raise EncoscopeError(f"checkpoint {path}: no table of weights in it matches this network")
    if chosen.label:
        _log.info("checkpoint %s: weights taken from %s", path.name, chosen.label)
    module = _remake(module, chosen, make, path)
    _fill(module, chosen, path)
    return module


def _remake(module: nn.Module, chosen: StateCandidate, make: NetworkBuilder, path: Path) -> nn.Module:
    """The network with the checkpoint's number of classes and channels, or without a head where it has none."""
    unlike = _unlike(module, chosen.state)
    channels = _channels(module, unlike)
    head = _head(module)
    weight = chosen.state.get(f"{head}.weight")
    projection = any(word in name for word in _PROJECTIONS for name in (chosen.label, *chosen.others))
    classes = weight.shape[0] if weight is not None and f"{head}.weight" in unlike and not projection else None
    if channels is not None or classes is not None:
        module = make(classes=classes, channels=channels)
    if head is None:
        return module
    if weight is None or projection or f"{head}.weight" in _unlike(module, chosen.state):
        for part in ("weight", "bias"):
            chosen.state.pop(f"{head}.{part}", None)
        why = "has no classifier for this network" if weight is None else "has another head"
        _log.warning("checkpoint %s %s: the network's %s is dropped", path.name, why, head)
        _drop_heads(module, chosen.state)
    elif classes is not None:
        _log.warning("checkpoint %s has a head of %d classes: the network's %s was remade", path.name, classes, head)
    return module


def _channels(module: nn.Module, unlike: Mapping[str, tuple[int, ...]]) -> int | None:
    """The file's input channels, if they are all in which its first convolution differs from the network's."""
    first = next(((name, tuple(value.shape)) for name, value in module.state_dict().items() if value.ndim == 4), None)
    if first is None or first[0] not in unlike:
        return None
    (outputs, _, *kernel), found = first[1], unlike[first[0]]
    return found[1] if len(found) == 4 and (found[0], *found[2:]) == (outputs, *kernel) else None


def _unlike(module: nn.Module, state: StateDict) -> dict[str, tuple[int, ...]]:
    """The file's shapes that differ from the network's, in the network's order."""
    own = module.state_dict().items()
    return {name: tuple(state[name].shape) for name, value in own if name in state and state[name].shape != value.shape}


def _weighted(module: nn.Module) -> list[tuple[str, nn.Module]]:
    named = module.named_modules()
    return [(name, child) for name, child in named if name and next(child.parameters(recurse=False), None) is not None]


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _head(module: nn.Module) -> str | None:
    """The last linear layer (or 1x1 convolution), if the network ends in it: where a classifier is."""
    weighted = _weighted(module)
    return weighted[-1][0] if weighted and _is_head(weighted[-1][1]) else None


def _drop_heads(module: nn.Module, state: StateDict) -> None:
    """Replaces the linear layers the checkpoint has nothing for, from the end of the network on, by nothing."""
    for name, child in reversed(_weighted(module)):
        if not _is_head(child) or f"{name}.weight" in state:
            break
        module.set_submodule(name, nn.Identity())
    if hasattr(module, "num_classes"):
        setattr(module, "num_classes", 0)  # noqa: B010


def _fill(module: nn.Module, chosen: StateCandidate, path: Path) -> None:
    own = module.state_dict()
    for name, shape in _unlike(module, chosen.state).items():
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: {name} is {_shape(shape)} in the file, "
            f"{_shape(own[name].shape)} in the network"
        )
    known = own.keys() & chosen.state.keys()
    if len(known) < MIN_MATCHED_SHARE * len(own):
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: only {len(known)} of its {len(own)} tensors are in the file"
            f" (the file has {_some(chosen.state)}; the network has {_some(own)})"
        )
    module.load_state_dict({name: chosen.state[name] for name in known}, strict=False)
    missing = [name for name in own if name not in known and not name.endswith("num_batches_tracked")]
    left = [*(name for name in chosen.state if name not in known), *chosen.others]
    if missing:
        _log.warning(
            "checkpoint %s: %d tensors of the network are not in it and keep random values: %s",
            path.name,
            len(missing),
            _some(missing),
        )
    if left:
        _log.warning("checkpoint %s: %d tensors in it are not used: %s", path.name, len(left), _some(left))


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _some(names: Iterable[str], count: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
