"""Every experiment by its name: what it shows, and the module that runs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from encoscope.errors import UsageError, nearest

if TYPE_CHECKING:
    from encoscope.experiments.report import Report, Request

    Run: TypeAlias = Callable[[Request], Report]


@dataclass(frozen=True)
class Experiment:
    """One table or figure of a paper.

    title: what it shows. module: where it is; its function ``function`` takes a Request and gives a Report.
    datasets: what it needs, in words.
    """

    title: str
    module: str
    function: str = "run"
    datasets: str = ""

    def load(self) -> Run:
        """The function that runs it; imports what it needs."""
        return getattr(importlib.import_module(self.module), self.function)


_BOXES = "photos with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, coco:IMAGES#JSON"


def _table(number: int, title: str) -> Experiment:
    return Experiment(title, "encoscope.experiments.nave_tables", f"table{number}", _BOXES)


EXPERIMENTS: Mapping[str, Experiment] = {
    "nave-table1": _table(1, "NAVE beside methods that look for one object"),
    "nave-table2": _table(2, "What the training set of a ViT-S/16 does to NAVE's parts"),
    "nave-table3": _table(3, "Training scheme, architecture and registers"),
    "nave-table4": _table(4, "Table 2 with both boxes"),
    "nave-table5": _table(5, "Table 3 with both boxes"),
    "nave-table6": _table(6, "The number of clusters"),
    "nave-table7": _table(7, "Grouping by k-means and by principal components"),
    "nave-fig6": Experiment(
        "A mark on one class of chest X-rays shapes what a classifier treats alike",
        "encoscope.experiments.shortcut",
        datasets="a folder of X-rays with a folder for each of two labels",
    ),
}


def experiment(name: str) -> Experiment:
    """An experiment by name; UsageError names the nearest."""
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {name!r}{nearest(name, EXPERIMENTS)}: see encoscope reproduce list")
    return EXPERIMENTS[name]
