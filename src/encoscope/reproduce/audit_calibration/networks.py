"""The networks of the audit's calibration, and what is measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from encoscope.analysis.audit import measure_response, predict_labels, rank_associations
from encoscope.encoder import Encoder
from encoscope.images import LoadedImage, read_image
from encoscope.reproduce.audit_calibration.classifiers import Condition, Samples, Setting, answers
from encoscope.reproduce.audit_calibration.metrics import figures

SHOWN = 2
"""Images of a pair in the picture."""


@dataclass(frozen=True)
class Pair:
    """Two networks of one seed, one of which learned a mark on the class ``marked``."""

    mark: str
    number: int
    marked: int
    seed: int

    def condition(self, with_mark: bool, carried: float) -> Condition:
        """How one of the two is trained."""
        kind = self.mark if with_mark else None
        return Condition(kind, augmented=False, marked=self.marked, seed=self.seed, carried=carried)


@dataclass(frozen=True)
class Audited:
    """Held-out images of a pair: indices, clean, as the marked training set has them, and where their marks lie."""

    indices: Sequence[int]
    clean: Sequence[LoadedImage]
    found: Sequence[LoadedImage]
    masks: Sequence[Bool[np.ndarray, "height width"] | None]


def pairs(kinds: Sequence[str], seeds: int, classes: int, seed: int = 0) -> list[Pair]:
    """All pairs; no two share a seed, and the classes take turns to carry the mark."""
    return [
        Pair(kind, number, number % classes, 1 + seed * 1009 + number * len(kinds) + place)
        for place, kind in enumerate(kinds)
        for number in range(seeds)
    ]


def audited(found: Samples, pair: Pair, setting: Setting, asked: Mapping[str, Any], seed: int) -> Audited:
    """The held-out images that are audited, evenly spread over the classes."""
    step = max(1, len(found.test) // asked["images"])
    indices = [int(index) for index in found.test[::step][: asked["images"]]]
    clean = [read_image(found.pixels(index)) for index in indices]
    condition, photos, masks = pair.condition(True, asked["carried"]), [], []
    for index, photo in zip(indices, clean, strict=True):
        mask = None
        if found.photos.labels[index] == pair.marked and condition.carries(found.ids[index]):
            pixels, mask = found.marked(index, pair.mark, setting, seed)
            photo = read_image(pixels)
        photos.append(photo)
        masks.append(mask)
    return Audited(indices, clean, photos, masks)


def measure(
    encoder: Encoder, found: Samples, pair: Pair, setting: Setting, asked: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """A network's answers without marks, with marks as learned and moved to the other classes; and its two audits."""
    looked = audited(found, pair, setting, asked, seed)
    labels = [found.photos.classes[found.photos.labels[index]] for index in looked.indices]
    given = {"n_clusters": asked["clusters"], "random_state": seed}
    response = measure_response(encoder, looked.clean, pair.mark, share=setting.share, progress=False, **given)
    ranked, nave = rank_associations(encoder, looked.found, labels, permutations=asked["permutations"], **given)
    flagged = next(item for item in ranked if item.kind == "cluster")
    inside = {
        place: predict_labels(nave, looked.found[place]) == flagged.index
        for place, mask in enumerate(looked.masks)
        if mask is not None
    }
    on_mark = [_excess(region, looked.masks[place]) for place, region in inside.items()]
    return {
        "digest": encoder.digest,
        **_reliance(encoder, found, pair, setting, seed),
        **figures(response, ranked),
        "flagged highest": flagged.highest,
        "flagged on mark": on_mark,
        "flagged": {str(place): packed(inside[place]) for place in list(inside)[:SHOWN]},
    }


def _reliance(encoder: Encoder, found: Samples, pair: Pair, setting: Setting, seed: int) -> dict[str, list[int]]:
    """For every held-out image whether the answer is right: no marks, marks as learned, and on all other classes."""
    labels = found.photos.labels[found.test]
    clean = [found.pixels(int(index)) for index in found.test]
    with_mark = [found.marked(int(index), pair.mark, setting, seed)[0] for index in found.test]
    plain, marked = answers(encoder, clean), answers(encoder, with_mark)
    own = labels == pair.marked
    choices = {"clean": plain, "own": np.where(own, marked, plain), "moved": np.where(own, plain, marked)}
    return {name: (said == labels).astype(int).tolist() for name, said in choices.items()}


def _excess(region: Bool[np.ndarray, "height width"], mask: Bool[np.ndarray, "height width"] | None) -> float:
    """Share of the mark that a region covers, less its share of the rest of the image."""
    assert mask is not None
    return float(region[mask].mean() - region[~mask].mean())


def packed(region: Bool[np.ndarray, "height width"]) -> str:
    """A region as text, for a journal."""
    return np.packbits(region).tobytes().hex()


def unpacked(text: str, shape: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """A region of an image of this shape (height, width), from ``packed``."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    return bits[: shape[0] * shape[1]].astype(bool).reshape(shape)
