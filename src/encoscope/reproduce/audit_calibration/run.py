"""The audit calibrated: small networks trained with and without marks that it was never tried on, each audited.

Every pair of networks shares a seed, images and schedule; in one of them a class carried a mark. Both are audited in
the two ways of ``encoscope audit``: with the mark given, on clean held-out images, and with labels only, on held-out
images as the marked training set had them. See ``calibration`` for how figures are judged.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from encoscope._version import __version__
from encoscope.analysis.audit import CLUSTERS, PERMUTATIONS
from encoscope.analysis.watermarks import SEEN, UNSEEN
from encoscope.errors import UsageError
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import open_dataset
from encoscope.metrics import bootstrap, bootstrap_difference
from encoscope.plots import draw_contact_sheet
from encoscope.progress import track_steps
from encoscope.reproduce.audit_calibration.classifiers import Samples, Setting, classifier, samples, untrained
from encoscope.reproduce.audit_calibration.metrics import FIGURES, LeftOut, leave_out
from encoscope.reproduce.audit_calibration.networks import SHOWN, Pair, audited, measure, pairs, unpacked
from encoscope.reproduce.audit_calibration.plots import dimmed, strips

NAME = "audit-calibration"
OPTIONS: Mapping[str, Any] = {
    **asdict(Setting(pixels=64, epochs=6, share=0.1875)),
    "marks": ",".join(UNSEEN),
    "seeds": 3,
    "carried": 0.5,
    "images": 100,
    "clusters": CLUSTERS,
    "permutations": PERMUTATIONS,
}
"""What can be set. marks: kinds, or image files, at least two. seeds: pairs of networks of each. carried: share of the
marked class's images with the mark. images: held-out ones that are audited; the rest as the audit's own."""
_AUDIT = 11  # an audit of an image takes about as long as so many training steps' shares of an image

_log = logging.getLogger("encoscope")


def run(request: EvaluationRequest) -> Report:
    """Train (or go on, or read back) and audit every network, and judge the audit's figures."""
    asked = request.settings(OPTIONS)
    setting = Setting(**{name: asked[name] for name in asdict(Setting())})
    kinds = [kind for kind in str(asked["marks"]).split(",") if kind]
    if len(set(kinds)) < 2 or asked["seeds"] < 1:
        raise UsageError(
            "calibration needs at least two kinds of marks and a seed: --set marks=arrow,date --set seeds=2"
        )
    if not 0 < asked["carried"] <= 1:
        raise UsageError(f"carried is a share above 0 and at most 1, not {asked['carried']}")
    if not request.datasets:
        raise UsageError(f"{NAME} needs --dataset: images with labels, such as a folder with a folder for each label")
    found = samples(open_dataset(request.datasets[0]), setting, limit=request.limit)
    origin = _fingerprint(found)
    everyone = pairs(kinds, asked["seeds"], len(found.photos.classes), request.seed)
    measured: dict[tuple[Pair, bool], dict[str, Any]] = {}
    shaped = {name: value for name, value in asked.items() if name not in ("marks", "seeds")}
    manifest = {"task": NAME, "version": __version__, "origin": origin, "seed": request.seed, **shaped}
    todo = [(pair, with_mark) for pair in everyone for with_mark in (True, False)]
    journal = MeasurementCache(manifest, fresh=request.fresh)
    with track_steps(len(todo), "networks", request.progress) as count:
        left = sum(journal.get(_identity(*one)) is None for one in todo)
        if left:
            _announce(found, setting, asked, left, len(todo))
        for pair, with_mark in todo:
            name = _identity(pair, with_mark)
            if journal.get(name) is None:
                condition = pair.condition(with_mark, asked["carried"])
                encoder = classifier(found, condition, setting, origin=origin, fresh=request.fresh)
                journal.put(name, measure(encoder, found, pair, setting, asked, request.seed))
            measured[pair, with_mark] = journal.get(name) or {}
            count(1)
    return _report(request, asked, setting, found, everyone, measured)


def _identity(pair: Pair, with_mark: bool) -> str:
    return f"{pair.mark} {pair.number} {pair.seed} {'with' if with_mark else 'without'}"


