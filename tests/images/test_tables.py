"""Rows of tables that are longer or shorter than the header are refused, with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoscope.errors import EncoscopeError
from encoscope.falcon.captions.readers import read_captions
from encoscope.images import read_columns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,site\na.png,north\nb.png,a dog, on grass\n", 'line 3, has 3 cells where the header has 2.*"a dog, on'),
        ("image,site,age\na.png,north\n", "line 2, has 2 cells where the header has 3"),
        ('image,site\n"a\n.png",x\nb.png,1,2\n', "line 4, has 3 cells"),  # a row may take two lines
        ("image,site\n\na.png,x\nb.png\n", "line 4, has 1 cells"),
        ('image,site\na.png,"x\n', "near line 2"),
    ],
)
def test_metadata(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(EncoscopeError, match=rf"x\.csv.*{message}"):
        read_columns(tmp_path / "x.csv", [Path("a.png")])


def test_quoted_cells_and_blank_lines_are_fine(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('image,site\n"a.png","a dog, ""on"" grass"\n\n')
    assert read_columns(tmp_path / "x.csv", [Path("a.png")]) == {"site": ['a dog, "on" grass']}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "caption\na cat\na dog, on grass\n", 'line 3, has 2 cells where the header has 1.*"a dog, on grass"'),
        ("c.csv", "id,caption\n1\n", "line 2, has 1 cells where the header has 2"),
        ("c.tsv", "id\tcaption\n1\ta\tb\n", "line 2, has 3 cells.*with a tab in double quotes"),
    ],
)
def test_captions(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EncoscopeError, match=message):
        list(read_captions(tmp_path / name))
