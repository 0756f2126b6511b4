"""encoscope evaluate overlap, stability and faithfulness: planted truths, literal curves, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope import evaluation
from encoscope.cli.app import run as command
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation import segment_faithfulness as faithfulness
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import list_baselines
from encoscope.evaluation.runner import Measurements
from encoscope.images import read_image

MODEL = "timm:resnet10t@untrained"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def halves(tmp_path: Path) -> str:
    """Photos red at the left, where there is a person, and blue at the right, sky, with their panoptic masks."""
    folder, pngs = tmp_path / "photos", tmp_path / "panoptic"
    folder.mkdir()
    pngs.mkdir()
    images, annotations = [], []
    for number in range(3):
        pixels, ids = np.zeros((32, 48, 3), dtype=np.uint8), np.zeros((32, 48, 3), dtype=np.uint8)
        edge = 16 + 8 * number
        pixels[:, :edge, 0], pixels[:, edge:, 2] = 200 + number, 220
        ids[:, :edge, 0], ids[:, edge:, 0] = 5, 9
        ids[0] = 0  # not annotated
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(ids).save(pngs / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        segments = [{"id": 5, "category_id": 1}, {"id": 9, "category_id": 187}]
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    return f"coco:{folder}#{tmp_path / 'panoptic.json'}"


class Colors(nn.Module):
    """Four pooled cells, and two classes: red and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.head = nn.AvgPool2d(4), nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[4.0, 0, 0], [0, 0, 4]]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(pixels).mean((2, 3)))


@pytest.fixture(scope="module")
def colors() -> Encoder:
    return Encoder(Colors(), size=32, mean=(0.0,) * 3, std=(1.0,) * 3, classes=("red", "blue"))


def test_parts_that_follow_the_masks(halves: str, colors: Encoder) -> None:
    nave = Baseline("nave", colors, 2, size="model", min_area=0, border=0)
    report = overlap.evaluate_overlap(
        list_baselines(nave, ["grid"], [2]), overlap.open_panoptic(halves), halves, progress=False
    )
    rows = {row["method"]: row for row in report.rows}
    assert rows["nave"]["miou"].value == rows["nave"]["hungarian"].value == rows["nave"]["ari"].value == 1
    assert rows["nave"]["boundary f"].value == 1 and rows["nave"]["undersegmentation"].value == 0
    assert rows["nave"]["foreground ari"].value == 1
    assert rows["random"]["segments"] == rows["nave"]["segments"] == 2 and rows["grid"]["images"] == 3
    assert rows["random"]["difference"].value == pytest.approx(rows["random"]["miou"].value - 1)
    assert any("untrained" in note for note in report.notes)  # a network of one's own has no untrained twin here


def test_things_are_numbered_and_stuff_is_background(halves: str) -> None:
    example = next(iter(overlap.open_panoptic(halves)))
    category, segment, thing = example.annotation
    assert set(np.unique(category)) == {-1, 1, 187} and set(np.unique(segment)) == {-1, 0, 1}
    assert (thing[1:, :16] == 1).all() and (thing[1:, 16:] == 0).all() and (thing[0] == -1).all()
    assert (
        len(overlap.open_panoptic(halves)) == 3
        and len(list(overlap.open_panoptic(halves, 2))) == len(overlap.open_panoptic(halves, 2)) == 2
    )


def test_joint_clusters_are_named_once(halves: str, colors: Encoder) -> None:
    report = overlap.evaluate_joint_overlap(
        colors, overlap.open_panoptic(halves), [2], options={"size": "model"}, progress=False
    )
    assert report.rows[0]["miou"].value == report.rows[0]["hungarian"].value == 1 and report.rows[0]["images"] == 3


def test_curves_are_their_literal_form(halves: str, colors: Encoder) -> None:
    photo = read_image(next(iter(overlap.open_panoptic(halves))).path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (4, 6)).repeat(8, 0).repeat(8, 1)
    whole = colors.prepare(photo, geometry="model").pixels[0]  # the middle 32 columns of 48
    inside = torch.from_numpy(labels[:, 8:40])

    def answer(pixels: torch.Tensor) -> float:
        return float(torch.softmax(colors.logits(pixels[None])[0], 0)[chosen])

    chosen = int(colors.logits(whole[None]).argmax())
    mean = whole.mean((1, 2), keepdim=True).expand_as(whole)
    drops = {part: answer(whole) - answer(torch.where(inside == part, mean, whole)) for part in range(3)}
    order = sorted(range(3), key=lambda part: -drops[part])
    gone, back, share = [answer(whole)], [answer(mean)], [0.0]
    removed, restored = whole.clone(), mean.clone()
    for part in order:
        here = inside == part
        removed[:, here], restored[:, here] = mean[:, here], whole[:, here]
        gone.append(answer(removed))
        back.append(answer(restored))
        share.append(share[-1] + float(here.float().mean()))
    expected = [np.trapezoid(values, share) for values in (gone, back)]
    assert faithfulness.compute_curves(colors, photo, labels, "mean") == pytest.approx(expected, rel=1e-5)
    assert faithfulness.compute_curves(colors, photo, labels)[0] == pytest.approx(expected[0], rel=1e-5)


