"""``encoscope compare``: how two encoders, or one before and after training, differ on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, counts


def compare(
    first: Annotated[str, Parameter(help="A model.")],
    second: Annotated[str, Parameter(help="Another, or the same one as MODEL@untrained or MODEL@FILE.")],
    /,
    *,
    images: Annotated[Path, Parameter(help="A folder, an image, or a dataset such as caltech101:ROOT#test.")],
    clusters: Annotated[str, Parameter(help="Granularities, with commas.")] = "2,3,5,8,12",
    limit: Annotated[
        int | None,
        Parameter(
            help="At most so many images, drawn with the seed from every class in proportion where there are labels."
        ),
    ] = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("comparison"),
    common: Common | None = None,
) -> int:
    """Compare what two encoders treat alike, layer by layer and feature by feature.

    Agreement of segmentations at several granularities, beside the most (the first encoder and the mirrored image) and
    the least (its untrained copy) that can be expected; CKA of layers; features matched one to one; the images that
    differ most. result.json, cka.png and differences.png go into the output folder.
    """
    numbers = counts("--clusters", clusters)
    common = common or Common()
    check_run(common, out=out, sources=[images], limit=limit)

    from encoscope import results
    from encoscope.analysis.compare import compare as compare_encoders

    result = compare_encoders(
        common.defer(first),
        common.defer(second),
        images,
        n_clusters=numbers,
        limit=limit,
        random_state=common.seed,
        progress=common.progress,
    )
    document = result.save(out) / "result.json"
    for text in (*(result.notes if common.json else ()), *(f"skipped: {item.reason}" for item in result.skipped)):
        note(text)
    say(results.dumps(result.to_dict(document)) if common.json else f"{result}\nwritten: {document}")
    return 1 if result.skipped else 0
