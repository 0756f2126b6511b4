"""Probing: one pass equals the images one by one; killed, moved, damaged or brought in, it says the same."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoscope import Encoder
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import SkippedImage, list_images
from encoscope.probing import Moments, Probe, TopK, from_array, hash_files, load, probe, probe_pass, run
from encoscope.probing.probe_pass import ProbePass, make_reader, run_shard
from encoscope.store import Store
from encoscope.store.passes import Shard, merge_partials
from oracles import probe as oracle
from support.probed_network import MEAN, STD, make_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 photos in two labelled folders, three of them no images, two the same."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(24):
        place = root / ("cat" if number % 3 else "cup")
        place.mkdir(exist_ok=True)
        shape = (40 + number, 64 - number, 3)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(shape[1::-1], Image.Resampling.BICUBIC).save(place / f"{number:02d}.png")
    (root / "cat" / "03-broken.jpg").write_bytes(b"no image")
    (root / "cat" / "11-empty.png").write_bytes(b"")
    shutil.copy(root / "cat" / "04.png", root / "cup" / "99-again.png")
    return root


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pass, "BLOCK", 6)


def literal(encoder: Encoder, files: list[str | None], layer: str) -> np.ndarray:
    rows = []
    modules = dict(encoder.module.named_modules())
    for file in files:
        assert file is not None
        kept: list[torch.Tensor] = []
        target = {"features": "2", "logits": "3"}.get(layer, layer)
        handle = modules[target].register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output.clone()))
        with torch.no_grad():
            encoder.module.eval()(oracle.pixels(Path(file), 32, MEAN, STD))
        handle.remove()
        output = kept[0][0]
        rows.append((output.mean((1, 2)) if output.ndim == 3 else output).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("layer", ["features", "0.3", "logits"])
def test_a_pass_equals_the_images_one_by_one(encoder, folder, small_shards, layer) -> None:
    found = probe(encoder, folder, layer, batch_size=4)
    assert len(found) == 25
    np.testing.assert_allclose(found.values, literal(encoder, list(found.paths), layer), atol=1e-5)
    assert list(found.ids) == [oracle.file_id(Path(path or "")) for path in found.paths]
    assert [Path(path or "").parent.name for path in found.paths] == list(found.labels)
    assert isinstance(found.values, np.memmap)  # one file, whatever the number of shards
    means, deviations = oracle.moments(found.values)
    np.testing.assert_allclose(found.mean, means, rtol=1e-15)
    np.testing.assert_allclose(found.std, deviations, rtol=1e-14, atol=1e-300)
    for channel in range(found.values.shape[1]):
        assert found.find_top(channel, 7).tolist() == oracle.top(found.values, list(found.ids), channel, 7)
    lengths = np.linalg.norm(found.normalize(), axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)


def test_what_cannot_be_read_is_listed_and_marked(encoder, folder) -> None:
    found = probe(encoder, folder)
    assert [Path(item.path).name for item in found.skipped] == ["03-broken.jpg", "11-empty.png"]
    assert all(isinstance(item, SkippedImage) and item.path in item.reason for item in found.skipped)
    assert found.path is not None
    from pyarrow import parquet

    table = parquet.read_table(found.path / "index.parquet").to_pydict()
    marked = [Path(path).name for path, status in zip(table["path"], table["status"], strict=True) if status != "done"]
    assert marked == ["03-broken.jpg", "11-empty.png"]
    with pytest.raises(EncoscopeError, match=r"the top 30 takes 30 images, and the probe has 25 \(2 could not be read"):
        found.find_top(0, 30)


def test_the_batch_changes_nothing(encoder, folder) -> None:
    whole, single = probe(encoder, folder, batch_size=64), probe(encoder, folder, batch_size=1, fresh=True)
    np.testing.assert_allclose(whole.values, single.values, atol=1e-5)
    assert whole.ids == single.ids


def test_it_is_found_again_where_the_files_have_moved_and_not_for_other_questions(
    encoder, folder, tmp_path, monkeypatch
) -> None:
    first = probe(encoder, folder)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    monkeypatch.setattr(ProbePass, "compute_blocks", None)  # nothing is run again
    again = probe(encoder, moved)
    assert again.path == first.path
    assert np.array_equal(again.values, first.values)
    assert all((path or "").startswith(str(moved)) for path in again.paths)
    assert load(first.path).ids == first.ids
    assert probe(encoder, first.path).ids == probe(encoder, first).ids == first.ids
    monkeypatch.undo()
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    (moved / "cup" / "00.png").unlink()
    folders = {probe(encoder, moved).path, probe(encoder, folder, "0.3").path, probe(make_encoder(1), folder).path}
    assert len(folders | {first.path}) == 4


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from support import probed_network
    from encoscope.probing import probe_pass, run
    from encoscope.store import Store
    probe_pass.BLOCK = 6
    appended = 0
    append, finish = Store.append, Store.finish
    def counted(self, *arguments):
        global appended
        if appended == {limit}:
            os.kill(os.getpid(), signal.SIGKILL)
        appended += 1
        return append(self, *arguments)
    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)
    Store.append, Store.finish = counted, killed
    run.probe(probed_network.make_encoder(), {folder!r}, batch_size=3)
    """
)


