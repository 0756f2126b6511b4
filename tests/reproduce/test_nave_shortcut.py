"""Marks, the small classifiers trained with them, and the number that says how much a grouping follows a mark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope.analysis.cue_response import compute_divergence
from encoscope.analysis.watermarks import KINDS, choose_position, make_watermark, paste_watermark, place_watermark
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images.caltech101 import LabelledImages
from encoscope.reproduce.audit_calibration.classifiers import (
    Condition,
    Setting,
    compute_probabilities,
    decode_samples,
    train_classifier,
)
from encoscope.reproduce.nave import shortcut

SMALL = Setting(pixels=32, epochs=1, share=0.25)


@pytest.fixture
def listed(tmp_path: Path) -> LabelledImages:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(20):
        path = tmp_path / "xrays" / "ab"[number // 10] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 40), dtype=np.uint8)).save(path)
        paths.append(path)
    return LabelledImages(paths=tuple(paths), labels=(0,) * 10 + (1,) * 10, classes=("a", "b"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_changes_what_its_mask_says_and_nothing_far_from_it(kind: str) -> None:
    image = np.full((40, 60, 3), 120, np.uint8)
    marked, mask = place_watermark(image, make_watermark(kind, 12), (0, 7))
    changed = (marked != image).any(2)
    assert (image == 120).all()
    assert changed[mask].mean() > 0.9
    rows, columns = np.nonzero(changed)
    assert np.ptp(rows) < 12 and np.ptp(columns) < 12
    again, _ = place_watermark(image, make_watermark(kind, 12), (0, 7))
    assert (again == marked).all()


def test_places_depend_on_the_key_and_stay_inside() -> None:
    places = {choose_position((40, 60), make_watermark("box", 12), (0, index)) for index in range(200)}
    assert len(places) > 100
    assert max(top for top, _ in places) <= 28 and max(left for _, left in places) <= 48
    with pytest.raises(EncoscopeError, match="does not fit"):
        choose_position((8, 60), make_watermark("box", 12), (0,))


def test_a_mark_of_ones_own_keeps_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 10, 10))
    picture.save(tmp_path / "logo.png")
    found = make_watermark(tmp_path / "logo.png", 10)
    assert found.alpha.shape == (5, 10)
    marked, mask = paste_watermark(np.zeros((20, 20, 3), np.uint8), found, 2, 3)
    assert mask[:, :7].sum() == 0 and mask[2:7, 9:13].all()
    assert tuple(marked[4, 11]) == (255, 0, 0)
    with pytest.raises(MissingError, match="nearest: box"):
        make_watermark("bx", 10)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(EncoscopeError, match="cannot read the watermark"):
        make_watermark(tmp_path / "text.png", 10)


def test_samples_hold_a_fifth_of_each_class_back(listed: LabelledImages) -> None:
    found = decode_samples(listed, SMALL)
    assert found.images.labels[found.test].tolist() == [0, 0, 1, 1]
    assert sorted([*found.train, *found.test]) == list(range(20))
    with pytest.raises(UsageError, match="at least two labels"):
        decode_samples(LabelledImages(paths=listed.paths[:10], labels=(0,) * 10, classes=("a",)), SMALL)
    with pytest.raises(EncoscopeError, match="too few"):
        decode_samples(listed, SMALL, limit=4)


def test_a_training_is_kept_and_read_back(
    listed: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    found = decode_samples(listed, SMALL)
    lines: list[str] = []
    condition = Condition("box", augmented=True)
    first = train_classifier(found, condition, SMALL, origin="here", report=lines.append)
    second = train_classifier(found, condition, SMALL, origin="here", report=lines.append)
    other = train_classifier(found, Condition(None, augmented=True), SMALL, origin="here")
    assert sum("loss" in line for line in lines) == 1 and any("resumed after epoch 1" in line for line in lines)
    images = [found.pixels(0), found.pixels(15)]
    np.testing.assert_array_equal(compute_probabilities(first, images), compute_probabilities(second, images))
    assert first.digest == second.digest != other.digest


def test_divergence_is_one_for_labels_that_never_meet() -> None:
    assert compute_divergence(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == pytest.approx(1)
    assert compute_divergence(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == pytest.approx(0)
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    middle = (p + q) / 2
    expected = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2
    assert compute_divergence(p, q) == pytest.approx(expected)


def test_the_study_whole(listed: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shortcut, "CLUSTERS", 3)
    options = {"pixels": 32, "epochs": 1, "share": 0.25}
    report = shortcut.run(
        EvaluationRequest(datasets=(str(listed.paths[0].parent.parent),), options=options, progress=False)
    )
    assert [row["training"] for row in report.rows] == [
        "untrained",
        "augmented, box",
        "augmented, no mark",
        "not augmented, box",
        "not augmented, no mark",
    ]
    assert all(0 <= row["follows the mark"].value <= 1 for row in report.rows)
    assert report.figures["nave-fig6"].width > 4 * 240
    assert torch.is_grad_enabled()
    with pytest.raises(UsageError, match="needs --dataset"):
        shortcut.run(EvaluationRequest())
    with pytest.raises(UsageError, match=r"no setting 'epoch' .nearest: epochs.: there are architecture, pixels"):
        shortcut.run(EvaluationRequest(datasets=("anywhere",), options={"epoch": 1}))
    with pytest.raises(UsageError, match="epochs is a whole number, not 'few'"):
        shortcut.run(EvaluationRequest(datasets=("anywhere",), options={"epochs": "few"}))
