"""A report says the same on a terminal, in Markdown, CSV and JSON; experiments are found by name."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from encoscope.cli.app import run as cli
from encoscope.errors import UsageError
from encoscope.evaluation.report import Report
from encoscope.metrics import Interval
from encoscope.reproduce.registry import EXPERIMENTS, find_experiment


@pytest.fixture
def report() -> Report:
    rows = [
        {"method": "nave", "corloc": Interval(0.5, 0.25, 0.75), "images": 8},
        {"method": "a|b", "corloc": None, "images": 0.123456},
    ]
    pictures = {"sheet": Image.new("RGB", (4, 3), "red")}
    return Report("tiny", "A tiny table", rows, notes=("first note",), figures=pictures, settings={"k": 3})


def test_written_in_every_form(report: Report, tmp_path: Path) -> None:
    page = report.save(tmp_path, "encoscope reproduce tiny")
    text = page.read_text()
    assert "| nave | 0.500 [0.250, 0.750] | 8 |" in text
    assert "| a\\|b |  | 0.1235 |" in text
    assert "`encoscope reproduce tiny`" in text and "- first note" in text
    with (tmp_path / "tiny.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["method", "corloc", "corloc low", "corloc high", "images"]
    assert rows[1:] == [["nave", "0.5", "0.25", "0.75", "8"], ["a|b", "", "", "", "0.123456"]]
    document = json.loads((tmp_path / "tiny.json").read_text())
    assert document["results"][0]["corloc"] == {"value": 0.5, "low": 0.25, "high": 0.75, "level": 0.95}
    assert document["settings"] == {"k": 3, "experiment": "tiny", "notes": ["first note"]}
    with Image.open(tmp_path / "sheet.jpg") as picture:
        assert picture.size == (4, 3)


def test_on_a_terminal(report: Report) -> None:
    lines = report.to_text().splitlines()
    assert lines[0] == "A tiny table"
    assert lines[2].split() == ["method", "corloc", "images"]
    assert lines[4].split() == ["a|b", "-", "0.1235"]
    assert lines[-1] == "first note"


def test_further_tables_stand_below_the_first(report: Report, tmp_path: Path) -> None:
    both = replace(report, further={"networks": [{"seed": 1, "accuracy": Interval(0.5, 0.0, 1.0)}]})
    page = both.save(tmp_path).read_text()
    assert page.index("| nave |") < page.index("## Networks") < page.index("| 1 | 0.500 [0.000, 1.000] |")
    assert (tmp_path / "tiny-networks.csv").read_text().splitlines() == [
        "seed,accuracy,accuracy low,accuracy high",
        "1,0.5,0.0,1.0",
    ]
    document = json.loads((tmp_path / "tiny.json").read_text())
    assert len(document["results"]) == 2 and document["further"]["networks"][0]["accuracy"]["high"] == 1
    assert both.to_text().splitlines()[6] == "networks" and "further" not in report.to_dict()


def test_names_are_checked() -> None:
    with pytest.raises(UsageError, match="nearest: nave-fig6"):
        find_experiment("nave-fig66")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_there(name: str) -> None:
    assert callable(find_experiment(name).load())


def test_listed_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["reproduce", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(EXPERIMENTS)
