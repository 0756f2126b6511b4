"""Progress shows on a terminal, calls back where asked, and is silent otherwise."""

from __future__ import annotations

import io
import sys

import pytest

from encoscope.progress import track, track_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_callback_hears_every_step() -> None:
    heard: list[tuple[int, int | None]] = []
    assert list(track("abc", 3, "letters", lambda done, total: heard.append((done, total)))) == ["a", "b", "c"]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    with track_steps(None, "blocks", lambda done, total: heard.append((done, total))) as step:
        step(10)
        step(5)
    assert heard[3:] == [(10, None), (15, None)]


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal, None, True), (io.StringIO, None, False), (io.StringIO, True, True), (Terminal, False, False)],
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
