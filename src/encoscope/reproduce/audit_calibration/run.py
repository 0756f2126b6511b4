"""The audit calibrated: small networks trained with and without cues that it was never tried on, each audited.

Every pair of networks shares a seed, images and schedule; in one of them a class had a cue. Both are audited in the two
modes of ``encoscope audit``: with the cue known, on clean held-out images, and with labels only, on held-out images as
the training set with the cue had them. See ``metrics`` for how figures are judged.
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
from encoscope.analysis.settings import AuditSettings
from encoscope.analysis.watermarks import SEEN, UNSEEN
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import open_cache, shorten_dataset
from encoscope.images import open_dataset
from encoscope.metrics import bootstrap, bootstrap_difference
from encoscope.progress import track_steps
from encoscope.reproduce.audit_calibration.classifiers import (
    Samples,
    Setting,
    create_untrained,
    decode_samples,
    train_classifier,
)
from encoscope.reproduce.audit_calibration.metrics import FIGURES, LeftOut, leave_out
from encoscope.reproduce.audit_calibration.networks import (
    SHOWN,
    Pair,
    list_pairs,
    measure_network,
    prepare_audit,
    unpack_region,
)
from encoscope.reproduce.audit_calibration.plots import dim_outside, draw_strips
from encoscope.reproduce.sheets import Cell, draw_sheet

NAME = "audit-calibration"
OPTIONS: Mapping[str, Any] = {
    **asdict(Setting(pixels=64, epochs=6, share=0.1875)),
    "cues": ",".join(UNSEEN),
    "seeds": 3,
    "cue_rate": 0.5,
    "images": 100,
    "clusters": AuditSettings.n_clusters,
    "permutations": AuditSettings.permutations,
}
"""What can be set. cues: kinds, or image files, at least two. seeds: pairs of networks of each. cue_rate: share of the
cue's class's images with the cue. images: held-out ones that are audited; the rest as the audit's own."""
_AUDIT = 11  # an audit of an image takes about as long as so many training steps' shares of an image

_log = logging.getLogger("encoscope")


def run(request: EvaluationRequest) -> Report:
    """Train (or resume, or read back) and audit every network, and judge the audit's figures.

    Args:
        request: the experiment's request.

    Returns:
        A table of figures and one of networks, with two pictures.

    Raises:
        UsageError: without a dataset, for fewer than two kinds of cues, and for wrong settings.
    """
    settings = request.settings(OPTIONS)
    setting = Setting(**{name: settings[name] for name in asdict(Setting())})
    kinds = [kind for kind in str(settings["cues"]).split(",") if kind]
    if len(set(kinds)) < 2 or settings["seeds"] < 1:
        raise UsageError("calibration needs at least two kinds of cues and a seed: --set cues=arrow,date --set seeds=2")
    if not 0 < settings["cue_rate"] <= 1:
        raise UsageError(f"cue_rate is a share above 0 and at most 1, not {settings['cue_rate']}")
    if not request.datasets:
        raise UsageError(f"{NAME} needs --dataset: images with labels, such as a folder with a folder for each label")
    samples = decode_samples(open_dataset(request.datasets[0]), setting, limit=request.limit)
    origin = _fingerprint(samples)
    all_pairs = list_pairs(kinds, settings["seeds"], len(samples.images.classes), request.seed)
    measured: dict[tuple[Pair, bool], dict[str, Any]] = {}
    manifest_settings = {name: value for name, value in settings.items() if name not in ("cues", "seeds")}
    manifest = {"task": NAME, "version": __version__, "origin": origin, "seed": request.seed, **manifest_settings}
    todo = [(pair, with_cue) for pair in all_pairs for with_cue in (True, False)]
    measurements = open_cache(manifest, [create_untrained(setting, samples.images.classes, 0)], fresh=request.fresh)
    with track_steps(len(todo), "networks", request.progress) as count:
        left = sum(measurements.get(_identity(*item)) is None for item in todo)
        if left:
            _announce(samples, setting, settings, left, len(todo))
        for pair, with_cue in todo:
            name = _identity(pair, with_cue)
            if measurements.get(name) is None:
                condition = pair.condition(with_cue, settings["cue_rate"])
                encoder = train_classifier(samples, condition, setting, origin=origin, fresh=request.fresh)
                measurements.put(name, measure_network(encoder, samples, pair, setting, settings, request.seed))
            measured[pair, with_cue] = measurements.get(name) or {}
            count(1)
    return _build_report(request, settings, setting, samples, all_pairs, measured)


