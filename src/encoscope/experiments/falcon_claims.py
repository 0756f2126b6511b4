"""What FALCON's abstract claims: how much of a representation is explained, why a classifier fails, and transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.encoder import Encoder, untrained_twin
from encoscope.errors import UsageError
from encoscope.experiments.falcon_bench import (
    DEFAULTS,
    DINO,
    SIMCLR,
    STAND_IN,
    described,
    drawn,
    encoders,
    features,
    fitted,
    report,
    words,
)
from encoscope.experiments.falcon_figures import TRUTH
from encoscope.experiments.report import Report, Request
from encoscope.experiments.vital_given import held_out, of_the_network
from encoscope.falcon import Concept, Description, FailureExplanation, Falcon, Transfer, explain_failure, transfer
from encoscope.falcon.selection import activation
from encoscope.falcon.truth import auc, derangement, strong_images
from encoscope.images import dataset
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.plots import contact_sheet
from encoscope.probe import probe
from encoscope.progress import steps, track
from encoscope.units import Unit, parse

_RANDOM = 100  # draws of other features, the control of a failure's explanation
_BATCH = 64


def coverage(request: Request) -> Report:
    """How much of the features is explained, alone and in groups, beside the untrained network's."""
    asked = request.settings({**DEFAULTS, "more_than": 10, "largest": 2, "groups": 200})
    (encoder,) = encoders(request, DINO)[:1]
    falcon = fitted(request, asked, encoder)
    units = drawn(request, encoder.width, None)
    ours = shares(falcon, units, asked)
    control, why = _untrained(encoder, units, request, asked)
    rows = [
        {
            "of the features": what,
            "paper": "under 0.2" if what == _ALIKE else None,
            "ours": bootstrap(values, seed=request.seed),
            "untrained": bootstrap(control[what], seed=request.seed) if control else None,
            "features": len(units),
        }
        for what, values in ours.items()
    ]
    notes = [
        "Shares of the features, [95 % bootstrap interval over features]; untrained: the same of the network with "
        "random weights. The abstract says that under 20 % of the space is explained by single features.",
        f"alike: the mean cosine of the crops is above {falcon.settings_.clear}, the authors' threshold for CLIP "
        f"ViT-B/32; groups: of at most {asked['largest']} features that more than {asked['more_than']} photos share, "
        f"the {asked['groups']} that the most do.",
        TRUTH,
        *([why] if why else []),
    ]
    paper = "" if encoder.source == DINO else f"{SIMCLR}, and DINO's ResNet-50"
    return report("falcon-coverage", "how much is explained", rows, falcon, request, asked, notes=notes, paper=paper)


_ALIKE = "alone: and its crops are alike"


def shares(falcon: Falcon, units: Sequence[str], asked: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " features"]]:
    """1 or 0 for each feature: whether it is explained, by what that is taken to mean."""
    found = described(falcon, units)
    space = features(falcon)
    numbers = [parse(text, falcon.encoder).index for text in units]
    above = (space.made.h[:, numbers] > space.limits.alpha).any(0)
    together = falcon.groups(more_than=asked["more_than"], largest=asked["largest"], embed=False)[: asked["groups"]]
    clear = {unit for item in _clear_groups(falcon, [group.unit for group in together]) for unit in item}
    explained = np.array([item.explained for item in found])
    tests = {
        "alone: some photo passes alpha": above,
        "alone: it has concepts": explained,
        _ALIKE: explained & np.array([item.interpretable for item in found]),
        "alone: and its concepts predict (AUC above 0.5)": explained
        & np.array([item.truth is not None and item.truth.auc.low > 0.5 for item in found]),
        "in a group whose crops are alike": np.array([number in clear for number in numbers]),
    }
    return {what: np.asarray(values, dtype=np.float64) for what, values in tests.items()}


def _untrained(
    encoder: Encoder, units: Sequence[str], request: Request, asked: Mapping[str, Any]
) -> tuple[dict[str, Float[np.ndarray, " features"]] | None, str]:
    """The same of the network with random weights; None, and why, where there is no such network."""
    try:
        twin = untrained_twin(encoder, seed=request.seed)
    except UsageError as error:
        return None, f"{error}."
    return shares(fitted(request, asked, twin), units, asked), ""


