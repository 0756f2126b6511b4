"""DICOM: windows, bits, inverted grey, colour, and a clear word where pydicom is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from encoscope.errors import ImageError, MissingError
from encoscope.images import read_image

pydicom = pytest.importorskip("pydicom")


def write(path: Path, stored: np.ndarray, bits: int = 12, **tags: object) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


STORED = np.array([[0, 1000], [2000, 4095]], dtype=np.uint16)


def test_grey_without_a_window_spans_the_bits_stored(tmp_path: Path) -> None:
    photo = read_image(write(tmp_path / "a.dcm", STORED))
    np.testing.assert_allclose(photo.pixels[..., 2], STORED / 4095, atol=1e-6)
    signed = read_image(write(tmp_path / "b.dcm", STORED.astype(np.int16) - 2048))
    np.testing.assert_allclose(signed.pixels[..., 0], STORED / 4095, atol=1e-6)


def test_the_files_own_window_applies_after_rescaling(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ct.dcm",
        STORED,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[40, 400],
        WindowWidth=[401, 10],
    )
    hounsfield = STORED - 1024.0
    # DICOM PS3.3, C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5), clipped
    np.testing.assert_allclose(
        read_image(path).pixels[..., 0], np.clip((hounsfield - 39.5) / 400 + 0.5, 0, 1), atol=1e-6
    )
    mine = read_image(path, window=(-1024, 976)).pixels[..., 0]
    np.testing.assert_allclose(mine, np.clip(STORED / 2000, 0, 1), atol=1e-6)


def test_a_sigmoid_window(tmp_path: Path) -> None:
    path = write(tmp_path / "s.dcm", STORED, WindowCenter=2000, WindowWidth=800, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(
        read_image(path).pixels[..., 0], 1 / (1 + np.exp(-4 * (STORED - 2000.0) / 800)), atol=1e-5
    )


def test_low_is_white_turns_round(tmp_path: Path) -> None:
    path = write(tmp_path / "i.dcm", STORED, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_image(path).pixels[..., 0], 1 - STORED / 4095, atol=1e-6)
    np.testing.assert_allclose(
        read_image(path, window=(0, 2000)).pixels[..., 0], 1 - np.clip(STORED / 2000, 0, 1), atol=1e-6
    )


def test_colour(tmp_path: Path) -> None:
    stored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(read_image(write(tmp_path / "c.dcm", stored, bits=8)).pixels, stored)


def test_too_large_missing_and_without_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", STORED)
    with pytest.raises(ImageError, match="2 x 2 is 4 pixels, more than the limit of 3"):
        read_image(path, max_pixels=3)
    report = pydicom.dcmread(path)
    del report.Rows, report.PixelData
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(ImageError, match="holds no image"):
        read_image(tmp_path / "report.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingError, match=r"a\.dcm: a DICOM file needs pydicom: pip install 'encoscope\[dicom\]'"):
        read_image(path)
