"""The progress of a long run: a bar on stderr in a terminal, or a callback for a program."""

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
    """Report the progress of a run whose steps the block counts itself.

    Args:
        total: Number of steps; None if it is not known.
        label: What is counted, shown before the bar.
        progress: None shows a bar if stderr is a terminal, True always, False never; a callable gets (done, total).

    Yields:
        A function to call with the number of steps just done (1 if left out) and optionally a short text to show
        beside the bar, such as the loss.

    Example:
        >>> with track_steps(2, "steps", lambda done, total: print(done, total)) as step:
        ...     step(2)
        2 2
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
    """Report the progress of a loop.

    Args:
        items: What to loop over; each item is one step, done when the next one is requested.
        total: Number of items; None if it is not known.
        label: What is counted, shown before the bar.
        progress: As for ``track_steps``.

    Yields:
        The items.
    """
    with track_steps(total, label, progress) as step:
        for item in items:
            yield item
            step(1)
