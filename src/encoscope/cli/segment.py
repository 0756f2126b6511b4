"""``encoscope segment``: NAVE on photos, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names, numbers, word_or_count
from encoscope.errors import MissingError, UsageError

if TYPE_CHECKING:
    from encoscope.cli.outputs import Inputs
    from encoscope.images import Photo, Skipped
    from encoscope.nave import Segmentation

_images = Group("Images", sort_key=2)


def segment(
    *images: Annotated[Path, Parameter(help="Image files and folders of them.")],
    model: Annotated[str, Parameter(help='Such as "timm:vit_small_patch16_224.dino" or "py:module:function".')],
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
    are reported and left out.
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

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.cli.outputs import find_inputs
    from encoscope.images import MAX_PIXELS, Skipped, photos
    from encoscope.nave import segment_stream
    from encoscope.nave.settings import Settings
    from encoscope.progress import track

    how_to_read["max_pixels"] = MAX_PIXELS if max_pixels is None else max_pixels
    inputs = find_inputs(images)
    if inputs.missing == len(images):
        raise MissingError("; ".join(item.reason for item in inputs.skipped))
    encoder = common.load(model)
    settings = Settings.of(encoder, **chosen)  # wrong settings fail before the first image

    document = out / "result.json"
    several = isinstance(chosen["clusters"], tuple)
    skipped, entries = list(inputs.skipped), []
    for item in inputs.skipped:
        note(f"skipped: {item.reason}")
    channels = encoder.preprocess.channels
    read = photos((file for file, _ in inputs.files), channels=3 if channels == 1 else channels, **how_to_read)
    stream = segment_stream(encoder, read, **chosen)
    for result in track(_named(stream, inputs), None if several else len(inputs.files), "segment"):
        if isinstance(result, Skipped):
            note(f"skipped: {result.reason}")
            skipped.append(result)
            continue
        photo, segmentation, name = result
        if several:
            name = f"{name}.k{segmentation.n_clusters}"
        entry = _write(photo, segmentation, out / name, document)
        entries.append(entry)
        if not common.json:
            found = f"{segmentation.n_clusters} clusters, {len(entry['regions'])} regions"
            say(f"{photo.path}: {found}: {out / entry['overlay']}")

    envelope = results.envelope(
        "segmentation",
        entries,
        model={"source": common.source(model), "digest": encoder.digest, "layers": settings.layers},
        settings=settings.as_dict() | how_to_read,
        seed=common.seed,
        skipped=[{"path": results.relative(item.path, document), "reason": item.reason} for item in skipped],
    )
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{len(entries)} results: {document}")
    return 1 if skipped else 0


def _named(
    stream: Iterator[tuple[Photo, Segmentation] | Skipped], inputs: Inputs
) -> Iterator[tuple[Photo, Segmentation, str] | Skipped]:
    """Each segmentation with the output name of its file."""
    names_of = {str(file): name for file, name in inputs.files}
    for result in stream:
        yield (*result, names_of[str(result[0].path)]) if isinstance(result, tuple) else result


def _write(photo: Photo, segmentation: Segmentation, base: Path, document: Path) -> dict[str, Any]:
    """Both pictures of an image, and its entry in the document."""
    from PIL import Image

    from encoscope import plots, results

    labels, overlay = (base.with_name(f"{base.name}.{kind}.png") for kind in ("labels", "overlay"))
    with results.aside(labels) as temporary:
        plots.label_image(segmentation.labels).save(temporary)
    with results.aside(overlay) as temporary:
        Image.fromarray(plots.overlay(photo, segmentation.labels)).save(temporary)
    entry = segmentation.entry()
    regions = entry.pop("regions")
    entry["path"] = results.relative(photo.path or "", document)
    pictures = {"labels": results.relative(labels, document), "overlay": results.relative(overlay, document)}
    return entry | pictures | {"regions": regions}


def _clusters(text: str) -> int | str | tuple[int, ...]:
    if "," not in text:
        return word_or_count("--clusters", text, ("auto",))
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--clusters takes one number, several with commas between them, or auto, not {text!r}")
    return tuple(int(part) for part in parts)


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    ends = numbers("--window", text)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise UsageError(f"--window takes LOW,HIGH with LOW below HIGH, not {text!r}")
    return ends[0], ends[1]
