"""``encoscope audit``: does an encoder fixate on a watermark, or on where images come from?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from encoscope.analysis.settings import AuditSettings
from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes

_audit = Group("Audit", sort_key=0)

if TYPE_CHECKING:
    AuditFlags = MethodFlags
else:
    AuditFlags = method_flags(AuditSettings, _audit, without=("preset",))


def audit(
    model: Annotated[str, Parameter(help='Such as "timm:resnet50".')] = DEFAULT_MODEL,
    /,
    *,
    images: Annotated[
        Path, Parameter(help="A folder (subfolders are labels) or a dataset such as caltech101:ROOT#test.")
    ],
    watermark: Annotated[
        str | None,
        Parameter(
            help="A watermark to put on the images: box, letter, stripes, disc, arrow, ruler, date, or an image file."
        ),
    ] = None,
    labels: Annotated[Path | None, Parameter(help="CSV with a column of image names and columns of metadata.")] = None,
    settings: AuditFlags | None = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("audit"),
    common: Common | None = None,
) -> int:
    """Measure whether an encoder fixates on a watermark, or on what tells images' sources apart.

    With --watermark it is put on the images, and what follows it in features, answers and segments is measured
    beside a control patch. Without, joint clusters and features are ranked by how they go with labels (the dataset's,
    folders, or --labels), with p-values from permutations. result.json and sheet.png go into the output folder.
    """
    common = common or Common()
    changes = read_changes(AuditSettings, settings)
    check_run(common, out=out, sources=[images, None if watermark else labels])

    from encoscope import results
    from encoscope.analysis.audit import audit as measure_audit

    result = measure_audit(
        common.defer(model),
        images,
        watermark=watermark,
        labels=labels,
        **changes,
        random_state=common.seed,
        progress=common.progress,
    )
    document = result.save(out) / "result.json"
    for text in (*result.notes, *(f"skipped: {item.reason}" for item in result.skipped)):
        note(text)
    say(results.dumps(result.to_dict(document)) if common.json else f"{result}\nwritten: {document}")
    return 1 if result.skipped else 0
