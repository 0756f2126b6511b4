"""The index: exact scores, measured recall, refused where it does not fit."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon.captions.faiss_index import build_index, find_likely_captions, measure_recall
from encoscope.falcon.captions.search import find_top_captions
from encoscope.falcon.captions.store import CaptionStore

pytest.importorskip("faiss")


def make(folder: Path, rows: int = 12_000, width: int = 16, seed: int = 0, digest: str = "0") -> CaptionStore:
    """Two shards of vectors in clusters, as captions are."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, width))
    values = centres[rng.integers(0, 50, rows)] + 0.6 * rng.standard_normal((rows, width))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    shards = []
    for number, part in enumerate((values[: rows // 3], values[rows // 3 :])):
        np.save(folder / f"{number}.npy", part)
        shards.append({"embeddings": f"{number}.npy", "captions": "-", "column": "caption", "rows": len(part)})
    manifest = {"width": width, "normalised": True, "vlm": {"source": "-", "digest": "-"}, "hash": digest}
    return CaptionStore(folder, {**manifest, "shards": shards})


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> CaptionStore:
    store = make(tmp_path_factory.mktemp("index") / "store")
    build_index(store, lists=40)
    return store


def test_it_finds_most_of_the_best_with_exact_scores(indexed) -> None:
    queries = np.random.default_rng(7).standard_normal((90, 16)).astype(np.float32)
    scores, indices = find_likely_captions(queries, indexed)
    exact = find_top_captions(queries, indexed)
    share = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(indices.tolist(), exact[1].tolist(), strict=True)])
    assert share == pytest.approx(measure_recall(queries, indexed)) and share > 0.9
    same = indices == exact[1]
    assert np.allclose(scores[same], exact[0][same], atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert measure_recall(queries, indexed, probes=1, candidates=5) < share
    assert measure_recall(queries, indexed, probes=40, candidates=12_000) == 1.0  # everything is a candidate


def test_few_candidates_leave_gaps(indexed) -> None:
    scores, indices = find_likely_captions(np.eye(1, 16, dtype=np.float32), indexed, 3000, probes=1, candidates=3000)
    held = indices[0] >= 0
    assert 0 < held.sum() < 3000 and np.isfinite(scores[0][held]).all() and (scores[0][~held] == -np.inf).all()
    with pytest.raises(UsageError, match="best 5 of 3 candidates"):
        find_likely_captions(np.eye(1, 16, dtype=np.float32), indexed, candidates=3)


def test_the_index_says_what_it_is_and_is_kept(indexed, tmp_path) -> None:
    about = json.loads((indexed.path / "index.json").read_text())
    assert about["lists"] == 40 and about["codes"] == 8 and 0.9 < about["recall"] <= 1
    before = (indexed.path / "index.faiss").stat().st_mtime_ns
    assert build_index(indexed).recall == about["recall"]
    assert (indexed.path / "index.faiss").stat().st_mtime_ns == before
    again = make(tmp_path / "again")
    assert build_index(again, lists=40).recall == about["recall"]
    assert (again.path / "index.faiss").read_bytes() == (indexed.path / "index.faiss").read_bytes()


def test_an_index_of_other_captions_and_small_stores_are_refused(indexed, tmp_path, monkeypatch) -> None:
    query = np.eye(1, 16, dtype=np.float32)
    other = CaptionStore(indexed.path, {**indexed.manifest, "hash": "1"})
    with pytest.raises(MissingError, match="no index that fits them"):
        find_likely_captions(query, other)
    with pytest.raises(UsageError, match="300 captions need no index"):
        build_index(make(tmp_path / "small", 300))
    copy = make(tmp_path / "copy")
    build_index(copy)
    (copy.path / "index.faiss").write_bytes(b"nothing")
    with pytest.raises(EncoscopeError, match="is damaged"):
        find_likely_captions(query, copy)
    importing = builtins.__import__

    def without(name, *rest, **more):
        if name == "faiss":
            raise ImportError(name)
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match=r"pip install 'encoscope\[faiss\]'"):
        find_likely_captions(query, indexed)
