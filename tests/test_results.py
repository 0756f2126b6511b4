"""Results are strict JSON that is whole or not there, and say what they are when read back."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from encoscope import results
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import SkippedImage


def document() -> results.Document:
    return results.envelope(
        "segmentation",
        [{"path": "a.jpg", "inertia": np.float32(0.5), "labels": np.arange(3), "where": Path("x") / "y.png"}],
        model={"source": "timm:resnet18", "digest": "ab", "layers": ("layer3", "layer4")},
        settings={"clusters": 5},
        seed=0,
        skipped=[SkippedImage("b.jpg", "cannot read b.jpg: truncated"), {"path": "c.jpg", "reason": "empty"}],
    )


def test_the_envelope_round_trips(tmp_path: Path) -> None:
    path = results.write(tmp_path / "new" / "result.json", document())
    found = results.read(path, "segmentation")
    assert found["format"] == "encoscope.segmentation/1"
    assert found["model"] == {"source": "timm:resnet18", "digest": "ab", "layers": ["layer3", "layer4"]}
    assert found["images"] == [{"path": "a.jpg", "inertia": 0.5, "labels": [0, 1, 2], "where": "x/y.png"}]
    assert found["skipped"] == [
        {"path": "b.jpg", "reason": "cannot read b.jpg: truncated"},
        {"path": "c.jpg", "reason": "empty"},
    ]
    assert {"encoscope", "python", "torch", "numpy"} <= set(found["versions"])
    assert (found["settings"], found["seed"]) == ({"clusters": 5}, 0)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("segmentation", "images"),
        ("visualization", "visualizations"),
        ("description", "descriptions"),
        ("audit", "results"),
    ],
)
def test_each_kind_names_its_list(kind: str, key: str) -> None:
    assert results.envelope(kind, [{"n": 1}], model=None, settings={}, seed=None)[key] == [{"n": 1}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), np.array([1.0, -np.inf])])
def test_numbers_that_json_cannot_hold_are_named_by_their_place(tmp_path: Path, value: object) -> None:
    bad = document()
    bad["images"][0]["inertia"] = value
    with pytest.raises(EncoscopeError, match=r"\$\.images\[0\]\.inertia"):
        results.write(tmp_path / "result.json", bad)
    assert list(tmp_path.iterdir()) == []


def test_reading_back_checks_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(MissingError, match="no such file"):
        results.read(path, "segmentation")
    results.write(path, document())
    with pytest.raises(EncoscopeError, match=r"is no description: its format is 'encoscope\.segmentation/1'"):
        results.read(path, "description")
    path.write_text(json.dumps({"format": "encoscope.segmentation/2"}))
    with pytest.raises(EncoscopeError, match="written by a newer encoscope"):
        results.read(path, "segmentation")
    for text in ("[1]", '{"format": "encoscope.segmentation"}'):
        path.write_text(text)
        with pytest.raises(EncoscopeError, match="is no segmentation"):
            results.read(path, "segmentation")
    path.write_text("{ not json")
    with pytest.raises(EncoscopeError, match="cannot read"):
        results.read(path, "segmentation")


def test_boxes_take_one_line_and_texts_stay_as_they_are() -> None:
    bad_name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    mixed = {
        "box": [0, -1.5, 3e-7, 4],
        "boxes": [[1, 2], [3, 4]],
        "text": "[\n 1,\n 2\n]",
        "none": [],
        "file": bad_name,
    }
    text = results.dumps(mixed)
    assert '"box": [0, -1.5, 3e-07, 4]' in text
    assert json.loads(text) == mixed
    text.encode()


def test_what_cannot_be_written_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EncoscopeError, match=r"cannot write .*file/result\.json: "):
        results.write(tmp_path / "file" / "result.json", document())
    path = tmp_path / "result.json"
    with pytest.raises(EncoscopeError, match=r"cannot write .*result\.json: No space left on device"):  # noqa: SIM117
        with results.atomic_write(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not path.exists()


def test_what_fails_half_way_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), results.atomic_write(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with results.atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_documents_name_files_relative_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "out" / "result.json"
    assert results.relative("photos/a.jpg", where) == "../photos/a.jpg"
    assert results.relative(tmp_path / "out" / "sub" / "a.png", where) == "sub/a.png"
    assert results.resolve("sub/a.png", where) == tmp_path / "out" / "sub" / "a.png"
