"""The store: killed at any moment, on a full disk, with a torn journal, it holds what it said was done."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import parquet

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.store import JournaledFolder, Store, StoreRow, content_key, get_cache_dir

MANIFEST = {"encoder": "abc", "layers": ["layer3", "layer4"], "settings": {"size": 224, "half": True}}

# Appends shards 0..5 of known content; dies at the KILL-th sync or rename, as kill -9 would have it.
WRITER = textwrap.dedent(
    """
    import os, signal, sys, pathlib
    import numpy as np
    from encoscope.store import Store, StoreRow
    folder, kill = sys.argv[1], int(sys.argv[2])
    calls = 0
    def counted(function):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    with Store.open(folder, {"made": "by the test"}) as store:
        os.fsync = counted(os.fsync)
        pathlib.Path.replace = counted(pathlib.Path.replace)
        for shard in range(6):
            rows = [StoreRow(f"{shard}/{i}", f"{i}.jpg", "cat") for i in range(3)]
            if rows[0].id in store:
                continue
            values = np.arange(3 * 500, dtype=np.float32).reshape(3, 500) + 1000 * shard
            assert store.append(rows, {"a/b": values, "c": values[:, :2].astype(np.float16)}) == shard
        store.finish()
    """
)


def write(folder: Path, kill: int) -> int:
    return subprocess.run([sys.executable, "-c", WRITER, str(folder), str(kill)], timeout=60).returncode


def content(store: Store) -> list:
    arrays = [[np.array(store.read(name, shard)).tolist() for name in store.names] for shard in store.shards]
    return [store.rows, store.names, store.shards, arrays]


def small(value: float, count: int = 2) -> np.ndarray:
    return np.full((count, 4), value, np.float32)


def rows(*ids: str) -> list[StoreRow]:
    return [StoreRow(i) for i in ids]


def test_killed_at_any_step_and_run_again_it_holds_the_same(tmp_path: Path) -> None:
    assert write(tmp_path / "whole", 0) == 0
    with Store.load(tmp_path / "whole") as whole:
        expected = content(whole)
    assert len(expected[0]) == 18
    # one append is eight such steps: sync and rename of two arrays, the folder, the journal
    for kill in (2, 5, 6, 8, 12):
        folder = tmp_path / str(kill)
        assert write(folder, kill) == -signal.SIGKILL
        with Store.load(folder) as partial:  # nothing that counts is half there
            assert content(partial)[3] == expected[3][: len(partial.shards)]
        while write(folder, 25):  # killed while going on, too
            pass
        with Store.load(folder) as resumed:
            assert content(resumed) == expected
            assert resumed.complete
        assert {f.name for f in folder.iterdir()} == {f.name for f in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("torn", [b'{"shard":1,"rows":[["c",null', b"\0" * 40 + b"\n", b'{"shard":1}\n'])
def test_a_torn_last_line_of_the_journal_is_written_over(tmp_path: Path, torn: bytes) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a", "b"), {"x": small(1)})
    with (tmp_path / "s" / "journal.jsonl").open("ab") as journal:
        journal.write(torn)
    np.save(tmp_path / "s" / "x-000001.npy", small(9))  # on disk, but never entered
    with Store.open(tmp_path / "s", MANIFEST) as store:
        assert [row.id for row in store.rows] == ["a", "b"]
        assert not (tmp_path / "s" / "x-000001.npy").exists()
        assert store.append(rows("c", "d"), {"x": small(2)}) == 1
    with Store.load(tmp_path / "s") as store:
        assert [row.id for row in store.rows] == ["a", "b", "c", "d"]
        assert store.read("x", 1)[0, 0] == 2


def test_a_damaged_line_in_the_middle_of_the_journal_is_an_error(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a"), {"x": small(1, 1)})
        store.append(rows("b"), {"x": small(1, 1)})
    journal = tmp_path / "s" / "journal.jsonl"
    journal.write_bytes(b"?" + journal.read_bytes()[1:])
    with pytest.raises(EncoscopeError, match=r"line 1 of .* is damaged.*--fresh"):
        Store.open(tmp_path / "s", MANIFEST)
    with Store.open(tmp_path / "s", MANIFEST, fresh=True) as store:
        assert len(store) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "xyz"}, 'encoder = "abc", not "xyz"'),
        ({"settings": {"size": 224, "half": 1}}, "settings.half = true, not 1"),
        ({"settings": {"half": True}}, "settings.size = 224, not nothing"),
        ({"new": None}, "new = nothing, not null"),
    ],
)
def test_a_manifest_that_differs_is_named_and_fresh_starts_over(tmp_path: Path, change: dict, message: str) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a"), {"x": small(1, 1)})
        store.save_state("centres", {"c": small(1)})
        store.finish()
    with pytest.raises(EncoscopeError, match="--fresh") as raised:
        Store.open(tmp_path / "s", MANIFEST | change)
    assert message in str(raised.value)
    with Store.open(tmp_path / "s", MANIFEST) as store:  # the refusal gave the lock back and changed nothing
        assert "a" in store and store.complete
    with Store.open(tmp_path / "s", MANIFEST | change, fresh=True) as store:
        assert len(store) == 0 and not store.complete and store.state("centres") is None
    assert {f.name for f in (tmp_path / "s").iterdir()} == {"manifest.json", "journal.jsonl", "lock"}


def test_the_name_of_a_manifest_is_its_content_in_any_order() -> None:
    assert content_key({"a": 1, "b": (1, 2)}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": True}) != content_key({"a": 1.0})


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path))
    assert get_cache_dir("maps", "x") == tmp_path / "maps" / "x"
    monkeypatch.delenv("ENCOSCOPE_CACHE")
    assert get_cache_dir("maps").parts[-2:] == ("encoscope", "maps")


def test_a_full_disk_at_any_step_leaves_what_was_there_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    for step in range(1, 6):  # two arrays, the folder, the journal; at the fifth all went well
        with Store.open(tmp_path / str(step), MANIFEST) as store:
            store.append(rows("a", "b"), {"x": small(1), "y": small(2)})
            calls = 0

            def full(handle: int, step: int = step) -> None:
                nonlocal calls
                calls += 1
                if calls == step:
                    raise OSError(errno.ENOSPC, "No space left on device")
                sync(handle)

            monkeypatch.setattr(os, "fsync", full)
            if step < 5:
                with pytest.raises(EncoscopeError, match="the disk is full"):
                    store.append(rows("c", "d"), {"x": small(3), "y": small(4)})
                monkeypatch.setattr(os, "fsync", sync)
                assert "c" not in store and len(store) == 2
                with Store.load(tmp_path / str(step)) as seen:
                    assert len(seen) == 2
            assert "c" in store or store.append(rows("c", "d"), {"x": small(3), "y": small(4)}) == 1
            monkeypatch.setattr(os, "fsync", sync)
        with Store.load(tmp_path / str(step)) as seen:
            assert [row.id for row in seen.rows] == ["a", "b", "c", "d"]
            assert seen.read("y", 1)[0, 0] == 4


def test_a_write_that_the_system_cuts_short(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a"), {"x": small(1, 1)})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            with pytest.raises(EncoscopeError, match=r"cannot write to .*the disk is full"):
                store.append(rows("b"), {"x": np.zeros((1, 1 << 18), np.float32)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert sorted(f.name for f in store.path.glob("*x*.npy")) == ["x-000000.npy"]
        assert store.append(rows("b"), {"x": small(2, 1)}) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(EncoscopeError, match=r"Read-only file system; choose another folder"):
        Store.open(tmp_path / "s", MANIFEST)


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for attempt in (
        lambda: Store.open(tmp_path, MANIFEST),
        lambda: Store.open(tmp_path, MANIFEST, fresh=True),
        lambda: Store.load(tmp_path),
        lambda: Store.open(tmp_path / "holiday.jpg", MANIFEST),
    ):
        with pytest.raises(EncoscopeError):
            attempt()
    assert [f.name for f in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(MissingError, match="no store at"):
        Store.load(tmp_path / "nowhere")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        with pytest.raises(EncoscopeError, match=f"being written by another process .pid {os.getpid()}"):
            Store.open(tmp_path / "s", MANIFEST)
        with Store.load(tmp_path / "s") as reader, pytest.raises(UsageError, match="reading only"):
            reader.append(rows("a"), {"x": small(1, 1)})
        store.append(rows("a"), {"x": small(1, 1)})
    with Store.open(tmp_path / "s", MANIFEST) as store:
        assert "a" in store


def test_arrays_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a", "b"), {"x": small(1)})
        array = store.read("x", 0)
        assert isinstance(array, np.memmap)
        assert Path(str(array.filename)).name == "x-000000.npy"
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
        (store.path / "x-000000.npy").unlink()
        with pytest.raises(EncoscopeError, match=r"x-000000.npy is missing.*--fresh"):
            store.read("x", 0)


def test_skipped_rows_have_a_reason_and_no_arrays(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(
            [StoreRow("a", "a.jpg", "cat"), StoreRow("b", "b.jpg", None, "cannot be read"), StoreRow("c")],
            {"x": small(1)},
        )
        store.append([StoreRow("d", status="too large")], {})
        store.append([StoreRow("a", "copy of a.jpg"), StoreRow("e")], {"x": small(2)})
        assert [store.position(i) for i in "abcde"] == [(0, 0), None, (0, 1), None, (2, 1)]
        assert "b" in store and "f" not in store and len(store) == 6
        assert store.shards == [0, 2]
        assert [row.id for row in store.shard_rows(0)] == ["a", "c"]
        store.finish()
    table = parquet.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert table[0] == {"id": "a", "path": "a.jpg", "label": "cat", "status": "done", "shard": 0, "row": 0}
    assert table[1] == {"id": "b", "path": "b.jpg", "label": None, "status": "cannot be read", "shard": 0, "row": None}
    assert [(line["shard"], line["row"]) for line in table[2:]] == [(0, 1), (1, None), (2, 0), (2, 1)]


def test_appending_to_a_finished_store_opens_it_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.finish()
    with Store.open(tmp_path / "s", MANIFEST) as store:
        assert store.complete
        store.append(rows("a"), {"x": small(1, 1)})
        assert not store.complete
    with Store.load(tmp_path / "s") as store:
        assert not store.complete


def test_arrays_that_do_not_fit_their_rows(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        with pytest.raises(UsageError, match=r"'x' has shape \(2, 4\), for 1 rows"):
            store.append(rows("a"), {"x": small(1)})
        with pytest.raises(UsageError, match="no array for them"):
            store.append(rows("a"), {})
        with pytest.raises(UsageError, match="only plain numbers"):
            store.append(rows("a"), {"x": np.array([{}])})
        store.append(rows("a"), {"layer3": small(1, 1)})
        with pytest.raises(UsageError, match=r"has no array 'layer4' .nearest: layer3"):
            store.read("layer4", 0)
        with pytest.raises(UsageError, match="there is no shard 1"):
            store.read("layer3", 1)


def test_states_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        assert store.state("lloyd") is None
        store.save_state("lloyd", {"centres": small(1), "step": np.array(3)})

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(EncoscopeError, match="the disk is full"):
            patched.setattr(os, "fsync", full)
            store.save_state("lloyd", {"centres": small(2), "step": np.array(4)})
    with Store.load(tmp_path / "s") as store:
        state = store.state("lloyd")
        assert state is not None and state["step"] == 3 and state["centres"][0, 0] == 1


def test_remove_leaves_nothing_but_what_is_not_its_own(tmp_path: Path) -> None:
    for extra in (False, True):
        with Store.open(tmp_path / "s", MANIFEST) as store:
            store.append(rows("a"), {"x": small(1, 1)})
            store.save_state("s", {"x": small(1)})
            store.finish()
            if extra:
                (store.path / "notes.txt").write_text("mine")
            store.remove()
        assert [f.name for f in tmp_path.glob("s/*")] == (["notes.txt"] if extra else [])
        assert (tmp_path / "s").exists() == extra


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=200)
arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3).map(lambda shape: (2, *shape[1:])),
)


@given(content=st.dictionaries(names, arrays, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_and_arrays_come_back(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    with Store.open(tmp_path / "s", {}, fresh=True) as store:
        store.append(rows("a", "b"), content)
    with Store.load(tmp_path / "s") as store:
        assert store.names == list(content)
        for name, array in content.items():
            np.testing.assert_array_equal(store.read(name, 0), array, strict=True)


def test_shards_become_one_file_or_stay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        [StoreRow("a"), StoreRow("bad", status="broken")],
        [StoreRow("lost", status="broken")],
        [StoreRow("b"), StoreRow("c")],
    ]
    arrays = [np.full((1, 2), 1, np.float32), None, np.array([[2, 2], [3, 3]], np.float32)]
    with Store.open(tmp_path / "s", MANIFEST) as store:
        for part, array in zip(parts, arrays, strict=True):
            store.append(part, {} if array is None else {"values": array})
        before = content(store)
        fsync = os.fsync
        for step in range(3):
            left = [step]

            def full(handle: int, left: list[int] = left) -> None:
                if not left[0]:
                    raise OSError(errno.ENOSPC, "No space left on device")
                left[0] -= 1
                fsync(handle)

            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                with pytest.raises(EncoscopeError, match="the disk is full"):
                    store.compact()
            assert content(Store.load(tmp_path / "s")) == before
        store.compact()
        for reader in (store, Store.load(tmp_path / "s")):
            assert reader.rows == [row for part in parts for row in part]
            assert reader.read("values", 0).tolist() == [[1, 1], [2, 2], [3, 3]]
            assert [reader.position(name) for name in ("a", "bad", "c")] == [(0, 0), None, (0, 2)]
        store.append([StoreRow("d")], {"values": np.full((1, 2), 4, np.float32)})
        store.compact()
        assert store.read("values", 0)[:, 0].tolist() == [1, 2, 3, 4]
    names = {file.name for file in (tmp_path / "s").iterdir()}
    assert names == {"manifest.json", "journal.jsonl", "lock", "values-all-6.npy"}


def test_a_store_says_which_of_its_files_are_damaged(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        for shard in range(3):
            store.append(rows(str(shard)), {"x": small(shard, 1)})
        store.save_state("first", {"c": small(1)})
        store.save_state("first", {"c": small(2)})
        store.save_state("second", {"c": small(3)})
        store.finish()
        assert store.verify() == []
        assert set(store.journal.checksums) == {f.name for f in store.path.iterdir()} - {"journal.jsonl", "lock"}
    shard, state, index = (tmp_path / "s" / n for n in ("x-000001.npy", "state-first.npz", "index.parquet"))
    for file in (shard, state):
        data = bytearray(file.read_bytes())
        data[-3] ^= 1  # one bit of a value
        file.write_bytes(data)
    index.unlink()
    store = Store.load(tmp_path / "s")
    assert store.read("x", 1).shape == (1, 4)  # a shard is not read whole to be mapped
    with pytest.raises(EncoscopeError, match=r"state-first.npz is damaged.*--fresh"):
        store.state("first")
    assert sorted(store.verify()) == sorted([shard, state, index])
    (tmp_path / "s" / "manifest.json").write_text((tmp_path / "s" / "manifest.json").read_text().replace("224", "225"))
    with pytest.raises(EncoscopeError, match=r"manifest.json is damaged"):
        Store.load(tmp_path / "s")


def test_merged_shards_and_states_keep_their_checksums(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", MANIFEST) as store:
        store.append(rows("a"), {"x": small(1, 1)})
        store.append(rows("b"), {"x": small(2, 1)})
        store.save_state("c", {"c": small(1)})
        store.finish()
        store.compact()
        assert store.complete and store.verify() == [] and store.state("c") is not None
        assert "x-all-2.npy" in store.journal.checksums and "x-000000.npy" not in store.journal.checksums


def test_a_store_of_another_format_is_started_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "manifest.json").write_text('{"format": "encoscope.store/1", "complete": true, "manifest": {}}')
    np.save(tmp_path / "x-000000.npy", small(1))
    with pytest.raises(MissingError, match=r"written by another version of encoscope .encoscope.store/1, not"):
        Store.load(tmp_path)
    with Store.open(tmp_path, MANIFEST) as store:
        assert len(store) == 0 and not (tmp_path / "x-000000.npy").exists()
    assert "starting over" in caplog.text


# Writes one file again and again; the parent kills it.
FILES = textwrap.dedent(
    """
    import sys
    from encoscope.store import JournaledFolder
    name, count = sys.argv[2], int(sys.argv[3])
    for number in range(count):
        with JournaledFolder(sys.argv[1], {"what": "a test"}).write(name) as temporary:
            temporary.write_text(f"{name} {number}\\n" * 1000)
    """
)


def test_files_that_several_processes_write_stay_whole(tmp_path: Path) -> None:
    def start(name: str, count: int) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", FILES, str(tmp_path / "f"), name, str(count)])

    writers = [start("a.txt", 20), start("a.txt", 20), start("b.txt", 20)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    folder = JournaledFolder(tmp_path / "f")
    assert folder.verify() == [] and set(folder.journal.checksums) == {"a.txt", "b.txt"}
    assert folder.check("a.txt").read_text() == "a.txt 19\n" * 1000
    assert sum("sha256" in entry for entry in folder.journal.entries) == 60
    killed = start("c.txt", 10_000)
    while not (tmp_path / "f" / "c.txt").exists():
        assert killed.poll() is None
    killed.kill()
    killed.wait(60)
    folder = JournaledFolder(tmp_path / "f")
    assert folder.verify() == [] and folder.check("c.txt").is_file()
    folder.delete("c.txt")
    with pytest.raises(MissingError, match=r"no such file: .*c.txt"):
        folder.check("c.txt")
    (tmp_path / "f" / "a.txt").write_text("damage")
    assert JournaledFolder(tmp_path / "f").verify() == [tmp_path / "f" / "a.txt"]


@pytest.mark.parametrize("damage", [b"?", b'{"what": "a test"}\n\n'])
def test_a_damaged_folder_of_the_cache_is_started_over_only_if_it_may_be(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = {"what": "a test"}
    folder = JournaledFolder.keyed("files", manifest, cache_dir=tmp_path)
    assert folder.path == tmp_path / "files" / content_key(manifest) and not folder.path.exists()
    with folder.write("a.txt") as temporary:
        temporary.write_text("text")
    assert folder.find("a.txt") == folder.path / "a.txt" and folder.find("b.txt") is None
    (folder.path / "a.txt").write_text("other")
    assert folder.find("a.txt") is None and "damaged: computing it again" in caplog.text
    folder.journal.path.write_bytes(damage + b"\n" + folder.journal.path.read_bytes())
    with pytest.raises(EncoscopeError, match=r"line 1 of .* is damaged: start over with --fresh"):
        JournaledFolder.keyed("files", manifest, cache_dir=tmp_path)
    assert JournaledFolder.keyed("files", manifest, cache_dir=tmp_path, restart=True).find("a.txt") is None
    assert "is damaged: starting over" in caplog.text
    assert JournaledFolder.keyed("files", manifest, cache_dir=tmp_path).journal.entries == []


def test_keyed_stores_are_where_the_user_wants_them(tmp_path: Path) -> None:
    assert Store.load_keyed("maps", MANIFEST, tmp_path) is None
    with Store.keyed("maps", MANIFEST, cache_dir=tmp_path) as store:
        store.append([StoreRow("a")], {"x": np.zeros(1)})
        with pytest.raises(EncoscopeError, match="is being written by another process"):
            Store.keyed("maps", MANIFEST, cache_dir=tmp_path, restart=True)
    assert store.path == tmp_path / "maps" / content_key(MANIFEST)
    loaded = Store.load_keyed("maps", MANIFEST, tmp_path)
    assert loaded is not None and len(loaded) == 1
    (store.path / "journal.jsonl").write_bytes(b"?\n\n")
    with pytest.raises(EncoscopeError, match="damaged"):
        Store.keyed("maps", MANIFEST, cache_dir=tmp_path)
    with Store.keyed("maps", MANIFEST, cache_dir=tmp_path, restart=True) as store:
        assert len(store) == 0


@pytest.mark.parametrize("failing", [0, 1])
def test_files_that_are_written_together_count_together_or_not_at_all(tmp_path: Path, failing: int) -> None:
    names = ["a/1.txt", "b/2.txt"]
    folder = JournaledFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), folder.write_together(names, {"n": 1}) as temporaries:
        for number, temporary in enumerate(temporaries):
            temporary.write_text(str(1 / (number - failing)))
    assert folder.journal.entries == [] and [file for file in tmp_path.rglob("*") if file.is_file()] == []
    with folder.write_together(names, {"n": 1}) as temporaries:
        for temporary in temporaries:
            temporary.write_text(temporary.suffix)
    assert folder.verify() == [] and set(folder.journal.checksums) == set(names)
    assert [entry["n"] for entry in folder.journal.entries] == [1]
