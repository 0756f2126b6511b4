"""``encoscope captions``: exit codes, one line of error, JSON, nothing heavy for help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from encoscope import vlm
from encoscope.cli import app
from encoscope.falcon.captions.store import CaptionStore
from support.caption_stores import WordVectors


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> WordVectors:
    """Any model string gives the words' vectors."""
    model = WordVectors()
    monkeypatch.setattr(vlm, "load", lambda *_, **__: model)
    return model


def call(capsys: pytest.CaptureFixture[str], *tokens: object) -> tuple[int, str, str]:
    code = app.run(["captions", *map(str, tokens)])
    return code, *capsys.readouterr()


def test_a_file_becomes_a_store(tmp_path: Path, capsys) -> None:
    (tmp_path / "words.txt").write_text("a dog\na cat\n\na dog\n")
    options = ["--vlm", "test:words", "--store", tmp_path / "store"]
    code, out, err = call(capsys, tmp_path / "words.txt", *options)
    assert (code, err) == (0, "") and out.startswith("2 captions, 16 numbers each, of test:words: ")
    code, out, _ = call(capsys, tmp_path / "words.txt", *options, "--json")
    document = json.loads(out)
    assert code == 0 and document["format"] == "encoscope.captions/1"
    assert document["results"][0]["captions"] == 2
    assert list(CaptionStore.load(tmp_path / "store")) == ["a dog", "a cat"]


def test_a_folder_of_shards_becomes_a_store_that_points_there(tmp_path: Path, capsys, words) -> None:
    folder = tmp_path / "laion"
    folder.mkdir()
    np.save(folder / "text_emb_0.npy", words.embed_texts(["a dog"]).numpy().astype(np.float16))
    parquet.write_table(pyarrow.table({"TEXT": ["a dog"]}), folder / "metadata_0.parquet")
    code, out, _ = call(capsys, folder, "--vlm", "test:words", "--store", tmp_path / "store")
    assert code == 0 and out.startswith("1 caption,")
    assert CaptionStore.load(tmp_path / "store").texts([0]) == ["a dog"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.txt"], 3, "no such file or folder: nowhere.txt"),
        (["."], 3, "holds no shards such as text_emb_0.npy"),
        (["empty.txt"], 2, "holds no captions"),
        (["latin.txt"], 1, "is not UTF-8: line 1"),
        (["table.csv", "--column", "caption"], 2, "no column 'caption' (nearest: captions)"),
        (["one.txt", "--index"], 2, "1 captions need no index"),
        (["table.csv", "--kind", "image"], 2, "--kind image goes with a folder"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, capsys, monkeypatch, arguments, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    Path("one.txt").write_text("a dog")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("table.csv").write_text("captions\na dog\n")
    found, out, err = call(capsys, *arguments, "--vlm", "test:words", "--store", "store")
    assert found == code and out == "" and message in err and err.count("\n") == 1
    assert Path("store").exists() == ("--index" in arguments)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from encoscope.cli import app; app.run(['captions', '--help']);"
        "print({'torch', 'numpy', 'pyarrow', 'encoscope.falcon.estimator'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n") and "--store" in done.stdout
