"""Put the weights of a checkpoint file, however it was wrapped, into a network, and say what did not fit."""

from __future__ import annotations

import argparse
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from encoscope.errors import EncoscopeError, MissingError

_log = logging.getLogger("encoscope")

State: TypeAlias = dict[str, Tensor]
Converter: TypeAlias = Callable[[State, nn.Module], State]

# Where a file holds several networks, the one that is meant: the averaged or key-less one, as each scheme evaluates.
_PREFERRED = ("ema", "teacher", "encoder_q", "online", "query")
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
_ENOUGH = 0.5  # share of the network's own weights (head aside) a checkpoint must bring


@runtime_checkable
class Maker(Protocol):
    """Builds the network, with another number of classes or input channels when asked; 0 classes: without its head."""

    def __call__(self, classes: int | None = None, channels: int | None = None) -> nn.Module:
        """The network with fresh weights."""
        ...


@dataclass(frozen=True)
class _Candidate:
    """One way to read the file: the table at ``path``, with ``prefix`` taken off its names."""

    state: State
    label: str
    others: tuple[str, ...]  # names that do not begin with the prefix

    def score(self, module: nn.Module) -> int:
        return len(self.state.keys() & module.state_dict().keys())

    @property
    def rank(self) -> int:
        return next((index for index, word in enumerate(_PREFERRED) if word in self.label), len(_PREFERRED))


def load_checkpoint(path: Path, make: Maker, converter: Converter | None = None) -> nn.Module:
    """The network ``make`` builds, with the weights of the file.

    Wrappers ("state_dict", "teacher", ...) and prefixes ("module.", "backbone.", "encoder_q.", ...) are found by
    what matches. A head for another number of classes, and a first layer for another number of channels, are
    remade where ``make`` can do that. What is missing, left over or dropped is logged. ``converter`` turns a
    family's published names and shapes into the network's own.

    Raises MissingError when there is no file, EncoscopeError when it cannot be read safely or does not fit.
    """
    tables = list(_tables(read_file(path)))
    module = make()
    chosen = _choose(tables, module, converter)
    if chosen is None or not chosen.state:
        raise EncoscopeError(f"checkpoint {path}: no table of weights in it matches this network")
    if chosen.label:
        _log.info("checkpoint %s: weights taken from %s", path.name, chosen.label)
    module = _remake(module, chosen, make, path)
    _fill(module, chosen, path)
    return module


def read_file(path: Path) -> Any:
    """The contents of a .safetensors or torch file; a torch file may hold weights and plain data, but no code."""
    if not path.is_file():
        raise MissingError(f"there is no checkpoint file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported global" in str(error):
            raise EncoscopeError(
                f"checkpoint {path} holds more than weights (pickled Python objects), and reading it could run code: "
                "save its state_dict() alone, with torch.save or safetensors"
            ) from error
        raise EncoscopeError(f"checkpoint {path} is damaged or no torch file") from error
    except Exception as error:  # each format fails in ways of its own
        said = " ".join(str(error).split())[:200]
        raise EncoscopeError(
            f"checkpoint {path} is damaged or no weights file: {said or type(error).__name__}"
        ) from error


def _plain_data() -> list[Any]:
    """Types that training scripts save beside the weights and that cannot run code."""
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]  # where numpy 2 keeps it; numpy 1 wrote another name
    return [argparse.Namespace, np.dtype, np.ndarray, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _tables(node: Any, label: str = "", depth: int = 3) -> Iterator[tuple[str, State]]:
    """Every table of tensors by name in nested dictionaries, with where it was."""
    if isinstance(node, nn.Module) or not isinstance(node, Mapping):
        return
    tensors = {key: value for key, value in node.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield label, tensors
    if depth:
        for key, value in node.items():
            yield from _tables(value, f"{label}/{key}" if label else str(key), depth - 1)


def _choose(tables: Iterable[tuple[str, State]], module: nn.Module, converter: Converter | None) -> _Candidate | None:
    """The reading of the file that matches the network best; among equals the preferred network of the scheme."""
    tables = list(tables)
    readings = [reading for label, table in tables for reading in _readings(label, table, module)]
    best = _best(readings, module)
    if converter is None:
        return best
    enough = best is not None and best.score(module) >= _ENOUGH * len(module.state_dict())
    if not enough:  # names are not the network's own: every reading is worth a conversion
        readings = [_stripped(label, table, prefix) for label, table in tables for prefix in _leading(table)]
    converted = [_converted(reading, module, converter) for reading in ([best] if enough and best else readings)]
    return _best(converted, module)


def _best(readings: Iterable[_Candidate], module: nn.Module) -> _Candidate | None:
    return max(readings, key=lambda reading: (reading.score(module), -reading.rank), default=None)


def _readings(label: str, table: State, module: nn.Module) -> list[_Candidate]:
    """The table with each prefix taken off, or put before, after which some names are the network's."""
    names = set(module.state_dict())
    off: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for key in table:
        off.update(key[: -len(tail)] for tail in _tails(key) if tail in names)
    for name in names:
        before.update(name[: -len(tail)] for tail in _tails(name) if tail != name and tail in table)
    found = [_stripped(label, table, prefix) for prefix, _ in off.most_common(4)]
    for prefix, _ in before.most_common(1):
        found.append(_Candidate({prefix + key: value for key, value in table.items()}, label, ()))
    return found


def _stripped(label: str, table: State, prefix: str) -> _Candidate:
    state = {key[len(prefix) :]: value for key, value in table.items() if key.startswith(prefix)}
    others = tuple(key for key in table if not key.startswith(prefix))
    return _Candidate(state, "/".join(part for part in (label, prefix.rstrip(".")) if part), others)


def _tails(name: str) -> Iterator[str]:
    """``a.b.c``, ``b.c``, ``c``."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _leading(table: State) -> set[str]:
    """Prefixes that at least a quarter of the names share."""
    count: Counter[str] = Counter()
    for key in table:
        parts = key.split(".")
        count.update(".".join(parts[:end]) + "." if end else "" for end in range(min(3, len(parts))))
    return {prefix for prefix, times in count.items() if times * 4 >= len(table)}


def _converted(reading: _Candidate, module: nn.Module, converter: Converter) -> _Candidate:
    try:
        state = converter(dict(reading.state), module)
    except Exception:  # a conversion is for names of one kind; others break it in any way
        return reading
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return _Candidate(state, reading.label, reading.others)


def _remake(module: nn.Module, chosen: _Candidate, make: Maker, path: Path) -> nn.Module:
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


def _unlike(module: nn.Module, state: State) -> dict[str, tuple[int, ...]]:
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


def _drop_heads(module: nn.Module, state: State) -> None:
    """Replaces the linear layers the checkpoint has nothing for, from the end of the network on, by nothing."""
    for name, child in reversed(_weighted(module)):
        if not _is_head(child) or f"{name}.weight" in state:
            break
        module.set_submodule(name, nn.Identity())
    if hasattr(module, "num_classes"):
        setattr(module, "num_classes", 0)  # noqa: B010


def _fill(module: nn.Module, chosen: _Candidate, path: Path) -> None:
    own = module.state_dict()
    for name, shape in _unlike(module, chosen.state).items():
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: {name} is {_shape(shape)} in the file, "
            f"{_shape(own[name].shape)} in the network"
        )
    known = own.keys() & chosen.state.keys()
    if len(known) < _ENOUGH * len(own):
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
