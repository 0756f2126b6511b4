"""``encoscope atlas``: build, serve and compare pages on an encoder's features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from encoscope.atlas.settings import HOST, PORT, AtlasSettings
from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.counting import count_noun
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError

app = App(name="atlas", help="An encoder's features as pages one can browse.", help_format="plaintext")

_what = Group("What it holds", sort_key=2)
_how = Group("How", sort_key=3)

if TYPE_CHECKING:
    AtlasFlags = MethodFlags
else:
    AtlasFlags = method_flags(
        AtlasSettings, _what, without=("preset",), groups=dict.fromkeys(("captions", "vlm", "steps"), _how)
    )


@app.command
def build(
    *,
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    images: Annotated[str, Parameter(help="A dataset (caltech101:ROOT#train) or a folder (its folders are labels).")],
    out: Annotated[Path, Parameter(help="The folder of the pages.")],
    settings: AtlasFlags | None = None,
    title: Annotated[str | None, Parameter(group=_what, help="The atlas's title. Default: the model.")] = None,
    fresh: Annotated[bool, Parameter(group=_how, help="Start over instead of resuming.")] = False,
    common: Common | None = None,
) -> int:
    """Build pages on what an encoder's features stand for, look like and are active on, and how it segments images.

    Probes and segments the images, describes and visualizes features. The pages are complete after every stage; run
    again, it resumes where it was stopped. They open without a server: OUT/index.html.
    """
    common = common or Common()
    changes = read_changes(AtlasSettings, settings)
    check_run(common, out=out, sources=[images, changes.get("captions")])

    from encoscope import results
    from encoscope.atlas import build_atlas, open_atlas

    site = build_atlas(
        common.defer(model),
        images,
        out,
        **changes,
        random_state=common.seed,
        title=title,
        fresh=fresh,
        progress=common.progress,
    )
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
    port: Annotated[int, Parameter(help="The port to listen on.")] = PORT,
    host: Annotated[
        str, Parameter(help="The address to listen on; any other than this machine's own lets others in.")
    ] = HOST,
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

    common = common or Common()
    check_run(common, sources=[site])
    if not 0 <= port < 65536:
        raise UsageError(f"--port takes a number from 0 to 65535, not {port}")
    load = common.loading()
    serve_atlas(site, model, host=host, port=port, names=name or (), load=load, announce=say)
    return 0


@app.command
def compare(
    site: Annotated[Path, Parameter(help="The folder of an atlas; its pages get the comparison.")],
    other: Annotated[Path, Parameter(help="Another atlas over the same images.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="What to call the other one. Default: its folder's name.")] = None,
    seed: Annotated[int, Parameter(help="Seed of the permutation.")] = RANDOM_STATE,
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