def _fingerprint(found: Samples) -> str:
    """What tells these images, their labels and their parting from others."""
    digest = hashlib.sha256(repr((found.photos.classes, found.photos.labels.tolist(), list(found.ids))).encode())
    for pixels in found.photos.pixels:
        digest.update(repr(tuple(pixels.shape)).encode() + pixels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _announce(found: Samples, setting: Setting, asked: Mapping[str, Any], left: int, total: int) -> None:
    """Time a training step and say how long the rest will take."""
    batch = min(64, len(found.train))
    model = untrained(setting, found.photos.classes, 0).module.train().requires_grad_(True)
    images = torch.zeros(batch, 3, setting.pixels, setting.pixels)
    times = [time.monotonic()]
    for _ in range(2):  # the first step also sets things up
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(images).float().square().mean().backward()
        times.append(time.monotonic())
    step = times[2] - times[1]
    training = setting.epochs * (len(found.train) // batch)
    seconds = left * step * (training + _AUDIT * min(asked["images"], len(found.test)) / batch)
    _log.info(
        "%d of %d networks to train and audit, %d steps of %.2f s each: about %.0f min",
        left,
        total,
        training,
        step,
        max(1, seconds / 60),
    )


def _report(
    request: EvaluationRequest,
    asked: Mapping[str, Any],
    setting: Setting,
    found: Samples,
    everyone: Sequence[Pair],
    measured: Mapping[tuple[Pair, bool], Mapping[str, Any]],
) -> Report:
    kinds = [pair.mark for pair in everyone]
    marked, unmarked = (
        {name: np.array([measured[pair, way][name] for pair in everyone], dtype=np.float64) for name in FIGURES}
        for way in (True, False)
    )
    judged = {name: leave_out(marked[name], unmarked[name], kinds) for name in FIGURES}
    networks = [_network(pair, way, measured[pair, way], found) for pair in everyone for way in (True, False)]
    return Report(
        NAME,
        "Does the audit tell networks that learned a mark from those that did not? "
        f"({shorten_dataset(request.datasets[0])})",
        [_row(name, judged[name], marked[name], unmarked[name]) for name in FIGURES],
        notes=_notes(asked, setting, found, everyone),
        pictures={
            **_sheet(found, everyone, setting, asked, measured, request.seed),
            f"{NAME}-figures": strips(marked, unmarked, kinds, judged),
        },
        settings={"dataset": request.datasets[0], "limit": request.limit, **asked},
        seed=request.seed,
        further={"networks": networks},
    )


def _row(
    name: str, judged: LeftOut, marked: Float[np.ndarray, " pairs"], unmarked: Float[np.ndarray, " pairs"]
) -> dict[str, Any]:
    ways = {1: "higher", -1: "lower"}
    return {
        "figure of the audit": name,
        "audit": FIGURES[name],
        "AUC, mark left out": judged.auc,
        "right": f"{judged.right} of {judged.networks}",
        "a mark makes it": ways[judged.directions[0]] if len(set(judged.directions)) == 1 else "undecided",
        "with the mark": _range(marked),
        "without": _range(unmarked),
    }


def _range(values: Float[np.ndarray, " pairs"]) -> str:
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def _network(pair: Pair, with_mark: bool, values: Mapping[str, Any], found: Samples) -> dict[str, Any]:
    """A network's line: what it learned, how well, how far it relies on the mark, and the audit's figures."""
    right = {name: np.array(values[name], dtype=np.float64) for name in ("clean", "own", "moved")}
    return {
        "trained": f"with {pair.mark}" if with_mark else "without",
        "audited with": pair.mark,
        "marked class": found.photos.classes[pair.marked],
        "seed": pair.seed,
        "accuracy, no marks": bootstrap(right["clean"]),
        "marks as learned": float(right["own"].mean()),
        "marks moved": float(right["moved"].mean()),
        "reliance": bootstrap_difference(right["own"], right["moved"]),
        "flagged on mark": bootstrap(values["flagged on mark"]) if values["flagged on mark"] else None,
        **{name: values[name] for name in FIGURES},
    }


def _notes(asked: Mapping[str, Any], setting: Setting, found: Samples, everyone: Sequence[Pair]) -> list[str]:
    kinds = list(dict.fromkeys(pair.mark for pair in everyone))
    old = [kind for kind in kinds if kind in SEEN]
    tried = f"The audit's figures were chosen and tried out on {', '.join(SEEN)}; "
    return [
        (tried + f"{', '.join(old)} among the marks here is no unseen mark.")
        if old
        else (tried + f"{', '.join(kinds)} had no part in that."),
        "Leaving out: each kind of mark is left out in turn with all its networks. The others, none of which shares a "
        "seed with these, say whether a higher or a lower figure means a mark (sign of the difference of the means of "
        "networks with and without) and where the threshold lies (midway). AUC: of all networks' distances from their "
        "threshold in that direction [95 % interval, Newcombe's, networks taken as independent]; right: networks on "
        "their side of the threshold.",
        f"{len(everyone)} pairs of networks: {setting.architecture}, {setting.pixels} px, {setting.epochs} epochs of "
        f"{len(found.train)} images; one of a pair had the mark on {asked['carried']:.0%} of one class's images, at "
        "random places, the other on none; same first weights, same order.",
        f"mark given: encoscope audit --watermark on {min(asked['images'], len(found.test))} clean held-out images, "
        "each figure less the control patch's. labels only: encoscope audit on the same images with the mark on the "
        "marked class, as the training set had it; eta squared of the strongest cluster and feature. Both networks of "
        "a pair see the same images.",
        f"accuracy: on {len(found.test)} held-out images; reliance: accuracy with the mark on its class less accuracy "
        "with it on every other image instead. flagged on mark: share of the mark that the cluster most associated "
        "with the labels covers, less its share of the rest of these images (the audit does not know it).",
    ]


def _sheet(
    found: Samples,
    everyone: Sequence[Pair],
    setting: Setting,
    asked: Mapping[str, Any],
    measured: Mapping[tuple[Pair, bool], Mapping[str, Any]],
    seed: int,
) -> dict[str, Image.Image]:
    """A row a pair: images with the mark, and the region that the audit flags in each of the two networks."""
    pictures, captions = [], []
    for pair in everyone:
        looked = audited(found, pair, setting, asked, seed)
        for place in measured[pair, True]["flagged"]:
            photo = np.asarray(looked.found[int(place)].pixels)
            pictures.append(photo)
            captions.append(f"{pair.mark}, seed {pair.seed}")
            for way, words in ((True, "learned with the mark"), (False, "learned without")):
                inside = unpacked(measured[pair, way]["flagged"][place], (photo.shape[0], photo.shape[1]))
                pictures.append(dimmed(photo, inside))
                captions.append(f"flagged, {words}")
    if not pictures:  # no audited image carries a mark
        return {}
    return {NAME: Image.fromarray(draw_contact_sheet(pictures, captions, columns=3 * SHOWN, cell=150))}
