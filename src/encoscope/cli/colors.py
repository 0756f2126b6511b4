"""``encoscope colors``: images in the colors of an encoder's features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.errors import MissingError, UsageError
from encoscope.nave.settings import BATCH_SIZE, ColorSettings, NaveSettings

if TYPE_CHECKING:
    from encoscope.images import LoadedImage, SkippedImage

_features = Group("Features", sort_key=0)
_colors = Group("Colors", sort_key=1)

if TYPE_CHECKING:
    FeatureFlags = ColorFlags = MethodFlags
else:
    FeatureFlags = method_flags(NaveSettings, _features, without=NaveSettings.GROUPING_ALONE, name="FeatureFlags")
    ColorFlags = method_flags(ColorSettings, _colors, without=("preset",))


def colors(
    *images: Annotated[Path, Parameter(help="Image files, folders of them, or a dataset such as voc:ROOT#val.")],
    model: Annotated[
        str, Parameter(help='Such as "timm:resnet50" or "timm:vit_small_patch16_224.dino".')
    ] = DEFAULT_MODEL,
    features: FeatureFlags | None = None,
    settings: ColorFlags | None = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("colors"),
    control: Annotated[
        Literal["none", "untrained"], Parameter(help="Show the same network with random weights beside it.")
    ] = "none",
    batch: Annotated[int, Parameter(help="Images at a time.")] = BATCH_SIZE,
    common: Common | None = None,
) -> int:
    """Color images by the first three principal components of an encoder's features.

    What an encoder computes alike gets a like color, in all of the images. For each image NAME.colors.png goes into
    the output folder, and for the first 24 sheet.png shows the image and its colors side by side. Colors say nothing
    by themselves: an untrained network colors by brightness and position, which --control untrained shows.
    """
    if not images:
        raise UsageError("give at least one image or folder")
    common = common or Common()
    check_run(common, out=out, batch=batch)
    changes = read_changes(NaveSettings, features) | read_changes(ColorSettings, settings)

    # only now what takes seconds to load
    from PIL import Image

    from encoscope import plots, results
    from encoscope.cli.outputs import find_inputs
    from encoscope.cli.overlays import SHEET
    from encoscope.encoder import untrained_copy
    from encoscope.images import SkippedImage, read_images
    from encoscope.nave.colored_image import KIND
    from encoscope.nave.feature_colors import FeatureColors
    from encoscope.progress import track

    inputs = find_inputs(images)
    if inputs.missing == len(images):
        raise MissingError("; ".join(item.reason for item in inputs.skipped))
    encoder = common.load(model)
    channels = encoder.preprocess.image_channels

    def read() -> Iterator[LoadedImage | SkippedImage]:
        return read_images((file for file, _ in inputs.files), channels=channels)

    shared: dict[str, Any] = {"random_state": common.seed, "batch_size": batch, "progress": common.progress}
    coloring = FeatureColors(encoder, **changes, **shared).fit(read())
    untrained = None
    if control == "untrained":
        other = untrained_copy(encoder, random_state=common.seed + 1)
        untrained = FeatureColors(other, **changes, **shared).fit(read())
    document, names = out / "result.json", {str(file): name for file, name in inputs.files}
    entries, panels, captions = [], [], []
    skipped = list(inputs.skipped)
    shares = f"{sum(coloring.explained_):.0%} of the variance"
    controls = iter(()) if untrained is None else untrained.transform_stream(read())
    for result in track(coloring.transform_stream(read()), len(inputs.files), "colors", common.progress):
        beside = next(controls, None)
        if isinstance(result, SkippedImage):
            note(f"skipped: {result.reason}")
            skipped.append(result)
            continue
        image, colored = result
        path = out / f"{names[str(image.path)]}.colors.png"
        with results.atomic_write(path) as temporary:
            Image.fromarray(colored.rgb).save(temporary)
        entry = colored.entry() | {"path": results.relative(image.path or "", document)}
        entries.append(entry | {"colors": results.relative(path, document)})
        if len(entries) <= SHEET:
            panels += [image, colored.rgb]
            captions += [Path(image.path or "").name, shares]
            if untrained is not None and beside is not None and not isinstance(beside, SkippedImage):
                panels.append(beside[1].rgb)
                captions.append(f"control: untrained, {sum(untrained.explained_):.0%}")
        if not common.json:
            say(f"{image.path}: {path}")
    columns = 2 if untrained is None else 3
    with results.atomic_write(out / "sheet.png") as temporary:
        Image.fromarray(plots.draw_contact_sheet(panels, captions, 2 * columns)).save(temporary)
    recorded = coloring.recorded() | {"explained": [float(share) for share in coloring.explained_]}
    if untrained is not None:
        recorded["control"] = {"untrained": {"explained": [float(share) for share in untrained.explained_]}}
    envelope = results.envelope(
        KIND,
        entries,
        model=results.record_model(encoder, coloring.layers_).as_dict(),
        settings=recorded,
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{len(entries)} images: {out / 'sheet.png'}, {document}")
    return 1 if skipped else 0
