"""``encoscope evaluate``: how good segmentations are, beside baselines and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, counts, names, word_or_count
from encoscope.errors import UsageError

if TYPE_CHECKING:
    from encoscope.encoder import Encoder
    from encoscope.evaluation.baselines import Baseline
    from encoscope.evaluation.report import Report
    from encoscope.evaluation.runner import Examples

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
Limit = Annotated[int | None, Parameter(help="Only the first so many images.")]
Out = Annotated[Path | None, Parameter(help="Folder for the table as JSON, CSV and Markdown.")]
Fresh = Annotated[bool, Parameter(help="Do not go on with an interrupted run.")]
Layers = Annotated[str | None, Parameter(group=_rules, help="NAVE's layers, with commas.")]
Grouping = Annotated[Literal["kmeans", "ward", "pca"], Parameter(group=_rules, help="How NAVE groups features.")]
Size = Annotated[str, Parameter(group=_rules, help='Short side the network sees: "native", "model", or pixels.')]
Points = Annotated[int, Parameter(group=_rules, help="Of sam: prompts on a side of its grid over the photo.")]


@app.command
def corloc(
    *,
    model: Model,
    dataset: Annotated[
        list[str],
        Parameter(help="Photos with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT, voc:ROOT, coco:IMAGES#JSON."),
    ],
    clusters: Clusters = "5",
    method: Methods = "nave",
    select: Annotated[
        Literal["outer", "inner", "border"],
        Parameter(help="Choose a segment by the IoU of its outer or inner box (an oracle), or without the truth."),
    ] = "outer",
    score: Annotated[Literal["outer", "inner"], Parameter(help="The box of it that is scored.")] = "outer",
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "native",
    min_area: Annotated[int, Parameter(group=_rules, help="Parts of no more pixels are no candidates.")] = 784,
    border: Annotated[int, Parameter(group=_rules, help="Pixels along the border taken away from parts.")] = 14,
    parts: Annotated[
        int | None, Parameter(group=_rules, help="Of slic, felzenszwalb, random, grid. Default: as many as NAVE has.")
    ] = None,
    points: Points = 32,
    common: Common | None = None,
) -> int:
    """See whether a segment holds an object: CorLoc, as in the papers of NAVE and LOST.

    Choosing the segment with the true boxes at hand is an oracle. So the table always shows the number of candidates,
    as many random segments, and a choice without the truth (border) as well. An interrupted run goes on.
    """
    common = common or Common()
    numbers, methods = counts("--clusters", clusters), _methods(method)
    _positive(limit, parts, points)
    if min_area < 0 or border < 0:
        raise UsageError(f"--min-area and --border take pixels, at least 0, not {min_area} and {border}")

    from encoscope.evaluation import localization
    from encoscope.images import open_boxed_dataset

    read = {text: localization.examples(open_boxed_dataset(text), limit) for text in dataset}
    encoder = common.load(model)
    nave = _nave(encoder, common, numbers, layers, grouping, size, min_area=min_area, border=border)
    report = localization.evaluate(
        localization.lineup(nave, methods, numbers, {"sam": {"points": points}}),
        read,
        select=select,
        score=score,
        parts=parts,
        fresh=fresh,
        seed=common.seed,
    )
    shaped = nave.manifest() | {"limit": limit, "parts": parts}
    return _finish(report, [localization.entry(row, dataset[0]) for row in report.rows], encoder, shaped, out, common)


@app.command
def overlap(
    *,
    model: Model,
    dataset: Annotated[str, Parameter(help="Photos with panoptic masks: coco:IMAGES#PANOPTIC.json.")],
    clusters: Clusters = "5",
    method: Methods = "nave",
    joint: Annotated[bool, Parameter(help="One clustering of all photos, named once for all of them.")] = False,
    limit: Limit = None,
    out: Out = None,
    fresh: Fresh = False,
    layers: Layers = None,
    grouping: Grouping = "kmeans",
    size: Size = "model",
    points: Points = 32,
    common: Common | None = None,
) -> int:
    """See whether segments follow the things in photos: mIoU, ARI, NMI and boundaries against panoptic masks.

    Segments are named with each photo's own mask at hand (an oracle), so random segments and the untrained network
    stand beside them. With --joint the clusters of all photos are named once. An interrupted run goes on.
    """
    common = common or Common()
    numbers, methods = counts("--clusters", clusters), _methods(method)
    _positive(limit, points)
    if joint and (set(methods) != {"nave"} or grouping == "pca"):
        raise UsageError("--joint goes with --method nave, by k-means or ward")

    from encoscope.evaluation import localization
    from encoscope.evaluation import overlap as experiment

    images = experiment.masks(dataset, limit)
    encoder = common.load(model)
    nave = _nave(encoder, common, numbers, layers, grouping, size, min_area=0, border=0)
    if joint:
        options = {
            name: value for name, value in nave.segmenting().items() if name not in ("n_clusters", "random_state")
        }
        report = experiment.jointly(encoder, images, numbers, options=options, fresh=fresh, seed=common.seed)
    else:
        contenders = localization.lineup(nave, methods, numbers, {"sam": {"points": points}})
        report = experiment.evaluate(contenders, images, dataset, fresh=fresh, seed=common.seed)
    entries = [experiment.entry(row, dataset) for row in report.rows]
    return _finish(report, entries, encoder, nave.manifest() | {"limit": limit}, out, common)


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
    """See whether a segmentation would come out again: from other starts, of the mirrored image, of crops.

    Agreement is the adjusted Rand index. The untrained network stands beside it. An interrupted run goes on.
    """
    common = common or Common()
    numbers = counts("--clusters", clusters)
    _positive(limit)
    if runs < 2:
        raise UsageError(f"--runs takes a number from 2 on, not {runs}")

    from dataclasses import replace

    from encoscope.evaluation import stability
    from encoscope.evaluation.overlap import entry

    images = _images(dataset, limit)
    encoder = common.load(model)
    nave = _nave(encoder, common, numbers, layers, grouping, size, min_area=0, border=0)
    contenders = [replace(nave, clusters=k) for k in numbers]
    report = stability.evaluate(contenders, images, dataset, runs=runs, fresh=fresh, seed=common.seed)
    entries = [entry(row, dataset) for row in report.rows]
    return _finish(report, entries, encoder, nave.manifest() | {"limit": limit, "runs": runs}, out, common)


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
        Parameter(help="What stands in for a segment: mean colour in deletion and blur in insertion, or one of them."),
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
    """See whether segments say something true about the network: deletion, insertion, variance, a linear probe.

    Segments are taken away, or put back, in the order of what each one's removal alone does to the network's answer.
    Random segments of the same number and the untrained network's stand beside them. An interrupted run goes on.
    """
    common = common or Common()
    numbers, methods = counts("--clusters", clusters), _methods(method)
    _positive(limit, points)

    from encoscope.evaluation import faithfulness as experiment
    from encoscope.evaluation import localization
    from encoscope.evaluation.overlap import entry

    images = _images(dataset, limit)
    encoder = common.load(model)
    nave = _nave(encoder, common, numbers, layers, grouping, size, min_area=0, border=0)
    contenders = localization.lineup(nave, methods, numbers, {"sam": {"points": points}})
    report = experiment.evaluate(contenders, images, dataset, encoder, fill=fill, fresh=fresh, seed=common.seed)
    entries = [entry(row, dataset) for row in report.rows]
    return _finish(report, entries, encoder, nave.manifest() | {"limit": limit, "fill": fill}, out, common)


def _images(text: str, limit: int | None) -> Examples:
    """The images of a dataset or a folder, with masks where it has them."""
    from encoscope.evaluation.overlap import has_masks, masks
    from encoscope.evaluation.runner import AnnotatedImage
    from encoscope.images import collect_files

    return masks(text, limit) if has_masks(text) else [AnnotatedImage(path) for path in collect_files(text)[:limit]]


def _nave(
    encoder: Encoder,
    common: Common,
    numbers: Sequence[int],
    layers: str | None,
    grouping: str,
    size: str,
    **rules: int,
) -> Baseline:
    """NAVE with the settings of the flags."""
    from encoscope.evaluation.baselines import Baseline

    options: dict[str, Any] = {"grouping": grouping} | ({} if layers is None else {"layers": names(layers)})
    side = word_or_count("--size", size, ("native", "model"))
    return Baseline("nave", encoder, numbers[0], options, side, seed=common.seed, **rules)


def _methods(text: str) -> list[str]:
    from encoscope.discovery.methods import get_base_name
    from encoscope.errors import suggest_nearest
    from encoscope.evaluation.baselines import METHODS

    found = names(text) or []
    wrong = next((name for name in found if get_base_name(name) not in METHODS or name in ("sam", "sam:")), None)
    if wrong is not None or not found:
        taken = ", ".join("sam:FOLDER" if name == "sam" else name for name in METHODS)
        raise UsageError(f"--method takes {taken}, not {wrong or text!r}{suggest_nearest(wrong or '', METHODS)}")
    return found


def _positive(*numbers: int | None) -> None:
    wrong = next((number for number in numbers if number is not None and number < 1), None)
    if wrong is not None:
        raise UsageError(f"--limit, --parts, --points and --runs take numbers from 1 on, not {wrong}")


def _finish(
    report: Report,
    entries: Sequence[Mapping[str, Any]],
    encoder: Encoder,
    shaped: Mapping[str, Any],
    out: Path | None,
    common: Common,
) -> int:
    """Print the table or the document, write both if asked; 1 when images were left out."""
    import shlex
    import sys

    from encoscope import results

    document = results.envelope(
        report.name,
        entries,
        model={"source": encoder.source, "digest": encoder.digest},
        settings=dict(shaped) | {"notes": list(report.notes)},
        seed=common.seed,
        skipped=report.skipped,
    )
    if out is not None:
        page = report.write(out, "encoscope " + shlex.join(sys.argv[1:]))
        results.write(out / f"{report.name}.json", document)
        note(f"written: {page}")
    say(results.dumps(document) if common.json else report.text())
    return 1 if report.skipped else 0
