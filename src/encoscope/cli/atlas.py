"""``encoscope atlas``: build, serve and compare pages on an encoder's features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names, word_or_count
from encoscope.counting import count_noun

app = App(name="atlas", help="An encoder's features as pages one can browse.", help_format="plaintext")

_what = Group("What it holds", sort_key=2)
_how = Group("How", sort_key=3)


@app.command
def build(
    *,
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    images: Annotated[str, Parameter(help="A dataset (caltech101:ROOT#train) or a folder (its folders are labels).")],
    out: Annotated[Path, Parameter(help="The folder of the pages.")],
    layers: Annotated[
        str | None,
        Parameter(group=_what, help="With commas: layers whose channels are features. Default: the last stages."),
    ] = None,
    features: Annotated[
        str, Parameter(group=_what, help='"all", a number (the most telling ones), or units such as layer4:485,12.')
    ] = "64",
    classes: Annotated[str, Parameter(group=_what, help='"all", "none", or a number: those with most images.')] = "all",
    visualize: Annotated[
        str, Parameter(group=_what, help='Of "all", "none", or a number of features (and of the classes).')
    ] = "all",
    describe: Annotated[
        bool, Parameter(group=_what, negative="--no-describe", help="Describe features; --no-describe leaves it out.")
    ] = True,
    max_images: Annotated[
        int | None, Parameter(group=_what, help="Take at most this number of images, evenly drawn.")
    ] = None,
    crops: Annotated[int, Parameter(group=_what, help="Strongest images shown of a feature.")] = 8,
    cells: Annotated[int, Parameter(group=_what, help="Cells of the label maps along the short side.")] = 24,
    title: Annotated[str | None, Parameter(group=_what, help="The atlas's title. Default: the model.")] = None,
    captions: Annotated[
        Path | None, Parameter(group=_how, help="A store of captions. Default: the zoo's vocabulary.")
    ] = None,
    vlm: Annotated[str | None, Parameter(group=_how, help="An image-text model. Default: the captions' own.")] = None,
    steps: Annotated[int, Parameter(group=_how, help="Of a visualization's optimization.")] = 500,
    fresh: Annotated[bool, Parameter(group=_how, help="Start over instead of resuming.")] = False,
    common: Common | None = None,
) -> int:
    """Build pages on what an encoder's features stand for, look like and are active on, and how it segments images.

    Probes and segments the images, describes and visualizes features. The pages are complete after every stage; run
    again, it resumes where it was stopped. They open without a server: OUT/index.html.
    """
    from encoscope import results
    from encoscope.atlas import BuildOptions, build_atlas, open_atlas

    common = common or Common()
    options = BuildOptions(
        layers=None if layers is None else tuple(names(layers) or ()),
        features=_parse_features(features),
        classes=_parse_count("--classes", classes),
        visualize=_parse_count("--visualize", visualize),
        describe=describe,
        captions=None if captions is None else str(captions),
        vlm=vlm,
        steps=steps,
        max_images=max_images,
        crops=crops,
        cells=cells,
        random_state=common.seed,
    )
    check_run(common, out=out, sources=[images, captions])
    site = build_atlas(common.defer(model), images, out, options, title=title, fresh=fresh, progress=common.progress)
    atlas = open_atlas(site)
    if common.json:
        say(results.dumps(atlas.manifest))
    else:
        say(atlas.summary)
        say(f"open {site / 'index.html'}, or: encoscope atlas serve {site}")
    for item in atlas.manifest["skipped"]:
        note(f"skipped: {item['path']}: {item['reason']}")
    return 1 if atlas.manifest["skipped"] else 0


@app.command
def serve(
    site: Annotated[Path, Parameter(help="The folder of an atlas.")],
    /,
    *,
    port: Annotated[int, Parameter(help="The port to listen on.")] = 8765,
    host: Annotated[
        str, Parameter(help="The address to listen on; any other than this machine's own lets others in.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None, Parameter(negative=(), help="Another name that the server answers to; may be repeated.")
    ] = None,
    model: Annotated[
        str | None,
        Parameter(help="The atlas's model, for live segmentation. Default: found where it is of the zoo."),
    ] = None,
    common: Common | None = None,
) -> int:
    """Serve an atlas, with a page on which an image can be dropped to see its segmentation.

    Uploads are limited in bytes, pixels and time, decoded in memory and kept nowhere. Without --model only a model of
    the zoo is loaded: no other name in an atlas is trusted.
    """
    from encoscope.atlas import serve_atlas

    load = (common or Common()).loading()
    serve_atlas(site, model, host=host, port=port, names=name or (), load=load, announce=say)
    return 0


@app.command
def compare(
    site: Annotated[Path, Parameter(help="The folder of an atlas; its pages get the comparison.")],
    other: Annotated[Path, Parameter(help="Another atlas over the same images.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="What to call the other one. Default: its folder's name.")] = None,
    seed: Annotated[int, Parameter(help="Seed of the permutation.")] = 0,
) -> int:
    """Put another atlas beside one: each feature with the most similar one of the other, by their activations."""
    from encoscope.atlas import compare_atlases

    record = compare_atlases(site, other, name=name, random_state=seed)
    mutual = sum(pair.mutual for pair in record.pairs)
    say(
        f"{count_noun(len(record.pairs), 'feature')} matched over "
        f"{count_noun(record.images, 'shared image')}, {mutual} mutually: {site}/index.html"
    )
    return 0


def _parse_features(text: str) -> Any:
    """``--features``: a word, a number, or units."""
    if ":" in text or "@" in text:
        return tuple(names(text) or ())
    return word_or_count("--features", text, ("all",))


def _parse_count(flag: str, text: str) -> Any:
    return word_or_count(flag, text, ("all", "none"))
