"""``encoscope segment`` on many images together, with controls and stability."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import encoscope
from encoscope import results
from encoscope.cli.app import run

MODEL = ["--model", "timm:resnet10t@untrained", "--size", "48"]


@pytest.fixture
def here(tmp_path: Path, image_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three small photos."""
    (tmp_path / "photos").mkdir()
    for name in ("chelsea", "coffee", "china"):
        with Image.open(image_paths[name]) as image:
            image.resize((90, 60)).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def labels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_joint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "broken.png").write_text("no image")
    arguments = ["segment", "photos", *MODEL, "--joint", "--clusters", "4", "--out", "found", "--json"]
    assert run(arguments) == 1  # one was skipped
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert "broken.png" in err
    assert [entry["path"] for entry in document["skipped"]] == ["../photos/broken.png"]
    assert document["settings"]["joint"] is True
    assert len(document["images"]) == 3
    with Image.open(here / "found" / "sheet.png") as sheet:
        assert sheet.size[0] > 700
    encoder = encoscope.load("timm:resnet10t@untrained")
    nave = encoscope.Nave.load(here / "found" / "nave", encoder)
    (china,) = nave.predict(here / "photos" / "china.png")
    np.testing.assert_array_equal(china.labels, labels_of(here / "found" / "china.labels.png"))
    assert not list((here / "cache").rglob("*.npy"))


def test_joint_at_several_granularities(here: Path) -> None:
    assert run(["segment", "photos", *MODEL, "--joint", "--clusters", "2,5", "--cache", "none", "--out", "found"]) == 0
    for name in ("chelsea", "coffee", "china"):
        coarse, fine = (labels_of(here / "found" / f"{name}.k{k}.labels.png") for k in (2, 5))
        for cluster in np.unique(fine):
            assert len(np.unique(coarse[fine == cluster])) == 1


def test_runs_and_controls(here: Path) -> None:
    arguments = ["--runs", "3", "--control", "untrained,color", "--clusters", "3", "--out", "found"]
    assert run(["segment", "photos/china.png", *MODEL, *arguments]) == 0
    (entry,) = results.read(here / "found" / "result.json", "segmentation")["images"]
    assert [control["control"] for control in entry["controls"]] == ["untrained", "color"]
    assert all(control["agreement"] < 0.999 for control in entry["controls"])  # other weights, not the same again
    assert entry["stability"]["runs"] == 3
    assert labels_of(here / "found" / entry["stability"]["picture"]).shape == (60, 90, 3)
    assert labels_of(here / "found" / entry["comparison"]).shape[1] > 4 * 320


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cache", "none"], "--joint"),
        (["--fresh"], "--joint"),
        (["--runs", "1"], "from 2 on"),
        (["--runs", "3", "--clusters", "2,3"], "one number of clusters"),
        (["--control", "grey"], "'grey'"),
        (["--control", "color", "--joint"], "without --joint"),
        (["--joint", "--grouping", "pca"], "kmeans"),
    ],
)
def test_what_does_not_go_together(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(["segment", "photos", *MODEL, *arguments, "--out", "found"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (here / "found").exists()


def test_a_cache_that_cannot_be_written_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("in the way")
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(here / "file"))
    assert run(["segment", "photos", *MODEL, "--joint", "--out", "found"]) == 1
    err = capsys.readouterr().err
    assert str(here / "file") in err
    assert len(err.splitlines()) == 1


def test_a_full_disk_in_a_joint_fit_is_one_line_and_a_rerun_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["segment", "photos", *MODEL, "--joint", "--clusters", "3", "--out"]
    with monkeypatch.context() as patch:
        patch.setattr("encoscope.store.store.np.save", full)
        assert run([*arguments, "found"]) == 1
    err = capsys.readouterr().err
    assert "space" in err.lower()
    assert len(err.splitlines()) == 1
    assert not (here / "found" / "result.json").exists()
    assert run([*arguments, "found"]) == 0
    assert run([*arguments, "again", "--fresh"]) == 0
    for name in ("chelsea", "coffee", "china"):
        first, second = (labels_of(here / folder / f"{name}.labels.png") for folder in ("found", "again"))
        np.testing.assert_array_equal(first, second)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
