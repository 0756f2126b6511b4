"""VITAL's tables and figures on a world of coloured squares: every name runs, and its numbers mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope.errors import MissingError, UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import LabelledImages, datasets
from encoscope.metrics import Interval, frechet_distance, squared_mmd
from encoscope.reproduce.inputs import select_network_classes
from encoscope.reproduce.registry import EXPERIMENTS, find_experiment
from encoscope.reproduce.vital import (
    ablations,
    defaults,
    embedding,
    harness,
    hidden_units,
    image_cache,
    judge,
    published,
    tables,
)
from encoscope.reproduce.vital.harness import Bench, SeededImages
from support.visualized_network import NAMES, Colors, reader, tiny, write_images

TABLES = [name for name in EXPERIMENTS if name.startswith("vital-table")]
FIGURES = [name for name in EXPERIMENTS if name.startswith("vital-fig")]
CONCEPTS = ("vital-fig27", "vital-fig28", "vital-fig29", "vital-fig30")
INSIDE = ("vital-fig2", "vital-fig4", "vital-fig9", "vital-fig24", "vital-fig25", "vital-fig26")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A dataset of coloured squares, a network for it, its untrained twin, and a judge."""
    write_images(tmp_path / "data")
    encoders = {"tiny": tiny(1.0), "tiny@untrained": tiny(0.0)}
    monkeypatch.setitem(datasets._READERS, "squares", reader(tmp_path / "data"))
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    for module in (image_cache, harness, defaults):
        monkeypatch.setattr(module, "load_cached_encoder", lambda model, load_options=(): encoders[model])
    for module in (image_cache, harness):
        monkeypatch.setattr(module, "CANDIDATES", 5)
    monkeypatch.setattr(judge.vlm, "load", lambda *_, **__: Colors())
    return tmp_path


def make_request(*models: str, limit: int | None = 2, **options: object) -> EvaluationRequest:
    settings = {"steps": 2, "layer": "3", **options} if "layer" in options else {"steps": 2, **options}
    return EvaluationRequest(
        models or ("tiny",), ("squares:here#train",), limit=limit, options=settings, progress=False
    )


def well_formed(report: Report, name: str, folder) -> None:
    """It says what it is, has rows of one shape, numbers that are numbers, and can be written."""
    assert report.name == name and report.rows and report.notes
    assert len({tuple(row) for row in report.rows}) == 1
    for row in report.rows:
        for value in row.values():
            assert value is None or isinstance(value, str | int | float | Interval)
            assert not isinstance(value, float) or np.isfinite(value)
            assert not isinstance(value, Interval) or value.low <= value.value + 1e-9 <= value.high + 2e-9
    page = report.save(folder, "encoscope reproduce")
    assert {file.suffix for file in folder.glob(f"{name}*")} >= {".json", ".csv", ".md"}
    assert report.title in page.read_text() and report.notes[0] in page.read_text()
    assert any("matched with classes of" in note and "(name)" in note for note in report.notes)
    assert json.loads((folder / f"{name}.json").read_text())["settings"]["experiment"] == name


@pytest.mark.parametrize("name", TABLES)
def test_every_table_runs(name: str, world) -> None:
    options = {"layer": "3"} if name == "vital-table3" else {}
    report = find_experiment(name).load()(make_request(**options))
    well_formed(report, name, world / "out")
    assert all(row.get("difference") is None for row in report.rows)  # a stand-in's are no differences from the paper
    assert any(row.get("paper") is not None for row in report.rows) or name == "vital-table4"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_runs(name: str, world) -> None:
    options: dict[str, object] = {"layer": "3"} if name in INSIDE else {}
    options |= {"numbers": "2,5"} if name == "vital-fig12" else {"concepts": 2} if name in CONCEPTS else {}
    report = find_experiment(name).load()(make_request(limit=1 if name in INSIDE else 2, **options))
    well_formed(report, name, world / "out")
    assert report.figures and all(picture.width > 100 for picture in report.figures.values())


def test_relevant_channels_are_told_from_active_ones() -> None:
    active = torch.tensor([1.0, 5.0, 3.0, 0.0])[:, None, None].expand(4, 2, 2)
    relevant = torch.tensor([8.0, 1.0, 1.0, 0.0])[:, None, None].expand(4, 2, 2)
    assert hidden_units.choose_two_channels(active, relevant) == (0, 1)
    np.testing.assert_allclose(hidden_units.compute_relevance_shares(relevant), [0.8, 0.1, 0.1, 0.0])
    assert hidden_units.find_commonest_label(["b", "a", None, "a"]) == ("a", 0.5)
    assert hidden_units.find_commonest_label([None]) == (None, None)
    coloured = hidden_units.draw_heatmap(torch.tensor([[0.0, 1.0], [0.5, 0.0]]))
    assert coloured.shape == (32, 32, 3) and coloured[0, -1].sum() > coloured[-1, 0].sum() > coloured[0, 0].sum()


