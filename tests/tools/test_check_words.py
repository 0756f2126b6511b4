"""Names of the glossary's left column are refused wherever they are defined, and nowhere else."""

from __future__ import annotations

import check_words
import pytest
import rooms


def _check(tmp_path, code: str, name: str = "module.py") -> list[str]:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(code)
    return [line.split(": ", 1)[1] for line in check_words.check_file(file)]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("found = 1", "found"),
        ("def f(made): pass", "made"),
        ("self.wanted = 1", "wanted"),
        ("def _asked(): pass", "_asked"),
        ("class Some: pass", "Some"),
        ("for place, value in pairs: pass", "place"),
        ("values = [one for one in rows]", "one"),
        ("import encoder as twin", "twin"),
        ("try: pass\nexcept ValueError as truth: pass", "truth"),
        ("match value:\n    case [*ways]: pass", "ways"),
        ("def photo_paths(): pass", "photo_paths"),
        ("class PhotoSet: pass", "PhotoSet"),
        ("COLOURS = 1", "COLOURS"),
        ("flag = '--colour-by'", "--colour-by"),
        ("journal = 1", "journal"),
        ("def select(top: int = 8): pass", "top"),
        ("def select(smooth: float | None = None): pass", "smooth"),
        ("def select(mask: Annotated[float, Parameter(help='a')] = 0.5): pass", "mask"),
        ("class FalconSettings:\n    least: int = 1", "least"),
    ],
)
def test_wrong_names_are_refused(tmp_path, code, name):
    assert [line.split(" -> ")[0] for line in _check(tmp_path, code)] == [f"name '{name}'"]


@pytest.mark.parametrize(
    "code",
    [
        "index = matches.found",
        "call(colour='red')",
        "document = {'picture': 1, 'found': 2}",
        "raise ValueError('no photo found')",
        "foundation = someone = placement = 1",
        "def apply(mask: Bool[Tensor, 'height width']): pass",
        "def paste(top: int, left: int): pass",
        "def _largest(top: int): pass",
        "class Selection:\n    adaptive: bool",
        "top = most = 1",
    ],
)
def test_right_names_pass(tmp_path, code):
    assert _check(tmp_path, code) == []


def test_each_line_says_where_and_what_instead(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("x = 1\ncolour_map = 2\n")
    assert check_words.check_file(file) == [f"{file}:2: name 'colour_map' -> color"]


def test_modules_and_folders_have_names_too(tmp_path):
    assert _check(tmp_path, "", "photo.py") == ["name 'photo' -> image"]
    assert _check(tmp_path, "", "spill/__init__.py") == ["name 'spill' -> feature_cache"]


def test_the_store_has_a_journal_and_visualizations_a_picture(tmp_path):
    assert _check(tmp_path, "journal = 1", "store/journal.py") == []
    assert _check(tmp_path, "def picture(self): pass", "vital/visualization.py") == []
    assert _check(tmp_path, "def picture(self): pass", "vital/synthesis.py")


def test_outside_the_package_what_a_module_offers_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(check_words, "FOLDERS", [tmp_path / "src", tmp_path / "tests"])
    code = (
        "def test_a_photo(photo_paths):\n    found = 1\n\nclass Colour:\n    def made(self): pass\n\nPHOTOS, x = 1, 2\n"
    )
    assert [line.split(" -> ")[0] for line in _check(tmp_path, code, "tests/test_a.py")] == [
        "name 'photo_paths'",
        "name 'Colour'",
        "name 'made'",
        "name 'PHOTOS'",
    ]


def test_two_public_classes_of_one_name_are_refused(tmp_path):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("class Plan: pass\nclass _Row: pass\n")
    second.write_text("x = 1\nclass Plan: pass\nclass _Row: pass\nclass Row: pass\n")
    assert check_words.check_classes([first, second], [second]) == [
        f"{second}:2: name 'Plan' -> another: {first} has a class of this name"
    ]


def test_everything_is_read_unless_files_are_named(tmp_path, monkeypatch, capsys):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("photo = 1\n")
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    monkeypatch.setattr(check_words, "PACKAGE", tmp_path)
    monkeypatch.setattr(check_words, "FOLDERS", [tmp_path])

    assert check_words.main([]) == 1
    expected = [f"{folder}/module.py:1: name 'photo' -> image\n" for folder in ("first", "second")]
    assert capsys.readouterr().out == "".join(expected)
    assert check_words.main(["second"]) == 1
    assert capsys.readouterr().out == expected[1]
    with pytest.raises(SystemExit, match="no such file or folder: absent"):
        check_words.main(["absent"])
    for folder in ("first", "second"):
        (tmp_path / folder / "module.py").write_text("image = 1\n")
    assert check_words.main([]) == 0
