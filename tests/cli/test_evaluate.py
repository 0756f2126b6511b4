"""encoscope evaluate, the runner behind it, and the methods it compares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from encoscope.cli.app import run as command
from encoscope.encoder import Encoder
from encoscope.errors import ImageError, UsageError
from encoscope.evaluation import localization
from encoscope.evaluation.baselines import Baseline, BaselineSegments
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.evaluation.runner import AnnotatedImage, Measurements, MeasuringTask, compute_difference, measure_images
from encoscope.images import open_boxed_dataset, read_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def squares(tmp_path: Path) -> str:
    """Four photos of a coloured square on grey, each with its box, as a COCO dataset string."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(4):
        pixels = rng.integers(118, 138, (64, 80, 3), dtype=np.uint8)
        left, top = 8 + 8 * number, 16
        pixels[top : top + 24, left : left + 24] = (200 + number, 30, 10)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 64})
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [left, top, 24, 24], "iscrowd": 0})
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return f"coco:{folder}#{tmp_path / 'boxes.json'}"


@pytest.fixture(scope="module")
def color() -> Encoder:
    return Encoder(nn.Sequential(nn.AvgPool2d(4)), size=64, mean=(0.0,) * 3, std=(1.0,) * 3)


def literal_corloc(parts: BaselineSegments, ground_truth: np.ndarray) -> float:
    """The best outer box against the best true box, pair by pair."""
    best = 0.0
    for region in parts.regions:
        a = region.outer_box
        for b in ground_truth:
            w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(w, 0) * max(h, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            best = max(best, shared / union if union else 0.0)
    return best


def test_corloc_is_its_literal_form(squares: str, color: Encoder) -> None:
    examples = localization.list_boxed_images(open_boxed_dataset(squares))
    nave = Baseline("nave", color, 2, min_area=50, border=2)
    measured = measure_images(localization.TASK, nave, examples, progress=False)
    literal = [literal_corloc(nave(read_image(example.path)), example.annotation) for example in examples]
    np.testing.assert_allclose(measured.array("outer outer"), literal)
    report = localization.evaluate_corloc(
        localization.list_baselines(nave, ["slic", "grid"], [2]), {squares: examples}, select="outer", progress=False
    )
    assert [(row["method"], row["select"]) for row in report.rows] == [
        *((name, "outer") for name in ("nave", "slic", "grid", "random")),
        *((name, "border") for name in ("nave", "slic", "grid", "random")),
    ]
    first = report.rows[0]
    assert first["corloc"].value == np.mean([value > 0.5 for value in literal]) == 1.0
    assert first["images"] == 4 and first["difference"] is None
    values = measured.array("outer outer") > 0.5
    other = report.rows[3]
    assert other["difference"].value == pytest.approx(other["corloc"].value - values.mean())


def test_matched_methods_follow_naves_count_and_rules(squares: str, color: Encoder) -> None:
    examples = localization.list_boxed_images(open_boxed_dataset(squares))
    contenders = localization.list_baselines(Baseline("nave", color, 3, min_area=0, border=0), ["grid", "slic"], [3])
    nave, grid, slic, random = localization.measure_baselines(contenders, examples, progress=False)
    assert (np.abs(random.array("candidates") - nave.array("candidates")) <= 1).all()
    assert (slic.array("candidates") >= 2).all()
    fixed = localization.measure_baselines(contenders, examples, n_segments=6, progress=False)[1]
    assert set(fixed.array("candidates")) == {6.0} != set(grid.array("candidates"))
    photo = read_image(examples[0].path)
    trimmed = Baseline("grid", min_area=300, border=5)(photo, 4)
    assert all(region.outer_box[0] >= 5 and region.outer_box[3] < 59 for region in trimmed.regions)
    assert not Baseline("grid", min_area=2000)(photo, 4).regions
    assert trimmed.count == 4
    with pytest.raises(UsageError, match="NAVE beside it"):
        localization.measure_baselines(contenders[1:], examples, progress=False)


def test_felzenszwalb_comes_near_the_number_asked_for(image_paths: dict[str, Path]) -> None:
    pytest.importorskip("skimage")
    photo = read_image(np.asarray(Image.open(image_paths["coffee"]).convert("RGB").resize((150, 100))))
    few, many = (Baseline("felzenszwalb", min_area=0, border=0)(photo, count).count for count in (4, 20))
    assert abs(few - 4) <= 2 and abs(many - 20) <= 5


def test_an_interrupted_run_goes_on(squares: str) -> None:
    examples, looked = localization.list_boxed_images(open_boxed_dataset(squares)), []

    def look(contender: Baseline, photo: object, ground_truth: np.ndarray, parts: int | None) -> dict[str, float]:
        if len(looked) == 2:
            raise KeyboardInterrupt
        looked.append(ground_truth[0, 0])
        return {"left": float(ground_truth[0, 0]), "nothing": float("nan")}

    task, grid = MeasuringTask("test", look, settings={"kind": "left"}), Baseline("grid")
    with pytest.raises(KeyboardInterrupt):
        measure_images(task, grid, examples, like=4, progress=False)
    with pytest.raises(KeyboardInterrupt):  # the two that are done are not looked at again
        measure_images(task, grid, examples, like=4, progress=False)
    looked[:] = [None]
    with pytest.raises(KeyboardInterrupt):
        measure_images(task, grid, examples, like=4, progress=False)
    looked.clear()
    done = measure_images(task, grid, examples, like=4, progress=False)
    assert len(looked) == 1 and done.array("left").tolist() == [8, 16, 24, 32]
    assert np.isnan(done.array("nothing")).all() and done.interval("nothing") is None
    looked.clear()
    with pytest.raises(KeyboardInterrupt):
        measure_images(task, grid, examples, like=4, fresh=True, progress=False)
    looked.clear()
    with pytest.raises(KeyboardInterrupt):  # another number of parts is another look
        measure_images(task, grid, examples, like=5, progress=False)


def test_a_torn_line_counts_for_nothing() -> None:
    cache = MeasurementCache({"what": 1})
    cache.put("a", {"x": 1.0, "y": float("nan"), "z": [1, 2]})
    path = cache.path
    with path.open("a") as file:
        file.write('{"id": "b", "val')
    cache = MeasurementCache({"what": 1})
    assert len(cache) == 1 and cache.get("b") is None
    cache.put("b", {"x": 2})
    again = MeasurementCache({"what": 1})
    found = again.get("a")
    assert found is not None and found["x"] == 1 and np.isnan(found["y"]) and found["z"] == [1, 2]
    assert again.get("b") == {"x": 2}
    assert len(MeasurementCache({"what": 2})) == 0 and len(MeasurementCache({"what": 1}, fresh=True)) == 0


def test_differences_are_paired_by_image() -> None:
    one = Measurements(({"x": 1.0}, {"x": 2.0}, {"x": 9.0}), (Path("a"), Path("b"), Path("c")))
    two = Measurements(({"x": 1.5}, {"x": 0.5}), (Path("b"), Path("a")))
    found = compute_difference(one, two, lambda measured: measured.array("x"))
    assert found is not None and found.value == found.low == found.high == 0.5


def test_differences_are_to_nave_with_as_many_clusters(color: Encoder) -> None:
    contenders = localization.list_baselines(Baseline("nave", color), ["slic", "lost"], [3, 5])
    found = [Measurements((), ()) for _ in contenders]
    counterparts = [localization.find_counterpart(contenders, found, index) for index in range(len(contenders))]
    names = [(one.method, one.n_clusters) for one in contenders]
    assert names[:4] == [("nave", 3), ("nave", 5), ("slic", 3), ("slic", 5)] and names[-1] == ("lost", None)
    assert counterparts[0] is None and counterparts[1] is None and counterparts[-1] is found[0]
    assert counterparts[2] is found[0] and counterparts[3] is found[1]


def test_damaged_images_are_left_out_and_none_at_all_is_an_error(tmp_path: Path, color: Encoder) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    paths = [tmp_path / "broken.png", tmp_path / "good.png", tmp_path / "gone.png"]
    nave = Baseline("nave", color, 1)
    measured = measure_images(
        localization.TASK, nave, [AnnotatedImage(path, np.zeros((1, 4))) for path in paths], progress=False
    )
    assert measured.paths == (paths[1],) and [Path(item.path).name for item in measured.skipped] == [
        "broken.png",
        "gone.png",
    ]
    with pytest.raises(ImageError, match="no image could be measured"):
        measure_images(localization.TASK, nave, [AnnotatedImage(paths[0])], progress=False)


MODEL = "timm:resnet10t@untrained"


def test_the_command_and_its_document(squares: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "corloc", "--model", MODEL, "--dataset", squares, "--size", "64", "--min-area", "20"]
    words += ["--method", "lost,random", "--clusters", "2,3", "--select", "inner", "--limit", "2", "--json"]
    assert command([*words, "--border", "0", "--out", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "encoscope.corloc/1" and document["model"]["source"] == MODEL
    rows = document["results"]
    assert [(row["method"], row["clusters"]) for row in rows[:5]] == [
        ("nave", 2),
        ("nave", 3),
        ("random", 2),
        ("random", 3),
        ("lost", None),
    ]
    assert {row["select"] for row in rows} == {"inner", "border"} and {row["score"] for row in rows} == {"outer"}
    for row in rows:
        low, high = row["interval"]
        assert low <= row["corloc"] <= high and row["images"] == 2 and row["candidates"] >= 1
        assert row["dataset"] == squares
    assert json.loads((tmp_path / "out" / "corloc.json").read_text()) == document
    assert (tmp_path / "out" / "corloc.csv").is_file() and (tmp_path / "out" / "corloc.md").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--method", "lsot"], 2, "nearest: lost"),
        (["--clusters", "0"], 2, "--clusters takes whole numbers"),
        (["--limit", "0"], 2, "from 1 on"),
        (["--dataset", "coco:/none#/none.json"], 3, "no such file, folder or dataset"),
        (["--method", "dino-seg"], 2, "attention"),
        (["--layers", "layer9"], 2, "nearest: layer"),
    ],
)
def test_wrong_use_is_one_line(
    squares: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = [] if "--dataset" in words else ["--dataset", squares]
    assert command(["evaluate", "corloc", "--model", MODEL, "--size", "32", *dataset, *words]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_dataset_without_boxes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert command(["evaluate", "corloc", "--model", MODEL, "--dataset", str(tmp_path)]) == 2
    assert "has no boxes" in capsys.readouterr().err
