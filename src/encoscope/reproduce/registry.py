"""Every experiment by its name: what it shows, and the module that runs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from encoscope.errors import UsageError, suggest_nearest

if TYPE_CHECKING:
    from encoscope.evaluation.report import EvaluationRequest, Report

    Run: TypeAlias = Callable[[EvaluationRequest], Report]


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


_PHOTOS = "photos: a file, a folder or any dataset"
_CLASS = "labelled photos: caltech101:ROOT#train, stl10:ROOT#train"
_BOXES = "photos with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, coco:IMAGES#JSON"


_VITAL = "labelled photos of the network's classes: caltech101:ROOT#train, ImageNet's folders"


def _vital(kind: str, number: int, title: str, module: str) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.vital.{module}", f"{kind}{number}", _VITAL)


def _falcon(title: str, module: str, function: str, *, labelled: bool = False) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.falcon.{module}", function, _VITAL if labelled else _PHOTOS)


def _table(number: int, title: str) -> Experiment:
    return Experiment(title, "encoscope.reproduce.nave.tables", f"table{number}", _BOXES)


def _figure(number: int, title: str, module: str = "figures", datasets: str = _PHOTOS) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.nave.{module}", f"fig{number}", datasets)


EXPERIMENTS: Mapping[str, Experiment] = {
    "nave-table1": _table(1, "NAVE beside methods that look for one object"),
    "nave-table2": _table(2, "What the training set of a ViT-S/16 does to NAVE's parts"),
    "nave-table3": _table(3, "Training scheme, architecture and registers"),
    "nave-table4": _table(4, "Table 2 with both boxes"),
    "nave-table5": _table(5, "Table 3 with both boxes"),
    "nave-table6": _table(6, "The number of clusters"),
    "nave-table7": _table(7, "Grouping by k-means and by principal components"),
    "nave-fig1": _figure(1, "NAVE beside SLIC and Felzenszwalb at similar numbers of regions"),
    "nave-fig3": _figure(3, "A class's photos clustered one by one and together", "class_figures", _CLASS),
    "nave-fig4": _figure(4, "What training adds: mean colours of 20 explanations"),
    "nave-fig5": _figure(5, "What registers do"),
    "nave-fig6": Experiment(
        "A mark on one class of chest X-rays shapes what a classifier treats alike",
        "encoscope.reproduce.nave.shortcut",
        datasets="a folder of X-rays with a folder for each of two labels",
    ),
    "nave-fig8": _figure(8, "The number of clusters"),
    "nave-fig9": _figure(9, "The layers"),
    "nave-fig10": _figure(10, "The grouping: k-means, Ward, principal components"),
    "nave-fig11": _figure(
        11, "A class's clusters on test photos classified rightly", "class_figures", f"{_CLASS}, twice"
    ),
    "nave-fig12": _figure(
        12, "A class's clusters on test photos classified wrongly", "class_figures", f"{_CLASS}, twice"
    ),
    "vital-table1": _vital("table", 1, "VITAL beside other methods, on five networks", "tables"),
    "vital-table2": _vital("table", 2, "Table 1 with more settings and Plug-In Inversion", "tables"),
    "vital-table3": _vital("table", 3, "Channels inside the network: AUC and MAD", "tables"),
    "vital-table4": _vital("table", 4, "What the network takes pictures of two classes for", "tables"),
    "vital-table5": _vital("table", 5, "The number of references", "tables"),
    "vital-fig2": _vital("fig", 2, "Why relevance: active channels that do not matter", "hidden_units"),
    "vital-fig4": _vital("fig", 4, "Small circuits: the channels a class rests on", "hidden_units"),
    "vital-fig5": _vital("fig", 5, "Pictures among photos in the features, all methods", "embedding"),
    "vital-fig8": _vital("fig", 8, "The transparency map", "ablations"),
    "vital-fig9": _vital("fig", 9, "The regularisers", "ablations"),
    "vital-fig10": _vital("fig", 10, "The layers", "ablations"),
    "vital-fig11": _vital("fig", 11, "Relevance on class neurons", "ablations"),
    "vital-fig12": _vital("fig", 12, "The number of references", "ablations"),
    "vital-fig14": _vital("fig", 14, "Pictures among photos in the features of other networks", "embedding"),
    "vital-fig24": _vital("fig", 24, "Channels inside the network, by method", "hidden_units"),
    "vital-fig25": _vital("fig", 25, "Fig. 24 with other channels", "hidden_units"),
    "vital-fig26": _vital("fig", 26, "Channels of several meanings", "hidden_units"),
    "vital-fig27": _vital("fig", 27, "Concepts of a class: rabbit", "concepts"),
    "vital-fig28": _vital("fig", 28, "Concepts of a class: bear", "concepts"),
    "vital-fig29": _vital("fig", 29, "Concepts of a class: tabby cat", "concepts"),
    "vital-fig30": _vital("fig", 30, "Concepts of a class: German shepherd", "concepts"),
    "falcon-fig2": _falcon("Concepts of features, with the photos behind them", "figures", "fig2"),
    "falcon-fig3-contrast": _falcon("What lowly activating photos take away", "figures", "contrast"),
    "falcon-fig4-groups": _falcon("Groups of features beside single ones", "figures", "groups"),
    "falcon-coverage": _falcon("How much of the features is explained", "coverage", "coverage"),
    "falcon-failure": _falcon("Why a classifier fails, in words", "failure", "failure", labelled=True),
    "falcon-transfer": _falcon("Concepts carried to another network", "transfer", "carried"),
    "nave-training": Experiment(
        "Fig. 4 and Table 2 on a network untrained, on the way, and trained",
        "encoscope.reproduce.nave.training",
        datasets="photos with panoptic masks, with boxes, or both: coco:IMAGES#JSON, twice",
    ),
    "audit-calibration": Experiment(
        "Whether the audit tells networks that learned an unseen mark from those that did not",
        "encoscope.reproduce.audit_calibration.run",
        datasets="a folder of X-rays, or others, with a folder for each label",
    ),
}


def experiment(name: str) -> Experiment:
    """An experiment by name; UsageError names the nearest."""
    if name not in EXPERIMENTS:
        raise UsageError(
            f"unknown experiment {name!r}{suggest_nearest(name, EXPERIMENTS)}: see encoscope reproduce list"
        )
    return EXPERIMENTS[name]
