"""``encoscope compare``: how two encoders, or one before and after training, differ on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, counts
from encoscope.errors import MissingError

if TYPE_CHECKING:
    from encoscope.analysis.compare import Comparison


def compare(
    first: Annotated[str, Parameter(help="A model.")],
    second: Annotated[str, Parameter(help="Another, or the same one as MODEL@untrained or MODEL@FILE.")],
    /,
    *,
    images: Annotated[Path, Parameter(help="A folder, an image, or a dataset such as caltech101:ROOT#test.")],
    clusters: Annotated[str, Parameter(help="Granularities, with commas.")] = "2,3,5,8,12",
    limit: Annotated[int | None, Parameter(help="Only the first so many images.")] = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("comparison"),
    common: Common | None = None,
) -> int:
    """Compare what two encoders treat alike, layer by layer and feature by feature.

    Agreement of segmentations at several granularities, beside the most (the first encoder and the mirrored image) and
    the least (its untrained twin) that can be expected; CKA of layers; features matched one to one; the images that
    differ most. result.json, cka.png and differences.png go into the output folder.
    """
    numbers = counts("--clusters", clusters)
    common = common or Common()

    from encoscope import results
    from encoscope.analysis import compare
    from encoscope.cli.outputs import find_inputs
    from encoscope.images import read_images

    inputs = find_inputs([images])
    if not inputs.files:
        raise MissingError("; ".join(item.reason for item in inputs.skipped) or f"no images in {images}")
    files = [file for file, _ in inputs.files][:limit]
    one, two = common.load(first), common.load(second)
    found = compare.compare(
        one, two, read_images(files), n_clusters=numbers, random_state=common.seed, total=len(files)
    )

    document = out / "result.json"
    for name, picture in (("cka", compare.draw_cka(found)), ("differences", found.sheet)):
        with results.atomic_write(out / f"{name}.png") as temporary:
            picture.save(temporary)
    skipped = [*inputs.skipped, *found.skipped]
    envelope = results.envelope(
        "comparison",
        [compare.make_entry(found, document)],
        model={"sources": [one.source, two.source], "digests": [one.digest, two.digest]},
        settings={"clusters": list(numbers), "images": found.images},
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    for item in skipped:
        note(f"skipped: {item.reason}")
    say(results.dumps(envelope) if common.json else _text(found, document))
    return 1 if skipped else 0


def _text(found: Comparison, document: Path) -> str:
    lines = [f"{found.names[0]} and {found.names[1]} on {found.images} images", ""]
    rows: list[tuple[Any, ...]] = [("K", "agreement (ARI)", "first, mirrored", "first, untrained")]
    rows += [(row.clusters, row.agreement, row.ceiling, row.floor or "-") for row in found.agreements]
    lines += ["  ".join([str(row[0]).rjust(2), *(str(cell).ljust(20) for cell in row[1:])]).rstrip() for row in rows]
    alike, chance = (int((values > 0.5).sum()) for values in (found.correlations, found.chance))
    lines += [
        "",
        f"features matched with r > 0.5: {alike} of {len(found.matches)} ({chance} with images shifted by one)",
        f"last layers' CKA: {found.cka[-1, -1]:.3f}",
        f"written: {document}",
    ]
    return "\n".join(lines)
