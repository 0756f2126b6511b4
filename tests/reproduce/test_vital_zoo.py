from __future__ import annotations

import json

import numpy as np
import pytest

from encoscope.images import datasets
from encoscope.reproduce.vital import experiment, image_cache, judge, zoo
from support.visualized_network import Colours, reader, tiny, write_photos


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A dataset of coloured squares, a network for it, its untrained twin, and a judge."""
    write_photos(tmp_path / "data")
    encoders = {"tiny": tiny(1.0), "tiny@untrained": tiny(0.0)}
    monkeypatch.setitem(datasets._READERS, "squares", reader(tmp_path / "data"))
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    for module in (image_cache, experiment, zoo):
        monkeypatch.setattr(module, "encoder_of", encoders.__getitem__)
    monkeypatch.setattr(judge.vlm, "load", lambda *_, **__: Colours())
    monkeypatch.setattr(image_cache, "CANDIDATES", 5)
    monkeypatch.setattr(zoo, "CANDIDATES", 5)
    return tmp_path


ARGUMENTS = ("--model", "tiny", "--steps", "3", "--classes", "2", "--search", "1", "--channels", "1")


def command(world, *more: str) -> int:
    places = ("--folder", str(world / "kept"), "--out", str(world / "out"))
    return zoo.main(["squares:anywhere", *ARGUMENTS, "--channel-steps", "2", "--layer", "3", *places, *more])


def test_the_whole_experiment_on_a_tiny_configuration(world, capsys):
    assert command(world) == 0
    rows = {row["what"]: row for row in json.loads((world / "out" / "vital-zoo.json").read_text())["results"]}
    assert len(rows) == 5 + len(zoo.SEARCH) + len(zoo.CHANNEL_METHODS)
    real = rows["real photos, all classes"]
    assert real["pictures"] == 16 and real["share of real"]["value"] == 1 and real["KID"] is not None
    for what in zoo.SEARCH:
        row = rows[f"{what}, 2 classes"]
        assert row["pictures"] == 2 and 0 <= row["own top-1"]["value"] <= 1 and row["KID"] is not None
        assert row["settings"] and row["steps"] >= 1 and row["seconds"] > 0
    assert rows["vital, 2 classes, untrained network"]["share of real"] is not None
    assert 0 <= rows["fourier, 1 channels of 3"]["AUC"]["value"] <= 1
    page = (world / "out" / "vital-zoo.md").read_text()
    assert "Equal compute" in page and "squares:ROOT --model tiny --steps 3" in page and str(world) not in page
    assert {file.stem for file in (world / "out").glob("*.jpg")} >= {"vital-zoo-classes", "vital-zoo-methods"}
    assert "vital, all classes" in capsys.readouterr().out


def test_pictures_are_made_once(world, monkeypatch, capsys):
    assert command(world, "--parts", "classes") == 0
    kept = {file: file.stat().st_mtime_ns for file in (world / "kept").rglob("*.png")}
    assert len(kept) == 4
    next(iter(kept)).with_suffix(".json").unlink()  # as if the run had been stopped before the picture was done
    made = []
    monkeypatch.setattr(image_cache, "make", lambda part, make=image_cache.make: (made.append(part.units), make(part)))
    assert command(world, "--parts", "classes") == 0
    assert len(made) == 1 and len(made[0]) == 1
    monkeypatch.setattr(image_cache, "make", lambda part: pytest.fail(f"{part.units} was made again"))
    assert command(world, "--parts", "classes") == 0


def test_without_a_judge_the_network_speaks_alone(world, monkeypatch, capsys):
    from encoscope.errors import MissingError

    def absent(*_, **__):
        raise MissingError("zoo:clip-caltech101 is not in this installation")

    monkeypatch.setattr(judge.vlm, "load", absent)
    assert command(world, "--parts", "classes", "--limit", "2") == 0
    row = json.loads((world / "out" / "vital-zoo.json").read_text())["results"][1]
    assert row["judge top-1"] is None and row["share of real"] is None and row["pictures"] == 2
    assert "No judge: zoo:clip-caltech101" in capsys.readouterr().out


def test_wrong_usage_is_a_line_and_a_code(world, capsys):
    assert command(world, "--parts", "everything") == 2
    assert "unknown part 'everything'" in capsys.readouterr().err
    assert zoo.main(["squares:x#train"]) == 2
    assert "without a split" in capsys.readouterr().err


def test_steps_are_those_that_make_the_passes():
    assert image_cache.steps_of("fourier", {}, 500) == 500
    assert image_cache.steps_of("fourier", {"views": "crops", "crops": 2}, 500) == 250
    assert image_cache.steps_of("maco", {"crops": 4}, 500) == 125
    assert image_cache.steps_of("deepinversion", {"lr": 0.2}, 500) == 500
    steps = image_cache.steps_of("plugin", {"ensemble": 4}, 500)
    passes = sum((steps / 7) * 4 * (eighths / 8) ** 2 for eighths in range(2, 9))
    assert passes == pytest.approx(500, rel=0.01)


def test_the_share_is_of_the_judges_own_accuracy_on_the_same_classes():
    judged, rates = np.array([1.0, 0.0, 1.0, np.nan]), np.array([0.8, 0.8, 0.4, 0.9])
    found = judge._judgement(judged, rates, 0)
    assert found["judge top-1"].value == pytest.approx(2 / 3)
    assert found["share of real"].value == pytest.approx((2 / 3) / (2 / 3))
    assert found["share of real"].low <= 1 <= found["share of real"].high
