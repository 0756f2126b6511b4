"""FALCON on the zoo: are its descriptions right where the meaning is known, and do they predict where it is not?

The 101 class neurons and the 512 features of zoo:resnet-caltech101 are described from Caltech-101's training list and
tested on its test list. What takes time is kept in the cache: a run that was stopped resumes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from encoscope import vlm
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Description, Descriptions, Falcon
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.dissect import label_by_dissection
from encoscope.falcon.heldout import compute_auc, compute_mean_interval, find_strong_images
from encoscope.falcon.words import extract_terms
from encoscope.images import ImageListing, list_images
from encoscope.metrics import Interval
from encoscope.reproduce.falcon.harness import STAND_IN, auc_of, describe_units, describe_with_members, join_words
from encoscope.reproduce.falcon.label_hits import compare_contrast, compute_curve, measure_hits
from encoscope.reproduce.inputs import load_encoders
from encoscope.units import parse_unit
from encoscope.vlm import VLM
from encoscope.zoo.attributes import load_class_words

NAME = "falcon-zoo"
SETTINGS: Mapping[str, Any] = {"vlm": "zoo:clip-caltech101", "features": 0, "more_than": 10}
"""What can be set, with the defaults. vlm: the image-text model. features: only the first so many features, 0 for all.
more_than: a group of features is shared by more than so many images."""
LONGEST = 24
"""Concepts that are kept, so that precision can be read at equal recall."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "paper, no contrast": {"contrast": False},
    "authors": {"preset": "authors"},
    "authors' scores, paper's images": {"score": "softmax"},
    "paper, specific words first (extension)": {"rank": "specific"},
    "wider crops (mask 0.3)": {"mask_threshold": 0.3},
    "wider crops, specific words first": {"mask_threshold": 0.3, "rank": "specific"},
    "wide crops (mask 0.05)": {"mask_threshold": 0.05},
    "wide crops, specific words first": {"mask_threshold": 0.05, "rank": "specific"},
}
"""How class neurons are described."""
HIDDEN: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "T_i needs 5 images": {"min_images": 5},
    "specific words first (extension)": {"rank": "specific"},
    "wide crops (mask 0.05)": {"mask_threshold": 0.05},
    "wide crops, specific words first": {"mask_threshold": 0.05, "rank": "specific"},
}
"""How hidden features are described; the first row stands beside soft-WPMI's labels."""
GROUPS = 4
"""Groups that are shown."""
_EXAMPLES = 20  # hidden features whose concepts are listed


@dataclass(frozen=True, eq=False)
class ZooExperiment:
    """What the experiment works with.

    Attributes:
        encoder: the network.
        vlm: the image-text model.
        captions: the captions; None for the zoo's.
        fit_images: the images that descriptions are made from.
        heldout_images: the images that they are tested on.
        seed: seed of the bootstrap and of the controls.
    """

    encoder: Encoder
    vlm: VLM
    captions: CaptionStore | None
    fit_images: ImageListing
    heldout_images: ImageListing
    seed: int = RANDOM_STATE

    def fit_falcon(self, **settings: Any) -> Falcon:
        """Fit FALCON on the images; the cache has the same probes and vectors for all settings.

        Args:
            settings: further arguments of ``Falcon``.

        Returns:
            The fitted estimator.
        """
        options = {"holdout": self.heldout_images, "random_state": self.seed, **settings}
        return Falcon(self.encoder, vlm=self.vlm, captions=self.captions, **options).fit(self.fit_images)


def run(request: EvaluationRequest) -> Report:
    """Describe class neurons, hidden features and groups of features, and measure the descriptions.

    Args:
        request: one dataset without a split, such as ``caltech101:ROOT``; at most one model, by default the zoo's
            ResNet; ``limit`` is a number of images of each class, to try it out; settings as in ``SETTINGS``.

    Returns:
        A table of class neurons, further ones of features, their AUC, groups and examples.

    Raises:
        UsageError: for no dataset, one with a split or several, and for several models.
    """
    settings = request.settings(SETTINGS)
    if len(request.datasets) != 1 or len(request.models) > 1:
        raise UsageError(f"{NAME} takes one --dataset, such as caltech101:ROOT, and at most one --model")
    (dataset,) = request.datasets
    if "#" in dataset:
        raise UsageError(
            f"give {dataset.partition('#')[0]} without a split: train images are described, test images test"
        )
    (encoder,) = load_encoders(request, (STAND_IN,), ())
    fit_images, heldout_images = (
        list_images(f"{dataset}#{split}").take_each(request.limit) for split in ("train", "test")
    )
    experiment = ZooExperiment(encoder, vlm.load(settings["vlm"]), None, fit_images, heldout_images, request.seed)
    return evaluate(experiment, settings["features"] or None, settings["more_than"])


