"""What every source of networks is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoscope.errors import MissingError
from encoscope.images import Preprocess


@dataclass(frozen=True)
class SourceRequest:
    """A network as asked for: ``name`` within its source, and how its weights are to be had.

    untrained: random weights from ``random_state``. checkpoint: a file with the weights.
    trust: code from elsewhere may run.
    """

    name: str
    untrained: bool = False
    checkpoint: Path | None = None
    random_state: int = 0
    trust: bool = False

    @property
    def pretrained(self) -> bool:
        """Whether the source's own weights are wanted."""
        return not self.untrained and self.checkpoint is None


@dataclass(frozen=True)
class LoadedModel:
    """A network with its preprocessing and class names.

    forward: where calling the module is not enough. classifier: whether a linear layer at the end is a classifier.
    """

    module: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: Sequence[str] | None = None
    forward: Callable[[Any], Any] | None = None
    classifier: bool = True


@contextmanager
def fixed_seed(random_state: int) -> Iterator[None]:
    """Random weights made inside follow from the seed; the global random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        yield


@contextmanager
def require_package(package: str, what: str, extra: str) -> Iterator[None]:
    """Imports of an optional package inside fail with the way to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingError(
            f'{what} needs {package}, which is not installed: pip install "encoscope[{extra}]"'
        ) from error
