"""``encoscope evaluate``: how good segmentations are, beside baselines and controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, counts, names, word_or_count

if TYPE_CHECKING:
    from encoscope.evaluation import Evaluation

app = App(name="evaluate", help="How good segmentations are, beside baselines and controls.", help_format="plaintext")

_rules = Group("Segments", sort_key=2)

Model = Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:vit_small_patch16_224.dino".')]
Clusters = Annotated[str, Parameter(help="Numbers of clusters, with commas.")]
Methods = Annotated[
    str,
    Parameter(
        help="With commas: nave, slic, felzenszwalb, random, grid, pca, dino-seg, lost, tokencut, maskcut, "
        "sam:FOLDER (Segment Anything, in transformers' format). NAVE and random segments are always among them."
    ),
]
Limit = Annotated[
    int | None,
    Parameter(
        help="At most so many images, drawn with the seed from every class in proportion where there are labels."
    ),
]
Out = Annotated[Path | None, Parameter(help="Folder for the table as JSON, CSV and Markdown.")]
Fresh = Annotated[bool, Parameter(help="Start over instead of resuming an interrupted run.")]
Layers = Annotated[str | None, Parameter(group=_rules, help="NAVE's layers, with commas.")]
Grouping = Annotated[Literal["kmeans", "ward", "pca"], Parameter(group=_rules, help="How NAVE groups features.")]
Size = Annotated[str, Parameter(group=_rules, help='Short side the network sees: "native", "model", or pixels.')]
Points = Annotated[int, Parameter(group=_rules, help="Of sam: prompts on a side of its grid over the image.")]


@app.command
def corloc(
    *,
    model: Model,
    dataset: Annotated[
        list[str],
        Parameter(help="Images with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, voc:ROOT, coco:IMAGES#JSON."),
    ],
    clusters: Clusters = "5",
    method: Methods = "nave",
    select: Annotated[
        Literal["outer", "inner", "border"],
        Parameter(help="Choose a segment by the IoU of its outer or inner box (an oracle), or without the true boxes."),
    ] = "outer",
    score: Annotated[Literal["outer", "inner"], Parameter(help="The box of it that is scored.")] = "outer",
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "native",
    min_area: Annotated[int, Parameter(group=_rules, help="Segments of no more pixels are no candidates.")] = 784,
    border: Annotated[int, Parameter(group=_rules, help="Pixels along the border taken away from segments.")] = 14,
    segments: Annotated[
        int | None, Parameter(group=_rules, help="Of slic, felzenszwalb, random, grid. Default: as many as NAVE has.")
    ] = None,
    points: Points = 32,
    common: Common | None = None,
) -> int:
    """Measure whether a segment contains an object: CorLoc, as in the papers of NAVE and LOST.

    Choosing the segment with the true boxes at hand is an oracle. So the table always shows the number of candidates,
    as many random segments, and a choice without the true boxes (border) as well. An interrupted run resumes.
    """
    common = common or Common()
    check_run(common, out=out, sources=[dataset] if isinstance(dataset, str) else dataset, limit=limit)
    shared = _shared(clusters, size, layers, method)

    from encoscope import evaluation

    result = evaluation.corloc(
        common.defer(model),
        dataset,
        **shared,
        select=select,
        score=score,
        limit=limit,
        grouping=grouping,
        min_area=min_area,
        border=border,
        n_segments=segments,
        n_points=points,
        random_state=common.seed,
        progress=common.progress,
        fresh=fresh,
    )
    return _finish(result, out, common)


@app.command
def overlap(
    *,
    model: Model,
    dataset: Annotated[str, Parameter(help="Images with panoptic masks: coco:IMAGES#PANOPTIC.json.")],
    clusters: Clusters = "5",
    method: Methods = "nave",
    joint: Annotated[bool, Parameter(help="One clustering of all images, named once for all of them.")] = False,
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "model",
    points: Points = 32,
    common: Common | None = None,
) -> int:
    """Measure whether segments follow the things in images: mIoU, ARI, NMI and boundaries against panoptic masks.

    Segments are named with each image's own mask at hand (an oracle), so random segments and the untrained network
    stand beside them. With --joint the clusters of all images are named once. An interrupted run resumes.
    """
    common = common or Common()
    check_run(common, out=out, sources=[dataset] if isinstance(dataset, str) else dataset, limit=limit)
    shared = _shared(clusters, size, layers, method)

    from encoscope import evaluation

    result = evaluation.overlap(
        common.defer(model),
        dataset,
        **shared,
        joint=joint,
        limit=limit,
        grouping=grouping,
        n_points=points,
        random_state=common.seed,
        progress=common.progress,
        fresh=fresh,
    )
    return _finish(result, out, common)


@app.command
def stability(
    *,
    model: Model,
    dataset: Annotated[str, Parameter(help="A folder of images or a dataset such as caltech101:ROOT#test.")],
    clusters: Clusters = "5",
    runs: Annotated[int, Parameter(help="k-means starts that are compared, at least 2.")] = 5,
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "model",
    common: Common | None = None,
) -> int:
    """Measure whether a segmentation would come out again: from other starts, of the mirrored image, of crops.

    Agreement is the adjusted Rand index. The untrained network stands beside it. An interrupted run resumes.
    """
    common = common or Common()
    check_run(common, out=out, sources=[dataset] if isinstance(dataset, str) else dataset, limit=limit)
    shared = _shared(clusters, size, layers)

    from encoscope import evaluation

    result = evaluation.stability(
        common.defer(model),
        dataset,
        **shared,
        runs=runs,
        limit=limit,
        grouping=grouping,
        random_state=common.seed,
        progress=common.progress,
        fresh=fresh,
    )
    return _finish(result, out, common)


@app.command
def faithfulness(
    *,
    model: Model,
    dataset: Annotated[
        str, Parameter(help="A folder, a dataset, or coco:IMAGES#PANOPTIC.json, which the probe (a task) needs.")
    ],
    clusters: Clusters = "5",
    method: Methods = "nave",
    fill: Annotated[
        Literal["standard", "mean", "blur"],
        Parameter(help="What stands in for a segment: mean color in deletion and blur in insertion, or one of them."),
    ] = "standard",
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "model",
    points: Points = 32,
    common: Common | None = None,
) -> int:
    """Measure whether segments say something true about the network: deletion, insertion, variance, a linear probe.

    Segments are taken away, or put back, in the order of what each one's removal alone does to the network's answer.
    Random segments of the same number and the untrained network's stand beside them. An interrupted run resumes.
    """
    common = common or Common()
    check_run(common, out=out, sources=[dataset] if isinstance(dataset, str) else dataset, limit=limit)
    shared = _shared(clusters, size, layers, method)

    from encoscope import evaluation

    result = evaluation.faithfulness(
        common.defer(model),
        dataset,
        **shared,
        fill=fill,
        limit=limit,
        grouping=grouping,
        n_points=points,
        random_state=common.seed,
        progress=common.progress,
        fresh=fresh,
    )
    return _finish(result, out, common)


def _shared(clusters: str, size: str, layers: str | None, method: str | None = None) -> dict[str, Any]:
    """The arguments that are written with commas, or as a word or a number."""
    methods = {} if method is None else {"methods": names(method) or []}
    side = word_or_count("--size", size, ("native", "model"))
    return {"n_clusters": counts("--clusters", clusters), "size": side, "layers": names(layers), **methods}


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