def evaluate(experiment: ZooExperiment, features: int | None = None, more_than: int = 10) -> Report:
    """Measure descriptions of class neurons, hidden features and groups of features.

    Args:
        experiment: network, image-text model and images.
        features: number of hidden features, the first ones; None for all.
        more_than: a group of features is shared by more than so many images.

    Returns:
        The report.
    """
    rows, examples, contrast_note = evaluate_class_neurons(experiment)
    hidden = evaluate_hidden_features(experiment, features)
    table = (resources.files("encoscope.zoo") / "data" / "caltech101-attributes.tsv").read_bytes()
    encoder, model = experiment.encoder, experiment.vlm
    return Report(
        NAME,
        "FALCON on the zoo",
        rows,
        notes=(
            f"{encoder.source}, captions and images by {model.source}; made from {len(experiment.fit_images)} images, "
            f"tested on {len(experiment.heldout_images)} others.",
            "First table: class neurons; right: share of the top 3 concepts that are words of the class's name or of "
            "one of its attributes, any right: of classes with at least one; permuted units and best constant label: "
            "the same for other classes' words and for the same three words everywhere. [95 % bootstrap interval over "
            "classes]",
            contrast_note,
            f"features: hidden features; {hidden.note} AUC: mean predictive AUC of what was described on the test "
            "images, with its controls. groups: those that explain more than each of their features. examples: "
            "concepts of class neurons and features.",
        ),
        settings={
            "model": {"source": encoder.source, "digest": encoder.digest},
            "vlm": {"source": model.source, "digest": model.digest},
            "fit": len(experiment.fit_images),
            "heldout": len(experiment.heldout_images),
            "attributes_sha256": hashlib.sha256(table).hexdigest(),
        },
        seed=experiment.seed,
        further={
            "features": hidden.rows,
            "AUC": hidden.aucs,
            "groups": find_best_groups(experiment, more_than) or [{"kind": "none"}],
            "examples": [*examples, *hidden.examples],
        },
    )


def evaluate_class_neurons(experiment: ZooExperiment) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """Measure how often concepts of class neurons are names and attributes of their class, by preset.

    Args:
        experiment: network, image-text model and images.

    Returns:
        A row for each preset, the concepts of each class, and a note on contrast at equal recall.
    """
    table = load_class_words()
    rows: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    curves = {}
    for name, options in PRESETS.items():
        controls = ("permuted", "captions") if name == "paper" else ()
        falcon = experiment.fit_falcon(n_concepts=LONGEST, control=controls, **options)
        descriptions = falcon.describe(["class:all"])
        curves[name] = compute_curve(descriptions, table, LONGEST)
        hits = measure_hits(descriptions, table, experiment.seed)
        rows.append(
            {
                "preset": name,
                "right": hits.precision,
                "permuted units": hits.permuted,
                "best constant label": hits.constant,
                "lift over permuted": hits.lift,
                "over constant": hits.over_constant,
                "any right": hits.any_right,
                "name in top 3": hits.named,
                "name or synonym": hits.named_or_synonym,
                "AUC": _as_interval(descriptions.summary.get("auc")),
            }
        )
        if name == "paper":
            examples = [_example(entry.folder, item) for entry, item in zip(table, descriptions, strict=True)]
    gain = compare_contrast(curves["paper"], curves["paper, no contrast"])
    note = (
        f"Contrast at equal concept recall ({gain['recall']:.3f}): precision {_format(gain['contrast'])} with, "
        f"{_format(gain['no_contrast'])} without."
    )
    return rows, examples, note


@dataclass(frozen=True)
class HiddenFeatures:
    """The tables of hidden features.

    Attributes:
        rows: coverage and predictive AUC, by settings.
        aucs: mean predictive AUC of FALCON, of soft-WPMI, their difference, and the controls.
        examples: concepts of the first features.
        note: clarity of the descriptions.
    """

    rows: list[dict[str, Any]]
    aucs: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    note: str