def failure(request: Request) -> Report:
    """Photos that the classifier takes for another class: the features behind it, in words."""
    asked = request.settings({**DEFAULTS, "top": 3})
    (encoder,) = encoders(request, None)[:1]
    other = held_out(request.datasets) or (request.datasets[0] if request.datasets else "")
    falcon = fitted(request, asked, encoder)
    wrong = misclassified(encoder, other, request.limit or 3, request)
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for path, label in track(wrong, len(wrong), "photos", request.progress):
        found = explain_failure(encoder, path, label=label, top=asked["top"], falcon=falcon)
        name = "/".join(path.parts[-2:])
        rows += _features(found, name)
        rows.append(_without(encoder, found, path, name, request.seed))
        cells += _pictured(found, path, asked["top"])
    notes = [
        f"Photos of the test set that are taken for another class, at random; for: the {asked['top']} features of the "
        "largest part in the logit, h (.) U; against: those that speak most for the right class over the answer.",
        "answer without: the class when these features are 0; share of random: how often the answer changes when as "
        f"many other active features are ({_RANDOM} draws).",
        "concepts in brackets are soft-WPMI's, where FALCON has none.",
    ]
    return report(
        "falcon-failure",
        "why a classifier fails",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        pictures={"falcon-failure": Image.fromarray(_sheet(cells, 1 + asked["top"]))},
    )


def carried(request: Request) -> Report:
    """Concepts of one network's features carried to another through a linear map, and what they predict there."""
    asked = request.settings({**DEFAULTS, "parts": 8})
    pair = encoders(request, None, (STAND_IN, "zoo:vit-caltech101"))
    if len(pair) != 2:
        raise UsageError("falcon-transfer takes two models: --model the one that is described --model the other")
    source, target = pair
    falcon, there = fitted(request, asked, source), fitted(request, asked, target)
    ours, theirs = (
        probe(encoder, request.datasets[0], "features", progress=request.progress) for encoder in (source, target)
    )
    found = transfer(ours, theirs)
    units = drawn(request, target.width, 10)
    numbers = [parse(text, target).index for text in units]
    needed = sorted({part for number in numbers for part in strongest_parts(found, number, asked["parts"])})
    known = dict(zip(needed, described(falcon, [f"features:{part}" for part in needed]), strict=True))
    brought = {number: found.carry(known, number) for number in numbers}
    own = dict(zip(numbers, described(there, units), strict=True))
    rows = transferred(there, found, brought, own, request.seed)
    notes = [
        f"A ridge map from the features of {source.source} to those of {target.source}, fitted on {found.fitted} "
        f"photos; it explains {found.explained:.0%} of their variance on {found.tested} others (R2). carried: the "
        f"concepts of each feature's {asked['parts']} largest parts, weighed by their shares in the map.",
        f"{TRUTH} permuted: another feature's carried concepts. mean: over features, [95 % bootstrap interval].",
    ]
    return report("falcon-transfer", "concepts carried to another network", rows, there, request, asked, notes=notes)


def misclassified(encoder: Encoder, text: str, count: int, request: Request) -> list[tuple[Path, int]]:
    """Photos at random that are taken for another class, with their own. UsageError where there is none."""
    photos = of_the_network(encoder, dataset(text), text)
    order = np.random.default_rng(request.seed).permutation(len(photos)).tolist()
    found: list[tuple[Path, int]] = []
    with steps(len(order), "looking for failures", request.progress) as step:
        for first in range(0, len(order), _BATCH):
            rows = order[first : first + _BATCH]
            answers = encoder.logits([photos.paths[row] for row in rows]).argmax(1).tolist()
            pairs = zip(rows, answers, strict=True)
            found += [(photos.paths[row], photos.labels[row]) for row, said in pairs if said != photos.labels[row]]
            step(len(rows))
            if len(found) >= count:
                break
    if not found:
        raise UsageError(f"{encoder.source} takes every photo of {text} for its class: give harder ones")
    return found[:count]


def changed(
    encoder: Encoder, h: Float[np.ndarray, " features"], removed: Sequence[int], seed: int
) -> tuple[int, float]:
    """The answer when some features are 0, and how often it changes when as many other active ones are."""
    head = encoder.head
    assert head is not None  # the explanation has been made
    weight = head.weight.detach().float().cpu().numpy().astype(np.float64)
    bias = 0.0 if head.bias is None else head.bias.detach().float().cpu().numpy().astype(np.float64)

    def answer(without: Sequence[int]) -> int:
        kept = h.astype(np.float64).copy()
        kept[list(without)] = 0
        return int((weight @ kept + bias).argmax())

    usual = answer([])
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.flatnonzero(h), removed)
    number = min(len(removed), len(others))
    draws = [answer(rng.choice(others, number, replace=False).tolist()) != usual for _ in range(_RANDOM)]
    return answer(removed), float(np.mean(draws))


def strongest_parts(found: Transfer, target: int, count: int) -> list[int]:
    """The source's features of the largest positive share in a target feature."""
    shares = found.weights[:, target] * found.spread
    return [int(part) for part in np.argsort(-shares, kind="stable")[:count] if shares[part] > 0]


