"""Which table of a weights file, under which prefix, are the weights of a given network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from encoscope.encoder.weights_file import StateDict

StateConverter: TypeAlias = Callable[[StateDict, nn.Module], StateDict]

MIN_MATCHED_SHARE = 0.5  # share of a network's tensors that weights for it must bring
# Where a file holds several networks, the one that is meant: the averaged or key-less one, as each scheme evaluates.
_PREFERRED = ("ema", "teacher", "encoder_q", "online", "query")


@dataclass(frozen=True)
class StateCandidate:
    """One way to read a file: one of its tables, with a prefix taken off the names.

    state: the tensors by their new names. label: the table and prefix, as "teacher/backbone". others: names in the
    table that do not begin with the prefix.
    """

    state: StateDict
    label: str
    others: tuple[str, ...]

    def score(self, module: nn.Module) -> int:
        """How many of the network's names it has."""
        return len(self.state.keys() & module.state_dict().keys())

    @property
    def rank(self) -> int:
        """0 for the network a scheme means to be used, larger for others."""
        return next((index for index, word in enumerate(_PREFERRED) if word in self.label), len(_PREFERRED))


def find_best_candidate(
    tables: Sequence[tuple[str, StateDict]], module: nn.Module, converter: StateConverter | None = None
) -> StateCandidate | None:
    """The reading of the file that matches the network best; among equals the preferred network of the scheme."""
    readings = [reading for label, table in tables for reading in _readings(label, table, module)]
    best = _best(readings, module)
    if converter is None:
        return best
    enough = best is not None and best.score(module) >= MIN_MATCHED_SHARE * len(module.state_dict())
    if not enough:  # names are not the network's own: every reading is worth a conversion
        readings = [_stripped(label, table, prefix) for label, table in tables for prefix in _leading(table)]
    converted = [_converted(reading, module, converter) for reading in ([best] if enough and best else readings)]
    return _best(converted, module)


def _best(readings: Iterable[StateCandidate], module: nn.Module) -> StateCandidate | None:
    return max(readings, key=lambda reading: (reading.score(module), -reading.rank), default=None)


def _readings(label: str, table: StateDict, module: nn.Module) -> list[StateCandidate]:
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
        found.append(StateCandidate({prefix + key: value for key, value in table.items()}, label, ()))
    return found


def _stripped(label: str, table: StateDict, prefix: str) -> StateCandidate:
    state = {key[len(prefix) :]: value for key, value in table.items() if key.startswith(prefix)}
    others = tuple(key for key in table if not key.startswith(prefix))
    return StateCandidate(state, "/".join(part for part in (label, prefix.rstrip(".")) if part), others)


def _tails(name: str) -> Iterator[str]:
    """``a.b.c``, ``b.c``, ``c``."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _leading(table: StateDict) -> set[str]:
    """Prefixes that at least a quarter of the names share."""
    count: Counter[str] = Counter()
    for key in table:
        parts = key.split(".")
        count.update(".".join(parts[:end]) + "." if end else "" for end in range(min(3, len(parts))))
    return {prefix for prefix, times in count.items() if times * 4 >= len(table)}


def _converted(reading: StateCandidate, module: nn.Module, converter: StateConverter) -> StateCandidate:
    try:
        state = converter(dict(reading.state), module)
    except Exception:  # a conversion is for names of one kind; others break it in any way
        return reading
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return StateCandidate(state, reading.label, reading.others)
