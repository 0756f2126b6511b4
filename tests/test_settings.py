"""Settings: presets, refusals that name the nearest, bounds; and what derives from them agrees with them."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import encoscope
from encoscope.analysis.settings import AuditSettings, CompareSettings
from encoscope.atlas.settings import AtlasSettings
from encoscope.errors import UsageError
from encoscope.evaluation.settings import CorlocSettings, FaithfulnessSettings, OverlapSettings, StabilitySettings
from encoscope.settings import (
    Settings,
    parse_counts,
    parse_names,
    parse_numbers,
    refuse_unknown,
    setting,
    word_or_count,
)
from encoscope.user_study.settings import StudySettings

ROOMS = sorted(path.parent.name for path in Path(encoscope.__file__).parent.glob("*/settings.py"))
MODULES = [f"encoscope.{room}.settings" for room in ROOMS]


def list_classes(parent: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """The settings classes of the package."""
    for kind in parent.__subclasses__():
        if kind.__module__ in MODULES:
            yield kind
        yield from list_classes(kind)


for name in MODULES:
    importlib.import_module(name)
CLASSES = sorted(set(list_classes()), key=lambda kind: (kind.__module__, kind.__name__))


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


def test_importing_settings_loads_nothing_heavy() -> None:
    assert {"nave", "vital", "falcon", "craft", "analysis", "evaluation", "atlas", "user_study"} <= set(ROOMS)
    code = (
        f"import sys, {', '.join(MODULES)}\n"
        "sys.exit(', '.join({'torch', 'numpy', 'PIL', 'scipy', 'sklearn', 'timm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_setting_keeps_to_its_bounds_and_choices(kind: type[Settings]) -> None:
    for name, info in kind.infos().items():
        number = float if isinstance(getattr(kind, name), float) or info.type is float else int
        wrong: list[Any] = ["no such word"] if info.choices else []
        if info.low is not None:
            wrong += [number(info.low if info.open_low else info.low - 1)]
        if info.high is not None:
            wrong += [number(info.high if info.open_high else info.high + 1)]
        for value in wrong:
            with pytest.raises(UsageError, match=name):
                kind.from_preset(value) if name == "preset" else kind.from_preset(**{name: value})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_settings_are_recorded_as_json_holds_them(kind: type[Settings]) -> None:
    json.dumps(kind().as_dict())
    names = [info.recorded_as or name for name, info in kind.infos().items()]
    assert len(set(names)) == len(names), "no two are recorded by one name"


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (CorlocSettings, "n_clusters", (), "n_clusters takes whole numbers from 1 to 256"),
        (CorlocSettings, "n_clusters", (3, 0), "n_clusters takes whole numbers"),
        (OverlapSettings, "n_clusters", 257, "n_clusters takes whole numbers"),
        (StabilitySettings, "n_clusters", 0, "n_clusters takes whole numbers"),
        (FaithfulnessSettings, "size", -3, 'size is "auto", "native", "model" or a number of pixels, not -3'),
        (FaithfulnessSettings, "size", "large", "size is"),
        (CorlocSettings, "methods", [], "a method is nave, slic, .*, not ''"),
        (CorlocSettings, "methods", ["nave", "lsot"], "not 'lsot' .nearest: lost"),
        (OverlapSettings, "methods", ["sam"], "sam:FOLDER.*, not 'sam'"),
        (CompareSettings, "n_clusters", [], "n_clusters is"),
        (CompareSettings, "n_clusters", [2, 0], "n_clusters is"),
        (AuditSettings, "n_clusters", 0, "n_clusters is"),
        (AtlasSettings, "features", "none", "an atlas without features is empty"),
        (AtlasSettings, "features", -1, 'features is "all", or a number from 1 on'),
        (AtlasSettings, "classes", 0, 'classes is "all" or "none", or a number from 1 on'),
        (AtlasSettings, "visualize", True, "visualize is"),
        (StudySettings, "classes", -1, "classes is a number from 0 on, or a list of names, not -1"),
        (StudySettings, "channels", -1, "channels is a number from 0 on, or a list of units"),
        (StudySettings, "methods", ["vital"], "two methods or more"),
        (StudySettings, "methods", ["vital", "dream"], "unknown method 'dream'"),
        (StudySettings, "methods", ["vital", "plugin"], "only vital visualizes channels"),
    ],
)
def test_what_is_no_single_number_is_checked(kind: type[Settings], name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind.from_preset(**{name: value})


def test_lists_become_tuples_and_records_take_their_own_names() -> None:
    settings = CompareSettings.from_preset(n_clusters=[5, 2], limit=7)
    assert settings.n_clusters == (5, 2) and hash(settings) == hash(replace(settings))
    assert settings.as_dict() == {"clusters": (5, 2), "limit": 7}
    assert CorlocSettings.from_preset(n_segments=9).as_dict()["segments"] == 9
    assert CompareSettings.from_preset(n_clusters=range(2, 5)).n_clusters == (2, 3, 4)


def test_a_text_of_names_stands_for_the_names() -> None:
    assert CorlocSettings.from_preset(layers="layer3, layer4", methods="nave,slic").layers == ("layer3", "layer4")
    assert OverlapSettings.from_preset(methods="nave,slic").methods == ("nave", "slic")
    assert AtlasSettings.from_preset(layers="layer4", vlm="a,b").layers == ("layer4",)
    assert AtlasSettings.from_preset(vlm="a,b").vlm == "a,b", "which is no list of names"
    assert StudySettings.from_preset(methods="vital,maco").methods == ("vital", "maco")


def test_joint_overlap_goes_with_nave_alone() -> None:
    assert OverlapSettings(joint=True).joint and OverlapSettings(joint=True, methods=("nave", "nave"))
    for wrong in ({"methods": ["nave", "slic"]}, {"grouping": "pca"}):
        with pytest.raises(UsageError, match="joint goes with the method nave alone"):
            OverlapSettings.from_preset(joint=True, **wrong)