def transferred(
    there: Falcon,
    found: Transfer,
    brought: Mapping[int, tuple[Concept, ...]],
    own: Mapping[int, Description],
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each of the target's features, and their mean: carried concepts beside its own and another's."""
    numbers = list(brought)
    swap = derangement(len(numbers), seed) if len(numbers) > 1 else None
    rows = []
    for place, number in enumerate(numbers):
        other = None if swap is None else brought[numbers[int(swap[place])]]
        truth = own[number].truth
        rows.append(
            {
                "feature": f"features:{number}",
                "carried": ", ".join(concept.word for concept in brought[number][:5]) or None,
                "own": words(own[number]),
                "R2": _number(found.r2[number]),
                "AUC carried": predicts(there, number, brought[number]),
                "AUC own": None if truth is None else truth.auc.value,
                "AUC permuted": None if other is None else predicts(there, number, other),
            }
        )
    mean: dict[str, Any] = {**dict.fromkeys(rows[0]), "feature": "mean"}
    for name in ("R2", "AUC carried", "AUC own", "AUC permuted"):
        values = [row[name] for row in rows if row[name] is not None]
        mean[name] = bootstrap(values, seed=seed) if values else None
    pairs = [(row["AUC carried"], row["AUC permuted"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    rows.append(mean)
    if pairs:
        one, two = zip(*pairs, strict=True)
        gain: Interval = bootstrap_difference(one, two, seed=seed)
        rows.append({**dict.fromkeys(rows[0]), "feature": "carried - permuted", "AUC carried": gain})
    return rows


def predicts(falcon: Falcon, feature: int, concepts: Sequence[Concept]) -> float | None:
    """The AUC of concepts for a feature on the photos kept for the test; None where there is nothing to test."""
    space = features(falcon)
    if space.test is None or not concepts:
        return None
    unit = Unit(f"features:{feature}", "features", channels=(feature,))
    strong = strong_images(activation(space.test.h, unit), space.limits.alpha)
    if strong is None:
        return None
    falcon.tools_.gallery.embed(wholes=space.test.ids, paths=dict(zip(space.test.ids, space.test.paths, strict=True)))
    text = falcon.tools_.texts.description({concept.word: concept.score for concept in concepts})
    return auc(falcon.tools_.gallery.wholes(space.test.ids) @ text, strong)


def _clear_groups(falcon: Falcon, units: Sequence[str]) -> list[tuple[int, ...]]:
    """The members of the groups whose crops are alike."""
    if not units:
        return []
    found = described(falcon, units)
    return [parse(item.unit, falcon.encoder).channels for item in found if item.interpretable]


def _features(found: FailureExplanation, name: str) -> list[dict[str, Any]]:
    rows = []
    for role, items in (("for", found.features), ("against", found.against)):
        for item in items:
            text = item.description
            rows.append(
                {
                    **_blank(found, name),
                    "role": role,
                    "feature": f"features:{item.feature}",
                    "contribution": item.contribution,
                    "concepts": None if text is None else words(text) if text.explained else f"({words(text)})",
                }
            )
    return rows


def _without(encoder: Encoder, found: FailureExplanation, path: Path, name: str, seed: int) -> dict[str, Any]:
    h = encoder.features(path)[0].cpu().numpy()
    answer, often = changed(encoder, h, [item.feature for item in found.features], seed)
    row = _blank(found, name) | {"role": "for, together", "feature": f"{len(found.features)} features"}
    row["contribution"] = float(sum(item.contribution for item in found.features))
    label = str(answer) if encoder.classes is None else encoder.classes[answer]
    return row | {"answer without": label, "share of random": often}


def _blank(found: FailureExplanation, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"photo": name, "actual": found.actual, "predicted": found.predicted}
    row |= {"probability": found.probability, "logit": found.logit}
    names = ("role", "feature", "contribution", "concepts", "answer without", "share of random")
    return row | dict.fromkeys(names)


def _pictured(found: FailureExplanation, path: Path, top: int) -> list[tuple[Any, str]]:
    """The photo, and each feature's strongest photo's crop under its concepts."""
    with Image.open(path) as opened:
        cells: list[tuple[Any, str]] = [(opened.convert("RGB"), f"{found.actual}, taken for {found.predicted}")]
    for item in found.features[:top]:
        text = item.description
        crop = text.high[0].crop if text is not None and text.high else np.full((64, 64, 3), 255, np.uint8)
        about = "" if text is None else words(text, 3)
        cells.append((crop, f"features:{item.feature}: {about}"))
    blank = (np.full((64, 64, 3), 255, np.uint8), "")
    return cells + [blank] * (1 + top - len(cells))


def _sheet(cells: Sequence[tuple[Any, str]], columns: int) -> np.ndarray:
    return contact_sheet([picture for picture, _ in cells], [caption for _, caption in cells], columns, cell=220)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
