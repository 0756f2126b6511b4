"""``encoscope captions``: captions with their vectors, ready to describe features with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import say
from encoscope.cli.flags import PROGRESS_HELP, MethodFlags, method_flags, read_changes
from encoscope.counting import count_noun
from encoscope.defaults import DEVICE
from encoscope.errors import MissingError, UsageError
from encoscope.falcon.settings import CaptionSettings

_captions = Group("Captions", sort_key=1)

if TYPE_CHECKING:
    CaptionSourceFlags = MethodFlags
else:
    CaptionSourceFlags = method_flags(CaptionSettings, _captions, without=("preset",))


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
    settings: CaptionSourceFlags | None = None,
    index: Annotated[bool, Parameter(help="Build a FAISS index, too, and measure what a search in it misses.")] = False,
    fresh: Annotated[bool, Parameter(help="Start over instead of resuming.")] = False,
    device: Annotated[str, Parameter(help='"cpu", "cuda", ...; "auto" is a GPU if there is one.')] = DEVICE,
    progress: Annotated[Literal["auto", "bar", "lines", "none"], Parameter(help=PROGRESS_HELP)] = "auto",
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False,
) -> int:
    """Embed captions into a folder that "encoscope describe --captions" takes; or use LAION's shards as they are.

    Blank and repeated captions are left out. Running it again resumes where it was stopped. LAION's shards stay where
    they are: the folder then only points to them, and a few of their captions are embedded again to check that they
    are the model's own.
    """
    if not source.exists():
        raise MissingError(f"no such file or folder: {source}")
    check_run(out=store)
    changes = read_changes(CaptionSettings, settings)
    chosen = CaptionSettings.from_preset(**changes)
    if chosen.kind == "image" and not source.is_dir():
        raise UsageError("--kind image goes with a folder of LAION's shards")

    from encoscope import results
    from encoscope.falcon.captions.build import build_captions
    from encoscope.falcon.captions.faiss_index import build_index

    captions = build_captions(source, vlm, store, **changes, fresh=fresh, device=device, progress=progress)
    built = build_index(captions, progress=progress) if index else None
    if json:
        entry = {
            "store": store,
            "captions": len(captions),
            "width": captions.width,
            "digest": captions.digest,
            "kind": chosen.kind,
        }
        entry |= {"index": asdict(built)} if built else {}
        document = results.envelope(
            "captions",
            [entry],
            model={"source": captions.vlm_source, "digest": captions.vlm_digest},
            settings={"source": source, "column": chosen.column},
            seed=None,
        )
        say(results.dumps(document))
    else:
        say(f"{count_noun(len(captions), 'caption')}, {captions.width} numbers each, of {captions.vlm_source}: {store}")
        if built:
            say(f"index of {built.lists} lists, {built.codes} bytes a caption: recall@5 {built.recall:.3f}")
    return 0
