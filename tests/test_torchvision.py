"""torchvision, timm and scripts that begin with them import in the environment that the package is installed in."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import _encoscope_torchvision as at_start
from encoscope import _torchvision

ROOT = Path(__file__).parents[1]
PTH = ROOT / "src" / "encoscope_torchvision.pth"

SCRIPT = """
import sys
assert not {"torch", "encoscope"} & set(sys.modules), "a start imports neither torch nor encoscope"
import {first}
import torch, torchvision
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30.0]])
print(torchvision.ops.nms(boxes, torch.tensor([0.1, 0.9, 0.5]), 0.5).tolist())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with everything that is installed here, and encoscope as its wheel places it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/*/site-packages"))
    (site / "_all_others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT / 'src'}\n")
    (site / PTH.name).write_bytes(PTH.read_bytes())
    return folder


def run(python: Path, code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-W", "ignore", *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


@pytest.mark.parametrize("first", ["torchvision", "timm"])
def test_a_script_that_begins_with_it_runs_in_a_new_interpreter(environment: Path, first: str) -> None:
    done = run(environment / "bin" / "python", SCRIPT.replace("{first}", first))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 2]\n", "")


def test_a_start_survives_when_the_package_is_gone(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    site = next(tmp_path.glob("lib/*/site-packages"))
    (site / PTH.name).write_bytes(PTH.read_bytes())
    done = run(tmp_path / "bin" / "python", "import json; print('started')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    (site / "_encoscope_torchvision.py").write_bytes(Path(at_start.__file__).read_bytes())
    (site / "torchvision").mkdir()
    (site / "torchvision" / "__init__.py").write_text("from torchvision import extension\n")
    (site / "torchvision" / "extension.py").write_text("def _has_ops():\n    return False\n")
    done = run(tmp_path / "bin" / "python", "import torchvision; print(torchvision.extension._has_ops())")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_wheel_and_editable_installation_place_the_file_where_python_reads_it() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"src/encoscope_torchvision.pth": PTH.name}
    assert "src/_encoscope_torchvision.py" in wheel["packages"]
    assert len(PTH.read_text().splitlines()) == 1, "Python runs each line of a .pth file alone"


def module_of(name: str, has_ops: bool) -> ModuleType:
    module = ModuleType(name)
    module.__dict__["_has_ops"] = lambda: has_ops
    return module


@pytest.mark.parametrize("has_ops", [True, False])
def test_operators_are_declared_only_where_torchvisions_own_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, has_ops: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(_torchvision, "_declare_operators", lambda: calls.append("declared"))
    _torchvision.complete_module(module_of("torchvision.extension", has_ops))
    assert calls == ([] if has_ops else ["declared"])


def test_the_finder_leaves_all_other_modules_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision.ops", "torch", "extension", "torchvision.extension.x"):
        assert at_start.TorchvisionFinder.find_spec(name) is None
    (tmp_path / "extension.py").write_text("value = 3\n")
    spec = at_start.TorchvisionFinder.find_spec("torchvision.extension", [str(tmp_path)])
    assert spec is not None and isinstance(spec.loader, SourceFileLoader)
    module, completed = ModuleType("torchvision.extension"), []
    monkeypatch.setattr(_torchvision, "complete_module", completed.append)
    spec.loader.exec_module(module)
    assert module.__dict__["value"] == 3 and completed == [module]


def test_once_is_enough() -> None:
    before = list(sys.meta_path)
    _torchvision.ensure_torchvision()
    assert sys.meta_path == before and sys.meta_path.count(at_start.TorchvisionFinder) == 1


def slow_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """The definition, with one pair of boxes at a time."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        overlaps = []
        for other in kept:
            (ax, ay, bx, by), (cx, cy, dx, dy) = boxes[index], boxes[other]
            common = max(0.0, min(bx, dx) - max(ax, cx)) * max(0.0, min(by, dy) - max(ay, cy))
            overlaps.append(common / ((bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - common))
        if all(overlap <= threshold for overlap in overlaps):
            kept.append(index)
    return kept


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 25), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_overlapping_boxes_are_left_out_as_defined(seed: int, count: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 20, (count, 2)).astype(float)
    boxes = np.concatenate([corners, corners + random.integers(1, 12, (count, 2))], 1)
    scores = random.permutation(count) / 10
    kept = _torchvision.suppress_overlaps(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == slow_suppression(boxes, scores, threshold)
