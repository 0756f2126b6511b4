from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoscope import vlm
from encoscope.cli.app import run
from encoscope.falcon.captions.build import embed_captions
from support import described_network as world

MODEL = "py:support.described_network:encoder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    world.write_images(folder / "photos", 60)
    embed_captions(world.CAPTIONS, world.Reader(), folder / "store")
    return folder


@pytest.fixture(autouse=True)
def here(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(folder / "cache"))
    monkeypatch.setattr(vlm, "load", lambda name, **_: world.Reader())


def flags(folder) -> list[str]:
    return ["--model", MODEL, "--probe", str(folder / "photos"), "--captions", str(folder / "store")]


def test_several_units_in_words(folder, capsys):
    assert run(["describe", "features:0", "features:1", "--control", "permuted,captions", *flags(folder)]) == 0
    out, _ = capsys.readouterr()
    first, second, last = out.splitlines()
    assert first.startswith("features:0 (falcon, top-k): ") and "red " in first
    assert "(from 10 images); " in first and ": AUC " in first and "strong images" in first
    assert "chance by other units" in second and "chance by random captions" in second
    assert (
        last.endswith("descriptions/result.json") and "of 2 units explained; " in last and "beat their control" in last
    )
    assert Path("descriptions/descriptions.parquet").is_file()
    assert Path("descriptions/features-1/sheet.webp").is_file()


def test_one_json_document_and_nothing_else(folder, capsys):
    settings = ["--concepts", "3", "--mask-threshold", "0.3"]
    assert run(["describe", "class:green", "--json", *settings, "--out", "there", *flags(folder)]) == 0
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["descriptions"]
    assert document["format"] == "encoscope.description/1" and entry["unit"] == "class:green"
    assert entry["concepts"][0]["word"] == "green" and len(entry["high"]) == 3
    assert (Path("there") / entry["high"][0]["crop"]).is_file()
    assert document["settings"]["holdout"] == 0.2 and document["settings"]["n_concepts"] == 3
    assert document["settings"]["mask_threshold"] == 0.3


def test_an_unreadable_photo_is_listed_and_the_exit_code_says_so(folder, tmp_path, capsys):
    photos = world.write_images(tmp_path / "photos", 40)
    (photos / "red" / "broken.png").write_bytes(b"no picture")
    rest = [*flags(folder)[:2], "--probe", str(photos), *flags(folder)[4:]]
    assert run(["describe", "features:1", "--json", *rest]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["skipped"][0]["path"].endswith("broken.png") and "skipped: cannot read" in err


def test_groups(folder, capsys):
    assert run(["groups", "--json", "--more-than", "3", *flags(folder)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "encoscope.groups/1" and document["settings"]["mode"] == "threshold"
    for group in document["results"]:
        assert group["unit"].startswith("features:") and group["images"] > 3
    assert run(["groups", "--preset", "authors", *flags(folder)]) == 0
    assert "groups, " in capsys.readouterr().out.splitlines()[-1]


def test_why_an_image_was_taken_for_something(folder, capsys):
    image = sorted((folder / "photos" / "red").iterdir())[0]
    assert run(["explain-failure", str(image), "--label", "blue", "--features", "2", *flags(folder)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{image}: taken for red (") and first.endswith("it is blue")
    assert rest[0].startswith("  for it: features:0 +") and "red" in rest[0]
    assert rest[2].startswith("  for blue: features:")
    assert run(["explain-failure", str(image), "--json", *flags(folder)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prediction"]["predicted"] == "red" and document["prediction"]["actual"] is None
    assert document["descriptions"][0]["unit"] == "features:0" and document["descriptions"][0]["role"] == "for"
    parts = sum(entry["contribution"] for entry in document["descriptions"])
    assert parts == pytest.approx(document["prediction"]["logit"], rel=0.05)


@pytest.mark.parametrize(
    "arguments,code,said",
    [
        (["describe"], 2, "name at least one unit"),
        (["describe", "features:99"], 2, "there are 6 features, 0 to 5"),
        (["describe", "features:1", "--control", "labels"], 2, "--control takes permuted, captions"),
        (["describe", "features:1", "--concepts", "0"], 2, "n_concepts is a number from 1 on"),
        (["describe", "features:1", "--mask-threshold", "0"], 2, "mask_threshold lies in (0, 1]"),
        (["describe", "features:1", "--holdout", "1.5"], 2, "takes a share from 0 to below 1"),
        (["describe", "features:1", "--captions", "nowhere"], 3, "no such file, folder or dataset: nowhere"),
        (["describe", "features:1", "--probe", "nowhere"], 3, "nowhere"),
        (["groups", "--largest", "1"], 2, "largest is a number from 2 on"),
        (["groups", "--layer", "sea"], 2, "nearest: see"),
        (["explain-failure", "nowhere.png"], 3, "no such file, folder or dataset: nowhere.png"),
        (["explain-failure", "PHOTO", "--label", "reed"], 2, "no class is called 'reed' (nearest: red"),
    ],
)
def test_wrong_input_is_one_line(folder, capsys, arguments, code, said):
    photo = str(sorted((folder / "photos" / "red").iterdir())[0])
    given = [photo if argument == "PHOTO" else argument for argument in arguments]
    defaults = flags(folder)
    for name in ("--probe", "--captions"):
        if name in given:
            at = defaults.index(name)
            del defaults[at : at + 2]
    assert run([*given, *defaults]) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1
