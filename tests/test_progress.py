"""Progress: a bar where somebody looks, lines in a log, calls to a program, and a word before a long run."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoscope import progress as module
from encoscope.errors import UsageError
from encoscope.progress import describe_duration, track, track_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "_now", clock)
    return clock


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Gives what stderr, which is no terminal, has got since the last call."""
    return lambda: capsys.readouterr().err


def run(clock: Clock, steps: int, seconds: float, *, first: float | None = None, total: bool = True, **options) -> None:
    with track_steps(steps if total else None, "segment", **options) as step:
        for index in range(steps):
            clock.time += seconds if index or first is None else first
            step()


def test_a_callback_hears_every_step() -> None:
    heard: list[tuple[int, int | None]] = []
    assert list(track("abc", 3, "letters", lambda done, total: heard.append((done, total)))) == ["a", "b", "c"]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    with track_steps(None, "blocks", lambda done, total: heard.append((done, total))) as step:
        step(10)
        step(5)
    assert heard[3:] == [(10, None), (15, None)]
    with track_steps(9, "blocks", lambda done, total: heard.append((done, total)), initial=4) as step:
        step(5)
    assert heard[5:] == [(4, 9), (9, 9)]


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [
        (Terminal, None, True),
        (Terminal, "auto", True),
        (Terminal, "bar", True),
        (io.StringIO, "bar", True),
        (io.StringIO, True, True),
        (io.StringIO, None, False),
        (io.StringIO, "auto", False),
        (Terminal, False, False),
        (Terminal, "none", False),
    ],
)
def test_a_bar_shows_where_somebody_looks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stream: type[io.StringIO],
    progress,
    shown: bool,
) -> None:
    there = stream()
    monkeypatch.setattr(sys, "stderr", there)
    assert list(track([1, 2], 2, "photos", progress)) == [1, 2]
    assert ("photos" in there.getvalue()) == shown
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_its_own_bar(monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]) -> None:
    import tqdm.auto

    bars: list[dict[str, object]] = []

    class Bar(tqdm.std.tqdm):
        def __init__(self, **options) -> None:
            bars.append(options)
            super().__init__(**options)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert list(track([1, 2], 2, "photos")) == [1, 2]
    assert [(bar["total"], bar["desc"]) for bar in bars] == [(2, "photos")]
    shell.config.clear()  # a terminal's IPython
    assert list(track([1, 2], 2, "photos")) == [1, 2]
    assert len(bars) == 1


def test_a_log_gets_a_line_every_tenth_of_a_long_run(clock: Clock, log: Callable[[], str]) -> None:
    run(clock, 100, 0.5)
    assert log().splitlines() == [
        "encoscope: segment: 20 of 100 (20%), 2 a second, about 40 seconds left",
        "encoscope: segment: 30 of 100 (30%), 2 a second, about 35 seconds left",
        "encoscope: segment: 40 of 100 (40%), 2 a second, about 30 seconds left",
        "encoscope: segment: 50 of 100 (50%), 2 a second, about 25 seconds left",
        "encoscope: segment: 60 of 100 (60%), 2 a second, about 20 seconds left",
        "encoscope: segment: 70 of 100 (70%), 2 a second, about 15 seconds left",
        "encoscope: segment: 80 of 100 (80%), 2 a second, about 10 seconds left",
        "encoscope: segment: 90 of 100 (90%), 2 a second, about 5 seconds left",
        "encoscope: segment: 100 of 100 (100%), done in 50 seconds",
    ]


@pytest.mark.parametrize(("total", "left"), [(True, ", about 2.5 hours left"), (False, "")])
def test_a_log_gets_a_line_every_30_seconds(clock: Clock, log: Callable[[], str], total: bool, left: str) -> None:
    with track_steps(910 if total else None, "probe", runs_left=0) as step:
        for _ in range(10):
            clock.time += 10
            step(note="loss 3")
    lines = log().splitlines()
    assert lines[0].startswith("encoscope: probe: 3")
    times = [line for line in lines if "10 seconds each" in line]
    assert len(times) == 3 and all(line.endswith(f"{left}, loss 3") for line in times)


@pytest.mark.parametrize("progress", [None, "auto"])
def test_a_short_run_says_nothing_in_a_log(clock: Clock, log: Callable[[], str], progress) -> None:
    run(clock, 90, 0.1, progress=progress)
    assert log() == ""


def test_requested_lines_come_in_a_short_run_too(clock: Clock, log: Callable[[], str]) -> None:
    run(clock, 4, 1.5, progress="lines")
    assert [line.split(", ")[0] for line in log().splitlines()] == [
        f"encoscope: segment: {done} of 4 ({done * 25}%)" for done in (1, 2, 3, 4)
    ]


