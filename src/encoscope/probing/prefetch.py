"""Work done in threads before it is needed and returned in order, so that decoding and the network run in parallel."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = max(1, min(8, (os.cpu_count() or 1) // 2))  # the network needs cores too


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], depth: int) -> Iterator[Result]:
    """Apply a function to items in threads.

    When the caller stops early, calls that have begun are finished and the others are dropped.

    Args:
        function: What to call; it runs in threads.
        items: The items.
        depth: How many results may be ready before they are requested.

    Yields:
        The function's result for each item, in the items' order. An exception is raised when its item's turn comes.

    Example:
        >>> list(prefetch(abs, [-1, 2], depth=1))
        [1, 2]
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="encoscope")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
