"""``encoscope similar``: point at a place in an image, and see what else is like it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, numbers, read_changes
from encoscope.counting import count_noun
from encoscope.errors import MissingError, UsageError
from encoscope.nave.settings import BATCH_SIZE, NaveSettings, SimilarSettings

_targets = Group("Places", sort_key=0)
_features = Group("Features", sort_key=2)
_search = Group("Search", sort_key=1)

if TYPE_CHECKING:
    FeatureFlags = SearchFlags = MethodFlags
else:
    FeatureFlags = method_flags(NaveSettings, _features, name="SimilarFeatureFlags")
    SearchFlags = method_flags(SimilarSettings, _search, without=("preset",))

_SHOWN = 10
"""How many lines of the ranking are printed."""


def similar(
    *images: Annotated[
        Path, Parameter(help="The image that is pointed at, then images, folders or datasets to search.")
    ],
    model: Annotated[
        str, Parameter(help='Such as "timm:resnet50" or "timm:vit_small_patch16_224.dino".')
    ] = DEFAULT_MODEL,
    at: Annotated[
        tuple[str, ...],
        Parameter(group=_targets, allow_leading_hyphen=True, help="X,Y: a pixel, column and row. Can be repeated."),
    ] = (),
    not_at: Annotated[
        tuple[str, ...],
        Parameter(group=_targets, allow_leading_hyphen=True, help="X,Y: whose like is not asked for. Can be repeated."),
    ] = (),
    box: Annotated[
        str | None, Parameter(group=_targets, allow_leading_hyphen=True, help="X0,Y0,X1,Y1: a box, corners inside.")
    ] = None,
    segment: Annotated[
        int | None, Parameter(group=_targets, help="A cluster, by its number in --labels, or in what 'segment' gives.")
    ] = None,
    labels: Annotated[
        Path | None, Parameter(group=_targets, help="NAME.labels.png of 'encoscope segment', or a saved segmentation.")
    ] = None,
    settings: SearchFlags | None = None,
    features: FeatureFlags | None = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("similar"),
    control: Annotated[
        Literal["untrained"] | None, Parameter(group=_search, help="The same search with random weights beside it.")
    ] = None,
    batch: Annotated[int, Parameter(help="Images at a time.")] = BATCH_SIZE,
    common: Common | None = None,
) -> int:
    """Show where an encoder sees the like of a place in an image, there and in other images.

    Brightness is the cosine of features, from what random places typically have (dark) to the place itself. A line
    surrounds the region that grows from the place. sheet.png shows the image and the most similar others; result.json
    ranks all of them, and says how many random places of the first image reach as much in each.
    """
    if not images:
        raise UsageError("give the image that is pointed at, and images to search if you like")
    image, *others = images
    common = common or Common()
    check_run(common, out=out, sources=[image, labels], batch=batch)
    changes = read_changes(NaveSettings, features) | read_changes(SimilarSettings, settings)
    targets: dict[str, Any] = {
        "at": [numbers("--at", text) for text in at],
        "not_at": [numbers("--not-at", text) for text in not_at],
        "box": None if box is None else numbers("--box", box),
        "segment": segment,
        "labels": labels,
    }

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.cli.outputs import find_inputs
    from encoscope.nave.similarity_search import similar as find_similar

    if image.is_dir():
        raise UsageError(f"{image} is a folder: give one image to point at first, then what to search")
    inputs = find_inputs(others)
    if others and inputs.missing == len(others):
        raise MissingError("; ".join(item.reason for item in inputs.skipped))
    for item in inputs.skipped:
        note(f"skipped: {item.reason}")
    maps = find_similar(
        common.defer(model),
        image,
        [file for file, _ in inputs.files] or None,
        **targets,
        **changes,
        control=control,
        random_state=common.seed,
        batch_size=batch,
        progress=common.progress,
    )
    maps.save(out)
    skipped = [*inputs.skipped, *maps.skipped]
    if common.json:
        say(results.dumps(results.read(out / "result.json", "similarity")))
        return 1 if skipped else 0
    for number, match in enumerate(maps.ranking[:_SHOWN], 1):
        say(
            f"{number}. {match.path} at {match.x},{match.y}: {match.similarity:.2f}; random places {match.chance:.2f}, "
            f"{match.exceeded_by:.0%} of them reach as much"
        )
    say(f"{count_noun(len(maps.ranking), 'other image')}: {out / 'sheet.png'}, {out / 'result.json'}")
    return 1 if skipped else 0