@given(st.integers(1, 400), st.floats(0.001, 50), st.booleans())
def test_no_silence_is_longer_than_30_seconds_and_a_step(steps: int, seconds: float, total: bool) -> None:
    clock, times = Clock(), [1000.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_now", clock)
        patch.setattr(module, "_write_line", lambda text: times.append(clock.time))
        patch.setattr(sys, "stderr", io.StringIO())
        run(clock, steps, seconds, total=total)
    times.append(clock.time)
    assert max(after - before for before, after in itertools.pairwise(times)) <= 30 + seconds + 1e-6
    assert len(times) <= 2 + 10 + 2 + steps * seconds / 30


@pytest.mark.parametrize(
    ("steps", "seconds", "options", "expected"),
    [
        (256, 2.11, {"shorter": "--steps N"}, "about 9 minutes on this machine (2.11 seconds each); --steps N makes"),
        (100, 0.1, {"runs_left": 20}, "about 3 minutes on this machine (10 a second)"),
        (30, 20, {}, "about 9 minutes on this machine (20 seconds each)"),
        (4, 45, {}, "about 2 minutes on this machine (45 seconds each)"),
        (100_000, 0.5, {}, "about 14 hours on this machine (2 a second)"),
    ],
)
def test_a_long_run_says_so_after_its_first_steps(
    clock: Clock, log: Callable[[], str], steps: int, seconds: float, options: dict, expected: str
) -> None:
    with track_steps(steps, "segment", **options) as step:
        for _ in range(min(steps, 300)):
            clock.time += seconds
            step()
    first, *others = log().splitlines()
    assert first.startswith(f"encoscope: segment: {expected}")
    assert not any("on this machine" in line for line in others)


@pytest.mark.parametrize(
    ("steps", "seconds", "options"),
    [
        (500, 0.1, {}),
        (500, 0.1, {"first": 20.0}),  # a slow first step, such as one that compiles, does not count
        (500, 1.0, {"runs_left": 0}),
        (500, 1.0, {"progress": "none"}),
        (500, 1.0, {"progress": False}),
        (500, 1.0, {"progress": lambda done, total: None}),
        (500, 1.0, {"total": False}),
    ],
)
def test_other_runs_announce_nothing(
    clock: Clock, log: Callable[[], str], steps: int, seconds: float, options: dict
) -> None:
    run(clock, steps, seconds, **options)
    assert "on this machine" not in log()


def test_the_word_on_a_long_run_comes_above_a_bar(clock: Clock, log: Callable[[], str]) -> None:
    run(clock, 200, 1.0, progress="bar")
    assert log().count("segment: about 3 minutes on this machine (1 second each)") == 1


def test_steps_of_an_earlier_run_do_not_count_for_the_pace(clock: Clock, log: Callable[[], str]) -> None:
    with track_steps(1000, "captions", initial=940) as step:
        for _ in range(60):
            clock.time += 1
            step()
    paces = {line.split(", ")[1] for line in log().splitlines()}
    assert paces == {"1 second each", "done in 60 seconds"}


def test_a_run_that_fails_does_not_say_done(clock: Clock, log: Callable[[], str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_and_fail(clock)
    lines = log()
    assert "segment: 5 of 10" in lines and "done in" not in lines


def run_and_fail(clock: Clock) -> None:
    with track_steps(10, "segment") as step:
        for _ in range(5):
            clock.time += 5
            step()
        raise ZeroDivisionError


@pytest.mark.parametrize("progress", ["line", "", "AUTO", "quiet"])
def test_an_unknown_word_is_refused_before_the_first_item(progress: str) -> None:
    taken: list[int] = []
    with pytest.raises(UsageError, match="progress is one of auto, bar, lines, none"):
        list(track((taken.append(item) for item in range(3)), 3, "photos", progress))
    assert taken == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 seconds"),
        (1, "1 second"),
        (89, "89 seconds"),
        (95, "2 minutes"),
        (540, "9 minutes"),
        (3600, "60 minutes"),
        (5400, "1.5 hours"),
        (7200, "2 hours"),
        (36000, "10 hours"),
        (48 * 3600, "2 days"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


def test_the_words_are_those_of_the_command_line() -> None:
    from typing import get_args, get_type_hints

    from encoscope.cli.flags import Common

    annotation = get_args(get_type_hints(Common)["progress"])
    assert annotation == module.PROGRESS_WORDS
    assert isinstance(Common.progress, str) and Common.progress == "auto"
