"""Would a segmentation come out again? Agreement over k-means starts, the mirrored image and crops, over a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import measure
from encoscope.evaluation.overlap import with_untrained
from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import Examples, Task, short, unique
from encoscope.images import LoadedImage
from encoscope.nave.stability import measure_stability
from encoscope.progress import Progress

MEASURES = ("starts", "least", "flip", "crops")
NOTES = (
    "Adjusted Rand index, 1 the same, 0 chance. starts: mean over pairs of k-means starts; least: over the pairs of an "
    "image; flip: with the mirrored image, mirrored back; crops: with four corner crops of 0.8 of the side. untrained: "
    "the same network without training. What agrees may still be wrong. [95 % bootstrap interval over images]",
)


def evaluate(
    contenders: Sequence[Baseline],
    images: Examples,
    dataset: str,
    *,
    runs: int = 5,
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """A row for each NAVE contender, and for its untrained twin. runs: k-means starts compared, at least 2."""
    everyone, names, notes = with_untrained([one for one in contenders if one.method == "nave"], seed)

    def look(contender: Baseline, photo: LoadedImage, truth: np.ndarray, parts: int | None) -> Mapping[str, Any]:
        assert contender.encoder is not None
        found = measure_stability(contender.encoder, photo, runs=runs, **contender.segmenting())
        starts, crops = float(found.starts.mean()), float(found.crops.mean())
        return {"starts": starts, "least": float(found.starts.min()), "flip": found.flip, "crops": crops}

    task = Task("stability", look, settings={"runs": runs})
    found = measure(everyone, images, task, fresh=fresh, progress=progress)
    rows = [
        {"method": name, "clusters": contender.clusters}
        | {value: measured.interval(value, seed) for value in MEASURES}
        | {"images": len(measured)}
        for contender, name, measured in zip(everyone, names, found, strict=True)
    ]
    skipped = unique(item for one in found for item in one.skipped)
    title = f"Would a segmentation come out again? {short(dataset)}"
    return Report("stability", title, rows, [*NOTES, *notes], {}, {"runs": runs}, seed, skipped)
