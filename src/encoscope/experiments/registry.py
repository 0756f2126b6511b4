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


EXPERIMENTS: Mapping[str, Experiment] = {
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
