"""FALCON's figures and claims on a world of coloured squares: every name runs, and its numbers mean what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon.captions.build import embed_captions
from encoscope.metrics import Interval, auc_mad
from encoscope.reproduce import inputs
from encoscope.reproduce.falcon import coverage, failure, harness, transfer
from encoscope.reproduce.registry import EXPERIMENTS, find_experiment
from support import described_network as world

NAMES = [name for name in EXPERIMENTS if name.startswith("falcon-") and name != "falcon-zoo"]


def other() -> Encoder:
    """A network whose features are the first one's, turned round and mixed a little; it takes squares wrongly."""
    module = world.ColorNetwork()
    with torch.no_grad():
        module.see.weight.copy_(module.see.weight.flip(0) + 0.1 * module.see.weight)
        module.head.weight.copy_(torch.eye(3, 6))  # red reads the purple one
    return Encoder(module, size=32, mean=(0.0,) * 3, std=(1.0,) * 3, classes=world.NAMES, source="python:other")


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """Photos of coloured squares to make and to test descriptions, captions of a model that reads colours."""
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    networks = {"colours": world.encoder, "other": other}
    monkeypatch.setattr(inputs, "load", lambda model, **_: networks[model]())
    monkeypatch.setattr(coverage, "untrained_copy", lambda encoder, random_state: other())
    monkeypatch.setattr(harness.vlm, "load", lambda *_, **__: world.Reader())
    embed_captions(world.CAPTIONS, world.Reader(), tmp_path / "store")
    world.write_images(tmp_path / "made", 60)
    world.write_images(tmp_path / "test", 45, seed=5)
    return tmp_path


def make_request(squares, *models: str, limit: int | None = 2, **options: object) -> EvaluationRequest:
    settings = {"vlm": "stub", "captions": str(squares / "store"), **options}
    return EvaluationRequest(
        models or ("colours",), (str(squares / "made"), str(squares / "test")), limit, 0, {}, settings, False, False
    )


def models_of(name: str) -> tuple[str, ...]:
    return {"falcon-transfer": ("colours", "other"), "falcon-failure": ("other",)}.get(name, ("colours",))


def options_of(name: str) -> dict[str, object]:
    return {"more_than": 3, "alpha_stds": 0.5} if name in ("falcon-fig4-groups", "falcon-coverage") else {}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_runs(name: str, squares) -> None:
    report = find_experiment(name).load()(make_request(squares, *models_of(name), **options_of(name)))
    assert report.name == name and report.rows and report.notes
    assert len({tuple(row) for row in report.rows}) == 1
    for row in report.rows:
        for value in row.values():
            assert value is None or isinstance(value, str | int | float | Interval)
            assert not isinstance(value, float) or np.isfinite(value)
    page = report.save(squares / "out", "encoscope reproduce")
    assert report.title in page.read_text() and str(squares / "store") not in report.to_text()
    assert json.loads((squares / "out" / f"{name}.json").read_text())["settings"]["experiment"] == name
    assert report.figures and all(picture.getextrema() != ((255, 255),) * 3 for picture in report.figures.values())


def test_contrast_is_held_against_none(squares) -> None:
    report: Report = find_experiment("falcon-fig3-contrast").load()(make_request(squares, limit=3))
    *features, mean = report.rows
    tested = [row for row in features if row["difference"] is not None]
    assert tested and mean["difference"].value == pytest.approx(np.mean([row["difference"] for row in tested]))


def test_coverage_counts_features(squares) -> None:
    report = find_experiment("falcon-coverage").load()(make_request(squares, limit=None, more_than=3))
    by_name = {row["of the features"]: row for row in report.rows}
    found = harness.describe_units(
        harness.fit_falcon(
            make_request(squares), {**harness.DEFAULTS, **make_request(squares).options}, world.encoder()
        ),
        [f"features:{index}" for index in range(6)],
    )
    assert by_name["alone: it has concepts"]["ours"].value == np.mean([item.explained for item in found])
    alike = [item.explained and item.interpretable for item in found]
    assert by_name[coverage._ALIKE]["ours"].value == np.mean(alike)
    assert by_name[coverage._ALIKE]["paper"] == "under 0.2"
    assert all(row["features"] == 6 for row in report.rows)


def test_answers_change_without_the_features_they_rest_on() -> None:
    encoder = world.encoder()  # class i is feature i
    h = np.array([3.0, 2.0, 1.0, 0.5, 0.0, 4.0], dtype=np.float32)
    answer, often = failure.remove_features(encoder, h, [0], random_state=0)
    assert answer == 1 and often == 0.0  # no other single feature is what the answer rests on
    answer, often = failure.remove_features(encoder, h, [3], random_state=0)
    assert answer == 0 and often == pytest.approx(0.25, abs=0.15)  # of the four other active ones it is one


def test_failures_are_photos_of_another_class(squares) -> None:
    encoder, text = other(), str(squares / "test")
    found = failure.find_misclassified(encoder, text, 4, make_request(squares))
    assert len(found) == 4
    for path, label in found:
        assert path.parent.name == world.NAMES[label] and int(encoder.logits(path).argmax()) != label
    with pytest.raises(UsageError, match="takes every image of"):
        failure.find_misclassified(world.encoder(), text, 4, make_request(squares))


def test_carried_concepts_are_held_against_the_photos(squares) -> None:
    report = find_experiment("falcon-transfer").load()(make_request(squares, "colours", "other", limit=3))
    *features, mean, gain = report.rows
    assert mean["feature"] == "mean" and gain["feature"] == "carried - permuted"
    falcon = harness.fit_falcon(make_request(squares), {**harness.DEFAULTS, **make_request(squares).options}, other())
    space = harness.feature_space(falcon)
    number = int(features[0]["feature"].rpartition(":")[2])
    (concept, *_) = falcon.describe([f"features:{number}"])[0].concepts
    ours = transfer.compute_predictive_auc(falcon, number, [concept])
    values = space.heldout.h[:, number]
    strong = values > space.thresholds.alpha
    if not 5 <= strong.sum() <= len(strong) // 2:
        strong = np.isin(
            np.arange(len(values)), np.argsort(-values, kind="stable")[: max(5, round(0.05 * len(values)))]
        )
    similar = world.Reader().embed_images(list(space.heldout.paths)).numpy() @ falcon.context_.texts([concept.word])[0]
    assert ours == pytest.approx(auc_mad(similar[strong], similar[~strong]).auc)


def test_wrong_usage_is_told(squares) -> None:
    with pytest.raises(UsageError, match=r"no setting 'captains' .nearest: captions"):
        find_experiment("falcon-fig2").load()(make_request(squares, captains="x"))
    with pytest.raises(UsageError, match="need --dataset, images to probe"):
        find_experiment("falcon-coverage").load()(EvaluationRequest(("colours",)))
    with pytest.raises(UsageError, match="takes two models"):
        find_experiment("falcon-transfer").load()(make_request(squares, "colours"))
    with pytest.raises(UsageError, match="no public weights"):
        find_experiment("falcon-fig2").load()(make_request(squares, "paper"))