def test_parts_that_hold_the_evidence_are_more_faithful(halves: str, colors: Encoder) -> None:
    nave = Baseline("nave", colors, 2, size="model", min_area=0, border=0)
    report = faithfulness.evaluate_faithfulness(
        list_baselines(nave, [], [2]), overlap.open_panoptic(halves), halves, colors, fill="mean", progress=False
    )
    ours, random = report.rows[:2]
    assert ours["variance"].value > 0.99 and random["variance"].value < 0.9
    assert ours["probe"].value == 1 and 0 <= random["probe"].value < 1
    with pytest.raises(UsageError, match="fill is"):
        faithfulness.evaluate_faithfulness([nave], overlap.open_panoptic(halves), halves, colors, fill="black")


def test_without_a_head_the_answer_is_the_features_cosine(halves: str) -> None:
    bare = Encoder(nn.Sequential(nn.AvgPool2d(4)), size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    photo = read_image(next(iter(overlap.open_panoptic(halves))).path)
    whole = np.zeros((32, 48), dtype=np.int64)
    deletion, insertion = faithfulness.compute_curves(bare, photo, whole, "mean")
    assert deletion == pytest.approx(1) == insertion  # the mean colour has the mean features


def test_a_probe_is_fitted_on_other_images() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for index in range(10):
        means = rng.normal(size=(2, 4))
        means[0, 0] += 20
        named = [[0, 7, 30], [1, 8, 10], [1, 7, 5]]
        if index == 9:
            named = [[0, 99, 5]]  # a category that no other image has
        rows.append({"means": means.tolist(), "named": named})
    found = faithfulness.probe_segments(Measurements(tuple(rows), tuple(Path(str(i)) for i in range(10))))
    np.testing.assert_allclose(found, [40 / 45] * 9 + [0])


def test_the_commands(halves: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--model", MODEL, "--dataset", halves, "--clusters", "2", "--size", "32", "--limit", "2", "--json"]
    for words, kind, methods in (
        (["overlap", "--out", str(tmp_path / "out")], "overlap", ["nave", "random"]),
        (["overlap", "--joint"], "overlap", ["nave, joint"]),
        (["stability", "--runs", "2"], "stability", ["nave"]),
        (["faithfulness", "--method", "slic"], "faithfulness", ["nave", "slic", "random"]),
    ):
        assert command(["evaluate", *words, *shared]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["format"] == f"encoscope.{kind}/1"
        assert [row["method"] for row in document["results"]] == methods
        for row in document["results"]:
            assert row["dataset"] == halves and row["clusters"] == 2 and row["images"] == 2
            for name, value in row["measures"].items():
                assert row["intervals"][name][0] <= value <= row["intervals"][name][1]
    assert (tmp_path / "out" / "overlap.csv").is_file()


def test_the_functions_give_what_the_commands_print(
    halves: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluation.overlap(MODEL, halves, n_clusters=2, size=32, limit=2, progress=False)
    assert command(["evaluate", "overlap", "--model", MODEL, "--dataset", halves, "--size", "32", "--limit", "2"]) == 0
    capsys.readouterr()
    words = ["--model", MODEL, "--dataset", halves, "--clusters", "2", "--size", "32", "--limit", "2", "--json"]
    assert command(["evaluate", "overlap", *words]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result.to_dict()))
    assert (result.save(tmp_path / "out") / "overlap.json").is_file() and "miou" in str(result)
    assert result.plot("ari").axes[0].get_xlabel() == "ari"
    with pytest.raises(UsageError, match=r"no measure 'airi' .nearest: ari"):
        result.plot("airi")
    options = {"preset": "paper", "n_clusters": [2, 3], "runs": 2, "size": 32, "limit": 2}
    steady = evaluation.stability(MODEL, halves, **options, progress=False)
    assert [row["clusters"] for row in steady.rows] == [2, 3]
    assert options == {name: steady.settings[name] for name in options}
    assert result.settings["preset"] == "default" and result.settings["methods"] == ("nave",)
    with pytest.raises(UsageError, match=r"a method is nave, .*nearest: lost"):
        evaluation.faithfulness(MODEL, halves, methods=["lsot"])
    with pytest.raises(UsageError, match="limit is a number from 1 on"):
        evaluation.faithfulness(MODEL, halves, limit=0)
    with pytest.raises(UsageError, match="n_clusters takes"):
        evaluation.faithfulness(MODEL, halves, n_clusters=())


def test_a_trained_network_stands_beside_its_untrained_twin(halves: str) -> None:
    import encoscope

    encoder = encoscope.load("zoo:resnet-caltech101")
    nave = Baseline("nave", encoder, 2, size=32, min_area=0, border=0)
    everyone, names, notes = overlap.add_untrained([nave], 0)
    assert names == ["nave", "nave, untrained"] and not notes
    assert everyone[1].encoder is not None and everyone[1].encoder.digest != encoder.digest


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["overlap", "--dataset", "coco:/none#/none.json"], 3, "no such file, folder or dataset"),
        (["overlap", "--dataset", "."], 2, "has no masks"),
        (["overlap", "--dataset", "MASKS", "--joint", "--method", "slic"], 2, "joint goes with"),
        (["stability", "--dataset", "MASKS", "--runs", "1"], 2, "from 2 on"),
        (["stability", "--dataset", "/none"], 3, "no such"),
        (["faithfulness", "--dataset", "MASKS", "--method", "nave,x"], 2, "a method is"),
    ],
)
def test_wrong_use_is_one_line(
    halves: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [halves if word == "MASKS" else word for word in words]
    assert command(["evaluate", *given, "--model", MODEL, "--size", "32"]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