def _identity(pair: Pair, with_cue: bool) -> str:
    return f"{pair.cue} {pair.number} {pair.seed} {'with' if with_cue else 'without'}"


def _fingerprint(samples: Samples) -> str:
    """What tells these images, their labels and their parting from others."""
    digest = hashlib.sha256(repr((samples.images.classes, samples.images.labels.tolist(), list(samples.ids))).encode())
    for pixels in samples.images.pixels:
        digest.update(repr(tuple(pixels.shape)).encode() + pixels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _announce(samples: Samples, setting: Setting, settings: Mapping[str, Any], left: int, total: int) -> None:
    """Time a training step and say how long the rest will take."""
    batch = min(64, len(samples.train))
    model = create_untrained(setting, samples.images.classes, 0).module.train().requires_grad_(True)
    images = torch.zeros(batch, 3, setting.pixels, setting.pixels)
    times = [time.monotonic()]
    for _ in range(2):  # the first step also sets things up
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(images).float().square().mean().backward()
        times.append(time.monotonic())
    step = times[2] - times[1]
    training = setting.epochs * (len(samples.train) // batch)
    seconds = left * step * (training + _AUDIT * min(settings["images"], len(samples.test)) / batch)
    _log.info(
        "%d of %d networks to train and audit, %d steps of %.2f s each: about %.0f min",
        left,
        total,
        training,
        step,
        max(1, seconds / 60),
    )


def _build_report(
    request: EvaluationRequest,
    settings: Mapping[str, Any],
    setting: Setting,
    samples: Samples,
    all_pairs: Sequence[Pair],
    measured: Mapping[tuple[Pair, bool], Mapping[str, Any]],
) -> Report:
    kinds = [pair.cue for pair in all_pairs]
    with_cue, without = (
        {name: np.array([measured[pair, cued][name] for pair in all_pairs], dtype=np.float64) for name in FIGURES}
        for cued in (True, False)
    )
    judged = {name: leave_out(with_cue[name], without[name], kinds) for name in FIGURES}
    networks = [_network_row(pair, cued, measured[pair, cued], samples) for pair in all_pairs for cued in (True, False)]
    return Report(
        NAME,
        "Does the audit tell networks that learned a cue from those that did not? "
        f"({shorten_dataset(request.datasets[0])})",
        [_row(name, judged[name], with_cue[name], without[name]) for name in FIGURES],
        notes=_notes(settings, setting, samples, all_pairs),
        figures={
            **_draw_flagged(samples, all_pairs, setting, settings, measured, request.seed),
            f"{NAME}-figures": draw_strips(with_cue, without, kinds, judged),
        },
        settings={"dataset": request.datasets[0], "limit": request.limit, **settings},
        seed=request.seed,
        further={"networks": networks},
    )


def _row(
    name: str, judged: LeftOut, with_cue: Float[np.ndarray, " pairs"], without: Float[np.ndarray, " pairs"]
) -> dict[str, Any]:
    words = {1: "higher", -1: "lower"}
    return {
        "figure of the audit": name,
        "audit": FIGURES[name],
        "AUC, mark left out": judged.auc,
        "right": f"{judged.right} of {judged.networks}",
        "a mark makes it": words[judged.directions[0]] if len(set(judged.directions)) == 1 else "undecided",
        "with the mark": _range(with_cue),
        "without": _range(without),
    }


def _range(values: Float[np.ndarray, " pairs"]) -> str:
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def _network_row(pair: Pair, with_cue: bool, values: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """A network's line: what it learned, how well, how far it relies on the mark, and the audit's figures."""
    right = {name: np.array(values[name], dtype=np.float64) for name in ("clean", "own", "moved")}
    return {
        "trained": f"with {pair.cue}" if with_cue else "without",
        "audited with": pair.cue,
        "marked class": samples.images.classes[pair.cue_class],
        "seed": pair.seed,
        "accuracy, no marks": bootstrap(right["clean"]),
        "marks as learned": float(right["own"].mean()),
        "marks moved": float(right["moved"].mean()),
        "reliance": bootstrap_difference(right["own"], right["moved"]),
        "flagged on mark": bootstrap(values["flagged on mark"]) if values["flagged on mark"] else None,
        **{name: values[name] for name in FIGURES},
    }


def _notes(settings: Mapping[str, Any], setting: Setting, samples: Samples, all_pairs: Sequence[Pair]) -> list[str]:
    kinds = list(dict.fromkeys(pair.cue for pair in all_pairs))
    seen = [kind for kind in kinds if kind in SEEN]
    chosen_on = f"The audit's figures were chosen and tried out on {', '.join(SEEN)}; "
    audited_images = min(settings["images"], len(samples.test))
    return [
        chosen_on + (f"{', '.join(seen)} is no unseen cue." if seen else f"{', '.join(kinds)} had no part in that."),
        "Leaving out: each kind of cue is left out in turn with all its networks. The others, none of which shares a "
        "seed with these, say whether a higher or a lower figure means a cue (sign of the difference of the means of "
        "networks with and without) and where the threshold lies (midway). AUC: of all networks' distances from their "
        "threshold in that direction [95 % interval, Newcombe's, networks taken as independent]; right: networks on "
        "their side of the threshold.",
        f"{len(all_pairs)} pairs of networks: {setting.architecture}, {setting.pixels} px, {setting.epochs} epochs of "
        f"{len(samples.train)} images; one of a pair had the cue on {settings['cue_rate']:.0%} of one class's images, "
        "at random positions, the other on none; same first weights, same order.",
        f"mark given: encoscope audit --watermark on {audited_images} clean held-out images, each figure less the "
        "control patch's. labels only: encoscope audit on the same images with the cue on its class, as the training "
        "set had it; eta squared of the strongest cluster and feature. Both networks of a pair see the same images.",
        f"accuracy: on {len(samples.test)} held-out images; reliance: accuracy with the cue on its class less accuracy "
        "with it on every other image instead. flagged on mark: share of the cue that the cluster most associated "
        "with the labels covers, less its share of the rest of these images (the audit does not know the cue).",
    ]


def _draw_flagged(
    samples: Samples,
    all_pairs: Sequence[Pair],
    setting: Setting,
    settings: Mapping[str, Any],
    measured: Mapping[tuple[Pair, bool], Mapping[str, Any]],
    random_state: int,
) -> dict[str, Image.Image]:
    """A row a pair: images with the mark, and the region that the audit flags in each of the two networks."""
    cells: list[Cell] = []
    for pair in all_pairs:
        audit = prepare_audit(samples, pair, setting, settings, random_state)
        for index in measured[pair, True]["flagged"]:
            image = np.asarray(audit.as_trained[int(index)].pixels)
            cells.append((image, f"{pair.cue}, seed {pair.seed}"))
            for cued, words in ((True, "learned with the mark"), (False, "learned without")):
                inside = unpack_region(measured[pair, cued]["flagged"][index], (image.shape[0], image.shape[1]))
                cells.append((dim_outside(image, inside), f"flagged, {words}"))
    if not cells:  # no audited image has a cue
        return {}
    return {NAME: draw_sheet(cells, columns=3 * SHOWN, cell=150)}
