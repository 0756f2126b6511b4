"""FALCON on the zoo: are its descriptions right where the meaning is known, and true where it is not?

``python -m encoscope.reproduce.falcon.zoo ROOT`` (ROOT holds ``101_ObjectCategories``) describes the 101 class
neurons and the 512 features of zoo:resnet-caltech101 from Caltech-101's training list, tests them on its test list, and
writes ``falcon-zoo.json`` and ``falcon-zoo.md``. What takes time is kept in the cache: a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import encoscope
from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError
from encoscope.falcon import DescribedGroup, Description, Descriptions, Falcon
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.dissect import label_by_dissection
from encoscope.falcon.heldout import compute_auc, compute_mean_interval, find_strong_images
from encoscope.falcon.words import extract_terms
from encoscope.images import ImageListing, list_images
from encoscope.images.caltech101 import read_caltech101
from encoscope.reproduce.falcon.label_hits import contrast_gain, curve, hits
from encoscope.reproduce.falcon.zoo_page import markdown
from encoscope.units import parse_unit
from encoscope.vlm import VLM
from encoscope.zoo.attributes import attributes

LONGEST = 24  # concepts kept, so that precision can be read at equal recall
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "paper, no contrast": {"contrast": False},
    "authors": {"preset": "authors"},
    "authors' scores, paper's images": {"score": "softmax"},
    "paper, specific words first (extension)": {"rank": "specific"},
    "wider crops (mask 0.3)": {"mask": 0.3},
    "wider crops, specific words first": {"mask": 0.3, "rank": "specific"},
    "wide crops (mask 0.05)": {"mask": 0.05},
    "wide crops, specific words first": {"mask": 0.05, "rank": "specific"},
}
HIDDEN: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "T_i needs 5 images": {"least": 5},
    "specific words first (extension)": {"rank": "specific"},
    "wide crops (mask 0.05)": {"mask": 0.05},
    "wide crops, specific words first": {"mask": 0.05, "rank": "specific"},
}
"""How hidden features are described, the first way beside soft-WPMI's labels."""
GROUPS = 4


@dataclass(frozen=True, eq=False)
class Setup:
    """The encoder, the image-text model, captions (None: the zoo's), and the photos to make and test descriptions."""

    encoder: Encoder
    vlm: VLM
    captions: CaptionStore | None
    made: ImageListing
    test: ImageListing
    seed: int = 0

    def falcon(self, **settings: Any) -> Falcon:
        """A Falcon on the photos; the same probes and vectors serve all of them."""
        options = {"holdout": self.test, "seed": self.seed, **settings}
        return Falcon(self.encoder, self.vlm, self.captions, **options).fit(self.made)


def photos(root: Path, split: str, limit: int | None) -> ImageListing:
    """A split's photos; of ``limit`` per class, the first ones of each."""
    return list_images(read_caltech101(root, split)).take_each(limit)


def class_neurons(setup: Setup) -> dict[str, Any]:
    """Names and attributes among the concepts of the class neurons, by preset, and contrast at equal recall."""
    table = attributes()
    rows: dict[str, Any] = {}
    curves = {}
    for name, options in PRESETS.items():
        controls = ("permuted", "captions") if name == "paper" else ()
        found = _all(setup.falcon(top=LONGEST, control=controls, **options).describe("class:all"))
        curves[name] = curve(found, table, LONGEST)
        rows[name] = hits(found, table, setup.seed).as_dict() | {"summary": found.summary}
        if name == "paper":
            rows["examples"] = [
                {"unit": entry.folder, "concepts": list(item.words[:5]), "method": item.method}
                for entry, item in zip(table, found, strict=True)
            ]
    gain = contrast_gain(curves["paper"], curves["paper, no contrast"])
    return {
        "presets": {k: v for k, v in rows.items() if k != "examples"},
        "contrast": gain,
        "examples": rows["examples"],
    }


def hidden_features(setup: Setup, count: int | None) -> dict[str, Any]:
    """Predictive AUC, clarity and coverage of the features' descriptions, beside soft-WPMI's labels for the same."""
    falcon = setup.falcon(control=("permuted", "captions"))
    units = [f"features:{i}" for i in range(min(count or setup.encoder.width, setup.encoder.width))]
    found = _all(falcon.describe(units))
    wanted = [parse_unit(text, setup.encoder) for text in units]
    space = falcon.space(wanted[0])
    vocabulary = dict.fromkeys(word for text in falcon.captions_ for word in extract_terms(text).words)
    labels = label_by_dissection(wanted, {wanted[0].space: space}, falcon.context_, list(vocabulary))
    pairs = []
    for unit, item in zip(wanted, found, strict=True):
        if item.heldout is None or space.heldout is None or unit not in labels:
            continue
        strong = find_strong_images(unit.activation(space.heldout.h, normalized=True), space.thresholds.alpha)
        assert strong is not None  # it has a truth
        images = falcon.context_.embedder.get_image_vectors(space.heldout.ids)
        # soft-WPMI's scores are logarithms: its words count alike
        other = falcon.context_.texts.embed_description({concept.word: 1.0 for concept in labels[unit]})
        pairs.append((item.heldout.auc.value, compute_auc(images @ other, strong)))
    values = np.array(pairs).reshape(-1, 2)
    compared = {}
    if len(values):
        for name, column in (
            ("falcon", values[:, 0]),
            ("dissect", values[:, 1]),
            ("difference", values[:, 0] - values[:, 1]),
        ):
            interval = compute_mean_interval(column.tolist(), seed=setup.seed)
            compared[name] = {"value": interval.value, "interval": [interval.low, interval.high]}
    ways = {name: _all(setup.falcon(**options).describe(units)).summary for name, options in HIDDEN.items() if options}
    return {
        "summary": found.summary,
        "ways": {next(iter(HIDDEN)): found.summary, **ways},
        "interpretable": float(np.mean([item.interpretable for item in found])),
        "compared": compared,
        "examples": [
            {"unit": item.unit, "concepts": list(item.words[:5]), "method": item.method} for item in found[:20]
        ],
    }


