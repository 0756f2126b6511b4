"""The progress of a long run: a bar on a terminal or in a notebook, lines in a log, or a callback for a program."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from encoscope.errors import UsageError, suggest_nearest

Item = TypeVar("Item")
PROGRESS_WORDS = ("auto", "bar", "lines", "none")
Progress: TypeAlias = bool | str | Callable[[int, int | None], None] | None
"""How progress is shown on stderr.

"auto" or None: a bar on a terminal and in a notebook, elsewhere lines as soon as a run takes longer than ten seconds.
"bar" or True: always a bar. "lines": a line every 10 % and every 30 seconds. "none" or False: nothing. A callable gets
(done, total) after each step, and nothing is shown.
"""

LONG_RUN = 60.0  # seconds from which on a run is said to take long
_LINE_EVERY = 30.0  # seconds after which a line comes whatever was done
_SHARE_EVERY = 10  # in this many parts of the run a line comes
_SHORTEST = 1.0  # seconds between two lines
_PATIENCE = 10.0  # seconds before the first line where lines were not requested
_FIRST_ESTIMATE = 3.0  # seconds before a run's length is estimated
_FEW_STEPS = 20
_now = time.monotonic


def check_progress(progress: Progress) -> None:
    """Refuse an unknown way to show progress.

    Args:
        progress: See `Progress`.

    Raises:
        UsageError: For any other word.
    """
    if isinstance(progress, str) and progress not in PROGRESS_WORDS:
        raise UsageError(
            f"progress is one of {', '.join(PROGRESS_WORDS)}, or a callable, "
            f"not {progress!r}{suggest_nearest(progress, PROGRESS_WORDS)}"
        )


def nest_progress(progress: Progress) -> Progress:
    """Choose how a loop inside another one shows its progress.

    Args:
        progress: How the outer loop shows its own.

    Returns:
        The same, but nothing for a callable, which hears of the outer loop alone.
    """
    return False if callable(progress) else progress


@contextmanager
def track_steps(
    total: int | None,
    label: str,
    progress: Progress = None,
    *,
    initial: int = 0,
    runs_left: int = 1,
    shorter: str = "",
) -> Iterator[Callable[..., None]]:
    """Report the progress of a run whose steps the block counts itself.

    A run that is expected to take more than a minute says so after its first steps.

    Args:
        total: Number of steps; None if it is not known.
        label: What is counted, shown before the bar.
        progress: See `Progress`.
        initial: Steps that were done before, by a run that was stopped.
        runs_left: How many runs like this one follow, this one included: the estimate is for all of them. 0 says
            nothing, where an earlier run has said it.
        shorter: The flag that makes the run shorter, such as "--steps N", for the message about a long run.

    Yields:
        A function to call with the number of steps just done (1 if left out) and optionally a short text to show
        beside the bar, such as the loss.

    Raises:
        UsageError: For an unknown ``progress``.

    Example:
        >>> with track_steps(2, "steps", lambda done, total: print(done, total)) as step:
        ...     step(2)
        2 2
    """
    check_progress(progress)
    if callable(progress):
        report, done = progress, initial
        if initial:
            report(done, total)

        def count(number: int = 1, note: str = "") -> None:
            nonlocal done
            done += number
            report(done, total)

        yield count
        return
    shown = _choose(progress)
    if shown == "none":
        yield lambda number=1, note="": None
        return
    estimate = _Estimate(total, initial, runs_left)
    if shown == "bar":
        with _make_bar(total, label, initial) as bar:

            def move(number: int = 1, note: str = "") -> None:
                if note:
                    bar.set_postfix_str(note, refresh=False)
                bar.update(number)
                if estimate.count(number):
                    bar.write(_PREFIX + estimate.describe(label, shorter), file=sys.stderr)

            yield move
        return
    lines = _Lines(label, estimate, patience=0.0 if progress == "lines" else _PATIENCE)

    def write(number: int = 1, note: str = "") -> None:
        if estimate.count(number):
            _write_line(estimate.describe(label, shorter))
        lines.show(note)

    yield write
    lines.close()


def track(
    items: Iterable[Item], total: int | None, label: str, progress: Progress = None, **options: Any
) -> Iterator[Item]:
    """Report the progress of a loop.

    Args:
        items: What to loop over; each item is one step, done when the next one is requested.
        total: Number of items; None if it is not known.
        label: What is counted, shown before the bar.
        progress: As for ``track_steps``.
        **options: Other arguments of ``track_steps``.

    Yields:
        The items.
    """
    with track_steps(total, label, progress, **options) as step:
        for item in items:
            yield item
            step(1)


def describe_duration(seconds: float) -> str:
    """Say how long something takes, as exact as one needs it.

    Args:
        seconds: The duration.

    Returns:
        Such as "40 seconds", "9 minutes", "2.5 hours".

    Example:
        >>> describe_duration(540)
        '9 minutes'
    """
    units = (("second", 1, 90), ("minute", 60, 90 * 60), ("hour", 3600, 48 * 3600), ("day", 24 * 3600, math.inf))
    unit, size, _ = next(each for each in units if seconds < each[2])
    number = seconds / size
    return _count(f"{number:.{1 if size >= 3600 and number < 10 else 0}f}".removesuffix(".0"), unit)


_PREFIX = "encoscope: "


def _choose(progress: bool | str | None) -> str:
    """The word for what is shown here."""
    if isinstance(progress, bool):
        return "bar" if progress else "none"
    if progress in (None, "auto"):
        return "bar" if sys.stderr.isatty() or _in_notebook() else "lines"
    return progress


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


def _make_bar(total: int | None, label: str, initial: int) -> Any:
    """The bar of a notebook there, else that of a terminal."""
    if _in_notebook():
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, initial=initial, desc=label, file=sys.stderr, dynamic_ncols=True, leave=False)


def _write_line(text: str) -> None:
    sys.stderr.write(f"{_PREFIX}{text}\n")
    sys.stderr.flush()


class _Estimate:
    """How fast a run is, and when that is first known to be slow.

    The first step is left out as soon as there are others: it often loads or compiles something.
    """

    def __init__(self, total: int | None, initial: int, runs_left: int) -> None:
        self.total, self.done, self._runs_left = total, initial, runs_left
        self.started = self._since = _now()
        self._counted, self._steps = initial, 0

    def count(self, number: int) -> bool:
        """Count steps; gives whether it is time to say that the run takes long."""
        if number <= 0:
            return False
        now = _now()
        self.done += number
        self._steps += 1
        self.each = (now - self._since) / (self.done - self._counted)
        if self._steps == 1:
            self._first = now
        elif self._steps == 2:
            self._since, self._counted = self._first, self.done - number
            self.each = (now - self._since) / number
        if self.total is None or not self._runs_left or self.expected <= LONG_RUN:
            return False
        few = _PATIENCE if self.total <= _FEW_STEPS else math.inf  # from one step alone, of a few
        if now - self.started < (_FIRST_ESTIMATE if self._steps > 1 else few):
            return False
        self.announced, self._runs_left = self.expected, 0
        return True

    @property
    def left(self) -> float:
        """Seconds until the end of this run, from the steps so far."""
        return max((self.total or 0) - self.done, 0) * self.each

    @property
    def expected(self) -> float:
        """Seconds until the end of this run and those like it."""
        return self.left + max(self._runs_left - 1, 0) * (self.total or 0) * self.each

    def describe(self, label: str, shorter: str) -> str:
        """The message about a long run."""
        pace = _describe_pace(self.each)
        cure = f"; {shorter} makes it shorter" if shorter else ""
        return f"{label}: about {describe_duration(self.announced)} on this machine ({pace}){cure}"


class _Lines:
    """Lines in a log: one every tenth of the run and every 30 seconds, and one at the end if there was any."""

    def __init__(self, label: str, estimate: _Estimate, patience: float) -> None:
        self._label, self._estimate, self._patience = label, estimate, patience
        self._last, self._part = estimate.started, self._find_part()
        self._requested = not patience
        self._wrote = False

    def _find_part(self) -> int:
        total = self._estimate.total
        return self._estimate.done * _SHARE_EVERY // total if total else 0

    def show(self, note: str) -> None:
        """Write a line if it is time for one."""
        now, estimate = _now(), self._estimate
        if now - estimate.started < self._patience or now - self._last < _SHORTEST or estimate.done == estimate.total:
            return
        part = self._find_part()
        if part <= self._part and now - self._last < _LINE_EVERY:
            return
        self._last, self._part, self._wrote = now, part, True
        words = [_describe_pace(estimate.each)]
        if estimate.total is not None:
            words.append(f"about {describe_duration(estimate.left)} left")
        words += [note] if note else []
        _write_line(f"{self._label}: {self._count()}, {', '.join(words)}")

    def close(self) -> None:
        """Write how long it took."""
        estimate = self._estimate
        if self._wrote or (self._requested and estimate.done):
            _write_line(f"{self._label}: {self._count()}, done in {describe_duration(_now() - estimate.started)}")

    def _count(self) -> str:
        done, total = self._estimate.done, self._estimate.total
        return str(done) if total is None else f"{done} of {total} ({done / max(total, 1):.0%})"


def _describe_pace(each: float) -> str:
    return f"{_count(f'{each:.3g}', 'second')} each" if each >= 1 else f"{1 / max(each, 1e-9):.3g} a second"


def _count(number: str, unit: str) -> str:
    return f"{number} {unit}{'' if number == '1' else 's'}"