def test_distances_from_centres_are_in_those_of_the_classs_photos() -> None:
    real = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [10.0, 4.0]])
    labels = np.array([3, 3, 7, 7])  # centres (1, 0) and (10, 2); mean distances 1 and 2
    made, own = np.array([[1.0, 3.0], [1.0, 1.0], [10.0, 6.0]]), np.array([3, 7, 7])
    nearest, distance = embedding.compute_center_distances(real, labels, made, own)
    np.testing.assert_allclose(nearest, [1, 0, 1])
    np.testing.assert_allclose(distance, [3.0, np.hypot(9, 1) / 2, 2.0])


def test_opacity_and_roughness(tmp_path) -> None:
    assert ablations.compute_half_share(np.ones((4, 5))) == 0.5
    assert ablations.compute_half_share(np.eye(10)) == 0.05 and ablations.compute_half_share(np.zeros((2, 2))) is None
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, ::2] = 255
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    assert ablations.compute_roughness(tmp_path / "stripes.png") == pytest.approx(0.5)  # all across, none down


def test_figures_of_the_comparison_are_those_of_the_pictures(world) -> None:
    report = tables.compare_methods(2, make_request(seeds=2))
    rows = {(row["method"], row["setup"], row["measure"]): row for row in report.rows}
    assert rows["vital", "", "FID, own features"]["paper"] == 58.79
    assert rows["vital", "", "zero-shot top-1"]["paper"] == pytest.approx(0.6662)
    assert rows["deepinversion", "two resolutions, bs: 1", "accuracy"]["ours"] is None  # the paper's alone
    assert rows["maco", "r: 224", "accuracy"]["images"] == 4 and rows["real photos", "rightly classified", "accuracy"]

    bench = Bench(make_request(seeds=2), {**harness.DEFAULTS, **tables.OPTIONS, "steps": 2, "seeds": 2}, "tiny")
    labels = bench.choose_classes()
    made = bench.visualize_seeds("vital", [f"class:{label}" for label in labels])
    with torch.no_grad():
        features = [bench.encoder.features(path)[0].double().numpy() for path in made.all]
        real = [
            bench.encoder.features(path)[0].double().numpy()
            for path, label in zip(bench.real_images.paths, bench.real_images.labels, strict=True)
            if label in labels
        ]
        answers = [int(bench.encoder.logits(path).argmax()) for path in made.all]
    row = rows["vital", "", "FID, own features"]["ours"]
    assert row == pytest.approx(frechet_distance(np.array(real), np.array(features)), rel=1e-4, abs=1e-6)
    assert rows["vital", "", "accuracy"]["ours"].value == np.mean(np.array(answers) == [*labels, *labels])
    assert np.isfinite(squared_mmd(np.array(real), np.array(features)))
    assert bench.real_images.paths[0].parts[-3] == "test"  # compared with other photos than it was made from


def test_what_a_channel_answers_to_its_pictures(world) -> None:
    report = tables.table3(make_request(limit=1, layer="3"))
    assert [(row["method"], row["measure"]) for row in report.rows][:2] == [("fourier", "AUC"), ("fourier", "MAD")]
    bench = Bench(make_request(layer="3"), {**harness.DEFAULTS, "steps": 2, "layer": "3"}, "tiny")
    (unit,) = Bench(
        make_request(limit=1, layer="3"), {**harness.DEFAULTS, "steps": 2, "layer": "3"}, "tiny"
    ).choose_channels()
    (path,) = bench.visualize("vital", [unit])
    value = float(bench.encoder.activations(path, "3")["3"].maps[0, int(unit[2:])].mean())
    control = bench.strongest_activations(unit)
    auc = np.mean((value > control) + 0.5 * (value == control))
    assert report.rows[4]["ours"].value == pytest.approx(auc)
    assert report.rows[5]["ours"].value == pytest.approx((value - control.mean()) / control.std(ddof=1), rel=1e-4)


def test_the_two_likeliest_classes(world) -> None:
    report = tables.table4(make_request(classes="red,2"))
    assert [row["pictures of"] for row in report.rows[:2]] == ["red", "blue"]
    for row in report.rows:
        first, second = (getattr(row[name], "value", row[name]) for name in ("#1 score", "#2 score"))
        assert first >= second and row["right"] == (row["#1"] == row["pictures of"])
        assert isinstance(row["#1 score"], Interval) == (row["count"] > 1)
    assert report.rows[0]["images"] == "real photos" and report.rows[0]["count"] == 4


def test_pictures_are_kept_and_made_anew_when_asked(world, monkeypatch) -> None:
    request = make_request()
    first = tables.table5(request)
    monkeypatch.setattr(image_cache, "make_images", lambda part: pytest.fail(f"{part.units} was made again"))
    assert tables.table5(request).rows == first.rows
    made = []
    monkeypatch.setattr(image_cache, "make_images", lambda part: (made.append(part.units), original(part)))
    tables.table5(EvaluationRequest(request.models, request.datasets, 1, 0, {}, {"steps": 2}, True, False))
    assert len(made) == 5  # a picture for each number of references


