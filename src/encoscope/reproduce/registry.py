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

    Attributes:
        title: what it shows.
        module: the module that runs it.
        function: the function of the module that takes an EvaluationRequest and returns a Report.
        datasets: the datasets it needs, in words.
    """

    title: str
    module: str
    function: str = "run"
    datasets: str = ""

    def load(self) -> Run:
        """Import and return the function that runs the experiment."""
        return getattr(importlib.import_module(self.module), self.function)


_IMAGES = "images: a file, a folder or any dataset"
_CLASS = "labelled images: caltech101:ROOT#train, stl10:ROOT#train"
_BOXES = "images with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, coco:IMAGES#JSON"
_NETWORK = "labelled images of the network's classes: caltech101:ROOT#train, ImageNet's folders"
_ZOO = "caltech101:ROOT"


def _vital(kind: str, number: int, title: str, module: str) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.vital.{module}", f"{kind}{number}", _NETWORK)


def _falcon(title: str, module: str, function: str, *, labelled: bool = False) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.falcon.{module}", function, _NETWORK if labelled else _IMAGES)


def _nave_table(number: int, title: str) -> Experiment:
    return Experiment(title, "encoscope.reproduce.nave.tables", f"table{number}", _BOXES)


def _nave_figure(number: int, title: str, module: str = "figures", datasets: str = _IMAGES) -> Experiment:
    return Experiment(title, f"encoscope.reproduce.nave.{module}", f"fig{number}", datasets)


EXPERIMENTS: Mapping[str, Experiment] = {
    "nave-table1": _nave_table(1, "NAVE beside methods that look for one object"),
    "nave-table2": _nave_table(2, "What the training set of a ViT-S/16 does to NAVE's segments"),
    "nave-table3": _nave_table(3, "Training scheme, architecture and registers"),
    "nave-table4": _nave_table(4, "Table 2 with both boxes"),
    "nave-table5": _nave_table(5, "Table 3 with both boxes"),
    "nave-table6": _nave_table(6, "The number of clusters"),
    "nave-table7": _nave_table(7, "Grouping by k-means and by principal components"),
    "nave-fig1": _nave_figure(1, "NAVE beside SLIC and Felzenszwalb at similar numbers of regions"),
    "nave-fig3": _nave_figure(3, "A class's images clustered one by one and together", "class_figures", _CLASS),
    "nave-fig4": _nave_figure(4, "What training adds: mean colors of 20 explanations"),
    "nave-fig5": _nave_figure(5, "What registers do"),
    "nave-fig6": Experiment(
        "A cue on one class of chest X-rays shapes what a classifier treats alike",
        "encoscope.reproduce.nave.shortcut",
        datasets="a folder of X-rays with a folder for each of two labels",
    ),
    "nave-fig8": _nave_figure(8, "The number of clusters"),
    "nave-fig9": _nave_figure(9, "The layers"),
    "nave-fig10": _nave_figure(10, "The grouping: k-means, Ward, principal components"),
    "nave-fig11": _nave_figure(
        11, "A class's clusters on test images classified rightly", "class_figures", f"{_CLASS}, twice"
    ),
    "nave-fig12": _nave_figure(
        12, "A class's clusters on test images classified wrongly", "class_figures", f"{_CLASS}, twice"
    ),
    "vital-table1": _vital("table", 1, "VITAL beside other methods, on five networks", "tables"),
    "vital-table2": _vital("table", 2, "Table 1 with more settings and Plug-In Inversion", "tables"),
    "vital-table3": _vital("table", 3, "Channels inside the network: AUC and MAD", "tables"),
    "vital-table4": _vital("table", 4, "What the network takes visualizations of two classes for", "tables"),
    "vital-table5": _vital("table", 5, "The number of references", "tables"),
    "vital-fig2": _vital("fig", 2, "Why relevance: active channels that do not matter", "hidden_units"),
    "vital-fig4": _vital("fig", 4, "Small circuits: the channels a class rests on", "hidden_units"),
    "vital-fig5": _vital("fig", 5, "Visualizations among real images in the features, all methods", "embedding"),
    "vital-fig8": _vital("fig", 8, "The transparency map", "ablations"),
    "vital-fig9": _vital("fig", 9, "The regularizers", "ablations"),
    "vital-fig10": _vital("fig", 10, "The layers", "ablations"),
    "vital-fig11": _vital("fig", 11, "Relevance on class neurons", "ablations"),
    "vital-fig12": _vital("fig", 12, "The number of references", "ablations"),
    "vital-fig14": _vital("fig", 14, "Visualizations among real images in the features of other networks", "embedding"),
    "vital-fig24": _vital("fig", 24, "Channels inside the network, by method", "hidden_units"),
    "vital-fig25": _vital("fig", 25, "Fig. 24 with other channels", "hidden_units"),
    "vital-fig26": _vital("fig", 26, "Channels of several meanings", "hidden_units"),
    "vital-fig27": _vital("fig", 27, "Concepts of a class: rabbit", "concepts"),
    "vital-fig28": _vital("fig", 28, "Concepts of a class: bear", "concepts"),
    "vital-fig29": _vital("fig", 29, "Concepts of a class: tabby cat", "concepts"),
    "vital-fig30": _vital("fig", 30, "Concepts of a class: German shepherd", "concepts"),
    "vital-defaults": Experiment(
        "VITAL's defaults beside the paper's numbers, on any classifier",
        "encoscope.reproduce.vital.defaults",
        datasets=_NETWORK,
    ),
    "vital-zoo": Experiment(
        "VITAL beside other methods on 30 classes and channels of the zoo's ResNet, with controls",
        "encoscope.reproduce.vital.zoo",
        datasets=_ZOO,
    ),
    "falcon-fig2": _falcon("Concepts of features, with the images behind them", "figures", "fig2"),
    "falcon-fig3-contrast": _falcon("What lowly activating images take away", "figures", "fig3"),
    "falcon-fig4-groups": _falcon("Groups of features beside single ones", "figures", "fig4"),
    "falcon-coverage": _falcon("How much of the features is explained", "coverage", "run"),
    "falcon-failure": _falcon("Why a classifier fails, in words", "failure", "run", labelled=True),
    "falcon-transfer": _falcon("Concepts carried to another network", "transfer", "run"),
    "falcon-zoo": Experiment(
        "FALCON's descriptions of the zoo's ResNet: class neurons, hidden features, groups",
        "encoscope.reproduce.falcon.zoo",
        datasets=_ZOO,
    ),
    "nave-training": Experiment(
        "Fig. 4 and Table 2 on a network untrained, on the way, and trained",
        "encoscope.reproduce.nave.training",
        datasets="images with panoptic masks, with boxes, or both: coco:IMAGES#JSON, twice",
    ),
    "nave-defaults": Experiment(
        "Which layers, size and settings of NAVE follow things best, over several networks",
        "encoscope.reproduce.nave.defaults",
        datasets="images with panoptic masks, and if wanted the same with boxes: coco:IMAGES#JSON, twice",
    ),
    "audit-calibration": Experiment(
        "Whether the audit tells networks that learned an unseen cue from those that did not",
        "encoscope.reproduce.audit_calibration.run",
        datasets="a folder of X-rays, or others, with a folder for each label",
    ),
}


def find_experiment(name: str) -> Experiment:
    """Find an experiment by name.

    Args:
        name: name of the experiment, such as ``nave-fig6``.

    Returns:
        The experiment.

    Raises:
        UsageError: for an unknown name; the message names the nearest one.

    Example:
        >>> find_experiment("nave-fig8").title
        'The number of clusters'
    """
    if name not in EXPERIMENTS:
        raise UsageError(
            f"unknown experiment {name!r}{suggest_nearest(name, EXPERIMENTS)}: see encoscope reproduce list"
        )
    return EXPERIMENTS[name]