@pytest.mark.parametrize("limit", [2, 99])  # in the middle, and when all is stored but nothing is finished
def test_killed_and_run_again_it_gives_the_same(encoder, folder, cache, tmp_path, monkeypatch, limit) -> None:
    script = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(folder), limit=limit)
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == -9
    monkeypatch.setattr(probe_pass, "BLOCK", 6)
    seen: list[int] = []
    handle = encoder.module.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    encoder.trial()
    seen.clear()
    resumed = probe(encoder, folder, batch_size=3)
    handle.remove()
    straight = probe(encoder, folder, batch_size=3, cache_dir=tmp_path / "other")
    assert resumed.values.tobytes() == straight.values.tobytes()
    assert sum(seen) == (25 - 10 if limit == 2 else 0)  # two of the first 12 files are no images
    assert (resumed.ids, resumed.skipped) == (straight.ids, straight.skipped)
    assert resumed.mean.tobytes() == straight.mean.tobytes()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_of_several_processes_give_the_probe_of_one(
    encoder, folder, tmp_path, monkeypatch, small_shards, count
) -> None:
    whole = probe(encoder, folder, batch_size=3)
    files = list_images(folder)
    reading = ProbePass(encoder, "features", 3, files, hash_files(files.paths))
    manifest = run._describe_store(encoder, "features", reading.ids)
    append, left = Store.append, [1]

    def stopped(self, *arguments):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return append(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # after the first block of the first shard
        patch.setattr(Store, "append", stopped)
        for index in range(2):
            run_shard(reading, manifest, Shard(index, count), cache_dir=tmp_path / "shards").store.close()
    shards = [
        run_shard(reading, manifest, Shard(index, count), cache_dir=tmp_path / "shards") for index in range(count)
    ]
    assert sum(len(shard.store) for shard in shards) == 27
    with Store.keyed("probe", manifest, cache_dir=tmp_path / "merged") as store:
        first = shards[0].store  # whose first block a killed process had copied
        store.append(first.blocks[0].rows, {"values": first.read("values", 0)})
        run._finish(merge_partials(reversed(shards)).finalize(store, len(files)), files)
    merged = load(store.path)
    assert store.verify() == [] and whole.path is not None
    for name in ("values-all-27.npy", "state-moments.npz", "state-top.npz", "index.parquet"):
        assert (store.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert (merged.ids, merged.paths, merged.labels) == (whole.ids, whole.paths, whole.labels)
    assert merged.skipped == whole.skipped
    with pytest.raises(EncoscopeError, match="items from number 6 of 27 on are missing"):
        shards[0].finalize(Store.load(store.path), 27)


def test_a_full_disk_is_said_in_one_line_and_the_pass_goes_on(encoder, folder, tmp_path, monkeypatch) -> None:
    from encoscope.store import Store

    monkeypatch.setattr(probe_pass, "BLOCK", 6)
    append, count = Store.append, [0]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:

        def third(self, *arguments):
            count[0] += 1
            if count[0] == 3:
                patch.setattr(os, "fsync", full)
            return append(self, *arguments)

        patch.setattr(Store, "append", third)
        with pytest.raises(EncoscopeError, match="the disk is full; what was stored before is safe"):
            probe(encoder, folder, batch_size=3)
    done: list[int] = []
    resumed = probe(encoder, folder, batch_size=3, progress=lambda number, total: done.append(number))
    assert 12 in done
    assert (
        resumed.values.tobytes() == probe(encoder, folder, batch_size=3, cache_dir=tmp_path / "other").values.tobytes()
    )


def test_wrong_questions(encoder, folder, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"unknown layer '0\.33'"):
        probe(encoder, folder, "0.33")
    with pytest.raises(UsageError, match="no class token"):
        probe(encoder, folder, "0.3@cls")
    found = probe(encoder, folder)
    with pytest.raises(UsageError, match=r"this probe is of layer 'features', not '0.3': .*--layer 0.3"):
        probe(encoder, found, "0.3")
    with pytest.raises(UsageError, match="made with another model"):
        probe(make_encoder(1), found.path)
    with pytest.raises(UsageError, match="there is no channel 8"):
        found.find_top(8, 1)
    with pytest.raises(MissingError, match="no such file or folder"):
        probe(encoder, tmp_path / "nowhere")
    with pytest.raises(EncoscopeError, match="none of 2 images could be read; the first: cannot read"):
        probe(encoder, [folder / "cat" / "03-broken.jpg", tmp_path / "nothing.png"])
    with pytest.raises(MissingError, match="the dataset has no files"):
        probe(encoder, [])


def test_a_network_that_only_gives_nan_is_refused(folder) -> None:
    broken = make_encoder()
    with torch.no_grad():
        broken.module[3].bias.fill_(float("nan"))  # type: ignore[index]
    with pytest.raises(EncoscopeError, match="python gives NaN as logits"):
        probe(broken, folder, "logits")


def test_values_that_are_no_numbers_name_the_image(folder, monkeypatch) -> None:
    """An image on which a network that gives numbers otherwise fails, by its name."""
    encoder = make_encoder()
    encoder.trial()
    logits = encoder.logits

    def fail(images: Any) -> Any:
        if bool((images - target).flatten(1).abs().amax(1).min() < 1e-6):
            raise EncoscopeError("gives NaN as logits")
        return logits(images)

    target = encoder.prepare(folder / "cup" / "09.png").pixels
    monkeypatch.setattr(encoder, "logits", fail)
    with pytest.raises(EncoscopeError, match=r"cup/09\.png: gives NaN as logits"):
        probe(encoder, folder, "logits")


def test_a_transformers_class_token() -> None:
    import encoscope

    vit = encoscope.load("timm:vit_tiny_patch16_224@untrained")
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = make_reader(vit, "blocks.2@cls")(pixels)
    prefix = vit.activations(pixels, "blocks.2")["blocks.2"].prefix
    assert prefix is not None
    assert torch.equal(found, prefix[:, 0])
    with pytest.raises(UsageError, match="has no token 'register'"):
        make_reader(vit, "blocks.2@register")


def test_features_that_were_brought_in_are_found_by_their_own_folder(encoder, folder, tmp_path, monkeypatch) -> None:
    values = np.random.default_rng(0).normal(size=(27, 8)).astype(np.float32)
    np.save(tmp_path / "own.npy", values)
    given = from_array(encoder, folder, tmp_path / "own.npy")
    monkeypatch.setattr(ProbePass, "compute_blocks", None)
    found = probe(encoder, given.path)
    assert np.array_equal(found.values, values)
    with pytest.raises(TypeError):  # of the same images the network's own values are computed
        probe(encoder, folder)
    assert found.path == given.path
    with pytest.raises(UsageError, match="there already"):
        from_array(encoder, folder, values)
    with pytest.raises(UsageError, match=r"shape \(27, 8\) for 27 images and 6 channels of '0.0'"):
        from_array(encoder, folder, values, "0.0")
    values[3, 2] = np.inf
    with pytest.raises(UsageError, match="row 3 of the values holds NaN"):
        from_array(encoder, folder, values, fresh=True)
    with pytest.raises(UsageError, match=r"is no \.npy file"):
        from_array(encoder, folder, folder / "cat" / "01.png", fresh=True)


def test_arrays_in_memory(folder) -> None:
    values = np.array([[1, 5], [3, 5], [2, 5]], np.float32)
    found = Probe.from_arrays(values, ids=["c", "a", "b"], layer="layer4")
    assert found.find_top(0, 3).tolist() == [1, 2, 0]
    assert found.find_top(1, 3).tolist() == [1, 2, 0]  # ties by id
    np.testing.assert_allclose(found.mean, [2, 5])
    files = sorted((folder / "cup").iterdir())[:3]
    assert Probe.from_arrays(values, paths=files).ids == tuple(hash_files(files))
    with pytest.raises(UsageError, match="2 ids for 3 rows"):
        Probe.from_arrays(values, ids=["a", "b"])


def test_ids_are_kept_until_a_file_changes(tmp_path, monkeypatch) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files[:2]:
        file.write_bytes(file.name.encode())
    first = hash_files(files)
    assert first == [oracle.file_id(files[0]), oracle.file_id(files[1]), "unreadable"]
    read: list[str] = []
    from encoscope.probing import ids as module

    hashed = module._file_id
    monkeypatch.setattr(module, "_file_id", lambda path: read.append(path.name) or hashed(path))
    assert hash_files(files) == first
    assert read == ["c"]
    files[1].write_bytes(b"longer")
    assert hash_files(files)[1] == oracle.file_id(files[1])
    assert sorted(read) == ["b", "c", "c"]


numbers = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_moments_in_any_order_and_batches(rows, random) -> None:
    values = np.array(rows, np.float32)
    means, deviations = oracle.moments(values)
    for _ in range(2):
        order = list(range(len(values)))
        random.shuffle(order)
        parts = [Moments(2), Moments(2)]
        while order:
            size = random.randint(1, 7)
            parts[random.randint(0, 1)].partial_fit(values[order[:size]])
            order = order[size:]
        mean, std = parts[0].merge(parts[1]).finalize()
        np.testing.assert_allclose(mean, means, rtol=5e-16, atol=1e-300)
        np.testing.assert_allclose(std, deviations, rtol=1e-12, atol=1e-12)


def test_a_small_deviation_beside_a_large_mean() -> None:
    values = (1e6 + np.arange(1000) % 2 * 0.0625).astype(np.float32)[:, None]
    _, std = Moments(1).partial_fit(values).finalize()
    assert std[0] == 0.03125


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_top_in_any_order_and_batches(rows, k, random) -> None:
    values = np.array(rows, np.float32)
    ids = [f"{random.getrandbits(40):010x}" for _ in rows]
    images = np.array([sorted(ids).index(text) for text in ids])
    order = list(range(len(values)))
    random.shuffle(order)
    parts = [TopK(k, 3), TopK(k, 3)]
    while order:
        size = random.randint(1, 7)
        parts[random.randint(0, 1)].partial_fit(values[order[:size]], images[order[:size]])
        order = order[size:]
    best, who = parts[0].merge(parts[1]).finalize()
    for channel in range(3):
        expected = oracle.top(values, ids, channel, k)
        assert who[:, channel].tolist() == [images[row] for row in expected]
        assert best[:, channel].tolist() == [values[row, channel] for row in expected]
