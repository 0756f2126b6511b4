"""The command itself: usage, errors as one line and a code, and a start-up that loads nothing heavy."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys

import pytest

import encoscope
from encoscope.cli import app as cli
from encoscope.errors import MissingError, UsageError


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What the last command said on stderr, which must be one line, with nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("encoscope: ")
    return err.removeprefix("encoscope: ").strip()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "--help"], ["layers", "--help"]])
def test_help_loads_neither_torch_nor_numpy(arguments: list[str]) -> None:
    heavy = ["torch", "numpy", "PIL", "scipy", "matplotlib", "timm"]
    code = (
        "import sys, encoscope.cli.app as app\n"
        f"code = app.run({arguments!r})\n"
        f"sys.exit(code or ', '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Usage: encoscope" in done.stdout) or done.stdout.strip() == encoscope.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt"], 'Did you mean "segment"?'),
        (["describe", "features:3"], "--probe"),
        (["segment", "--model", "m"], "give at least one image or folder"),
        (["segment", "a.jpg", "--model", "m", "--no-json"], "Unknown option: --no-json"),
        (["segment", "a.jpg", "--model", "m", "--grouping", "wards"], '"wards"'),
        (
            ["segment", "a.jpg", "--model", "m", "--clusters", "few"],
            "--clusters takes auto, smallest-drop, or a whole number from 1",
        ),
        (["segment", "a.jpg", "--model", "m", "--clusters", "2,x"], "--clusters takes whole numbers from 1 on"),
        (["segment", "a.jpg", "--model", "m", "--weighting", "papre"], "--weighting takes numbers with commas"),
        (
            ["segment", "a.jpg", "--model", "m", "--resolution", "0"],
            "--resolution takes auto, first-layer, double, image, or a whole",
        ),
        (["segment", "a.jpg", "--model", "m", "--size", "-5"], "--size takes auto, model, native, or a whole number"),
        (["segment", "a.jpg", "--model", "m", "--window", "5,5"], "--window takes LOW,HIGH with LOW below HIGH"),
        (["segment", "a.jpg", "--model", "m", "--seed", "x"], "--seed"),
        (["compare", "m"], "SECOND"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.run(arguments) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("no layer 'x'\n(nearest: y)"), 2, "error: no layer 'x' (nearest: y)"),
        (MissingError("no weights: get them"), 3, "error: no weights: get them"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.png"), 1, "error: out/a.png: No space left on device"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), 1, "error: Read-only file system"),
        (RuntimeError("shapes\n  differ"), 1, "error: RuntimeError: shapes differ (set ENCOSCOPE_TRACEBACK=1 to see"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_one_line_and_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run(["anything"]) == code
    assert one_line(capsys).startswith(message)
    monkeypatch.setenv("ENCOSCOPE_TRACEBACK", "1")
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError):
            cli.run(["anything"])


def test_a_reader_who_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import encoscope.cli; encoscope.cli.main()", "--version"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    command = [sys.executable, "-c", "import encoscope.cli; encoscope.cli.main()", "--version"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "encoscope: error: No space left on device\n")


def test_the_packages_notes_go_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert cli.run(["--version"]) == 0
    capsys.readouterr()
    logging.getLogger("encoscope.encoder").warning("its head is dropped")
    assert capsys.readouterr() == ("", "encoscope: its head is dropped\n")
