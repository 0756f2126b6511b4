"""Threads of one process that need the same store take turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope import Nave
from encoscope.errors import EncoscopeError
from encoscope.probing import probe
from encoscope.store import Store, StoreRow
from encoscope.store.files import FolderLockedError
from support.probed_network import make_encoder


def test_threads_write_to_one_store_in_turn(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with Store.open(tmp_path / "store", {"kind": "test"}) as store:
            store.append([StoreRow(str(number))], {"values": np.array([number])})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(12)))
    assert sorted(int(row.id) for row in Store.load(tmp_path / "store").rows) == list(range(12))


def test_a_store_that_is_removed_in_turn(tmp_path: Path) -> None:
    def write(number: int) -> int:
        with Store.open(tmp_path / "store", {"kind": "test"}) as store:
            store.append([StoreRow(str(number))], {"values": np.array([number])})
            store.remove()
        return len(store)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(12))) == [1] * 12


def test_a_thread_does_not_wait_for_itself_or_for_one_that_ended(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", {}), pytest.raises(FolderLockedError):
        Store.open(tmp_path / "store", {})
    left: list[Store] = []
    thread = threading.Thread(target=lambda: left.append(Store.open(tmp_path / "other", {})))
    thread.start()
    thread.join()
    with pytest.raises(EncoscopeError, match="being written by another"):
        Store.open(tmp_path / "other", {})
    left[0].close()


def test_probes_and_fits_in_threads_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(path)
    files = sorted((tmp_path / "images").iterdir())
    encoder = make_encoder()

    def work(number: int) -> tuple[bytes, bytes]:
        values = np.array(probe(encoder, tmp_path / "images", batch_size=2, progress=False).values)
        fit = Nave(encoder, n_clusters=3, feature_cache="fp32", progress=False).fit(files[number % 3 : 5])
        return values.tobytes(), fit.centroids_.tobytes()

    alone = [work(number) for number in range(3)]
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "another"))
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(work, range(6)))
    assert together == alone * 2
