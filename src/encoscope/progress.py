"""How far a long run is: a bar on stderr where somebody looks, a callback where a program asks, silence otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Progress: TypeAlias = bool | Callable[[int, int | None], None] | None
"""None: a bar if stderr is a terminal. True, False: always, never. A callable gets (done, total) after each step."""


@contextmanager
def track_steps(total: int | None, label: str, progress: Progress = None) -> Iterator[Callable[..., None]]:
    """Report a run of ``total`` steps; the block calls what it is given with the number of steps just done.

    A second argument is a few words to show beside the bar, such as the loss.
    """
    if callable(progress):
        report, done = progress, 0

        def count(number: int = 1, note: str = "") -> None:
            nonlocal done
            done += number
            report(done, total)

        yield count
    elif progress or (progress is None and sys.stderr.isatty()):
        from tqdm import tqdm

        with tqdm(total=total, desc=label, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:

            def move(number: int = 1, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(number)

            yield move
    else:
        yield lambda number=1, note="": None


def track(items: Iterable[Item], total: int | None, label: str, progress: Progress = None) -> Iterator[Item]:
    """Hand the items on, one step each; a step is done when the next item is asked for."""
    with track_steps(total, label, progress) as step:
        for item in items:
            yield item
            step(1)
