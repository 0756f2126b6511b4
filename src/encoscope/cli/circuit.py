"""``encoscope circuit``: the channels a class rests on, each pictured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common


def circuit(
    unit: Annotated[str, Parameter(help='A class, such as "class:zebra".')],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    references: Annotated[
        str, Parameter(help="Real images, of the class among others: caltech101:ROOT#train, a folder.")
    ],
    top: Annotated[int, Parameter(help="Channels.")] = 3,
    layer: Annotated[str | None, Parameter(help="Of the channels. Default: the last hidden one.")] = None,
    relevance: Annotated[
        Literal["lrp", "guided-backprop", "gradient-input"] | None,
        Parameter(help="How channels are ranked, and pictured. Default: LRP where it reaches."),
    ] = None,
    number: Annotated[int, Parameter(help="References of a picture.")] = 50,
    candidates: Annotated[
        int | None,
        Parameter(help="Search top patches only in so many images of largest value. Default: in every image."),
    ] = None,
    steps: Annotated[int, Parameter(help="Of each picture's optimisation.")] = 2000,
    preset: Annotated[Literal["paper", "authors"], Parameter(help="Where the paper and its authors' code differ.")] = (
        "paper"
    ),
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("circuit"),
    common: Common | None = None,
) -> int:
    """Find the channels of the last hidden layer that a class rests on most, by relevance, and picture each (VITAL).

    circuit.png shows the class above its channels, with each channel's share of the layer's relevance; the pictures are
    beside it, and result.json lists them. An interrupted run goes on when the same command is given again.
    """
    common = common or Common()

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.vital.circuits import circuit as find
    from encoscope.vital.visualization import file_name

    encoder = common.load(model)
    settings: dict[str, Any] = {"number": number, "steps": steps, "preset": preset, "random_state": common.seed}
    if candidates is not None:
        settings |= {"scoring": "preselect", "candidates": candidates}
    found = find(encoder, unit, references, top=top, layer=layer, method=relevance, **settings)
    document = out / "result.json"
    entries = [picture.write(out / file_name(picture.name), document) for picture in found.pictures]
    with results.atomic_write(out / "circuit.png") as temporary:
        found.plot().savefig(temporary, dpi=120)
    for picture in found.pictures:
        for line in picture.notes:
            note(f"{picture.name}: {line}")
    envelope = found.pictures[0].document(entries) | {"circuit": found.entry() | {"figure": "circuit.png"}}
    results.write(document, envelope)
    if common.json:
        say(results.dumps(envelope))
        return 0
    for link in found.links:
        say(f"{link.unit.text}: {link.share:.1%} of the relevance of {found.layer}")
    say(f"{len(entries)} pictures: {out / 'circuit.png'}")
    return 0