def evaluate_hidden_features(experiment: ZooExperiment, count: int | None) -> HiddenFeatures:
    """Measure predictive AUC, clarity and coverage of the features' descriptions, beside soft-WPMI's labels.

    Args:
        experiment: network, image-text model and images.
        count: number of features, the first ones; None for all.

    Returns:
        The tables.
    """
    width = experiment.encoder.width
    names = [f"features:{index}" for index in range(min(count or width, width))]
    falcon = experiment.fit_falcon(control=("permuted", "captions"))
    descriptions = describe_units(falcon, names)
    summary = descriptions.summary
    pairs = np.array(list(_compare_with_dissection(experiment, falcon, descriptions))).reshape(-1, 2)
    aucs: list[dict[str, Any]] = []
    if len(pairs):
        columns = {"falcon": pairs[:, 0], "dissect": pairs[:, 1], "difference": pairs[:, 0] - pairs[:, 1]}
        aucs += [
            {
                "predictive AUC of": name,
                "mean over features": compute_mean_interval(values.tolist(), random_state=experiment.seed),
            }
            for name, values in columns.items()
        ]
        aucs += [
            {"predictive AUC of": f"control: {name}", "mean over features": _as_interval(value)}
            for name, value in summary.get("controls", {}).items()
        ]
        if "constant" in summary:
            name = f"control: best constant label ({summary['constant']['word']})"
            aucs.append({"predictive AUC of": name, "mean over features": summary["constant"]["auc"]})
    first, *others = HIDDEN.items()
    by_settings = {first[0]: summary}
    by_settings |= {name: describe_units(experiment.fit_falcon(**options), names).summary for name, options in others}
    rows = [
        {
            "described as": name,
            "coverage": item["coverage"],
            "any label": item["labelled"],
            "predictive AUC": _as_interval(item.get("auc")),
        }
        for name, item in by_settings.items()
    ]
    interpretable = float(np.mean([item.interpretable for item in descriptions]))
    note = f"mean clarity {_format(summary['clarity'])}; {interpretable:.0%} above the authors' 0.8."
    return HiddenFeatures(rows, aucs, [_example(item.unit, item) for item in descriptions[:_EXAMPLES]], note)


def find_best_groups(experiment: ZooExperiment, more_than: int = 10) -> list[dict[str, Any]]:
    """Find groups whose descriptions are clearer and predict better than those of each of their features alone.

    Args:
        experiment: network, image-text model and images.
        more_than: a group is shared by more than so many images.

    Returns:
        A row for each group, followed by its features; the groups that gain most, first.
    """
    falcon = experiment.fit_falcon()
    groups = falcon.find_groups(more_than=more_than, largest=3)
    groups = sorted(groups, key=lambda group: -(group.clarity or 0))[:40]
    blocks: list[list[dict[str, Any]]] = []
    for group, (whole, members) in zip(groups, describe_with_members(falcon, groups), strict=True):
        row = _group_row("group", whole) | {
            "images": len(group.images),
            "clarity gain": _clarity(whole) - max(map(_clarity, members)),
            "AUC gain": _auc(whole) - max(map(_auc, members)),
        }
        if row["clarity gain"] > 0 and row["AUC gain"] >= 0:
            blocks.append([row, *(_group_row("feature", member) for member in members)])
    blocks = sorted(blocks, key=lambda block: -block[0]["AUC gain"] - block[0]["clarity gain"])[:GROUPS]
    return [row for block in blocks for row in block]


def _compare_with_dissection(
    experiment: ZooExperiment, falcon: Falcon, descriptions: Descriptions
) -> Iterator[tuple[float, float]]:
    """The predictive AUC of each description and of soft-WPMI's label for the same feature, where both are there."""
    units = [parse_unit(item.unit, experiment.encoder) for item in descriptions]
    space = falcon.find_space(units[0])
    vocabulary = dict.fromkeys(word for text in falcon.captions_ for word in extract_terms(text).words)
    labels = label_by_dissection(units, {units[0].space: space}, falcon.context_, list(vocabulary))
    for unit, item in zip(units, descriptions, strict=True):
        if item.heldout is None or space.heldout is None or unit not in labels:
            continue
        strong = find_strong_images(unit.activation(space.heldout.h, normalized=True), space.thresholds.alpha)
        if strong is None:
            continue
        images = falcon.context_.embedder.get_image_vectors(space.heldout.ids)
        # soft-WPMI's scores are logarithms: its words count alike
        text = falcon.context_.texts.embed_description(dict.fromkeys(labels[unit], 1.0))
        yield item.heldout.auc.value, compute_auc(images @ text, strong)


def _example(name: str, item: Description) -> dict[str, Any]:
    return {"unit": name, "concepts": join_words(item), "method": item.method}


def _group_row(kind: str, item: Description) -> dict[str, Any]:
    row = {"kind": kind, "unit": item.unit, "images": None, "concepts": ", ".join(item.words[:5])}
    return row | {"clarity": _clarity(item), "AUC": _auc(item), "clarity gain": None, "AUC gain": None}


def _clarity(item: Description) -> float:
    return 0.0 if item.clarity is None else item.clarity


def _auc(item: Description) -> float:
    auc = auc_of(item)
    return 0.5 if auc is None else auc.value


def _as_interval(value: Mapping[str, Any] | None) -> Interval | None:
    """A mean of a summary as an interval."""
    return None if value is None else Interval(value["mean"], *value["interval"])


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
