"""``encoscope evaluate``: how good segmentations are, beside baselines and controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.evaluation.settings import (
    CorlocSettings,
    EvaluationSettings,
    FaithfulnessSettings,
    OverlapSettings,
    StabilitySettings,
)

if TYPE_CHECKING:
    from encoscope.evaluation import Evaluation

app = App(name="evaluate", help="How good segmentations are, beside baselines and controls.", help_format="plaintext")

_measure = Group("What is measured", sort_key=1)
_segments = Group("Segments", sort_key=2)
_SEGMENTS = ("preset", "layers", "grouping", "size", "min_area", "border", "n_segments", "n_points")


def _make_flags(settings: type[EvaluationSettings]) -> Any:
    return method_flags(settings, _measure, groups=dict.fromkeys(_SEGMENTS, _segments))


if TYPE_CHECKING:
    CorlocFlags = OverlapFlags = StabilityFlags = FaithfulnessFlags = MethodFlags
else:
    CorlocFlags = _make_flags(CorlocSettings)
    OverlapFlags = _make_flags(OverlapSettings)
    StabilityFlags = _make_flags(StabilitySettings)
    FaithfulnessFlags = _make_flags(FaithfulnessSettings)

Model = Annotated[str, Parameter(help='Such as "timm:resnet50" or "timm:vit_small_patch16_224.dino".')]
Out = Annotated[Path | None, Parameter(help="Folder for the table as JSON, CSV and Markdown.")]
Fresh = Annotated[bool, Parameter(help="Start over instead of resuming an interrupted run.")]


@app.command
def corloc(
    *,
    model: Model = DEFAULT_MODEL,
    dataset: Annotated[
        list[str],
        Parameter(help="Images with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, voc:ROOT, coco:IMAGES#JSON."),
    ],
    settings: CorlocFlags | None = None,
    out: Out = None,
    fresh: Fresh = False,
    common: Common | None = None,
) -> int:
    """Measure whether a segment contains an object: CorLoc, as in the papers of NAVE and LOST.

    Choosing the segment with the true boxes at hand is an oracle. So the table always shows the number of candidates,
    as many random segments, and a choice without the true boxes (border) as well. An interrupted run resumes.
    """
    common = common or Common()
    changes = read_changes(CorlocSettings, settings)
    check_run(common, out=out, sources=[dataset] if isinstance(dataset, str) else dataset)

    from encoscope import evaluation

    result = evaluation.corloc(
        common.defer(model), dataset, **changes, random_state=common.seed, progress=common.progress, fresh=fresh
    )
    return _finish(result, out, common)


@app.command
def overlap(
    *,
    model: Model = DEFAULT_MODEL,
    dataset: Annotated[str, Parameter(help="Images with panoptic masks: coco:IMAGES#PANOPTIC.json.")],
    settings: OverlapFlags | None = None,
    out: Out = None,
    fresh: Fresh = False,
    common: Common | None = None,
) -> int:
    """Measure whether segments follow the things in images: mIoU, ARI, NMI and boundaries against panoptic masks.

    Segments are named with each image's own mask at hand (an oracle), so random segments and the untrained network
    stand beside them. With --joint the clusters of all images are named once. An interrupted run resumes.
    """
    common = common or Common()
    changes = read_changes(OverlapSettings, settings)
    check_run(common, out=out, sources=[dataset])

    from encoscope import evaluation

    result = evaluation.overlap(
        common.defer(model), dataset, **changes, random_state=common.seed, progress=common.progress, fresh=fresh
    )
    return _finish(result, out, common)


@app.command
def stability(
    *,
    model: Model = DEFAULT_MODEL,
    dataset: Annotated[str, Parameter(help="A folder of images or a dataset such as caltech101:ROOT#test.")],
    settings: StabilityFlags | None = None,
    out: Out = None,
    fresh: Fresh = False,
    common: Common | None = None,
) -> int:
    """Measure whether a segmentation would come out again: from other starts, of the mirrored image, of crops.

    Agreement is the adjusted Rand index. The untrained network stands beside it. An interrupted run resumes.
    """
    common = common or Common()
    changes = read_changes(StabilitySettings, settings)
    check_run(common, out=out, sources=[dataset])

    from encoscope import evaluation

    result = evaluation.stability(
        common.defer(model), dataset, **changes, random_state=common.seed, progress=common.progress, fresh=fresh
    )
    return _finish(result, out, common)


@app.command
def faithfulness(
    *,
    model: Model = DEFAULT_MODEL,
    dataset: Annotated[
        str, Parameter(help="A folder, a dataset, or coco:IMAGES#PANOPTIC.json, which the probe (a task) needs.")
    ],
    settings: FaithfulnessFlags | None = None,
    out: Out = None,
    fresh: Fresh = False,
    common: Common | None = None,
) -> int:
    """Measure whether segments say something true about the network: deletion, insertion, variance, a linear probe.

    Segments are taken away, or put back, in the order of what each one's removal alone does to the network's answer.
    Random segments of the same number and the untrained network's stand beside them. An interrupted run resumes.
    """
    common = common or Common()
    changes = read_changes(FaithfulnessSettings, settings)
    check_run(common, out=out, sources=[dataset])

    from encoscope import evaluation

    result = evaluation.faithfulness(
        common.defer(model), dataset, **changes, random_state=common.seed, progress=common.progress, fresh=fresh
    )
    return _finish(result, out, common)


def _finish(result: Evaluation, out: Path | None, common: Common) -> int:
    """Print the table or the document, write both if there is a folder; 1 when images were left out."""
    import shlex
    import sys

    from encoscope import results

    if out is not None:
        folder = result.save(out, "encoscope " + shlex.join(sys.argv[1:]))
        note(f"written: {folder / result.report.name}.md")
    say(results.dumps(result.to_dict()) if common.json else str(result))
    return 1 if result.report.skipped else 0
