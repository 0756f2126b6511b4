"""Auditing: what a mark does to an encoder, what goes with metadata, and both commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.feature_selection import f_classif

from encoscope.analysis import audit_store
from encoscope.analysis.associations import compute_eta_squared, rank_associations
from encoscope.analysis.audit import audit
from encoscope.analysis.audit_store import AuditStore, run_blocks
from encoscope.analysis.cue_response import _observe_block, compute_consistency, measure_response
from encoscope.analysis.marked_images import MarkedImages
from encoscope.cli.app import run
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, datasets, read_image
from encoscope.images.sets import LabelledImages
from encoscope.store import Store
from encoscope.store.passes import Shard, merge_partials
from support.black_finder import make_finder


@pytest.fixture(scope="module")
def finder() -> Encoder:
    return make_finder()


@pytest.fixture(scope="module")
def bright() -> list[LoadedImage]:
    rng = np.random.default_rng(0)
    return [read_image(rng.integers(90, 250, (32, 32, 3), dtype=np.uint8)) for _ in range(12)]


def test_a_network_that_looks_for_the_mark_is_found(finder: Encoder, bright: list[LoadedImage]) -> None:
    box = measure_response(finder, bright, "box", share=0.25, n_clusters=3, progress=False)
    disc = measure_response(finder, bright, "disc", share=0.25, n_clusters=3, progress=False)
    assert box.toward is not None and box.toward[0] == "marked"
    assert box.answers is not None and box.answers_control is not None
    assert box.answers.value == 1.0 and box.answers_control.value == 0.0
    assert box.consistency_excess.low > 0.3
    assert box.follows.value > 0.25 and box.follows_control.value < 0.05
    assert disc.follows.value < box.follows.value
    with pytest.raises(UsageError, match="at least 4"):
        measure_response(finder, bright[:3], "box")
    with pytest.raises(UsageError, match="between 0 and 1"):
        measure_response(finder, bright, "box", share=1.5)


def test_consistency_is_the_mean_cosine_of_pairs() -> None:
    changes = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    changes[3] = 0
    units = torch.nn.functional.normalize(changes.double(), dim=1)
    cosines = units @ units.T
    expected = (cosines.sum(1) - cosines.diagonal()) / 6
    np.testing.assert_allclose(compute_consistency(changes), expected.numpy(), atol=1e-12)


def test_eta_squared_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    values, codes = rng.normal(size=(30, 4)), np.arange(30) % 3
    values[:, 1] += codes
    values[:, 3] = 2.0
    eta, p = compute_eta_squared(values, codes, 200, 0)
    f = f_classif(values[:, :3], codes)[0]
    np.testing.assert_allclose(eta[:3], f * 2 / (f * 2 + 27), atol=1e-12)
    assert eta[3] == 0 and p[3] == 1
    assert p[1] == pytest.approx(1 / 201)
    assert p[[0, 2]].min() > 0.05


def test_false_alarms_are_as_rare_as_p_says() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, p = compute_eta_squared(rng.normal(size=(20, 30)), np.arange(20) % 2, 60, seed)
        alarms += bool(p.min() <= 0.1)
    assert alarms <= 15  # 6 expected; without the correction nearly all 60


def test_what_goes_with_the_source_is_ranked_first(finder: Encoder, bright: list[LoadedImage]) -> None:
    dark = [read_image((np.asarray(photo.pixels) // 8).astype(np.uint8)) for photo in bright[:6]]
    ranked, nave, _ = rank_associations(
        finder, [*dark, *bright[6:]], ["a"] * 6 + ["b"] * 6, n_clusters=2, permutations=100
    )
    assert ranked[0].p < 0.05 and ranked[0].eta_squared > 0.9
    black = next(item for item in ranked if item.kind == "feature" and item.index == 0)
    assert black.highest == "a" and black.p < 0.05
    assert {item.kind for item in ranked} == {"cluster", "feature"} and len(ranked) == 2 + 6
    assert nave.n_clusters == 2
    with pytest.raises(UsageError, match="two different labels"):
        rank_associations(finder, bright, ["a"] * 12)


def test_the_function_takes_a_network_and_gives_what_the_command_writes(folder: Path, tmp_path: Path) -> None:
    result = audit("zoo:resnet-caltech101", folder, watermark="letter", n_clusters=3, limit=8, progress=False)
    assert result.response is not None and result.response.images == 8 and not result.columns
    assert "watermark (letter)" in str(result) and result.plot().axes
    document = json.loads((result.save(tmp_path / "out") / "result.json").read_text())
    assert document["settings"]["images"] == 8 and document["results"][0]["watermark"] == "letter"
    labelled = audit("zoo:resnet-caltech101", list(folder.rglob("*.png")), n_clusters=3, permutations=20)
    assert [column.name for column in labelled.columns] == ["folder"] and labelled.to_dict()["results"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / "images" / ("left" if number < 5 else "right") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        pixels[:, :32] //= 1 if number < 5 else 8
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def test_the_command_with_a_mark(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "zoo:resnet-caltech101", "--images", str(folder), "--out", str(tmp_path / "out")]
    assert run([*words, "--watermark", "letter", "--clusters", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["results"]
    assert document["format"] == "encoscope.audit/1" and entry["images"] == 10
    assert 0 <= entry["follows"]["value"] <= 1 and entry["consistency_control"]["level"] == 0.95
    assert (tmp_path / "out" / "sheet.png").is_file()
    assert run([*words, "--watermark", "leter"]) == 3
    assert run([*words, "--watermark", "box", "--labels", "x.csv"]) == 2
    assert run([*words, "--limit", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_the_command_with_folders_or_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "zoo:resnet-caltech101", "--images", str(folder), "--out", str(tmp_path / "out")]
    assert run([*words, "--clusters", "3", "--permutations", "20"]) == 0
    assert "folder: 10 images, 2 values" in capsys.readouterr().out
    table = tmp_path / "meta.csv"
    table.write_text("image,site,same\n" + "".join(f"{n},{'ab'[n % 2]},x\n" for n in range(10)))
    assert run([*words, "--labels", str(table), "--clusters", "3", "--permutations", "20", "--json"]) == 0
    shown = capsys.readouterr()
    assert "column 'same' has fewer than two values" in shown.err
    assert {row["column"] for row in json.loads(shown.out)["results"]} == {"site"}
    assert run(["audit", "zoo:resnet-caltech101", "--images", str(folder / "left")]) == 2
    assert "give labels, a CSV file, or a watermark" in capsys.readouterr().err


def test_a_dataset_s_own_labels_are_taken(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = tmp_path / "flat"  # no folder tells these images' labels
    flat.mkdir()
    for file in folder.rglob("*.png"):
        file.rename(flat / file.name)
    files = sorted(flat.iterdir())
    named = LabelledImages(tuple(files), (*[0] * 3, *[1] * 7), ("cats", "dogs"))
    monkeypatch.setitem(datasets._READERS, "stl10", lambda root, split="train": named)
    words = ["audit", "zoo:resnet-caltech101", "--images", f"stl10:{flat}", "--out", str(tmp_path / "out")]
    assert run([*words, "--clusters", "3", "--permutations", "20", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["results"]
    assert {entry["column"] for entry in entries} == {"label"}
    assert {entry["highest"] for entry in entries} <= {"cats", "dogs"}
    assert run(["audit", "zoo:resnet-caltech101", "--images", str(flat)]) == 2


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from support.black_finder import make_finder
    from encoscope import audit
    from encoscope.analysis import audit_store
    from encoscope.store import Store
    audit_store.BLOCK = 3
    append, count = Store.append, [0]
    def counted(self, *arguments):
        count[0] += 1
        if count[0] > {limit}:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(self, *arguments)
    Store.append = counted
    audit(make_finder(), {folder!r}, n_clusters=3, {options})
    """
)


