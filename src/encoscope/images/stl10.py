"""STL-10 from its binary files: 96 x 96 photos of ten classes, unpacked once into the cache."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from encoscope.cache import get_cache_dir
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError, suggest_nearest
from encoscope.images.sets import LabelledImages

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDER = "stl10_binary"
SPLITS = {
    "train": ("train_X.bin", "train_y.bin"),
    "test": ("test_X.bin", "test_y.bin"),
    "unlabeled": ("unlabeled_X.bin", None),
}
SIDE = 96
_BYTES = 3 * SIDE * SIDE


def read_stl10(root: str | Path, split: str = "train") -> LabelledImages:
    """The photos of a split of STL-10 as PNG files in the cache (``ENCOSCOPE_CACHE``), unpacked when first asked for.

    root: the folder that holds ``stl10_binary``, or that one. split: "train" (5,000 photos), "test" (8,000), or
    "unlabeled" (100,000, without labels).

    Raises:
        UsageError: unknown split. MissingError: a binary file is not there. ImageError: it is only a part of one.
    """
    if split not in SPLITS:
        raise UsageError(
            f"STL-10 has no split {split!r}{suggest_nearest(split, SPLITS)}; use one of {', '.join(SPLITS)}"
        )
    root = Path(root)
    home = next((place for place in (root, root / FOLDER) if (place / SPLITS[split][0]).is_file()), None)
    if home is None:
        raise MissingError(
            f"no STL-10 at {root}: looked for {SPLITS[split][0]} there and in {root / FOLDER}; unpack "
            "stl10_binary.tar.gz of https://cs.stanford.edu/~acoates/stl10 there"
        )
    pixels, labels = (name and home / name for name in SPLITS[split])
    assert pixels is not None
    size = pixels.stat().st_size
    if not size or size % _BYTES:
        raise ImageError(f"{pixels} is only a part of the file: its {size:,} bytes are no whole number of images")
    numbers = () if labels is None else _labels(labels, size // _BYTES)
    folder = _unpacked(pixels, size // _BYTES)
    paths = tuple(folder / f"{place:06d}.png" for place in range(size // _BYTES))
    return LabelledImages(paths, numbers, CLASSES if numbers else ())


def _labels(file: Path, count: int) -> tuple[int, ...]:
    if not file.is_file():
        raise MissingError(f"the labels of STL-10 are not there: {file}; unpack stl10_binary.tar.gz again")
    labels = np.fromfile(file, dtype=np.uint8).astype(np.int64) - 1  # the file counts classes from 1
    if len(labels) != count or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ImageError(
            f"{file} does not go with its images: {len(labels):,} labels for {count:,} images, from 1 to 10"
        )
    return tuple(labels.tolist())


def _unpacked(source: Path, count: int) -> Path:
    """The folder of the PNG files: whole, because it gets its name only when the last file is written."""
    status = source.stat()
    content = f"{source.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    folder = get_cache_dir("stl10", f"{source.stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}")
    if folder.is_dir():
        return folder
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        for place, pixels in enumerate(_read(source, count)):
            Image.fromarray(pixels).save(aside / f"{place:06d}.png", compress_level=1)
        if not folder.is_dir():  # another process may have been faster
            aside.replace(folder)
    except OSError as error:
        raise EncoscopeError(f"cannot unpack {source} into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _read(source: Path, count: int) -> UInt8[np.ndarray, "images rows columns 3"]:
    # channel by channel, each by columns
    return np.memmap(source, dtype=np.uint8, mode="r", shape=(count, 3, SIDE, SIDE)).transpose(0, 3, 2, 1)
