"""Pipes, sockets, devices and folders are refused wherever a file is read, and nothing waits for them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encoscope import results
from encoscope.analysis.watermarks import make_watermark
from encoscope.encoder.weights_file import read_weights_file
from encoscope.errors import EncoscopeError
from encoscope.falcon.captions.readers import read_captions
from encoscope.images import SkippedImage, read_columns, read_image, read_images
from encoscope.images.coco import read_coco
from encoscope.images.sets import read_image_size
from encoscope.images.voc import parse_annotation
from encoscope.probing import hash_files
from encoscope.probing.ids import UNREADABLE
from encoscope.probing.run import _map_array
from encoscope.units.text import _read_direction


@pytest.fixture(params=["pipe", "socket", "device", "folder", "link to a pipe"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Iterator[Callable[[str], Path]]:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    opened = []

    def make(name: str) -> Path:
        path = Path(name)
        if request.param == "socket":
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].bind(name)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        elif request.param == "folder":
            path.mkdir()
        elif request.param == "pipe":
            os.mkfifo(path)
        else:
            os.mkfifo("pipe")
            path.symlink_to("pipe")
        return path

    yield make
    for item in opened:
        item.close()


def run_or_hang(read: Callable[[], object]) -> BaseException | None:
    """The error of a call that must not take longer than a few seconds."""
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            read()
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it waits"
    return raised[0]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.png", read_image),
        ("x.tif", read_image_size),
        ("x.png", lambda path: make_watermark(path, 16)),
        ("x.csv", lambda path: read_columns(path, [Path("a.png")])),
        ("x.npy", lambda path: _read_direction(str(path), 3, "channels")),
        ("x.npy", _map_array),
        ("x.safetensors", read_weights_file),
        ("x.pt", read_weights_file),
        ("x.txt", lambda path: list(read_captions(path))),
        ("x.csv", lambda path: list(read_captions(path))),
        ("x.parquet", lambda path: list(read_captions(path))),
        ("x.json", lambda path: results.read(path, "segmentation")),
        ("x.json", lambda path: read_coco(".", path)),
        ("x.xml", parse_annotation),
    ],
)
def test_reading_is_refused_in_one_line(special, name: str, read: Callable[[Path], object]) -> None:
    path = special(name)
    error = run_or_hang(lambda: read(path))
    assert isinstance(error, EncoscopeError), error
    assert any(f"it is a {kind}" in str(error) for kind in ("pipe", "socket", "device", "folder"))
    assert name in str(error) and "\n" not in str(error)


def test_among_other_images_they_are_skipped(special) -> None:
    path = special("x.png")
    assert run_or_hang(lambda: hash_files([path])) is None
    assert hash_files([path]) == [UNREADABLE]
    if not path.is_dir():
        (item,) = read_images([path])
        assert isinstance(item, SkippedImage) and "not an image" in item.reason
