"""STL-10 from its binary files: 96 x 96 images of ten classes, unpacked once into the cache."""

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
    """List the images of a split of STL-10 as PNG files, which the first call unpacks into the cache.

    Args:
        root: The folder that contains ``stl10_binary``, or this folder itself.
        split: "train" (5,000 images), "test" (8,000), or "unlabeled" (100,000, without labels).

    Returns:
        The images with their classes.

    Raises:
        UsageError: There is no such split.
        MissingError: A binary file does not exist.
        ImageError: A binary file is incomplete.
    """
    if split not in SPLITS:
        raise UsageError(
            f"STL-10 has no split {split!r}{suggest_nearest(split, SPLITS)}; use one of {', '.join(SPLITS)}"
        )
    root = Path(root)
    home = next((folder for folder in (root, root / FOLDER) if (folder / SPLITS[split][0]).is_file()), None)
    if home is None:
        raise MissingError(
            f"no STL-10 at {root}: looked for {SPLITS[split][0]} there and in {root / FOLDER}; unpack "
            "stl10_binary.tar.gz of https://cs.stanford.edu/~acoates/stl10 there"
        )
    pixels_name, labels_name = SPLITS[split]
    pixels = home / pixels_name
    size = pixels.stat().st_size
    if not size or size % _BYTES:
        raise ImageError(f"{pixels} is incomplete: its {size:,} bytes are no whole number of images")
    numbers = () if labels_name is None else _read_labels(home / labels_name, size // _BYTES)
    folder = _unpack(pixels, size // _BYTES)
    paths = tuple(folder / f"{number:06d}.png" for number in range(size // _BYTES))
    return LabelledImages(paths, numbers, CLASSES if numbers else ())


def _read_labels(file: Path, count: int) -> tuple[int, ...]:
    if not file.is_file():
        raise MissingError(f"the labels of STL-10 are not there: {file}; unpack stl10_binary.tar.gz again")
    labels = np.fromfile(file, dtype=np.uint8).astype(np.int64) - 1  # the file counts classes from 1
    if len(labels) != count or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ImageError(
            f"{file} does not go with its images: {len(labels):,} labels for {count:,} images, from 1 to 10"
        )
    return tuple(labels.tolist())


def _unpack(source: Path, count: int) -> Path:
    """The folder of the PNG files; it is complete, as it is renamed only when the last file is written."""
    status = source.stat()
    content = f"{source.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    folder = get_cache_dir("stl10", f"{source.stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}")
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        for number, pixels in enumerate(_read(source, count)):
            Image.fromarray(pixels).save(temporary / f"{number:06d}.png", compress_level=1)
        if not folder.is_dir():  # another process may have been faster
            temporary.replace(folder)
    except OSError as error:
        raise EncoscopeError(f"cannot unpack {source} into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _read(source: Path, count: int) -> UInt8[np.ndarray, "images rows columns 3"]:
    # stored channel by channel, each by columns
    return np.memmap(source, dtype=np.uint8, mode="r", shape=(count, 3, SIDE, SIDE)).transpose(0, 3, 2, 1)