def best_groups(setup: Setup, more_than: int = 10) -> list[dict[str, Any]]:
    """Groups whose descriptions are clearer and predict better than those of each of their features alone."""
    falcon = setup.falcon()
    groups = falcon.groups(more_than=more_than, largest=3)
    groups = sorted(groups, key=lambda group: -(group.clarity or 0))[:40]
    rows = []
    for group, (whole, parts) in zip(groups, beside_members(falcon, groups), strict=True):
        gain = _clarity(whole) - max(map(_clarity, parts))
        better = _auc(whole) - max(map(_auc, parts))
        rows.append(
            {
                "unit": group.unit,
                "images": len(group.images),
                "concepts": list(whole.words[:5]),
                "clarity": _clarity(whole),
                "auc": _auc(whole),
                "clarity_gain": gain,
                "auc_gain": better,
                "members": [
                    {"unit": p.unit, "concepts": list(p.words[:5]), "clarity": _clarity(p), "auc": _auc(p)}
                    for p in parts
                ],
            }
        )
    rows = [row for row in rows if row["clarity_gain"] > 0 and row["auc_gain"] >= 0]
    return sorted(rows, key=lambda row: -row["auc_gain"] - row["clarity_gain"])[:GROUPS]


def beside_members(falcon: Falcon, groups: Sequence[DescribedGroup]) -> list[tuple[Description, list[Description]]]:
    """Each group of features described, beside its features alone; all are described together."""
    if not groups:
        return []
    singles = sorted({member for group in groups for member in group.members})
    texts = [*(f"features:{member}" for member in singles), *(group.unit for group in groups)]
    described = {item.unit: item for item in _all(falcon.describe(texts))}
    return [(described[group.unit], [described[f"features:{member}"] for member in group.members]) for group in groups]


def evaluate(setup: Setup, features: int | None = None, more_than: int = 10) -> results.Document:
    """All parts, as one document."""
    table = (resources.files("encoscope.zoo") / "data" / "caltech101-attributes.tsv").read_bytes()
    entries = [
        {"part": "class neurons", **class_neurons(setup)},
        {"part": "hidden features", **hidden_features(setup, features)},
        {"part": "groups", "groups": best_groups(setup, more_than)},
    ]
    return results.envelope(
        "falcon-zoo",
        entries,
        model={"source": setup.encoder.source, "digest": setup.encoder.digest, "layers": ["logits", "features"]},
        settings={
            "vlm": {"source": setup.vlm.source, "digest": setup.vlm.digest},
            "made": len(setup.made),
            "test": len(setup.test),
            "attributes_sha256": hashlib.sha256(table).hexdigest(),
        },
        seed=setup.seed,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("root", type=Path, help="the folder that holds 101_ObjectCategories")
    parser.add_argument("--model", default="zoo:resnet-caltech101")
    parser.add_argument("--vlm", default="zoo:clip-caltech101")
    parser.add_argument("--limit", type=int, help="only so many photos a class, to try it out")
    parser.add_argument("--features", type=int, help="only the first so many features")
    parser.add_argument("--more-than", type=int, default=10, help="images that share a group (default: more than 10)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        setup = Setup(
            encoder=encoscope.load(chosen.model),
            vlm=_vlm(chosen.vlm),
            captions=None,
            made=photos(chosen.root, "train", chosen.limit),
            test=photos(chosen.root, "test", chosen.limit),
            seed=chosen.seed,
        )
        document = evaluate(setup, chosen.features, chosen.more_than)
        results.write(chosen.out / "falcon-zoo.json", document)
        page = markdown(document)
        with results.atomic_write(chosen.out / "falcon-zoo.md") as temporary:
            temporary.write_text(page, encoding="utf-8")
    except EncoscopeError as error:
        sys.stderr.write(f"encoscope: error: {error}\n")
        return error.exit_code
    sys.stdout.write(page)
    return 0


def _vlm(name: str) -> VLM:
    from encoscope import vlm

    return vlm.load(name)


def _all(found: Description | Descriptions) -> Descriptions:
    assert isinstance(found, Descriptions)  # several units were asked for
    return found


def _clarity(item: Description) -> float:
    return 0.0 if item.clarity is None else item.clarity


def _auc(item: Description) -> float:
    return 0.5 if item.heldout is None else item.heldout.auc.value


if __name__ == "__main__":
    sys.exit(main())
