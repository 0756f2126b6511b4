"""``encoscope captions``: captions with their vectors, ready to describe features with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from encoscope.cli.console import say
from encoscope.errors import MissingError, UsageError


def captions(
    source: Annotated[
        Path, Parameter(help="A .txt file (a caption a line), .csv, .tsv or .parquet; or a folder of LAION's shards.")
    ],
    /,
    *,
    vlm: Annotated[
        str, Parameter(help='Image-text model, such as "zoo:clip-caltech101" or "openclip:ViT-B-32/openai".')
    ],
    store: Annotated[Path, Parameter(help="Folder for the captions and their vectors.")],
    column: Annotated[
        str | None, Parameter(help="Column with the captions. Default: the one called caption, text or title.")
    ] = None,
    kind: Annotated[
        Literal["text", "image"], Parameter(help="Of LAION's shards: vectors of the captions, or of their images.")
    ] = "text",
    index: Annotated[bool, Parameter(help="Build a FAISS index, too, and measure what a search in it misses.")] = False,
    fresh: Annotated[bool, Parameter(help="Start over instead of going on with what is there.")] = False,
    device: Annotated[str, Parameter(help='"cpu", "cuda", ...; "auto" is a GPU if there is one.')] = "auto",
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False,
) -> int:
    """Embed captions into a folder that "encoscope describe --captions" takes; or use LAION's shards as they are.

    Blank and repeated captions are left out. Running it again goes on where it was stopped. LAION's shards stay where
    they are: the folder then only says where, and a few of their captions are embedded again to see that they are the
    model's own.
    """
    from encoscope import results
    from encoscope.falcon.captions.build import embed_captions
    from encoscope.falcon.captions.faiss_index import build_index
    from encoscope.falcon.captions.laion import is_laion, link_laion
    from encoscope.vlm import load

    if not source.exists():
        raise MissingError(f"no such file or folder: {source}")
    shards = source.is_dir()
    if shards and not is_laion(source):
        raise MissingError(f"{source} holds no shards such as text_emb_0.npy: give a file, or a folder of LAION's")
    if kind == "image" and not shards:
        raise UsageError("--kind image goes with a folder of LAION's shards")
    model = load(vlm, device=device)
    if shards:
        made = link_laion(source, model, store, kind=kind, column=column, fresh=fresh)
    else:
        made = embed_captions(source, model, store, column=column, fresh=fresh)
    built = build_index(made) if index else None
    if json:
        entry = {"store": store, "captions": len(made), "width": made.width, "digest": made.digest, "kind": kind}
        entry |= {"index": asdict(built)} if built else {}
        document = results.envelope(
            "captions",
            [entry],
            model={"source": model.source, "digest": model.digest},
            settings={"source": source, "column": column},
            seed=None,
        )
        say(results.dumps(document))
    else:
        say(f"{len(made)} captions, {made.width} numbers each, of {model.source}: {store}")
        if built:
            say(f"index of {built.lists} lists, {built.codes} bytes a caption: recall@5 {built.recall:.3f}")
    return 0
