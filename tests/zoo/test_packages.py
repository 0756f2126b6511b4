from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import encoscope
from encoscope.errors import EncoscopeError, MissingError
from encoscope.zoo.packages import WeightsPackage, find_weights, match_in_order, read_weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsPackage:
    """A package on the path, which must not be run, with two tensors."""
    folder = tmp_path / "weights_of_a_test"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save({"b": torch.ones(2, 3), "a": torch.zeros(4)}, folder / "models" / "file.pth")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256((folder / "models" / "file.pth").read_bytes()).hexdigest()
    return WeightsPackage("weights-of-a-test==1.0", "weights_of_a_test", "models/file.pth", digest)


def test_weights_are_read_without_running_the_package(package: WeightsPackage) -> None:
    state = read_weights(package)
    assert list(state) == ["b", "a"] and state["b"].shape == (2, 3)


def test_a_file_with_code_inside_is_not_run(package: WeightsPackage) -> None:
    import pickle

    path = find_weights(package)
    assert path is not None
    torch.save({"a": Path}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = WeightsPackage(package.distribution, package.module, package.file, digest)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        read_weights(changed)


def test_another_file_is_refused(package: WeightsPackage) -> None:
    path = find_weights(package)
    assert path is not None
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(EncoscopeError, match=r"is not the file of weights-of-a-test==1\.0: sha256"):
        read_weights(package)


@pytest.mark.parametrize("module,file", [("no_such_package_here", "x.pth"), ("weights_of_a_test", "models/other.pth")])
def test_what_is_not_installed_is_said(package: WeightsPackage, module: str, file: str) -> None:
    absent = WeightsPackage("lite==1", module, file, package.sha256)
    assert find_weights(absent) is None
    with pytest.raises(MissingError, match=r"lite==1 is not installed; .*encoscope\[imagenet\]"):
        read_weights(absent)


def test_tensors_are_matched_in_order_if_every_shape_fits() -> None:
    state = {"x": torch.ones(2), "y": torch.zeros(3)}
    assert match_in_order(state, {"first": torch.empty(2), "second": torch.empty(3)})["second"] is state["y"]
    for other in ({"first": torch.empty(2)}, {"first": torch.empty(3), "second": torch.empty(2)}, {}):
        with pytest.raises(EncoscopeError, match="do not fit"):
            match_in_order(state, other)


def test_the_package_stays_small() -> None:
    """The wheel holds these files, compressed: 60 MB at most."""
    folder = Path(encoscope.__file__).parent
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 60e6
