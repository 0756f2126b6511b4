"""A label for the units that FALCON finds nothing for: CLIP-Dissect's, over the same images and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from encoscope.falcon.concept_scores import ranked
from encoscope.falcon.context import POOL, Tools, listed
from encoscope.falcon.description import Concept, Description
from encoscope.falcon.dissect import background, soft_wpmi
from encoscope.falcon.selection import activation
from encoscope.falcon.spaces import Space
from encoscope.units import Unit, space_of

NOTHING = "every word of its captions is shared with the counterfactuals"
_STRONGEST = 100  # images that soft-WPMI looks at


def fall_back(
    units: Sequence[Unit],
    found: Sequence[Description],
    spaces: Mapping[str, Space],
    tools: Tools,
    vocabulary: Sequence[str],
    pool: Sequence[str],
) -> list[Description]:
    """Soft-WPMI for the units that have no concept; one that never fires has none whatever the method."""
    empty = [place for place, item in enumerate(found) if not item.concepts]
    todo = [place for place in empty if "never fires" not in found[place].note]
    labels = dissect([units[place] for place in todo], spaces, tools, vocabulary, pool) if todo and vocabulary else {}
    result = list(found)
    for place in empty:
        concepts = labels.get(units[place], ())
        note = found[place].note or NOTHING
        result[place] = replace(found[place], concepts=concepts, method="dissect" if concepts else "none", note=note)
    return result


def dissect(
    units: Sequence[Unit],
    spaces: Mapping[str, Space],
    tools: Tools,
    vocabulary: Sequence[str],
    pool: Sequence[str] = (),
) -> dict[Unit, tuple[Concept, ...]]:
    """CLIP-Dissect's best concepts for each unit, of a vocabulary, by soft-WPMI over whole images of the probe.

    pool: images that stand for the probe beside each unit's strongest hundred; the first thousand by id by default.
    """
    words = list(dict.fromkeys(vocabulary))
    texts = tools.texts(words)
    found: dict[Unit, tuple[Concept, ...]] = {}
    for name, space in spaces.items():
        made = space.made
        place = {image: row for row, image in enumerate(made.ids)}
        common = np.array([place[image] for image in (pool or sorted(place)[:POOL]) if image in place], np.int64)
        mine = {unit: activation(made.h, unit) for unit in units if space_of(unit) == name}
        if not mine:
            continue
        rows = {
            unit: np.union1d(common, np.argsort(-value, kind="stable")[:_STRONGEST]) for unit, value in mine.items()
        }
        every = np.unique(np.concatenate([common, *rows.values()]))
        paths = dict(zip(made.ids, made.paths, strict=True))
        tools.gallery.embed(wholes=[made.ids[row] for row in every], paths=paths)
        vectors = tools.gallery.wholes([made.ids[row] for row in every])
        similarity = np.zeros((len(made.ids), len(words)), np.float32)
        similarity[every] = vectors @ texts.T
        # of all the space's channels on the common images, so that a unit's label depends on no other unit asked for
        usual = background(similarity[common], made.h[common])
        for unit, value in mine.items():
            chosen = rows[unit]
            scores = np.asarray(soft_wpmi(similarity[chosen], value[chosen], background=usual), dtype=np.float64)
            best = dict(zip(words, scores.tolist(), strict=True))
            found[unit] = listed(ranked(best, tools.settings.top))
    return found
