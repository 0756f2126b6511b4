"""One network at several states of its training: parts, objects, mean colours, and where the states come from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from encoscope.cli.app import run as command
from encoscope.encoder import load
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation import localization
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.report import EvaluationRequest
from encoscope.evaluation.runner import compute_difference
from encoscope.recipes.images import DecodedImages
from encoscope.recipes.training import find_kept_weights
from encoscope.reproduce.nave import training
from support.masked_images import write_masked_images

FIRST, LAST = "zoo:resnet-caltech101@untrained", "zoo:resnet-caltech101"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def image_sets(tmp_path: Path) -> tuple[str, str]:
    """Three photos of a red person before a blue sky: with panoptic masks, and with boxes."""
    return write_masked_images(tmp_path, 3, (96, 128), rows=(20, 80), width=56, step=16)


def test_each_state_stands_beside_the_last_and_beside_chance(image_sets: tuple[str, str]) -> None:
    options = {"clusters": "3", "runs": 2, "images": 1, "box_size": 96, "min_area": 50, "border": 0}
    request = EvaluationRequest((f"before={FIRST}", f"after={LAST}"), image_sets, options=options, progress=False)
    report = training.run(request)
    assert [row["network"] for row in report.rows] == ["before", "after"]
    before, after = report.rows
    assert after["mIoU - after"] is None and after["CorLoc - after"] is None
    assert before["photos with masks"] == before["photos with boxes"] == 3
    settings = {"size": "model", "min_area": 0, "border": 0}
    ours = [Baseline("nave", load(model), 3, {"preset": "paper"}, **settings) for model in (FIRST, LAST)]
    one, two = localization.measure_baselines(ours, overlap.open_panoptic(image_sets[0]), overlap.TASK, progress=False)
    assert before["mIoU"].value == pytest.approx(one.mean("miou"))
    assert before["mIoU - after"] == compute_difference(one, two, lambda found: found.array("miou"))
    assert report.figures["nave-training"].height > 2 * 96 and report.figures["nave-training"].width > 3 * 200
    assert [(row["model"], row["K"]) for row in report.further["figure"]] == [
        ("before", 5),
        ("before", 10),
        ("after", 5),
        ("after", 10),
    ]
    only = training.run(EvaluationRequest(request.models, image_sets[1:], options=options, progress=False))
    assert "mIoU" not in only.rows[0] and only.rows[0]["CorLoc"] == before["CorLoc"]


def test_states_are_those_that_the_recipe_kept(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--keep-at 1,3,10 --stop-epoch 10 --state FOLDER"):
        training.list_stages(EvaluationRequest(), str(tmp_path))
    weights = {name: value.contiguous() for name, value in load(FIRST).module.state_dict().items()}
    for epoch in (10, 3):
        save_file(weights, find_kept_weights(tmp_path, epoch))
    found = training.list_stages(EvaluationRequest(), str(tmp_path))
    assert list(found) == ["untrained", "epoch 3 of 74", "epoch 10 of 74", "trained"]
    assert load(found["epoch 3 of 74"]).digest == load(FIRST).digest != load(LAST).digest
    assert training.list_stages(EvaluationRequest(("a=x@y", "z"))) == {"a": "x@y", "z": "z"}
    with pytest.raises(UsageError, match="two or more --model"):
        training.list_stages(EvaluationRequest((LAST,)))


def test_wrong_use_is_one_line(image_sets: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "nave-training", "--model", FIRST, "--model", LAST]
    assert command(words) == 2
    assert command([*words, "--dataset", image_sets[0], "--set", "clusters=three"]) == 2
    shown = capsys.readouterr().err
    assert "coco:IMAGES#PANOPTIC.json" in shown and "not 'three'" in shown and shown.count("\n") == 2


def test_the_recipe_s_option_reaches_its_training(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoscope.recipes import resnet_caltech101 as recipe

    asked = {}
    monkeypatch.setattr(
        recipe, "decode_images", lambda listed, side: DecodedImages([], np.zeros(0, np.int64), listed.classes)
    )
    monkeypatch.setattr(recipe, "train", lambda *given, **named: (asked.update(named), (None, []))[1])
    words = ["recipe", "--data", str(data_root / "caltech101"), "--keep-at", "1,3", "--stop-epoch", "3"]
    monkeypatch.setattr(sys, "argv", [*words, "--state", str(tmp_path / "state")])
    monkeypatch.setattr(recipe.logger, "info", lambda *words: None)
    recipe.main()
    assert asked["keep_at"] == (1, 3) and asked["stop_epoch"] == 3 and asked["folder"] == tmp_path / "state"
