"""Find which dictionary of a weights file, without which prefix, holds the weights of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from encoscope.encoder.weights_file import StateDict

StateConverter: TypeAlias = Callable[[StateDict, nn.Module], StateDict]

MIN_MATCHED_SHARE = 0.5
"""The share of a network's tensors that a file must hold to count as weights for it."""

# Names of the network that a training scheme evaluates, if the file holds several: the averaged one, or the query's.
_PREFERRED = ("ema", "teacher", "encoder_q", "online", "query")

# What torch.compile, FSDP, activation checkpointing and DataParallel put into the names of what they wrap.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")


@dataclass(frozen=True)
class StateCandidate:
    """A dictionary of tensors in a file, with a prefix removed from the names: one candidate for the weights.

    Attributes:
        state: The tensors by their new names.
        label: The dictionary and the prefix, such as "teacher/backbone".
        others: Names in the dictionary that do not begin with the prefix.
    """

    state: StateDict
    label: str
    others: tuple[str, ...]

    def score(self, module: nn.Module) -> int:
        """Count the network's names that the candidate has.

        Args:
            module: The network.

        Returns:
            The number of common names.
        """
        return len(self.state.keys() & module.state_dict().keys())

    @property
    def rank(self) -> int:
        """0 for the network that a training scheme evaluates, larger for others."""
        return next((index for index, word in enumerate(_PREFERRED) if word in self.label), len(_PREFERRED))


def find_best_candidate(
    states: Sequence[tuple[str, StateDict]], module: nn.Module, converter: StateConverter | None = None
) -> StateCandidate | None:
    """Find the weights in a file that match a network best.

    Args:
        states: The file's dictionaries of tensors, each with its label.
        module: The network.
        converter: Converts the names and shapes that a family of networks was published with to the network's own;
            None if no conversion is known.

    Returns:
        The candidate with the most of the network's names; of equal ones, that of the network that the training
        scheme evaluates. None if the file holds no tensors.
    """
    states = [(label, _take_wrappers_off(state, module)) for label, state in states]
    candidates = [candidate for label, state in states for candidate in _make_candidates(label, state, module)]
    best = _choose_best(candidates, module)
    if converter is None:
        return best
    enough = best is not None and best.score(module) >= MIN_MATCHED_SHARE * len(module.state_dict())
    if not enough:  # the names are not the network's own: try to convert every candidate
        candidates = [_strip(label, state, prefix) for label, state in states for prefix in _common_prefixes(state)]
    converted = [_convert(candidate, module, converter) for candidate in ([best] if enough and best else candidates)]
    return _choose_best(converted, module)


def _take_wrappers_off(state: StateDict, module: nn.Module) -> StateDict:
    """The names without what wrappers of parts of a network put into them; "module." before all names is a prefix."""
    own = {part for name in module.state_dict() for part in name.split(".")}
    wrappers = {name for name in _WRAPPERS if name not in own}

    def strip(name: str) -> str:
        first, *rest = name.split(".")
        kept = [part for part in rest if part not in wrappers]
        return ".".join(kept if first in wrappers and first != "module" else [first, *kept])

    stripped = {strip(name): value for name, value in state.items()}
    return stripped if len(stripped) == len(state) else state


def _choose_best(candidates: Iterable[StateCandidate], module: nn.Module) -> StateCandidate | None:
    return max(candidates, key=lambda candidate: (candidate.score(module), -candidate.rank), default=None)


def _make_candidates(label: str, state: StateDict, module: nn.Module) -> list[StateCandidate]:
    """The dictionary with each prefix removed, or added, that turns names into the network's."""
    names = set(module.state_dict())
    removed: Counter[str] = Counter()
    added: Counter[str] = Counter()
    for key in state:
        removed.update(key[: -len(tail)] for tail in _tails(key) if tail in names)
    for name in names:
        added.update(name[: -len(tail)] for tail in _tails(name) if tail != name and tail in state)
    candidates = [_strip(label, state, prefix) for prefix, _ in removed.most_common(4)]
    for prefix, _ in added.most_common(1):
        candidates.append(StateCandidate({prefix + key: value for key, value in state.items()}, label, ()))
    return candidates


def _strip(label: str, state: StateDict, prefix: str) -> StateCandidate:
    stripped = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    others = tuple(key for key in state if not key.startswith(prefix))
    return StateCandidate(stripped, "/".join(part for part in (label, prefix.rstrip(".")) if part), others)


def _tails(name: str) -> Iterator[str]:
    """``a.b.c``, ``b.c``, ``c``."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _common_prefixes(state: StateDict) -> set[str]:
    """Prefixes that at least a quarter of the names share."""
    count: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        count.update(".".join(parts[:end]) + "." if end else "" for end in range(min(3, len(parts))))
    return {prefix for prefix, times in count.items() if times * 4 >= len(state)}


def _convert(candidate: StateCandidate, module: nn.Module, converter: StateConverter) -> StateCandidate:
    try:
        state = converter(dict(candidate.state), module)
    except Exception:  # other names than those it is written for can make it raise anything
        return candidate
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return StateCandidate(state, candidate.label, candidate.others)
