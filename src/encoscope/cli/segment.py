"""``encoscope segment``: NAVE on photos, one after the other or all together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, counts, names, numbers, word_or_count
from encoscope.errors import MissingError, UsageError

if TYPE_CHECKING:
    from encoscope.cli.outputs import Inputs
    from encoscope.encoder import Encoder
    from encoscope.images import LoadedImage, SkippedImage
    from encoscope.nave import Segmentation

    Results = Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]

_images = Group("Images", sort_key=3)
_joint = Group("Many images together", sort_key=1)
_checks = Group("Checks", sort_key=2)


def segment(
    *images: Annotated[
        Path, Parameter(help="Image files, folders of them, or a dataset such as caltech101:ROOT#test.")
    ],
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:vit_small_patch16_224.dino".')],
    layers: Annotated[
        str | None, Parameter(help="Names from 'encoscope layers', with commas. Default: last 3 stages, or last block.")
    ] = None,
    clusters: Annotated[
        str, Parameter(help='K; several (2,5,10) give nested parts; "auto" is the elbow of 3 to 10.')
    ] = "5",
    grouping: Annotated[Literal["kmeans", "ward", "pca"], Parameter(help="How features are grouped.")] = "kmeans",
    weighting: Annotated[
        str, Parameter(help='"paper" favours early, narrow layers; "equal"; or a factor a layer, with commas.')
    ] = "paper",
    resolution: Annotated[
        str, Parameter(help='Grid that is grouped: "first-layer", "image", or cells along the short side.')
    ] = "first-layer",
    size: Annotated[str, Parameter(help='Short side the network sees: "model", "native", or pixels.')] = "model",
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("segments"),
    joint: Annotated[bool, Parameter(group=_joint, help="One set of clusters for all images.")] = False,
    cache: Annotated[
        Literal["fp16", "fp32"], Parameter(group=_joint, help="Precision of feature maps kept on disk while fitting.")
    ] = "fp16",
    no_cache: Annotated[
        bool, Parameter(group=_joint, help="Keep no maps: run the encoder again in each iteration.")
    ] = False,
    fresh: Annotated[bool, Parameter(group=_joint, help="Do not go on with an interrupted fit.")] = False,
    runs: Annotated[
        int | None, Parameter(group=_checks, help="Agreement over so many k-means starts, a flip and four crops.")
    ] = None,
    control: Annotated[
        str | None, Parameter(group=_checks, help='Show beside it: "untrained", "colour", or both with a comma.')
    ] = None,
    max_pixels: Annotated[
        int | None, Parameter(group=_images, help="Refuse larger images. Default: 100 million.")
    ] = None,
    window: Annotated[
        str | None,
        Parameter(
            group=_images,
            allow_leading_hyphen=True,
            help="LOW,HIGH: the stored values shown as black and white (16-bit, float).",
        ),
    ] = None,
    background: Annotated[str, Parameter(group=_images, help="Colour under transparent pixels.")] = "white",
    common: Common | None = None,
) -> int:
    """Part images into the regions an encoder treats alike (NAVE).

    For each image NAME.labels.png (grey values are the labels) and NAME.overlay.png go into the output folder, and
    result.json, which lists all of them with their regions and boxes. Nothing is cropped. Images that cannot be read
    are reported and left out. With --joint the same colour is the same cluster in all images; sheet.png shows them
    side by side, and the fit is kept in nave/ for new images.
    """
    if not images:
        raise UsageError("give at least one image or folder")
    common = common or Common()
    chosen: dict[str, Any] = {
        "layers": names(layers),
        "clusters": _clusters(clusters),
        "grouping": grouping,
        "weighting": weighting if weighting in ("paper", "equal") else numbers("--weighting", weighting),
        "resolution": word_or_count("--resolution", resolution, ("first-layer", "image")),
        "size": word_or_count("--size", size, ("model", "native")),
        "seed": common.seed,
    }
    how_to_read: dict[str, Any] = {"background": background, "window": _window(window)}
    _check_flags(chosen["clusters"], joint, no_cache or fresh or cache != "fp16", runs, control)

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.cli.outputs import find_inputs
    from encoscope.cli.overlays import Extras, Sheet, write
    from encoscope.images import MAX_PIXELS, SkippedImage, read_images
    from encoscope.nave import segment_stream
    from encoscope.nave.settings import NaveSettings
    from encoscope.progress import track

    how_to_read["max_pixels"] = MAX_PIXELS if max_pixels is None else max_pixels
    inputs = find_inputs(images)
    if inputs.missing == len(images):
        raise MissingError("; ".join(item.reason for item in inputs.skipped))
    encoder = common.load(model)
    settings = NaveSettings.of(encoder, **chosen)  # wrong settings fail before the first image
    extras = Extras(encoder, {**chosen, "layers": settings.layers}, runs, names(control) or [])

    document = out / "result.json"
    several = isinstance(settings.clusters, tuple)
    skipped, entries = list(inputs.skipped), []
    for item in inputs.skipped:
        note(f"skipped: {item.reason}")
    channels = encoder.preprocess.channels

    def read() -> Iterator[LoadedImage | SkippedImage]:
        files = (file for file, _ in inputs.files)
        return read_images(files, channels=3 if channels == 1 else channels, **how_to_read)

    sheet = None
    if joint:
        stream = _jointly(encoder, read, chosen, None if no_cache else cache, fresh, out, len(inputs.files))
        sheet = Sheet()
    else:
        stream = segment_stream(encoder, read(), **chosen)
    for result in track(_named(stream, inputs), None if several else len(inputs.files), "segment"):
        if isinstance(result, SkippedImage):
            note(f"skipped: {result.reason}")
            skipped.append(result)
            continue
        photo, segmentation, name = result
        if several:
            name = f"{name}.k{segmentation.n_clusters}"
        entry = write(photo, segmentation, out / name, document, extras)
        entries.append(entry)
        if sheet is not None:
            sheet.add(photo, segmentation)
        if not common.json:
            found = f"{segmentation.n_clusters} clusters, {len(entry['regions'])} regions"
            say(f"{photo.path}: {found}: {out / entry['overlay']}")
    if sheet is not None:
        sheet.save(out / "sheet.png")

    envelope = results.envelope(
        "segmentation",
        entries,
        model={"source": encoder.source, "digest": encoder.digest, "layers": settings.layers},
        settings=settings.as_dict() | how_to_read | ({"joint": True} if joint else {}),
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{len(entries)} results: {document}")
    return 1 if skipped else 0


def _check_flags(
    clusters: int | str | tuple[int, ...], joint: bool, cached: bool, runs: int | None, control: str | None
) -> None:
    """What does not go together, before anything is loaded."""
    if cached and not joint:
        raise UsageError("--cache, --no-cache and --fresh go with --joint")
    if (runs is not None or control is not None) and (joint or not isinstance(clusters, int)):
        raise UsageError("--runs and --control go with one number of clusters, and without --joint")
    if runs is not None and runs < 2:
        raise UsageError(f"--runs takes a number from 2 on, not {runs}")
    for name in names(control) or []:
        if name not in ("untrained", "colour"):
            raise UsageError(f"--control takes untrained, colour, or both with a comma, not {name!r}")


def _jointly(
    encoder: Encoder, read: Any, chosen: dict[str, Any], cache: str | None, fresh: bool, out: Path, count: int
) -> Results:
    """Fit all images together, keep the fit, and label them; several numbers of clusters are cuts of one tree."""
    from encoscope.nave import Nave

    clusters: int | str | tuple[int, ...] = chosen["clusters"]
    several = clusters if isinstance(clusters, tuple) else None
    options = {name: chosen[name] for name in ("layers", "weighting", "resolution", "size")}
    nave = Nave(
        encoder,
        n_clusters=max(clusters) if isinstance(clusters, tuple) else clusters,
        grouping="ward" if several else chosen["grouping"],
        cache=cache,
        random_state=chosen["seed"],
        **options,
    ).fit(_Again(read, count), fresh=fresh)
    nave.save(out / "nave")
    yield from nave.predict_stream(read(), several)


class _Again:
    """A stream of known length that can be read as often as needed."""

    def __init__(self, read: Any, count: int) -> None:
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


def _clusters(text: str) -> int | str | tuple[int, ...]:
    return counts("--clusters", text) if "," in text else word_or_count("--clusters", text, ("auto",))


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    ends = numbers("--window", text)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise UsageError(f"--window takes LOW,HIGH with LOW below HIGH, not {text!r}")
    return ends[0], ends[1]
