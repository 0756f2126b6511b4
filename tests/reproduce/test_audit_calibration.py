"""The audit's calibration: how figures are judged, and a run that is killed and goes on to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image

from encoscope.analysis.watermarks import KINDS, SEEN, UNSEEN
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import open_dataset
from encoscope.reproduce.audit_calibration import run
from encoscope.reproduce.audit_calibration.classifiers import Condition, Setting, decode_samples, train_classifier
from encoscope.reproduce.audit_calibration.metrics import FIGURES, leave_out
from encoscope.reproduce.audit_calibration.networks import list_pairs, pack_region, unpack_region

OPTIONS = {
    "architecture": "test_resnet",
    "pixels": 32,
    "epochs": 2,
    "seeds": 1,
    "clusters": 3,
    "permutations": 20,
    "cues": "arrow,date",
}


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two classes of ten noisy plates; what is trained on them is kept in one cache."""
    tmp_path = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "plates" / "ab"[number // 10] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(40 * (number // 10), 200, (48, 40), dtype=np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "plates"


def calibrated(plates: Path, **options: Any) -> Report:
    return run.run(EvaluationRequest(datasets=(str(plates),), options=OPTIONS | options, progress=False))


def test_a_figure_is_judged_on_kinds_that_had_no_part_in_reading_it() -> None:
    kinds = ["a", "a", "b", "b", "c", "c"]
    low = np.array([0.1, 0.2, 0.0, 0.1, 0.2, 0.1])
    good = leave_out(low + 1, low, kinds)
    assert good.auc.value == 1 and good.auc.low < 0.8 and good.right == good.networks == 12
    assert good.kinds == ("a", "b", "c") and good.directions == (1, 1, 1)
    assert good.thresholds[0] == pytest.approx(0.1 + 0.5)  # midway between the means of b and c
    lower = leave_out(low, low + 1, kinds)
    assert lower.directions == (-1, -1, -1) and lower.auc.value == 1
    # what points one way for one kind and the other way for the rest is wrong on it, not turned round by a look at it
    turned = leave_out(low + np.array([-1, -1, 1, 1, 1, 1]), low, kinds)
    assert turned.directions[0] == 1 and turned.right < 12 and turned.auc.value < 0.8
    with pytest.raises(UsageError, match="two kinds"):
        leave_out(low, low, ["a"] * 6)


def test_figures_that_know_nothing_are_at_chance_on_average() -> None:
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        offsets = np.repeat(rng.normal(size=3), 2)  # a kind's own level, in both networks of a pair
        found = leave_out(offsets + rng.normal(size=6), offsets + rng.normal(size=6), ["a", "a", "b", "b", "c", "c"])
        values.append(found.auc.value)
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)


def test_no_two_pairs_share_a_seed_and_classes_take_turns() -> None:
    pairs = list_pairs(["arrow", "date", "ruler"], 3, 2)
    assert len({pair.seed for pair in pairs}) == 9
    assert [pair.cue_class for pair in pairs[:3]] == [0, 1, 0]
    assert not {pair.seed for pair in pairs} & {
        pair.seed for pair in list_pairs(["arrow", "date", "ruler"], 3, 2, random_state=1)
    }
    assert set(UNSEEN) & set(SEEN) == set() and set(KINDS) == {*SEEN, *UNSEEN}


def test_a_share_of_the_images_carries_the_mark() -> None:
    half = Condition("arrow", augmented=False, seed=3, cue_rate=0.5)
    assert 60 < sum(half.has_cue(image) for image in range(150)) < 90
    assert all(Condition("arrow", augmented=False).has_cue(image) for image in range(20))


def test_regions_come_back_from_a_journal() -> None:
    region = np.random.default_rng(0).random((5, 7)) < 0.4
    np.testing.assert_array_equal(unpack_region(pack_region(region), (5, 7)), region)


def test_the_calibration_whole(plates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="encoscope")
    report = calibrated(plates)
    assert [row["figure of the audit"] for row in report.rows] == list(FIGURES)
    assert all(0 <= row["AUC, mark left out"].value <= 1 for row in report.rows)
    networks = report.further["networks"]
    assert [row["trained"] for row in networks] == ["with arrow", "without", "with date", "without"]
    assert networks[0]["seed"] == networks[1]["seed"] != networks[2]["seed"]
    assert "4 of 4 networks to train and audit" in caplog.text and "min" in caplog.text
    assert "arrow, date had no part in that" in report.notes[0]
    assert {"audit-calibration-figures"} <= set(report.figures)
    assert (report.save(tmp_path / "out")).is_file()
    caplog.clear()
    again = calibrated(plates)
    assert again.rows == report.rows and again.further == report.further and "to train" not in caplog.text
    assert "box is no unseen cue" in calibrated(plates, cues="arrow,date,box").notes[0]


def test_networks_of_another_version_of_the_library_are_trained_again(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = decode_samples(open_dataset(str(plates)), Setting("test_resnet", 32, 1))
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path))

    def train() -> list[str]:
        lines: list[str] = []
        train_classifier(
            samples, Condition(None, False), Setting("test_resnet", 32, 1), origin="plates", report=lines.append
        )
        return [line for line in lines if line.startswith("resumed")]

    assert train() == [] and len(train()) == 1
    original = timm.create_model

    def changed(*args: Any, **kwargs: Any) -> Any:
        model: Any = original(*args, **kwargs)
        model.fc.register_forward_hook(lambda _module, _args, output: -output)
        return model

    monkeypatch.setattr(timm, "create_model", changed)
    assert train() == [] and len(train()) == 1


def test_wrong_settings_are_said(plates: Path) -> None:
    for options, message in (
        ({"cues": "arrow"}, "two kinds"),
        ({"cue_rate": 0.0}, "cue_rate is a share"),
        ({"seedz": 1}, "nearest: seeds"),
    ):
        with pytest.raises(UsageError, match=message):
            calibrated(plates, **options)
    with pytest.raises(UsageError, match="needs --dataset"):
        run.run(EvaluationRequest())


def test_killed_it_goes_on_to_the_same_result(plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = calibrated(plates)
    other = tmp_path / "other"
    words = [f"--set={name}={value}" for name, value in OPTIONS.items()]
    code = "import sys; from encoscope.cli.app import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "reproduce", "audit-calibration", "--dataset", str(plates), *words]
    environment = {**os.environ, "ENCOSCOPE_CACHE": str(other), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], env=environment)
    try:  # killed once the second network's training has begun: one is finished, one is half-way
        deadline = time.monotonic() + 120
        while len(list(other.glob("studies/*/state.pt"))) < 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (journal,) = (other / "experiments").glob("*/journal.jsonl")
    assert 1 <= journal.read_text().count('"id"') < 4
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(other))
    resumed = calibrated(plates)
    assert resumed.rows == expected.rows and resumed.further == expected.further
