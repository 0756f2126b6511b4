"""NAVE's tables: which model runs in which row, and a table whole on tiny photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope.cli.app import run as command
from encoscope.evaluation.report import EvaluationRequest
from encoscope.reproduce.nave import tables
from encoscope.reproduce.nave.published import STAND_INS, TABLES, WEIGHTS
from encoscope.reproduce.nave.tables import assign_models

TINY = "timm:resnet10t@untrained"


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    images, boxes = [], []
    for number in range(3):
        pixels = np.full((64, 64, 3), 120, dtype=np.uint8)
        pixels[16:40, 8 + 8 * number : 32 + 8 * number] = (220, 30, 10)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [8 + 8 * number, 16, 24, 24]})
    document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return f"coco:{tmp_path}#{tmp_path / 'boxes.json'}"


def test_models_find_their_rows() -> None:
    one = TABLES[1]
    assert one.features == ("DINO-ViTS/16", "DINOv2-ViTS/14")
    models, extra = assign_models(one, ())
    assert {name: models[name] for name in one.features} == {name: STAND_INS[name] for name in one.features}
    own = [name for name in models if name not in one.features]
    assert own[:2] == ["EfficientNet-Lite0", "EfficientNet-Lite0 Random Init."]
    assert [line.label for line in extra if line.feature == own[0]] == [
        "nave (outer)",
        "nave (inner)",
        "nave (outer, default)",
        "nave (inner, default)",
    ]
    assert assign_models(one, ("paper",)) == ({name: WEIGHTS[name] for name in one.features}, [])
    assert assign_models(one, ("mine",)) == ({"DINO-ViTS/16": "mine"}, [])
    dino2 = WEIGHTS["DINOv2-ViTS/14"]
    assert assign_models(one, (dino2, "mine"))[0] == {"DINOv2-ViTS/14": dino2, "DINO-ViTS/16": "mine"}
    assert assign_models(one, ("DINOv2-ViTS/14=mine@w.pt",))[0] == {"DINOv2-ViTS/14": "mine@w.pt"}
    models, extra = assign_models(one, ("half=mine@half.pt", "DINO-ViTS/16=mine"))
    assert models == {"DINO-ViTS/16": "mine", "half": "mine@half.pt"}
    assert [(line.feature, line.select, line.paper) for line in extra] == [
        ("half", "outer", (None,) * 3),
        ("half", "inner", (None,) * 3),
    ]
    assert set(WEIGHTS) >= {name for table in TABLES.values() for name in table.features} - {
        "ViTS/16 STL-10",
        "ViTS/16 Chest-X-RAY",
    }


def test_tables_agree_where_the_paper_does() -> None:
    inner = {(line.feature, line.clusters): line.paper for line in TABLES[6].lines}
    for line in TABLES[5].lines:
        if line.select == "inner":
            assert inner[line.feature, 5] == line.paper
    rows = [line for table in TABLES.values() for line in table.lines if line.method == "nave"]
    assert len(rows) == 4 + 5 + 10 + 10 + 18 + 27 + 12
    for line in rows:
        assert all(figure is None or 39 < figure < 77 for figure in line.paper)


def test_the_zoos_networks_run_at_twice_their_own_size_and_a_row_can_take_the_default(squares: str) -> None:
    """Networks trained on small photos would see large ones at a scale that they do not know."""
    request = EvaluationRequest(datasets=(squares,), progress=False)
    models, extra = assign_models(TABLES[1], ())
    bench = tables._Bench(models, tables._check_settings(request), request)
    (outer, _, default, _) = [line for line in extra if line.feature == "EfficientNet-Lite0"]
    for line, size, weighting in ((outer, 448, "paper"), (default, 448, "equal")):
        settings = bench.create_baseline(line, "EfficientNet-Lite0", "nave")._settings()
        assert (settings.size, settings.weighting) == (size, weighting)
    assert bench.create_baseline(TABLES[1].lines[-2], "DINOv2-ViTS/14", "nave").size == 256
    bench = tables._Bench({**models, "DINOv2-ViTS/14": TINY}, bench.settings, request)
    assert bench.create_baseline(TABLES[1].lines[-2], "DINOv2-ViTS/14", "nave").size == "native"


def test_a_table_whole(squares: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["reproduce", "nave-table1", "--dataset", squares, "--model", TINY, "--out", str(out)]
    words += ["--set", "size=64", "--set", "min_area=20", "--set", "border=0", "--limit", "2", "--json"]
    assert command(words) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {(row["row"], row["feature"]): row for row in document["results"]}
    nave = rows["nave (outer)", "DINO-ViTS/16"]
    assert nave["model"] == TINY and nave["paper"] == 0.684 and nave["images"] == 2
    assert nave["difference"] == pytest.approx(nave["ours"]["value"] - 0.684, abs=1e-3)
    assert nave["border"] is not None and nave["random"] is not None and nave["ours - random"] is not None
    assert rows["nave (outer)", "DINOv2-ViTS/14"]["ours"] is None
    assert rows["Lv et al. (quoted)", "DINO-ViTS/16"]["ours"] is None
    assert rows["dino-seg", "DINO-ViTS/16"]["ours"] is None
    for name in ("lost", "tokencut", "maskcut", "pca"):
        assert rows[name, "DINO-ViTS/16"]["candidates"] >= 1 and rows[name, "DINO-ViTS/16"]["random"] is None
    for name in ("slic (inner)", "felzenszwalb (outer)", "grid (outer)", "random (outer)"):
        assert rows[name, None]["images"] == 2
    notes = " ".join(document["settings"]["notes"])
    assert "dino-seg on" in notes and "Empty rows: no model for DINOv2-ViTS/14" in notes
    assert (out / "nave-table1.csv").is_file() and "nave (inner)" in (out / "nave-table1.md").read_text()


def test_granularity_and_grouping(squares: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", squares, "--out", str(tmp_path / "out"), "--set", "size=64", "--limit", "1", "--json"]
    assert command(["reproduce", "nave-table7", "--model", f"DINO-ViTS/16={TINY}", *words]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["results"] if row["ours"] is not None]
    assert [row["row"] for row in rows] == ["nave (inner, kmeans)", "nave (inner, pca)"]
    assert command(["reproduce", "nave-table6", "--model", f"own={TINY}", *words]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["results"] if row["ours"] is not None]
    assert [row["row"] for row in rows] == ["nave (inner, K = 3)", "nave (inner)", "nave (inner, K = 7)"]
    assert all(row["feature"] == "own" and row["paper"] is None for row in rows)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "needs --dataset"),
        (["--dataset", "voc07:/none"], 3, "no VOC2007"),
        (["--dataset", "DATA", "--set", "sise=3"], 2, "nearest: size"),
        (["--dataset", "DATA", "--set", "size"], 2, "NAME=VALUE"),
        (["--dataset", "DATA", "--set", "score=middle"], 2, "score is outer or inner"),
        (["--dataset", "DATA", "--set", "border=-1"], 2, "border is a number of pixels"),
        (["--dataset", "DATA", "--model", "zoo:none"], 2, "the zoo has no"),
    ],
)
def test_wrong_use_is_one_line(
    squares: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [squares if word == "DATA" else word for word in words]
    assert command(["reproduce", "nave-table1", *given]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
