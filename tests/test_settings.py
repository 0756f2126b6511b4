"""Settings: presets, refusals that name the nearest, bounds; and what derives from them agrees with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest

from encoscope.errors import UsageError
from encoscope.settings import (
    Settings,
    parse_counts,
    parse_names,
    parse_numbers,
    refuse_unknown,
    setting,
    word_or_count,
)


@dataclass(frozen=True)
class Blur(Settings):
    METHOD: ClassVar[str] = "blur"
    PRESETS: ClassVar = {"default": {}, "paper": {"radius": 5}, "authors": {"mode": "box"}}
    RECORDED_APART: ClassVar = ("seed",)

    radius: int = setting(3, "How far.", unit="pixels", low=1, high=9)
    mode: str = setting("gauss", "How.", choices=("gauss", "box"))
    scale: float | None = setting(None, "How much.", low=0)
    share: float = setting(0.5, "Of the image.", low=0, high=1, open_low=True)
    quantile: float = setting(0.5, "Of the scores.", low=0, high=1, open_low=True, open_high=True)
    rate: float = setting(0.1, "Of learning.", low=0, open_low=True)
    seed: int = setting(0, "Of everything random.")


def test_presets_and_changes() -> None:
    assert Blur.from_preset() == Blur() == Blur(preset="default", radius=3, mode="gauss")
    assert Blur.from_preset("paper") == Blur(preset="paper", radius=5)
    assert Blur.from_preset("authors", radius=None, scale=0.5) == Blur(preset="authors", mode="box", scale=0.5)
    assert Blur.from_preset("paper", radius=2).as_dict() == {
        "preset": "paper",
        "radius": 2,
        "mode": "gauss",
        "scale": None,
        "share": 0.5,
        "quantile": 0.5,
        "rate": 0.1,
    }
    assert Blur.from_preset("paper", radius=3).as_key() == Blur().as_key()
    assert Blur(seed=1).as_dict() == Blur().as_dict() and Blur(seed=1).as_key() != Blur().as_key()
    assert Blur(share=1.0, scale=0).share == 1


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("papers", {}, "preset is one of default, paper, authors, not 'papers'"),
        (None, {"raduis": 2}, r"blur has no setting 'raduis' .nearest: radius"),
        (None, {"radius": 0}, "radius is a number from 1 to 9, not 0"),
        (None, {"radius": True}, "radius is a number from 1 to 9, not True"),
        (None, {"radius": "3"}, "radius is a number from 1 to 9, not '3'"),
        (None, {"mode": "bo"}, "mode is one of gauss, box, not 'bo'"),
        (None, {"scale": -1.0}, "scale is a number from 0 on, not -1.0"),
        (None, {"scale": math.nan}, "scale is a number from 0 on, not nan"),
        (None, {"share": 0.0}, r"share lies in \(0, 1\], not 0.0"),
        (None, {"share": 1.1}, r"share lies in \(0, 1\], not 1.1"),
        (None, {"share": math.nan}, r"share lies in \(0, 1\], not nan"),
        (None, {"quantile": 1.0}, r"quantile lies in \(0, 1\), not 1.0"),
        (None, {"rate": 0}, "rate is a number above 0, not 0"),
    ],
)
def test_refusals(preset, changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        Blur.from_preset(preset, **changes)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    refuse_unknown("segment", ["size"], ["size"])
    with pytest.raises(UsageError, match=r"segment has no setting 'n_cluster' .nearest: n_clusters"):
        refuse_unknown("segment", ["n_cluster"], ["n_clusters", "size"])


def test_parsers() -> None:
    assert parse_names(" a, b,") == ("a", "b")
    assert parse_numbers("1,0.5") == (1.0, 0.5)
    assert parse_counts("2, 5") == (2, 5)
    assert word_or_count(("auto",))("auto") == "auto"
    assert word_or_count(("auto",))("7") == 7
    for parse, text in ((parse_numbers, "1,x"), (parse_counts, "0"), (parse_counts, "1.5"), (word_or_count(()), "-1")):
        with pytest.raises(ValueError, match="number"):
            parse(text)
