"""``encoscope segment``: NAVE on images, one after the other or all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, names, numbers, read_changes
from encoscope.counting import count_noun
from encoscope.defaults import BACKGROUND, MAX_PIXELS
from encoscope.errors import MissingError, UsageError
from encoscope.nave.settings import JointSettings, NaveSettings

if TYPE_CHECKING:
    from encoscope.cli.outputs import Inputs
    from encoscope.encoder import Encoder
    from encoscope.images import LoadedImage, SkippedImage
    from encoscope.nave import Segmentation

    Results = Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]

_images = Group("Images", sort_key=3)
_joint = Group("Many images together", sort_key=1)
_checks = Group("Checks", sort_key=2)
_segmentation = Group("Segmentation", sort_key=0)

if TYPE_CHECKING:
    NaveFlags = JointFlags = MethodFlags
else:
    NaveFlags = method_flags(NaveSettings, _segmentation)
    JointFlags = method_flags(JointSettings, _joint, without=("preset",))


def segment(
    *images: Annotated[
        Path, Parameter(help="Image files, folders of them, or a dataset such as caltech101:ROOT#test.")
    ],
    model: Annotated[
        str, Parameter(help='Such as "timm:resnet50" or "timm:vit_small_patch16_224.dino".')
    ] = DEFAULT_MODEL,
    settings: NaveFlags | None = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("segments"),
    joint: Annotated[bool, Parameter(group=_joint, help="One set of clusters for all images.")] = False,
    fitting: JointFlags | None = None,
    fresh: Annotated[bool, Parameter(group=_joint, help="Do not resume an interrupted fit.")] = False,
    runs: Annotated[
        int | None, Parameter(group=_checks, help="Agreement over so many k-means starts, a flip and four crops.")
    ] = None,
    control: Annotated[
        str | None, Parameter(group=_checks, help='Show beside it: "untrained", "color", or both with a comma.')
    ] = None,
    max_pixels: Annotated[int, Parameter(group=_images, help="Refuse images of more pixels.")] = MAX_PIXELS,
    window: Annotated[
        str | None,
        Parameter(
            group=_images,
            allow_leading_hyphen=True,
            help="LOW,HIGH: the stored values shown as black and white (16-bit, float).",
        ),
    ] = None,
    background: Annotated[str, Parameter(group=_images, help="Color under transparent pixels.")] = BACKGROUND,
    common: Common | None = None,
) -> int:
    """Segment images into the regions an encoder treats alike (NAVE).

    For each image NAME.labels.png (grey values are the labels) and NAME.overlay.png go into the output folder, and
    result.json, which lists all of them with their regions and boxes. Nothing is cropped. Images that cannot be read
    are reported and left out. With --joint the same color is the same cluster in all images; sheet.png shows them
    side by side, and the fit is kept in nave/ for new images.
    """
    if not images:
        raise UsageError("give at least one image or folder")
    common = common or Common()
    changes = read_changes(NaveSettings, settings)
    joint_changes = read_changes(JointSettings, fitting)
    check_run(common, out=out, max_pixels=max_pixels)
    reading: dict[str, Any] = {"background": background, "window": _window(window), "max_pixels": max_pixels}
    requested = NaveSettings.from_preset(**changes, random_state=common.seed)  # wrong values fail before the network
    _check_flags(requested.n_clusters, joint, fresh or bool(joint_changes), runs, control)

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.cli.outputs import find_inputs
    from encoscope.cli.overlays import Extras, Sheet, write
    from encoscope.images import SkippedImage, read_images
    from encoscope.nave import segment_stream
    from encoscope.progress import track

    inputs = find_inputs(images)
    if inputs.missing == len(images):
        raise MissingError("; ".join(item.reason for item in inputs.skipped))
    encoder = common.load(model)
    resolved = NaveSettings.of(encoder, **changes, random_state=common.seed)  # wrong layers fail before the first image
    chosen = asdict(resolved)
    extras = Extras(encoder, chosen, runs, names(control) or [])

    document = out / "result.json"
    several = isinstance(resolved.n_clusters, tuple)
    skipped, entries = list(inputs.skipped), []
    for item in inputs.skipped:
        note(f"skipped: {item.reason}")
    channels = encoder.preprocess.image_channels

    def read() -> Iterator[LoadedImage | SkippedImage]:
        files = (file for file, _ in inputs.files)
        return read_images(files, channels=channels, **reading)

    sheet = None
    if joint:
        joint_changes |= {"progress": common.progress}
        stream = _segment_jointly(encoder, read, chosen, joint_changes, fresh, out, len(inputs.files))
        sheet = Sheet()
    else:
        stream = segment_stream(encoder, read(), **chosen)
    total = None if several else len(inputs.files)
    for result in track(_named(stream, inputs), total, "segment", common.progress):
        if isinstance(result, SkippedImage):
            note(f"skipped: {result.reason}")
            skipped.append(result)
            continue
        image, segmentation, name = result
        if several:
            name = f"{name}.k{segmentation.n_clusters}"
        entry = write(image, segmentation, out / name, document, extras)
        entries.append(entry)
        if sheet is not None:
            sheet.add(image, segmentation)
        if not common.json:
            counted = f"{count_noun(segmentation.n_clusters, 'cluster')}, {count_noun(len(entry['regions']), 'region')}"
            say(f"{image.path}: {counted}: {out / entry['overlay']}")
    if sheet is not None:
        sheet.save(out / "sheet.png")

    envelope = results.envelope(
        "segmentation",
        entries,
        model=results.record_model(encoder, resolved.layers).as_dict(),
        settings=resolved.as_dict() | reading | ({"joint": True} if joint else {}),
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{count_noun(len(entries), 'result')}: {document}")
    return 1 if skipped else 0


def _check_flags(
    clusters: int | str | tuple[int, ...], joint: bool, fitting: bool, runs: int | None, control: str | None
) -> None:
    """What does not go together, before anything is loaded."""
    if fitting and not joint:
        raise UsageError("--cache, --fresh and the other flags of a joint fit go with --joint")
    if (runs is not None or control is not None) and (joint or not isinstance(clusters, int)):
        raise UsageError("--runs and --control go with one number of clusters, and without --joint")
    if runs is not None and runs < 2:
        raise UsageError(f"--runs takes a number from 2 on, not {runs}")
    for name in names(control) or []:
        if name not in ("untrained", "color"):
            raise UsageError(f"--control takes untrained, color, or both with a comma, not {name!r}")


def _segment_jointly(
    encoder: Encoder,
    read: Callable[[], Iterator[LoadedImage | SkippedImage]],
    chosen: dict[str, Any],
    fitting: dict[str, Any],
    fresh: bool,
    out: Path,
    count: int,
) -> Results:
    """Fit all images together, keep the fit, and label them; several numbers of clusters are cuts of one tree."""
    from encoscope.nave import Nave

    clusters: int | str | tuple[int, ...] = chosen["n_clusters"]
    several = clusters if isinstance(clusters, tuple) else None
    if isinstance(clusters, tuple):
        chosen = chosen | {"n_clusters": max(clusters), "grouping": "ward"}
    nave = Nave(encoder, **chosen, **fitting).fit(_Rereadable(read, count), fresh=fresh)
    nave.save(out / "nave")
    yield from nave.predict_stream(read(), several)


class _Rereadable:
    """A stream of known length that can be read as often as needed."""

    def __init__(self, read: Callable[[], Iterator[LoadedImage | SkippedImage]], count: int) -> None:
        self._read, self._count = read, count

    def __iter__(self) -> Iterator[LoadedImage | SkippedImage]:
        return self._read()

    def __len__(self) -> int:
        return self._count


def _named(stream: Results, inputs: Inputs) -> Iterator[tuple[LoadedImage, Segmentation, str] | SkippedImage]:
    """Each segmentation with the output name of its file."""
    names_of = {str(file): name for file, name in inputs.files}
    for result in stream:
        yield (*result, names_of[str(result[0].path)]) if isinstance(result, tuple) else result


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    ends = numbers("--window", text)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise UsageError(f"--window takes LOW,HIGH with LOW below HIGH, not {text!r}")
    return ends[0], ends[1]
