"""Work done ahead in threads and handed on in order, so that decoding waits for no network."""

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
    """``function`` of each item, in the items' order; at most ``depth`` results are made before they are asked for.

    An exception comes out in the place of its item; what was begun is finished or dropped when the caller stops.
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
