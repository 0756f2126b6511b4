"""NAVE's figures on tiny photos: what each shows, and the numbers beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope.cli.app import run as command
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import Geometry, read_image
from encoscope.nave import Segmentation
from encoscope.reproduce.nave import class_figures, figures
from encoscope.reproduce.registry import EXPERIMENTS, find_experiment

CNN, VIT = "timm:resnet10t@untrained", "zoo:vit-caltech101@untrained"


@pytest.fixture
def image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of Caltech-101, each with three photos of a square."""
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label, colour in (("ibis", (220, 20, 20)), ("rooster", (20, 20, 220))):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(110, 140, (48, 64, 3), dtype=np.uint8)
            pixels[12:36, 10 + 8 * number : 34 + 8 * number] = colour
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def make_request(image_folder: Path, *models: str, **options: object) -> EvaluationRequest:
    return EvaluationRequest(models, (str(image_folder),), limit=2, options={"size": 32, **options}, progress=False)


def test_regions_match_naves(image_folder: Path) -> None:
    pytest.importorskip("skimage")
    report = figures.fig1(make_request(image_folder, CNN, VIT))
    rows = {(row["photo"], row["model"], row["method"]): row["regions"] for row in report.rows}
    assert len(report.rows) == 16 and {model for _, model, _ in rows} == {CNN, VIT}
    assert report.figures["nave-fig1"].width > 1000
    assert all(rows[image, model, "random"] == rows[image, model, "nave"] for image, model, _ in rows)
    assert "Segment Anything is not drawn" in report.notes[0]


def test_mean_colours_of_the_untrained_network(image_folder: Path) -> None:
    same = figures.fig4(make_request(image_folder, CNN, runs=3))
    assert [(row["model"], row["K"]) for row in same.rows[:2]] == [(CNN, 5), (CNN, 10)]
    drawn = figures.fig4(make_request(image_folder, CNN, runs=3, redrawn=1))
    assert drawn.rows[0]["agreement"] < same.rows[0]["agreement"] <= 1


def test_registers_and_tokens_that_stick_out(image_folder: Path) -> None:
    report = figures.fig5(make_request(image_folder, VIT))
    assert [row["registers"] for row in report.rows] == [4, 4]
    assert all(row["largest token / median"] >= 1 for row in report.rows)


@pytest.mark.parametrize(
    ("figure", "first", "count"),
    [
        (figures.fig8, "K = 5", 4),
        (figures.fig9, "default (layer2, layer3, layer4)", 6),
        (figures.fig10, "kmeans", 3),
    ],
)
def test_ablations_agree_with_themselves(image_folder: Path, figure, first: str, count: int) -> None:
    report = figure(make_request(image_folder, CNN))
    assert len(report.rows) == count and report.rows[0]["setting"] == first
    assert report.rows[0]["agreement with the first"].value == 1
    assert all(row["agreement with the first"].value < 1 for row in report.rows[1:])
    assert len(report.figures) == 1


def test_a_class_clustered_together(image_folder: Path) -> None:
    report = class_figures.fig3(
        make_request(image_folder, "zoo:resnet-caltech101", clusters=3, image_clusters=2, size=64)
    )
    assert [row["cluster"] for row in report.rows] == [0, 1, 2]
    assert sum(row["share of pixels"] for row in report.rows) == pytest.approx(1)
    (uncovered,) = [row for row in report.rows if row["uncovered"]]
    assert uncovered["share near the border"] == min(row["share near the border"] for row in report.rows)
    assert "ibis: 2 images" in report.notes[0] and "untrained" in report.notes[1]


def test_photos_classified_rightly_and_wrongly(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_figures, "_is_right", lambda clusters, image: name(image) == "1.png")
    name = figures.get_file_name
    request = EvaluationRequest(
        ("zoo:resnet-caltech101",),
        (str(image_folder), str(image_folder)),
        options={"clusters": 2, "size": 64},
        progress=False,
    )
    for figure in (class_figures.fig11, class_figures.fig12):
        report = figure(request)
        assert [(row["classified"], row["photos"]) for row in report.rows] == [("rightly", 1), ("wrongly", 2)]
        assert len(report.figures) == 1
    with pytest.raises(UsageError, match="two --dataset"):
        class_figures.fig11(make_request(image_folder))
    with pytest.raises(UsageError, match=r"no class 'ibsi' .nearest: ibis"):
        class_figures.fig12(EvaluationRequest(datasets=request.datasets, options={"class": "ibsi"}))


def test_what_is_uncovered_keeps_its_colours(image_folder: Path) -> None:
    image = read_image(image_folder / "ibis" / "0.png")
    labels = np.zeros((48, 64), dtype=np.uint8)
    labels[12:36, 10:34] = 1
    geometry = Geometry((48, 64), (48, 64), (0, 0), (48, 64), (48, 64))
    segmentation = Segmentation(labels, labels, 2, 0.0, geometry, (48, 64), {}, 0)
    shown = class_figures.uncover_cluster(image, segmentation, 1)
    assert (shown[12:36, 10:34] == (220, 20, 20)).all() and (shown[labels == 0] > 200).all()


def test_every_experiment_can_be_loaded() -> None:
    for name in EXPERIMENTS:
        assert callable(find_experiment(name).load())


def test_the_command_writes_a_picture(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--dataset",
        str(image_folder),
        "--model",
        CNN,
        "--limit",
        "1",
        "--set",
        "size=32",
        "--out",
        str(tmp_path / "out"),
    ]
    assert command(["reproduce", "nave-fig10", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["experiment"] == "nave-fig10"
    (file,) = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".png", ".jpg")]
    with Image.open(file) as picture:
        assert file.stem == "nave-fig10" and picture.width > 4 * 200
    assert command(["reproduce", "nave-fig10"]) == 2
    assert "needs --dataset" in capsys.readouterr().err
    assert command(["reproduce", "nave-fig10", *words, "--set", "sizes=1"]) == 2
    assert "nearest: size" in capsys.readouterr().err