@pytest.mark.parametrize(("options", "limit", "left"), [({"watermark": "disc"}, 6, 2), ({"permutations": 20}, 2, 2)])
def test_killed_and_run_again_it_says_the_same(
    finder: Encoder,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict,
    limit: int,
    left: int,
) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    script = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(folder), limit=limit, options=words)
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == -9
    monkeypatch.setattr(audit_store, "BLOCK", 3)
    appended: list[int] = []
    append = Store.append
    monkeypatch.setattr(Store, "append", lambda self, *given: appended.append(1) or append(self, *given))
    resumed = audit(finder, folder, n_clusters=3, **options)
    assert len(appended) == left
    assert not list((tmp_path / "cache").rglob("journal.jsonl"))  # nothing is left when it is done
    straight = audit(finder, folder, n_clusters=3, **options)
    assert resumed.to_dict()["results"] == straight.to_dict()["results"]
    assert resumed.sheet.tobytes() == straight.sheet.tobytes()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_measure_what_one_process_does(
    finder: Encoder, bright: list[LoadedImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(audit_store, "BLOCK", 3)
    marked = MarkedImages(bright, "letter", 0.25, 0)

    def observe(block: range) -> dict[str, np.ndarray]:
        return _observe_block(finder, marked, block)

    with AuditStore() as kept:
        whole = kept.measure({}, bright, observe, "features", progress=False)
        shards = []
        for index in range(count):
            blocks = AuditStore(finder, cache_dir=tmp_path).open({}, bright, Shard(index, count))
            shards.append(run_blocks(blocks, bright, observe, Shard(index, count), label="features", progress=False))
        with Store.open(tmp_path / "merged", {}) as store:
            merged = merge_partials(reversed(shards)).finalize(store, len(bright))
        for name, values in whole.items():
            both = np.concatenate([merged.read(name, number) for number in merged.shards])
            np.testing.assert_array_equal(both, values, strict=True)


def test_an_audit_works_where_nothing_can_be_cached(
    finder: Encoder,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "file"))
    result = audit(finder, folder, n_clusters=3, permutations=20)
    assert result.columns and "cannot be resumed" in caplog.text
