"""``encoscope compare``: how two encoders, or one before and after training, differ on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from encoscope.analysis.settings import CompareSettings
from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, MethodFlags, method_flags, read_changes

_comparison = Group("Comparison", sort_key=0)

if TYPE_CHECKING:
    CompareFlags = MethodFlags
else:
    CompareFlags = method_flags(CompareSettings, _comparison, without=("preset",))


def compare(
    first: Annotated[str, Parameter(help="A model.")],
    second: Annotated[str, Parameter(help="Another, or the same one as MODEL@untrained or MODEL@FILE.")],
    /,
    *,
    images: Annotated[Path, Parameter(help="A folder, an image, or a dataset such as caltech101:ROOT#test.")],
    settings: CompareFlags | None = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("comparison"),
    common: Common | None = None,
) -> int:
    """Compare what two encoders treat alike, layer by layer and feature by feature.

    Agreement of segmentations at several granularities, beside the most (the first encoder and the mirrored image) and
    the least (its untrained copy) that can be expected; CKA of layers; features matched one to one; the images that
    differ most. result.json, cka.png and differences.png go into the output folder.
    """
    changes = read_changes(CompareSettings, settings)
    common = common or Common()
    check_run(common, out=out, sources=[images])

    from encoscope import results
    from encoscope.analysis.compare import compare as compare_encoders

    result = compare_encoders(
        common.defer(first),
        common.defer(second),
        images,
        **changes,
        random_state=common.seed,
        progress=common.progress,
    )
    document = result.save(out) / "result.json"
    for text in (*(result.notes if common.json else ()), *(f"skipped: {item.reason}" for item in result.skipped)):
        note(text)
    say(results.dumps(result.to_dict(document)) if common.json else f"{result}\nwritten: {document}")
    return 1 if result.skipped else 0
