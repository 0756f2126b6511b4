"""``encoscope atlas``: build, serve and compare pages on an encoder's features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names, word_or_count
from encoscope.errors import EncoscopeError

if TYPE_CHECKING:
    from encoscope.atlas.reader import Atlas
    from encoscope.encoder import Encoder

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
        str | None, Parameter(group=_what, help="With commas: whose channels are features. Default: the last stages.")
    ] = None,
    features: Annotated[
        str, Parameter(group=_what, help='"all", so many in all (the most telling), or units such as layer4:485,12.')
    ] = "64",
    classes: Annotated[str, Parameter(group=_what, help='"all", "none", or so many: those with most images.')] = "all",
    visualize: Annotated[
        str, Parameter(group=_what, help='Pictures of "all", "none", or so many features (and of the classes).')
    ] = "all",
    describe: Annotated[
        bool, Parameter(group=_what, negative="--no-describe", help="Words of features; --no-describe leaves them out.")
    ] = True,
    max_images: Annotated[
        int | None, Parameter(group=_what, help="Take at most so many of the images, evenly drawn.")
    ] = None,
    title: Annotated[str | None, Parameter(group=_what, help="What the pages call it. Default: the model.")] = None,
    captions: Annotated[
        Path | None, Parameter(group=_how, help="A store of captions. Default: the zoo's vocabulary.")
    ] = None,
    vlm: Annotated[str | None, Parameter(group=_how, help="An image-text model. Default: the captions' own.")] = None,
    steps: Annotated[int, Parameter(group=_how, help="Of a picture's optimisation.")] = 500,
    fresh: Annotated[bool, Parameter(group=_how, help="Start over instead of going on with what is there.")] = False,
    common: Common | None = None,
) -> int:
    """Build pages on what an encoder's features stand for, look like and fire on, and how it parts images.

    Probes the images, parts them (segment), describes (describe) and pictures (visualize) features. The pages are
    whole after every stage; run again, it goes on where it was stopped. They open without a server: OUT/index.html.
    """
    from encoscope import results
    from encoscope.atlas.build import BuildOptions
    from encoscope.atlas.build import build as run
    from encoscope.atlas.reader import open_atlas

    common = common or Common()
    options = BuildOptions(
        layers=None if layers is None else tuple(names(layers) or ()),
        features=_features(features),
        classes=_count("--classes", classes),
        visualize=_count("--visualize", visualize),
        describe=describe,
        captions=None if captions is None else str(captions),
        vlm=vlm,
        steps=steps,
        images=max_images,
        seed=common.seed,
    )
    site = run(common.load(model), images, out, options, title=title, fresh=fresh)
    made = open_atlas(site)
    if common.json:
        say(results.dumps(made.manifest))
    else:
        say(_summary(made))
        say(f"open {site / 'index.html'}, or: encoscope atlas serve {site}")
    for item in made.manifest["skipped"]:
        note(f"skipped: {item['path']}: {item['reason']}")
    return 1 if made.manifest["skipped"] else 0


@app.command
def serve(
    site: Annotated[Path, Parameter(help="The folder of an atlas.")],
    /,
    *,
    port: Annotated[int, Parameter(help="To listen on.")] = 8765,
    host: Annotated[
        str, Parameter(help="The address to listen on; any other than this machine's own lets others in.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None, Parameter(negative=(), help="Another name the server may be asked for by; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="The atlas's model, for live segmentation. A zoo model is found by itself.")
    ] = None,
    common: Common | None = None,
) -> int:
    """Serve an atlas, with a page on which an image can be dropped to see its parts.

    Uploads are bounded in bytes, pixels and time, decoded in memory and kept nowhere. Without --model only a model of
    the zoo is loaded: no other name in an atlas is trusted.
    """
    from encoscope.atlas.reader import open_atlas
    from encoscope.atlas.serving import create_app
    from encoscope.atlas.serving import serve as run

    made = open_atlas(site)
    encoder, reason = _encoder(made, model, common or Common())
    live = None
    if encoder is not None:
        from encoscope.atlas.serving.live import Live

        live = Live(made, encoder)
    else:
        note(reason)
    server = create_app(site, live, host=host, hosts=name or (), reason=reason)
    shown = f"[{host}]" if ":" in host else host
    say(f"{_summary(made)}\nhttp://{shown}:{port}/ (Ctrl-C ends it)")
    run(server, host=host, port=port)
    return 0


@app.command
def compare(
    site: Annotated[Path, Parameter(help="The folder of an atlas; its pages get the comparison.")],
    other: Annotated[Path, Parameter(help="Another atlas over the same images.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="What to call the other one. Default: its folder's name.")] = None,
) -> int:
    """Put another atlas beside one: each feature with the other's most like it, by what both fire on."""
    from encoscope.atlas.matching import compare as run

    found = run(site, other, name=name)
    mutual = sum(pair.mutual for pair in found.pairs)
    say(f"{len(found.pairs)} features matched over {found.images} shared images, {mutual} mutually: {site}/index.html")
    return 0


def _encoder(made: Atlas, model: str | None, common: Common) -> tuple[Encoder | None, str]:
    """The model for uploads, or why there is none."""
    source = str((made.manifest["model"] or {}).get("source", ""))
    if model is None and not (source.startswith("zoo:") and "@" not in source):
        return None, f"no live segmentation: give the atlas's model with --model {source}"
    try:
        return common.load(model or source), ""
    except EncoscopeError as error:
        if model is not None:
            raise
        return None, f"no live segmentation: {error}"


def _summary(made: Atlas) -> str:
    title, counts = made.manifest["title"], made.manifest["counts"]
    return f"{title}: {counts['features']} features, {counts['images']} images, {counts['classes']} classes"


def _features(text: str) -> Any:
    """``--features``: a word, a number, or units."""
    if ":" in text or "@" in text:
        return tuple(names(text) or ())
    return word_or_count("--features", text, ("all",))


def _count(flag: str, text: str) -> Any:
    return word_or_count(flag, text, ("all", "none"))
