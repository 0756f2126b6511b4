"""What is wrong whatever the network is fails in one line, before a network is loaded or an image is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import encoscope.encoder
import encoscope.encoder.convert
import encoscope.vlm
from encoscope.cli.app import run
from encoscope.cli.checks import check_output_folder
from encoscope.errors import UsageError

MODEL = "zoo:resnet-caltech101"

# For each verb what is right, then what is wrong beside it. DIR is a folder of images, FILE a file.
VERBS: dict[str, tuple[str, list[str]]] = {
    "segment": (
        f"segment DIR --model {MODEL}",
        [
            "--clusters 0",
            "--clusters two",
            "--clusters auto --grouping ward",
            "--clusters 3 --runs 1",
            "--clusters 2,3 --runs 3",
            "--grouping words",
            "--resolution 0",
            "--size -3",
            "--weighting 1,x",
            "--starts 0",
            "--control gray",
            "--window 5",
            "--window 9,3",
            "--max-pixels 0",
            "--max-iter 5",
            "--joint --max-iter 0",
            "--joint --cache fp8",
            "--seed -1",
            "--out FILE",
            "--out FILE/below",
            "--progress loud",
        ],
    ),
    "colors": (
        f"colors DIR --model {MODEL}",
        [
            "--foreground both",
            "--threshold x",
            "--n-sample 3",
            "--resolution 0",
            "--size -3",
            "--weighting 1,x",
            "--upsampler bilinear",
            "--control color",
            "--batch 0",
            "--seed -1",
            "--out FILE",
        ],
    ),
    "similar": (
        f"similar DIR/a.png DIR --model {MODEL} --at 1,1",
        [
            "--at 1",
            "--at 1,x",
            "--at nan,1",
            "--not-at 1,2,3",
            "--box 1,2,3",
            "--box 5,5,1,9",
            "--labels FILE",
            "--clusters 3",
            "--segment 0 --clusters 2,3",
            "--threshold 7",
            "--random 0",
            "--top -1",
            "--size 0",
            "--upsampler bilinear",
            "--batch 0",
            "--seed -1",
            "--out FILE",
        ],
    ),
    "visualize": (
        f"visualize class:3 --model {MODEL}",
        [
            "--steps 0",
            "--method dream",
            "--method maco --facets 3",
            "--facets 3",
            "--facets 1 --references DIR",
            "--control untrained",
            "--relevance words",
            "--batch 0",
            "--size 0",
            "--jitter -1",
            "--seed 99999999999999999999999",
            "--out FILE",
        ],
    ),
    "circuit": (
        f"circuit class:3 --model {MODEL} --references DIR",
        ["--channels 0", "--steps 0", "--ranking words", "--relevance words", "--seed -2", "--out FILE/below"],
    ),
    "concepts": (
        f"concepts class:3 --model {MODEL} --references DIR",
        ["--concepts 0", "--steps 0", "--batch 0", "--relevance words", "--seed -2", "--out FILE"],
    ),
    "describe": (
        f"describe features:3 --model {MODEL} --probe DIR",
        [
            "--control words",
            "--mode words",
            "--holdout 1.5",
            "--holdout -0.2",
            "--mask-threshold 7",
            "--seed -1",
            "--out FILE",
        ],
    ),
    "groups": (
        f"groups --model {MODEL} --probe DIR",
        ["--largest 1", "--more-than -1", "--mode words", "--seed -1", "--out FILE"],
    ),
    "explain-failure": (
        f"explain-failure DIR/a.png --model {MODEL} --probe DIR",
        ["--features 0", "--holdout 2", "--mode words", "--seed -1", "--out FILE"],
    ),
    "probe": (f"probe DIR --model {MODEL}", ["--batch 0", "--seed -1"]),
    "audit": (
        f"audit {MODEL} --images DIR",
        [
            "--limit 3",
            "--clusters 0",
            "--permutations 0",
            "--watermark box --share 1.5",
            "--watermark box --labels FILE",
            "--seed -1",
            "--out FILE",
        ],
    ),
    "compare": (
        f"compare {MODEL} {MODEL} --images DIR",
        ["--clusters 0", "--clusters x", "--limit 0", "--limit -4", "--seed -1", "--out FILE/below"],
    ),
    "evaluate corloc": (
        f"evaluate corloc --model {MODEL} --dataset DIR",
        ["--clusters 0", "--limit 0", "--method word", "--points 0 --limit 5", "--size 0", "--border -1", "--out FILE"],
    ),
    "evaluate overlap": (
        f"evaluate overlap --model {MODEL} --dataset DIR",
        ["--clusters 0", "--limit 0", "--method word", "--joint --method slic", "--seed -1", "--out FILE"],
    ),
    "evaluate stability": (
        f"evaluate stability --model {MODEL} --dataset DIR",
        ["--clusters 0", "--runs 1", "--limit 0", "--size x", "--seed -1", "--out FILE"],
    ),
    "evaluate faithfulness": (
        f"evaluate faithfulness --model {MODEL} --dataset DIR",
        ["--clusters 0", "--fill red", "--limit 0", "--method word", "--seed -1", "--out FILE"],
    ),
    "atlas build": (
        f"atlas build --model {MODEL} --images DIR --out site",
        ["--features none", "--classes 0", "--visualize -1", "--steps 0", "--max-images 0", "--seed -1", "--out FILE"],
    ),
    "study build": (
        f"study build --model {MODEL} --references DIR --out study",
        ["--methods vital,words", "--methods vital", "--steps 0", "--participants -1", "--seed -1", "--out FILE"],
    ),
    "atlas serve": (
        "atlas serve SITE",
        ["--port -1", "--port 65536", "--seed -1", "--grid 7", "--prefix 3", "--device gpu"],
    ),
    "study score": ("study score STUDY DIR", ["--seed -1", "--out FILE", "--device gpu", "--device cuda:99"]),
    "captions": ("captions FILE --vlm zoo:clip-caltech101 --store words", ["--kind image", "--store FILE"]),
    "reproduce": (f"reproduce nave-fig8 --model {MODEL} --dataset DIR", ["--limit 0", "--set x", "--out FILE"]),
}
WRONG = [(verb, wrong) for verb, (_, each) in VERBS.items() for wrong in each]
DEVICES = ["gpu", "cuda:99", "meta", "xpu", "hpu"]
"""Names of devices that torch does not know, or cannot use here."""
WRONG += [
    (verb, f"--device {DEVICES[index % len(DEVICES)]}")
    for index, verb in enumerate(VERBS)
    if verb not in ("atlas serve", "study score", "captions", "reproduce")
]


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of images; loading a network or decoding an image fails the test."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcdef":
        PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    for name in ("site", "study"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.csv").write_text("image,site\na.png,1\n")

    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(f"was loaded or read before its settings were checked: {arguments[0]}")

    monkeypatch.setattr(encoscope.encoder, "load", refuse)
    monkeypatch.setattr(encoscope.encoder.convert, "load", refuse)
    monkeypatch.setattr(encoscope.vlm, "load", refuse)
    monkeypatch.setattr(PIL.Image, "open", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokens_of(text: str, folder: Path) -> list[str]:
    places = (
        ("SITE", folder / "site"),
        ("STUDY", folder / "study"),
        ("DIR", folder / "images"),
        ("FILE", folder / "file.csv"),
    )
    tokens = text.split()
    for name, path in places:
        tokens = [token.replace(name, str(path)) for token in tokens]
    return tokens


def join(verb: str, wrong: str) -> str:
    """The right command with the wrong flags in the place of its own."""
    right = VERBS[verb][0].split()
    for flag in (token for token in wrong.split() if token in right):
        position = right.index(flag)
        del right[position : position + 2]
    return " ".join([*right, wrong])


@pytest.mark.parametrize(("verb", "wrong"), WRONG)
def test_a_wrong_setting_fails_before_anything_is_read(
    nothing_is_read: Path, capsys: pytest.CaptureFixture[str], verb: str, wrong: str
) -> None:
    before = sorted(nothing_is_read.rglob("*"))
    code = run(tokens_of(join(verb, wrong), nothing_is_read))
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1 and err.startswith("encoscope: error: ")
    assert sorted(nothing_is_read.rglob("*")) == before, "nothing is written either"


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if verb not in ("captions", "reproduce", "atlas serve", "study score")]
)
def test_right_settings_go_on_to_the_network(
    nothing_is_read: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """So the wrong ones fail for what is wrong in them."""
    code = run(tokens_of(VERBS[verb][0], nothing_is_read))
    err = capsys.readouterr().err
    needs_annotations = verb in ("evaluate corloc", "evaluate overlap")
    assert code != 0 and ("before its settings were checked" in err or needs_annotations), err


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (f"describe features:3 --model {MODEL}", "--probe"),
        (f"groups --model {MODEL}", "--probe"),
        (f"circuit class:3 --model {MODEL}", "--references"),
        (f"concepts class:3 --model {MODEL}", "--references"),
        (f"audit {MODEL}", "--images"),
        (f"atlas build --model {MODEL} --images DIR", "--out"),
        (f"compare {MODEL} --images DIR", "SECOND"),
        ("study score", "STUDY"),
    ],
)
def test_a_flag_that_is_missing_is_named_with_what_it_takes(
    nothing_is_read: Path, capsys: pytest.CaptureFixture[str], command: str, flag: str
) -> None:
    assert run(tokens_of(command, nothing_is_read)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"encoscope: error: {flag} is missing: ") and "--help)" in line


@pytest.mark.parametrize(
    "command",
    [
        f"visualize class:3 --model {MODEL} --references nowhere",
        f"describe features:3 --model {MODEL} --probe nowhere",
        f"describe features:3 --model {MODEL} --probe caltech101:nowhere#train",
        f"describe features:3 --model {MODEL} --probe DIR --captions nowhere",
        f"describe features:3 --model {MODEL} --probe DIR --holdout nowhere",
        f"circuit class:3 --model {MODEL} --references nowhere",
        f"probe nowhere --model {MODEL}",
        f"audit {MODEL} --images nowhere",
        f"audit {MODEL} --images DIR --labels nowhere.csv",
        f"compare {MODEL} {MODEL} --images nowhere",
        f"evaluate corloc --model {MODEL} --dataset voc07:nowhere",
        f"atlas build --model {MODEL} --images nowhere --out site",
        f"explain-failure nowhere.png --model {MODEL} --probe DIR",
    ],
)
def test_data_that_are_missing_are_missed_before_the_network_is_loaded(
    nothing_is_read: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(tokens_of(command, nothing_is_read)) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in line


def test_an_output_folder_need_not_exist(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new" / "folder")
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="cannot be written"):
        check_output_folder(Path("nul\0byte"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("compare", {"second": MODEL, "images": "DIR", "n_clusters": (0,)}),
        ("compare", {"second": MODEL, "images": "DIR", "limit": 0}),
        ("audit", {"images": "DIR", "permutations": 0}),
        ("audit", {"images": "DIR", "watermark": "box", "share": 0.0}),
        ("audit", {"images": "DIR", "n_clusters": 0}),
        ("segment", {"images": "DIR", "n_clusters": 0}),
        ("visualize", {"units": "class:3", "steps": 0}),
        ("circuit", {"unit": "class:3", "references": "DIR", "n_channels": 0}),
        ("concepts", {"unit": "class:3", "references": "DIR", "steps": 0}),
    ],
)
def test_python_refuses_them_before_the_network_is_loaded(
    nothing_is_read: Path, name: str, settings: dict[str, Any]
) -> None:
    folder = str(nothing_is_read / "images")
    values = {key: folder if value == "DIR" else value for key, value in settings.items()}
    with pytest.raises(UsageError):
        getattr(encoscope, name)(MODEL, **values)


ESTIMATORS: list[tuple[str, dict[str, Any]]] = [
    ("Nave", {"n_clusters": 0}),
    ("Nave", {"grouping": "pca"}),
    ("Nave", {"batch_size": 0}),
    ("Nave", {"feature_cache": "fp8"}),
    ("FeatureColors", {"n_sample": 0}),
    ("FeatureColors", {"resolution": 0}),
    ("FeatureColors", {"batch_size": 0}),
    ("Falcon", {"mode": "words"}),
    ("Falcon", {"control": "words"}),
    ("Falcon", {"batch_size": 0}),
    ("Vital", {"units": "class:1", "steps": 0}),
    ("Vital", {"units": "class:1", "batch_size": 0}),
    ("Vital", {"units": []}),
    ("Circuit", {"unit": "class:1", "n_channels": 0}),
    ("Circuit", {"unit": "class:1", "steps": 0}),
    ("Craft", {"unit": "class:1", "n_concepts": 0}),
    ("Craft", {"unit": "class:1", "batch_size": 0}),
]


@pytest.mark.parametrize(("name", "wrong"), ESTIMATORS)
def test_an_estimator_checks_its_settings_before_it_loads(
    nothing_is_read: Path, name: str, wrong: dict[str, Any]
) -> None:
    estimator = getattr(encoscope, name)(MODEL, **wrong)
    with pytest.raises(UsageError):
        estimator.fit(str(nothing_is_read / "images"))
    right = {key: "class:1" for key in ("unit", "units") if key in wrong}
    with pytest.raises(RuntimeError, match="before its settings were checked"):  # so that was what was wrong
        getattr(encoscope, name)(MODEL, **right).fit(str(nothing_is_read / "images"))
