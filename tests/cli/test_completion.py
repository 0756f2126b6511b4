"""Shells complete commands and flags; what that takes is written below the home folder, here a temporary one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from encoscope.cli import app as cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, in which bash was started."""
    for name in ("ZSH", "ZSH_CUSTOM", "ZSH_VERSION", "FISH_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BASH_VERSION", "5.2")
    return tmp_path


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_shell_at_hand_gets_a_script_and_a_line_that_loads_it(home, capsys):
    assert cli.run(["--install-completion"]) == 0
    script = home / ".local/share/bash-completion/completions/encoscope"
    assert capsys.readouterr().out == f"{script}\n"
    assert _files(home) == {".bashrc", script.relative_to(home).as_posix()}
    assert str(script) in (home / ".bashrc").read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert all(name in text for name in ("explain-failure", "visualize", "--weighting", "--references"))

    again = (home / ".bashrc").read_text()
    assert cli.run(["--install-completion", "--shell", "bash"]) == 0
    assert (home / ".bashrc").read_text() == again


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("zsh", {".zsh/completions/_cyclopts_encoscope", ".zshrc"}),
        ("fish", {".config/fish/completions/encoscope.fish"}),
    ],
)
def test_other_shells_are_named(home, shell, files):
    assert cli.run(["--install-completion", "--shell", shell]) == 0
    assert _files(home) == files


def test_a_named_file_is_all_that_is_written(home):
    assert cli.run(["--install-completion", "--output", str(home / "script")]) == 0
    assert _files(home) == {"script"}


def test_an_unknown_shell_is_one_line(home, monkeypatch, capsys):
    from cyclopts.completion import detect

    def fail() -> None:
        raise detect.ShellDetectionError

    monkeypatch.setattr(detect, "detect_shell", fail)
    assert cli.run(["--install-completion"]) == 2
    assert "give --shell bash, zsh, fish or powershell" in capsys.readouterr().err
    assert _files(home) == set()


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "encoscope", "--version"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert (done.stdout.strip(), done.stderr) == (cli.__version__, "")
