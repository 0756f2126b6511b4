from __future__ import annotations

import json

import numpy as np
import pytest

from encoscope.errors import MissingError, UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import datasets
from encoscope.reproduce.registry import find_experiment
from encoscope.reproduce.vital import comparison, image_cache, judge, zoo
from support.visualized_network import Colors, reader, tiny, write_images


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A dataset of colored squares, a network for it, its untrained copy, and a judge."""
    write_images(tmp_path / "data")
    encoders = {"tiny": tiny(1.0), "tiny@untrained": tiny(0.0)}
    monkeypatch.setitem(datasets._READERS, "squares", reader(tmp_path / "data"))
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    for module in (image_cache, comparison, zoo):
        monkeypatch.setattr(module, "load_cached_encoder", lambda model, load_options=(): encoders[model])
    monkeypatch.setattr(judge.vlm, "load", lambda *_, **__: Colors())
    monkeypatch.setattr(image_cache, "CANDIDATES", 5)
    monkeypatch.setattr(zoo, "CANDIDATES", 5)
    return tmp_path


SETTINGS = {"steps": 3, "classes": 2, "search": 1, "channels": 1, "channel_steps": 2, "layer": 3}


def compare(world, *, limit: int | None = None, fresh: bool = False, **settings: object) -> Report:
    settings = {**SETTINGS, "folder": str(world / "kept"), **settings}
    request = EvaluationRequest(("tiny",), ("squares:anywhere",), limit, options=settings, fresh=fresh, progress=False)
    return find_experiment("vital-zoo").load()(request)


def test_the_whole_experiment_on_a_tiny_configuration(world):
    report = compare(world)
    report.save(world / "out", "encoscope reproduce vital-zoo --dataset squares:ROOT")
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
    assert "Equal compute" in page and "vital-zoo --dataset squares:ROOT" in page and str(world) not in page
    assert {file.stem for file in (world / "out").glob("*.jpg")} >= {"vital-zoo-classes", "vital-zoo-methods"}
    assert "vital, all classes" in report.to_text()


def test_images_are_made_once(world, monkeypatch):
    compare(world, sections="classes")
    kept = list((world / "kept").rglob("*.png"))
    assert len(kept) == 4
    kept[0].with_suffix(".json").unlink()  # as if the run had been stopped before the image was finished
    units = []
    original = image_cache.make_images
    monkeypatch.setattr(image_cache, "make_images", lambda trial: (units.append(trial.units), original(trial)))
    compare(world, sections="classes")
    assert len(units) == 1 and len(units[0]) == 1
    compare(world, sections="classes", fresh=True)
    assert len(units) == 5
    monkeypatch.setattr(image_cache, "make_images", lambda trial: pytest.fail(f"{trial.units} was made again"))
    compare(world, sections="classes")


def test_without_a_judge_only_the_network_is_asked(world, monkeypatch):
    def absent(*_, **__):
        raise MissingError("zoo:clip-caltech101 is not in this installation")

    monkeypatch.setattr(judge.vlm, "load", absent)
    report = compare(world, sections="classes", limit=2)
    row = report.rows[1]
    assert row["judge top-1"] is None and row["share of real"] is None and row["pictures"] == 2
    assert "No judge: zoo:clip-caltech101" in report.to_text()


def test_wrong_usage_is_told(world):
    with pytest.raises(UsageError, match="unknown section 'everything'"):
        compare(world, sections="everything")
    with pytest.raises(UsageError, match="without a split"):
        zoo.run(EvaluationRequest(("tiny",), ("squares:x#train",)))
    with pytest.raises(UsageError, match="takes one --dataset"):
        zoo.run(EvaluationRequest(("tiny",)))
    with pytest.raises(UsageError, match=r"no setting 'step' .nearest: steps"):
        compare(world, step=3)


def test_steps_are_those_that_make_the_passes():
    assert image_cache.count_equal_steps("fourier", {}, 500) == 500
    assert image_cache.count_equal_steps("fourier", {"views": "crops", "n_views": 2}, 500) == 250
    assert image_cache.count_equal_steps("maco", {"n_views": 4}, 500) == 125
    assert image_cache.count_equal_steps("deepinversion", {"lr": 0.2}, 500) == 500
    steps = image_cache.count_equal_steps("plugin", {"n_views": 4}, 500)
    passes = sum((steps / 7) * 4 * (eighths / 8) ** 2 for eighths in range(2, 9))
    assert passes == pytest.approx(500, rel=0.01)


def test_the_share_is_of_the_judges_own_accuracy_on_the_same_classes():
    judged, rates = np.array([1.0, 0.0, 1.0, np.nan]), np.array([0.8, 0.8, 0.4, 0.9])
    found = judge._summarize_judgement(judged, rates, 0)
    assert found["judge top-1"].value == pytest.approx(2 / 3)
    assert found["share of real"].value == pytest.approx((2 / 3) / (2 / 3))
    assert found["share of real"].low <= 1 <= found["share of real"].high
