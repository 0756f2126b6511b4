"""Listings of images: the files and labels of every kind of source, and the columns of a CSV file."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import ImageListing, list_images, open_dataset, read_columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files in the folders cat and cup."""
    for name in ("cat/1.png", "cat/2.png", "cat/3.png", "cup/4.png", "cup/5.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "images"


def test_sources_and_their_labels(folder: Path, data_root: Path) -> None:
    files = list_images(folder)
    assert set(files.labels) == {"cat", "cup"}
    assert set(list_images(folder / "cat").labels) == {None}
    both = list_images([folder, folder / "nothing.png"])
    assert both.paths == (*files.paths, folder / "nothing.png")
    caltech = list_images(f"caltech101:{data_root}/caltech101#test")
    assert len(caltech) == 2893
    assert all(path.parent.name == label for path, label in zip(caltech.paths, caltech.labels, strict=True))
    assert list_images(open_dataset(folder)) == files
    plain = open_dataset(folder / "cat")
    assert list_images(plain) == list_images(folder / "cat")
    with pytest.raises(UsageError, match="int is no file"):
        list_images([3])


def test_selections_keep_the_labels(folder: Path) -> None:
    listing = list_images(folder)
    assert listing.classes == ("cat", "cup") and list_images(folder / "cat").classes == ()
    assert [path.name for path in listing.select([4, 0]).paths] == ["5.png", "1.png"]
    assert listing.select([4, 0]).labels == ("cup", "cat")
    assert listing.take_each(None) == listing and list_images(listing) is listing
    assert [path.stem for path in listing.take_each(1).paths] == ["1", "4"]
    assert ImageListing((Path("a"), Path("b")), (None, None)).take_each(1).paths == (Path("a"),)


def test_folders_of_wordnet_numbers(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpeg").touch()
    assert list_images(tmp_path).labels == ("n01440764", "n01443537")


def test_labels_of_a_folder_are_its_first_level(tmp_path: Path) -> None:
    files = [tmp_path / name / "deep" / f"{name}.png" for name in "ab"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    assert list_images(tmp_path).find_labels(files[::-1]) == ["b", "a"]
    assert list_images(files[0]).find_labels(files) is None


def test_metadata_by_path_end_or_stem(tmp_path: Path) -> None:
    table = tmp_path / "meta.csv"
    table.write_text("Image,site,age\nx/a.png,north,4\nb,south,\nzzz,east,1\n", encoding="utf-8-sig")
    paths = [Path("/data/x/a.png"), Path("/data/x/b.png"), Path("/data/y/c.png")]
    assert read_columns(table, paths) == {"site": ["north", "south", None], "age": ["4", None, None]}
    with pytest.raises(UsageError, match="no row"):
        read_columns(table, [Path("q.png")])
    with pytest.raises(MissingError, match="no such file"):
        read_columns(tmp_path / "none.csv", paths)
    table.write_text("image\na\n")
    with pytest.raises(UsageError, match="two columns"):
        read_columns(table, paths)
    table.write_bytes(b"image,site\n\xff\xfe,1\n")
    with pytest.raises(EncoscopeError, match="as CSV"):
        read_columns(table, paths)
