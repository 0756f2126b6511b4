"""One pass over a dataset: (source, shard) -> partial -> merge -> finalize.

A source gives the batches of one shard of a dataset. A partial sums up what it is shown: ``partial_fit`` takes the
values of a batch, ``merge`` adds the partial of another shard, ``finalize`` gives the result. A single process is one
shard. What a partial holds must not depend on the order of the batches beyond rounding: ties go by the images' ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from encoscope.errors import UsageError

Item = TypeVar("Item")


@runtime_checkable
class Partial(Protocol):
    """What one shard of a dataset adds up to."""

    def partial_fit(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch.

        Args:
            args: The values that the source gives for it.
            kwargs: Further ones, where a class has them.

        Returns:
            Itself.
        """

    def merge(self, other: Any) -> Any:
        """Add another shard.

        Args:
            other: Its partial, of the same class and settings.

        Returns:
            Itself.
        """


AnyPartial = TypeVar("AnyPartial", bound=Partial)


@dataclass(frozen=True)
class Shard:
    """A share of a dataset: every ``count``-th item, from number ``index`` on.

    Attributes:
        index: From 0 to ``count`` - 1.
        count: Into how many shares the dataset is divided.

    Raises:
        UsageError: an index that is no number of a share.

    Example:
        >>> list(Shard(1, 3).select("abcdefg"))
        ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"shard {self.index} of {self.count}: the first of three is 0 of 3, the last 2 of 3")

    def select(self, items: Iterable[Item]) -> Iterator[Item]:
        """Select the items, or batches, of this shard.

        Args:
            items: Those of the whole dataset, in the same order in every process.

        Returns:
            Those of this shard, in their order.
        """
        return islice(items, self.index, None, self.count)


WHOLE = Shard()
"""The whole dataset as one shard: a single process."""

Source: TypeAlias = Callable[[Shard], Iterable[tuple[Any, ...]]]
"""Gives the batches of a shard, each as the arguments of ``partial_fit``."""


def run_pass(source: Source, partial: AnyPartial, shard: Shard = WHOLE) -> AnyPartial:
    """Show every batch of a shard to a partial.

    Args:
        source: Gives the batches.
        partial: What adds them up.
        shard: The share of the dataset; by default all of it.

    Returns:
        The partial, to ``merge`` with those of other shards and to ``finalize``.
    """
    for batch in source(shard):
        partial.partial_fit(*batch)
    return partial


def merge_partials(partials: Iterable[AnyPartial]) -> AnyPartial:
    """Merge the partials of all shards into the first of them.

    Args:
        partials: At least one; of the same class and settings.

    Returns:
        The first partial, which then stands for the whole dataset.

    Raises:
        UsageError: there is none.
    """
    merged: AnyPartial | None = None
    for partial in partials:
        if merged is None:
            merged = partial
        else:
            merged.merge(partial)
    if merged is None:
        raise UsageError("no shards: there is nothing to merge")
    return merged


class Mean:
    """A mean over all items of a dataset: ``partial_fit``, ``merge``, ``finalize``.

    Attributes:
        count: How many items were added.

    Example:
        >>> Mean().partial_fit(6.0, 2).merge(Mean().partial_fit(3.0, 1)).finalize()
        3.0
    """

    def __init__(self) -> None:
        self.count = 0
        self._total: Any = None

    def partial_fit(self, total: Any, count: int) -> Mean:
        """Add a batch.

        Args:
            total: The sum over its items: a number, array or tensor, in float64 where the order must not matter.
            count: How many items they are.

        Returns:
            Itself.
        """
        self._total = total if self._total is None else self._total + total
        self.count += count
        return self

    def merge(self, other: Mean) -> Mean:
        """Add another shard's items.

        Args:
            other: Its mean.

        Returns:
            Itself.
        """
        return self if other._total is None else self.partial_fit(other._total, other.count)

    def finalize(self) -> Any:
        """Give the mean; UsageError where nothing was added."""
        if not self.count:
            raise UsageError("nothing was added: there is no mean")
        return self._total / self.count
