"""``encoscope segment`` and ``encoscope layers`` from argument to file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope import results
from encoscope.cli.app import run
from encoscope.cli.outputs import find_inputs, make_unique_names

MODEL = "py:tiny_network_of_the_tests:network"
TINY = """
import torch
from torch import nn
from encoscope import Encoder

def network():
    torch.manual_seed(3)
    layers = nn.Sequential()
    for number, width in enumerate((8, 12, 16)):
        before = 3 if number == 0 else (8, 12, 16)[number - 1]
        layers.append(nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), nn.ReLU()))
    layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    return Encoder(layers, size=64)
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "tiny_network_of_the_tests.py").write_text(TINY)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def here(tmp_path: Path, image_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: cat.png, cat.jpg, photos/coffee.png and photos/more/cat.png."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, target in (("chelsea", "cat.png"), ("coffee", "photos/coffee.png"), ("chelsea", "photos/more/cat.png")):
        with Image.open(image_paths[name]) as image:
            image.resize((90, 60)).save(tmp_path / target)
    with Image.open(image_paths["china"]) as image:
        image.resize((90, 60)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_and_document(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                "segment",
                "cat.png",
                "photos",
                "--model",
                MODEL,
                "--layers",
                "0, 1,2",
                "--clusters",
                "4",
                "--out",
                "found",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "3 results: found/result.json"
    document = results.read(here / "found" / "result.json", "segmentation")
    assert document["skipped"] == [] and document["seed"] == 0
    assert (document["model"]["source"], document["model"]["layers"]) == (MODEL, ["0", "1", "2"])
    assert document["settings"]["n_clusters"] == 4
    entries = document["images"]
    assert [entry["path"] for entry in entries] == ["../cat.png", "../photos/coffee.png", "../photos/more/cat.png"]
    assert [entry["labels"] for entry in entries] == ["cat.labels.png", "coffee.labels.png", "more/cat.labels.png"]
    for entry in entries:
        with Image.open(here / "found" / entry["labels"]) as image:
            assert image.mode == "L" and image.size == (entry["width"], entry["height"])
            labels = np.asarray(image)
        assert set(np.unique(labels)) == {0, 1, 2, 3} and entry["clusters"] == 4
        with Image.open(here / "found" / entry["overlay"]) as image:
            assert image.mode == "RGB" and image.size == (entry["width"], entry["height"])
        assert sum(region["area"] for region in entry["regions"]) == labels.size
        for region in entry["regions"]:
            x0, y0, x1, y1 = region["outer_box"]
            assert (labels[y0 : y1 + 1, x0 : x1 + 1] == region["cluster"]).sum() >= region["area"]
            assert x0 <= region["inner_box"][0] <= region["inner_box"][2] <= x1
        assert entry["inertia"] > 0
    written = sorted(path.relative_to(here / "found").as_posix() for path in (here / "found").rglob("*.*"))
    assert len(written) == 7, "pictures and the document, and no temporary file"


def test_json_is_the_document_and_nothing_else_and_the_same_every_time(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "cat.png", "cat.jpg", "--model", MODEL, "--json", "--out", "found", "--clusters", "3"]
    texts = []
    for _ in range(2):
        assert run(arguments) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out == (here / "found" / "result.json").read_text()
        texts.append(out)
    assert texts[0] == texts[1]
    names = [(entry["labels"], entry["overlay"]) for entry in json.loads(texts[0])["images"]]
    assert names == [("cat.png.labels.png", "cat.png.overlay.png"), ("cat.jpg.labels.png", "cat.jpg.overlay.png")]


def test_several_granularities_are_several_entries(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", "cat.png", "--model", MODEL, "--clusters", "2,5", "--out", "found", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["images"]
    assert [(entry["clusters"], entry["labels"]) for entry in entries] == [
        (2, "cat.k2.labels.png"),
        (5, "cat.k5.labels.png"),
    ]


def test_bad_images_are_reported_and_the_rest_is_done(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos" / "notes.jpg").write_text("a shopping list")
    (here / "photos" / "empty.png").write_bytes(b"")
    whole = (here / "cat.jpg").read_bytes()
    (here / "photos" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    assert run(["segment", "photos", "gone.png", "--model", MODEL, "--out", "found"]) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("encoscope: skipped: ") for line in lines)
    for name, reason in (
        ("notes.jpg", "not an image"),
        ("empty.png", "empty"),
        ("cut.jpg", "truncated"),
        ("gone.png", "no such file"),
    ):
        assert any(name in line and reason in line for line in lines), name
    document = results.read(here / "found" / "result.json", "segmentation")
    assert len(document["images"]) == 2 and out.splitlines()[-1].startswith("2 results")
    assert {item["path"] for item in document["skipped"]} == {
        "../gone.png",
        "../photos/notes.jpg",
        "../photos/empty.png",
        "../photos/cut.jpg",
    }


def test_nothing_there_is_code_3_and_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    assert run(["segment", "gone.png", "empty", "--model", MODEL, "--out", "found"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "no such file or folder: gone.png" in err and "no images below empty" in err
    assert not (here / "found").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "timm:resnt18", "--untrained"], "resnet18"),
        (["--model", MODEL, "--layers", "0.0,5"], "5"),
        (["--model", MODEL, "--clusters", "1000"], "256"),
        (["--model", MODEL, "--layers", "0,1,2", "--weighting", "1,2"], "3"),
        (["--model", "resnet18"], "timm:"),
        (["--model", MODEL, "--size", "1", "--clusters", "200"], "clusters"),
    ],
)
def test_wrong_settings_are_one_line_and_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run(["segment", "cat.png", "--out", "found", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert not (here / "found").exists()


def test_a_larger_image_than_the_limit_is_refused_with_its_size(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", "cat.png", "--model", MODEL, "--max-pixels", "1000", "--out", "found"]) == 1
    assert "cat.png: 90 x 60 is 5,400 pixels, more than the limit of 1,000" in capsys.readouterr().err


def test_floating_point_photos_take_a_window(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.linspace(-1000, 1000, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(values).save(here / "ct.tif")
    assert run(["segment", "ct.tif", "--model", MODEL, "--out", "found"]) == 1
    assert "give a window" in capsys.readouterr().err
    assert run(["segment", "ct.tif", "--model", MODEL, "--out", "found", "--window", "-500,500"]) == 0
    assert results.read("found/result.json", "segmentation")["settings"]["window"] == [-500, 500]


def test_an_interrupted_run_leaves_only_whole_files(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole_save = Image.Image.save

    def save(self: Image.Image, path, *arguments, **keywords) -> None:
        whole_save(self, path, *arguments, **keywords)
        if "coffee.overlay" in str(path):
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    assert run(["segment", "cat.png", "photos", "--model", MODEL, "--out", "found"]) == 130
    assert capsys.readouterr().err == "encoscope: interrupted\n"
    written = sorted(path.name for path in (here / "found").iterdir())
    assert written == ["cat.labels.png", "cat.overlay.png", "coffee.labels.png"]


def test_an_output_that_cannot_be_written_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "found").write_text("a file where the folder should be")
    assert run(["segment", "cat.png", "--model", MODEL, "--out", "found"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("encoscope: error: results cannot be written to found: ")
    assert err.count("\n") == 1


def test_output_names_mirror_inputs_and_never_meet(here: Path) -> None:
    (here / "a").mkdir()
    (here / "b").mkdir()
    for name in ("a/cat.png", "b/cat.png", "b/Dog.png", "b/dog.gif", "b/cat.png.jpg"):
        shutil.copy(here / "cat.png", here / name)
    inputs = find_inputs([Path("photos"), Path("cat.png"), Path("photos/more/cat.png"), Path("a"), Path("b")])
    names = {file.as_posix(): name for file, name in inputs.files}
    folder = here.name
    assert names == {
        "photos/coffee.png": "coffee",
        "photos/more/cat.png": "more/cat",
        "cat.png": f"{folder}/cat.png",
        "a/cat.png": "a/cat.png",
        "b/cat.png": "b/cat.png",
        "b/cat.png.jpg": "cat.png.jpg",
        "b/Dog.png": "Dog.png",
        "b/dog.gif": "dog.gif",
    }
    assert (inputs.skipped, inputs.missing) == ([], 0)


def test_names_never_climb_out_of_the_output_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos" / "cat.png").write_bytes((here / "cat.png").read_bytes())
    monkeypatch.chdir(here / "photos" / "more")
    names = [name for _, name in find_inputs([Path("../../cat.png"), Path("../cat.png"), Path()]).files]
    assert len(set(names)) == 3
    assert not any(".." in name or name.startswith("/") for name in names)
    # the same file through two arguments is done once
    assert len(find_inputs([Path("cat.png"), here / "photos" / "more" / "cat.png"]).files) == 1


def test_a_single_name_is_left_alone() -> None:
    assert make_unique_names([("/x/y/cat.jpg", (Path("cat.jpg"), Path("cat.jpg")))]) == ["cat"]


def test_layers_lists_what_segment_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", MODEL]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["layer", "channels", "grid", "kind", "prefix", "role"]
    assert ["0", "8", "32x32", "map", "-"] in [row[:5] for row in rows]
    assert ["2", "16", "8x8", "map", "-"] in [row[:5] for row in rows]
    assert "inner layers are not shown: --all lists them" in err
    assert run(["layers", MODEL, "--all", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == "" and document["format"] == "encoscope.layers/1"
    assert len(document["results"]) > len(rows) - 1
    first = document["results"][0]
    assert set(first) == {"name", "kind", "channels", "grid", "prefix", "role", "followed_by"}
    assert first["grid"] == [32, 32]


def test_layers_of_an_unknown_model_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", "timm:resnet10tt"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "resnet10t" in err
