"""The caption store: what is read, what is refused, killed and full disks; LAION's layout as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon.captions.build import embed_captions, load_default_captions
from encoscope.falcon.captions.laion import is_laion, link_laion
from encoscope.falcon.captions.readers import clean_captions, read_captions
from encoscope.falcon.captions.store import CaptionFolder, CaptionStore
from encoscope.vlm import VLM
from support.caption_stores import WordVectors

CAPTIONS = [f"a {colour} {thing}" for colour in ("red", "green", "striped") for thing in ("dog", "cat", "boat", "tree")]


def vectors(store: CaptionStore) -> np.ndarray:
    return np.concatenate([np.array(store.embeddings(shard)) for shard in store.shards])


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_store_holds_captions_and_their_vectors(tmp_path: Path) -> None:
    vlm = WordVectors()
    assert isinstance(vlm, VLM)
    built = embed_captions(CAPTIONS, vlm, tmp_path / "store", shard_size=5)
    store = CaptionStore.load(tmp_path / "store")
    assert len(store) == 12 and list(store) == CAPTIONS and [shard.rows for shard in store.shards] == [5, 5, 2]
    assert store.width == 16 and store.normalised and store.digest == built.digest
    assert store.vlm_digest == vlm.digest
    assert np.array_equal(vectors(store), vlm.embed_texts(CAPTIONS).numpy().astype(np.float16))
    assert isinstance(store.embeddings(store.shards[0]), np.memmap)
    assert store.texts([11, 0, 5, 0, 4]) == [CAPTIONS[i] for i in (11, 0, 5, 0, 4)] and store.texts([]) == []
    for wrong in (-1, 12):
        with pytest.raises(UsageError, match="captions 0 to 11"):
            store.texts([wrong])
    embedded = vlm.embedded
    assert embed_captions(CAPTIONS, vlm, tmp_path / "store", shard_size=5).digest == store.digest
    assert vlm.embedded == embedded  # all there already


def test_another_model_is_refused_by_digest_and_so_are_other_captions(tmp_path: Path) -> None:
    vlm, other = WordVectors(), WordVectors(name="other")
    store = embed_captions(CAPTIONS, vlm, tmp_path / "store")
    store.check(vlm)
    with pytest.raises(EncoscopeError, match=r"embedded with test:words \(\w{12}\), not with test:other"):
        store.check(other)
    with pytest.raises(EncoscopeError, match=r"made with vlm.digest = .*--fresh"):
        embed_captions(CAPTIONS, other, tmp_path / "store")
    with pytest.raises(EncoscopeError, match=r"made with made_from.captions = "):
        embed_captions(CAPTIONS[:-1], vlm, tmp_path / "store")
    assert list(CaptionStore.load(tmp_path / "store")) == CAPTIONS
    again = embed_captions(CAPTIONS[:2], other, tmp_path / "store", fresh=True, shard_size=1)
    assert list(again) == CAPTIONS[:2] and again.vlm_digest == other.digest
    embed_captions(CAPTIONS[:1], other, tmp_path / "store", fresh=True)
    shards = {"text_emb/text_emb_0000.npy", "metadata/metadata_0000.parquet"}
    assert files(tmp_path / "store") == {"manifest.json", "journal.jsonl", "lock", *shards}


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "parquet"])
def test_each_kind_of_file_gives_the_same_captions(tmp_path: Path, suffix: str) -> None:
    given = ["a dog", "", 'a "quoted", cat', "  two\nlines\tand  spaces ", "a dog", "crème brûlée ☕"]
    expected = ["a dog", 'a "quoted", cat', "two lines and spaces", "crème brûlée ☕"]
    file = tmp_path / f"captions.{suffix}"
    if suffix == "txt":
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(text.replace("\n", " ") for text in given).encode())
    elif suffix == "parquet":
        parquet.write_table(pyarrow.table({"url": ["u"] * 7, "TEXT": [*given, None]}), file)
    else:
        mark = "," if suffix == "csv" else "\t"
        cells = ['"' + text.replace('"', '""') + '"' for text in given]
        lines = [mark.join(["id", "Caption"]), *(mark.join(["1", cell]) for cell in cells), f"7{mark}"]
        file.write_text("\n".join(lines), encoding="utf-8")
    assert list(clean_captions(read_captions(file))) == expected
    assert list(embed_captions(file, WordVectors(), tmp_path / "store")) == expected


def test_one_caption_is_enough_and_a_line_without_an_end_is_a_caption(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a dog")
    store = embed_captions(tmp_path / "one.txt", WordVectors(), tmp_path / "store")
    assert list(store) == ["a dog"] and len(store) == 1


@pytest.mark.parametrize(
    ("name", "content", "column", "error", "message"),
    [
        ("empty.txt", b"", None, UsageError, "empty.txt holds no captions"),
        ("blank.txt", b"\n  \n\xef\xbb\xbf\n", None, UsageError, None),
        ("latin.txt", b"a dog\na caf\xe9\n", None, EncoscopeError, "latin.txt is not UTF-8: line 2 .* 0xe9; save it"),
        ("latin.csv", b"caption\na caf\xe9\n", None, EncoscopeError, "latin.csv is not UTF-8: line 2"),
        ("wide.csv", b"caption,n\na dog,1\n", "captoin", UsageError, "no column 'captoin' .nearest: caption.; it has"),
        ("other.csv", b"what,n\na dog,1\n", None, UsageError, "which column of .*--column.; it has: what, n"),
        ("open.csv", b'caption\n"a dog\n', None, EncoscopeError, "near line 2, is no table"),
        ("header.csv", b"caption\n", None, UsageError, "holds no captions"),
        ("none.csv", b"", None, UsageError, "holds no captions"),
        ("a.txt", b"a dog", "caption", UsageError, "has no column 'caption'"),
        ("a.json", b"[]", None, UsageError, r"read from .txt, .csv, .tsv and .parquet files, not from .json"),
        ("a.parquet", b"PAR1", None, EncoscopeError, "a.parquet is no Parquet file, or damaged"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, name, content, column, error, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message) as raised:
        embed_captions(tmp_path / name, WordVectors(), tmp_path / "store", column=column)
    assert "\n" not in str(raised.value) and type(raised.value) is error
    assert not (tmp_path / "store").exists()


def test_parquet_columns_that_hold_no_text_or_no_utf8(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"caption": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(UsageError, match="holds int64, not text"):
        embed_captions(tmp_path / "numbers.parquet", WordVectors(), tmp_path / "store")
    wrong = pyarrow.array([b"caf\xe9"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"caption": wrong}), tmp_path / "latin.parquet")
    with pytest.raises(EncoscopeError, match=r"not UTF-8: a caption holds b'\\xe9'"):
        embed_captions(tmp_path / "latin.parquet", WordVectors(), tmp_path / "store")
    with pytest.raises(MissingError, match=r"no such file: .*nowhere.parquet"):
        embed_captions(tmp_path / "nowhere.parquet", WordVectors(), tmp_path / "store")
    with pytest.raises(MissingError, match=r"no such file: .*nowhere.txt"):
        embed_captions(tmp_path / "nowhere.txt", WordVectors(), tmp_path / "store")


def test_folders_of_something_else_are_not_touched(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no caption store at .*: make one with"):
        CaptionStore.load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EncoscopeError, match=r"is not a caption store .* and not an empty folder"):
        embed_captions(CAPTIONS, WordVectors(), tmp_path)
    with pytest.raises(EncoscopeError, match=r"is not a caption store .* and not an empty folder"):
        embed_captions(CAPTIONS, WordVectors(), tmp_path / "notes.txt")
    (tmp_path / "manifest.json").write_text("{}")
    for call in (
        lambda: embed_captions(CAPTIONS, WordVectors(), tmp_path, fresh=True),
        lambda: CaptionStore.load(tmp_path),
    ):
        with pytest.raises(EncoscopeError, match=r"is not a caption store .encoscope.caption-store/2"):
            call()
    assert files(tmp_path) == {"notes.txt", "manifest.json"}


# Builds a store; dies at the KILL-th sync or rename, as kill -9 would have it.
BUILDER = textwrap.dedent(
    """
    import os, signal, sys, pathlib
    sys.path.insert(0, {tests!r})
    from support.caption_stores import WordVectors
    from encoscope.falcon.captions.build import embed_captions
    folder, kills = sys.argv[1], int(sys.argv[2])
    calls = 0
    def counted(function):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == kills:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    os.fsync, pathlib.Path.replace = counted(os.fsync), counted(pathlib.Path.replace)
    embed_captions([f"a caption of {{i}}" for i in range(10)], WordVectors(), folder, shard_size=4)
    """
).format(tests=str(Path(__file__).parents[1]))


def test_killed_at_any_step_and_run_again_it_holds_the_same(tmp_path: Path) -> None:
    def run(folder: Path, kill: int) -> int:
        return subprocess.run([sys.executable, "-c", BUILDER, str(folder), str(kill)], timeout=60).returncode

    captions = [f"a caption of {i}" for i in range(10)]
    whole = embed_captions(captions, WordVectors(), tmp_path / "whole", shard_size=4)
    # 1-3 the first manifest; then nine steps a shard: both files, both folders, the manifest
    for kill in (2, 7, 16, 25):
        folder = tmp_path / str(kill)
        assert run(folder, kill) == -signal.SIGKILL
        with pytest.raises((EncoscopeError, MissingError), match=r"not all embedded|no caption store at"):
            CaptionStore.load(folder)
        vlm = WordVectors()
        store = embed_captions(captions, vlm, folder, shard_size=4)
        assert vlm.embedded == 10 - 4 * max(0, (kill - 4) // 9)  # what was done is not done again
        assert store.digest == whole.digest and list(store) == captions
        assert np.array_equal(vectors(store), vectors(whole)) and files(folder) == files(tmp_path / "whole")


def test_a_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, folder = WordVectors(), tmp_path / "store"
    saving, left = np.save, [2]

    def full(file, array, **options):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        saving(file, array, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(EncoscopeError, match="the disk is full; what was stored before is safe"):
        embed_captions(CAPTIONS, vlm, folder, shard_size=5)
    monkeypatch.undo()
    assert not CaptionFolder.load(folder).complete
    before = vlm.embedded
    assert list(embed_captions(CAPTIONS, vlm, folder, shard_size=5)) == CAPTIONS and vlm.embedded == before + 2


def test_missing_and_damaged_shards_are_told(tmp_path: Path) -> None:
    store = embed_captions(CAPTIONS, WordVectors(), tmp_path / "store")
    place = tmp_path / "store" / "text_emb" / "text_emb_0000.npy"
    np.save(place, np.zeros((3, 16), np.float16))
    with pytest.raises(EncoscopeError, match=r"is float16 of shape \(3, 16\), not float16 of \(12, 16\)"):
        store.embeddings(store.shards[0])
    place.write_bytes(b"nothing")
    with pytest.raises(EncoscopeError, match="is damaged"):
        store.embeddings(store.shards[0])
    place.unlink()
    with pytest.raises(MissingError, match="is missing"):
        store.embeddings(store.shards[0])


def laion(folder: Path, vlm: WordVectors, shards: int = 2, factor: float = 1.0) -> list[str]:
    """Two shards as LAION has them, the first numbered 0; returns the captions."""
    texts = [f"caption {shard} of {i}" for shard in range(shards) for i in range(6)]
    for name in ("text_emb", "img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for shard in range(shards):
        some = texts[6 * shard : 6 * shard + 6]
        values = (vlm.embed_texts(some).numpy() * factor).astype(np.float16)
        np.save(folder / "text_emb" / f"text_emb_{shard}.npy", values)
        np.save(folder / "img_emb" / f"img_emb_{shard}.npy", -values)
        table = pyarrow.table({"image_path": ["x"] * 6, "caption": some, "NSFW": ["UNLIKELY"] * 6})
        parquet.write_table(table, folder / "metadata" / f"metadata_{shard}.parquet", row_group_size=4)
    return texts


def test_laions_shards_are_used_where_they_lie(tmp_path: Path) -> None:
    vlm = WordVectors()
    texts = laion(tmp_path / "laion", vlm, shards=11)
    before = files(tmp_path / "laion")
    assert is_laion(tmp_path / "laion") and not is_laion(tmp_path)
    store = link_laion(tmp_path / "laion", vlm, tmp_path / "store")
    assert (
        files(tmp_path / "store") == {"manifest.json", "journal.jsonl", "lock"} and files(tmp_path / "laion") == before
    )
    assert list(store) == texts and store.normalised  # shard 10 after shard 9, not after 1
    assert store.texts([60, 5, 3]) == [texts[60], texts[5], texts[3]]
    assert np.array_equal(vectors(store), vlm.embed_texts(texts).numpy().astype(np.float16))
    assert CaptionStore.load(tmp_path / "store").digest == store.digest
    images = link_laion(tmp_path / "laion", vlm, tmp_path / "images", kind="image")
    assert np.array_equal(vectors(images), -vectors(store)) and images.digest != store.digest
    with pytest.raises(EncoscopeError, match=r"made_from.kind"):
        link_laion(tmp_path / "laion", vlm, tmp_path / "store", kind="image")


def test_laions_shards_of_another_length_or_another_model(tmp_path: Path) -> None:
    vlm = WordVectors()
    laion(tmp_path / "long", vlm, factor=3.0)
    assert not link_laion(tmp_path / "long", vlm, tmp_path / "store").normalised
    with pytest.raises(EncoscopeError, match="was not made with test:other: captions embedded again are"):
        link_laion(tmp_path / "long", WordVectors(name="other"), tmp_path / "others")
    with pytest.raises(EncoscopeError, match="makes vectors of 8 numbers"):
        link_laion(tmp_path / "long", WordVectors(8), tmp_path / "others")
    with pytest.raises(UsageError, match=r"no column 'captions' .nearest: caption"):
        link_laion(tmp_path / "long", vlm, tmp_path / "others", column="captions")
    np.save(tmp_path / "long" / "text_emb" / "text_emb_1.npy", np.ones((5, 16), np.float16))
    with pytest.raises(EncoscopeError, match=r"has 5 rows, .* has 6"):
        link_laion(tmp_path / "long", vlm, tmp_path / "others")
    (tmp_path / "long" / "text_emb" / "text_emb_1.npy").unlink()
    with pytest.raises(MissingError, match=r"metadata_1.parquet has no text_emb file"):
        link_laion(tmp_path / "long", vlm, tmp_path / "others")
    with pytest.raises(MissingError, match=r"holds no text_emb_\*.npy files"):
        link_laion(tmp_path / "long" / "metadata", vlm, tmp_path / "others")
    with pytest.raises(MissingError, match="no such folder"):
        link_laion(tmp_path / "nowhere", vlm, tmp_path / "others")
    with pytest.raises(EncoscopeError):
        CaptionStore.load(tmp_path / "others")


def test_the_default_store_is_made_once_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from encoscope.zoo.captions import load_vocabulary

    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path))
    vlm = WordVectors()
    store = load_default_captions(vlm)
    assert list(store) == list(load_vocabulary()) and tmp_path in store.path.parents
    embedded = vlm.embedded
    assert load_default_captions(vlm).digest == store.digest and vlm.embedded == embedded
    assert load_default_captions(WordVectors(8)).path != store.path