def test_pictures_of_a_network_that_gives_other_outputs_are_made_again(world, monkeypatch) -> None:
    request = make_request(limit=1)
    made = []
    monkeypatch.setattr(image_cache, "make_images", lambda part: (made.append(part.units), original(part)))
    tables.table5(request)
    count = len(made)
    tables.table5(request)
    assert len(made) == count > 0
    other = tiny(1.0)  # the same weights compute another network
    other.module.register_forward_hook(lambda _module, _args, output: -output)
    for module in (image_cache, harness):
        monkeypatch.setattr(module, "load_cached_encoder", lambda model, load_options=(): other)
    for _ in range(2):
        tables.table5(request)
        assert len(made) == 2 * count


original = image_cache.make_images


def test_wrong_usage_is_told(world, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"no setting 'step' .nearest: steps"):
        tables.table1(EvaluationRequest(("tiny",), ("squares:x#train",), options={"step": 2}))
    with pytest.raises(UsageError, match="need --dataset, labelled images"):
        tables.table1(EvaluationRequest(("tiny",)))
    with pytest.raises(UsageError, match=r"no network 'ResNet' .nearest: ResNet50"):
        tables.table3(make_request("ResNet=tiny"))
    with pytest.raises(UsageError, match="compute is equal or paper"):
        tables.table1(make_request(compute="fair"))
    with pytest.raises(UsageError, match="no class is called 'rad'"):
        tables.table1(make_request(classes="rad"))
    with pytest.raises(UsageError, match="numbers are whole numbers"):
        tables.table5(make_request(numbers="5,ten"))
    stripes = LabelledImages((world / "x.png",), (0,), ("stripes",))
    with pytest.raises(UsageError, match="no label of 'stripes' is a class of"):
        select_network_classes(tiny(1.0), stripes, "stripes")

    def absent(*_, **__):
        raise MissingError("zoo:clip-caltech101 is not in this installation")

    monkeypatch.setattr(judge.vlm, "load", absent)
    report = tables.table5(make_request(limit=1, numbers="5"))
    assert any("No zero-shot figures" in note for note in report.notes)


def test_networks_are_those_of_the_paper_or_stand_for_them() -> None:
    names = tuple(published.WEIGHTS)
    assert harness.resolve_networks(EvaluationRequest(), names) == dict(published.STAND_INS)
    assert harness.resolve_networks(EvaluationRequest(("paper",)), names) == dict(published.WEIGHTS)
    given = ("ViT-L-16=zoo:vit-caltech101", "torchvision:densenet121", "timm:resnet50")
    assert harness.resolve_networks(EvaluationRequest(given), names) == {
        "ResNet50": "timm:resnet50",
        "DenseNet121": "torchvision:densenet121",
        "ViT-L-16": "zoo:vit-caltech101",
    }


def test_photos_bear_the_networks_classes(tmp_path) -> None:
    encoder = tiny(1.0)
    files = tuple(tmp_path / f"{number}.png" for number in range(3))
    found = select_network_classes(encoder, LabelledImages(files, (0, 1, 2), ("Blue", "sky", "red")), "here")
    assert found.paths == (files[0], files[2]) and found.labels == (2, 0) and found.classes == NAMES


def test_seeds_of_a_unit_count_once() -> None:
    first, second = ([Path(f"{name}{seed}") for name in "ab"] for seed in (0, 1))
    made = SeededImages([first, second])
    assert made.all == [*first, *second] and made.of_unit(1) == [first[1], second[1]] and len(made) == 4
    np.testing.assert_allclose(made.average_seeds(np.array([1.0, 0.0, 0.0, 0.0])), [0.5, 0.0])


def test_the_defaults_stand_beside_photos_and_the_papers_numbers(world) -> None:
    report = find_experiment("vital-defaults").load()(make_request(judges="tiny"))
    well_formed(report, "vital-defaults", world / "out")
    rows = {row["what"]: row for row in report.rows}
    assert list(rows) == ["photos", "default", "pixels, relative", "paper", "untrained"]
    for name in ("variation", "saturation", "high frequencies"):
        assert rows["photos"][name].value == pytest.approx(1)  # over themselves
    assert all(row["tiny"] == row["own"] for row in rows.values())  # the judge is the network
    assert rows["paper"]["high frequencies"].value > 2 * rows["default"]["high frequencies"].value


def test_high_frequencies_and_saturation_are_what_they_say() -> None:
    fine = torch.tensor([[1.0, 0.0] * 8, [0.0, 1.0] * 8] * 8).expand(3, 16, 16)
    assert defaults.compute_high_frequencies(fine) == pytest.approx(float(fine.var(correction=0)))
    coarse = (torch.arange(16) // 8).float().expand(3, 16, 16)
    assert defaults.compute_high_frequencies(coarse) < 0.1 * float(coarse.var(correction=0))
    assert defaults.compute_saturation(torch.tensor([0.2, 0.9, 0.5]).reshape(3, 1, 1)) == pytest.approx(0.7)
    assert defaults.compute_saturation(fine) == 0
