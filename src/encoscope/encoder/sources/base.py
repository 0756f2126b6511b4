"""What all sources of networks share: the request, the result, and helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import MissingError, UsageError
from encoscope.images import Preprocess


@dataclass(frozen=True)
class SourceRequest:
    """A network that a source is asked for.

    Attributes:
        name: Its name within the source.
        untrained: Use random weights.
        checkpoint: A file with the weights; None for the source's own.
        random_state: Seed of random weights.
        trust: Code from a repository may run.
        allow_missing: Patterns of the tensors that the weights may lack; they stay random.
        allow_unused: Patterns of the tensors that the weights may hold though the network has no place for them.
        adapter: Whether an adapter will be merged into the source's own weights.
        record: What the source decides while loading, such as the tensors that were missing; results record it.
    """

    name: str
    untrained: bool = False
    checkpoint: Path | None = None
    random_state: int = RANDOM_STATE
    trust: bool = False
    allow_missing: tuple[str, ...] = ()
    allow_unused: tuple[str, ...] = ()
    adapter: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def pretrained(self) -> bool:
        """Whether the source's own weights are requested."""
        return not self.untrained and self.checkpoint is None


@dataclass(frozen=True)
class LoadedModel:
    """A network as a source gives it.

    Attributes:
        module: The network.
        preprocess: How images are brought to its input.
        classes: The names of its classes; None if they are not known.
        forward: A function to call in place of ``module(pixels)``; None if calling the module suffices.
        classifier: Whether a linear layer at the end is a classifier.
        assumed: Whose preprocessing is assumed, if nothing says how the network's images were prepared, such as
            "torchvision's settings for resnet18"; None if the preprocessing is the network's own.
        problem: Why the network's own preprocessing cannot be followed, in one line; None if it can.
    """

    module: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: Sequence[str] | None = None
    forward: Callable[[Any], Any] | None = None
    classifier: bool = True
    assumed: str | None = None
    problem: str | None = None


def try_reading(read: Callable[[], Preprocess]) -> tuple[Preprocess, str | None]:
    """Read a library's preprocessing, and keep the reason if it is not supported: the user may state another.

    Args:
        read: Reads it; it may raise a UsageError.

    Returns:
        The preprocessing, and None; or the default one, and what is not supported.
    """
    try:
        return read(), None
    except UsageError as error:
        return Preprocess(), str(error)


@contextmanager
def fixed_seed(random_state: int) -> Iterator[None]:
    """Set torch's seed for the block; the global random state is restored afterwards.

    Args:
        random_state: The seed.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        yield


@contextmanager
def require_package(package: str, what: str, extra: str) -> Iterator[None]:
    """Explain how to install an optional package if its import in the block fails.

    Args:
        package: The package that the block imports.
        what: What needs it, for the message.
        extra: The extra of encoscope that installs it.

    Yields:
        Nothing.

    Raises:
        MissingError: If the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingError(
            f'{what} needs {package}, which is not installed: pip install "encoscope[{extra}]"'
        ) from error
