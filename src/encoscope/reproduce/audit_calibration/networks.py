"""The networks of the audit's calibration, and what is measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from encoscope.analysis.associations import rank_associations
from encoscope.analysis.cue_response import measure_response
from encoscope.analysis.joint_clusters import predict_labels
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.images import LoadedImage, read_image
from encoscope.reproduce.audit_calibration.classifiers import Condition, Samples, Setting, predict_classes
from encoscope.reproduce.audit_calibration.metrics import collect_figures

SHOWN = 2
"""Images of a pair in the picture."""


@dataclass(frozen=True)
class Pair:
    """Two networks of one seed, one of which learned a cue.

    Attributes:
        cue: kind of cue.
        number: number of the pair among those of its kind.
        cue_class: index of the class that has the cue.
        seed: seed of both trainings.
    """

    cue: str
    number: int
    cue_class: int
    seed: int

    def condition(self, with_cue: bool, cue_rate: float) -> Condition:
        """Return how one of the two networks is trained.

        Args:
            with_cue: whether it is the one with the cue.
            cue_rate: share of the class's images that have the cue.

        Returns:
            The condition.
        """
        kind = self.cue if with_cue else None
        return Condition(kind, augmented=False, cue_class=self.cue_class, seed=self.seed, cue_rate=cue_rate)


@dataclass(frozen=True)
class AuditImages:
    """The held-out images that a pair is audited on.

    Attributes:
        indices: their positions.
        clean: the images without cues.
        as_trained: the images as the training set with the cue has them.
        masks: where their cues lie; None for images without.
    """

    indices: Sequence[int]
    clean: Sequence[LoadedImage]
    as_trained: Sequence[LoadedImage]
    masks: Sequence[Bool[np.ndarray, "height width"] | None]


def list_pairs(kinds: Sequence[str], seeds: int, classes: int, random_state: int = RANDOM_STATE) -> list[Pair]:
    """List all pairs; no two share a seed, and the classes take turns to have the cue.

    Args:
        kinds: kinds of cues.
        seeds: number of pairs of each kind.
        classes: number of classes.
        random_state: seed of all.

    Returns:
        The pairs.
    """
    return [
        Pair(kind, number, number % classes, 1 + random_state * 1009 + number * len(kinds) + index)
        for index, kind in enumerate(kinds)
        for number in range(seeds)
    ]


def prepare_audit(
    samples: Samples, pair: Pair, setting: Setting, settings: Mapping[str, Any], random_state: int
) -> AuditImages:
    """Prepare the held-out images that are audited, evenly spread over the classes.

    Args:
        samples: the images.
        pair: the pair of networks.
        setting: what all classifiers share.
        settings: the experiment's settings.
        random_state: seed of the cues' positions.

    Returns:
        The images without and with cues.
    """
    step = max(1, len(samples.test) // settings["images"])
    indices = [int(index) for index in samples.test[::step][: settings["images"]]]
    clean = [read_image(samples.pixels(index)) for index in indices]
    condition, images, masks = pair.condition(True, settings["cue_rate"]), [], []
    for index, image in zip(indices, clean, strict=True):
        mask = None
        if samples.images.labels[index] == pair.cue_class and condition.has_cue(samples.ids[index]):
            pixels, mask = samples.add_cue(index, pair.cue, setting, random_state)
            image = read_image(pixels)
        images.append(image)
        masks.append(mask)
    return AuditImages(indices, clean, images, masks)


def measure_network(
    encoder: Encoder, samples: Samples, pair: Pair, setting: Setting, settings: Mapping[str, Any], random_state: int
) -> dict[str, Any]:
    """Measure a network's answers without cues, with cues as learned and moved to other classes, and its two audits.

    Args:
        encoder: the network.
        samples: the images.
        pair: the pair that it belongs to.
        setting: what all classifiers share.
        settings: the experiment's settings.
        random_state: seed of the audits.

    Returns:
        Plain values, as the cache keeps them.
    """
    audit = prepare_audit(samples, pair, setting, settings, random_state)
    labels = [samples.images.classes[samples.images.labels[index]] for index in audit.indices]
    options = {"n_clusters": settings["clusters"], "random_state": random_state}
    response = measure_response(encoder, audit.clean, pair.cue, share=setting.share, progress=False, **options)
    ranked, nave, _ = rank_associations(
        encoder, audit.as_trained, labels, permutations=settings["permutations"], **options
    )
    flagged = next(item for item in ranked if item.kind == "cluster")
    inside = {
        index: predict_labels(nave, audit.as_trained[index]) == flagged.index
        for index, mask in enumerate(audit.masks)
        if mask is not None
    }
    on_cue = [_excess(region, audit.masks[index]) for index, region in inside.items()]
    return {
        "digest": encoder.digest,
        **_measure_reliance(encoder, samples, pair, setting, random_state),
        **collect_figures(response, ranked),
        "flagged highest": flagged.highest,
        "flagged on mark": on_cue,
        "flagged": {str(index): pack_region(inside[index]) for index in list(inside)[:SHOWN]},
    }


def _measure_reliance(
    encoder: Encoder, samples: Samples, pair: Pair, setting: Setting, random_state: int
) -> dict[str, list[int]]:
    """For every held-out image whether the answer is right: no marks, marks as learned, and on all other classes."""
    labels = samples.images.labels[samples.test]
    clean = [samples.pixels(int(index)) for index in samples.test]
    cued = [samples.add_cue(int(index), pair.cue, setting, random_state)[0] for index in samples.test]
    plain, with_cue = predict_classes(encoder, clean), predict_classes(encoder, cued)
    own = labels == pair.cue_class
    choices = {"clean": plain, "own": np.where(own, with_cue, plain), "moved": np.where(own, plain, with_cue)}
    return {name: (answers == labels).astype(int).tolist() for name, answers in choices.items()}


def _excess(region: Bool[np.ndarray, "height width"], mask: Bool[np.ndarray, "height width"] | None) -> float:
    """Share of the mark that a region covers, less its share of the rest of the image."""
    assert mask is not None
    return float(region[mask].mean() - region[~mask].mean())


def pack_region(region: Bool[np.ndarray, "height width"]) -> str:
    """Pack a region as text, for the measurement cache.

    Args:
        region: True inside.

    Returns:
        Hexadecimal digits, a bit for each pixel.
    """
    return np.packbits(region).tobytes().hex()


def unpack_region(text: str, shape: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Unpack a region of an image.

    Args:
        text: a region from ``pack_region``.
        shape: ``(height, width)`` of the image.

    Returns:
        True inside.
    """
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    return bits[: shape[0] * shape[1]].astype(bool).reshape(shape)
