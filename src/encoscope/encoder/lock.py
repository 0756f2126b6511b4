"""One thread at a time in a network: hooks, training flags and what was found of it belong to a whole module.

Threads that share an encoder take turns, one pass each; reading images and all that follows a pass run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


@contextmanager
def hold_module(module: nn.Module) -> Iterator[None]:
    """Keep other threads from running a network in the block; the same thread may hold it several times.

    Nothing that waits for another thread belongs into the block.

    Args:
        module: The network.

    Yields:
        Nothing.

    Example:
        >>> network = nn.Linear(2, 3)
        >>> with hold_module(network), hold_module(network):
        ...     network.training
        True
    """
    with _making:
        lock = _locks.setdefault(module, threading.RLock())
    with lock:
        yield


class held_property(cached_property):
    """A property of an encoder that is found by running its network, once, whatever the number of threads."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Give what was found, or find it."""
        if instance is None:
            return self
        with hold_module(instance.module):
            known = vars(instance)
            if self.attrname not in known:
                known[str(self.attrname)] = self.func(instance)
            return known[str(self.attrname)]
