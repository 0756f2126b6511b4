"""``encoscope layers``: list the layers of an encoder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common
from encoscope.counting import count_noun

if TYPE_CHECKING:
    from encoscope.encoder import LayerInfo


def layers(
    model: Annotated[
        str, Parameter(help='Such as "timm:resnet50", "torchvision:vit_b_16", "py:module:function".')
    ] = DEFAULT_MODEL,
    /,
    *,
    all: Annotated[bool, Parameter(help="All layers, not only stem, stages and blocks.", negative=())] = False,
    common: Common | None = None,
) -> int:
    """List the layers of an encoder that have a spatial output, in the network's order.

    For each layer: its name, number of channels, the grid of its map at the network's own input size, whether it is a
    map or tokens, the number of tokens before the patch tokens, and its role. The names are what --layers takes.
    """
    from encoscope import results
    from encoscope.encoder import list_layers

    common = common or Common()
    encoder = common.load(model)
    shown = list_layers(encoder, all=all)
    if common.json:
        say(
            results.dumps(
                results.envelope(
                    "layers",
                    [asdict(layer) for layer in shown],
                    model=results.record_model(encoder, [layer.name for layer in shown]).as_dict(),
                    settings={"all": all},
                    seed=common.seed,
                )
            )
        )
        return 0
    for line in _format_table(shown):
        say(line)
    if len(shown) < len(encoder.layers):
        hidden = count_noun(len(encoder.layers) - len(shown), "inner layer is", "inner layers are")
        note(f"{hidden} not shown: --all lists them")
    return 0


def _format_table(rows: list[LayerInfo]) -> list[str]:
    cells = [("layer", "channels", "grid", "kind", "prefix", "role")]
    for row in rows:
        grid = f"{row.grid[0]}x{row.grid[1]}"
        cells.append((row.name, str(row.channels), grid, row.kind, str(row.prefix or "-"), row.role))
    if any(row.followed_by for row in rows):
        cells = [
            (*cell, row.followed_by and f"before {row.followed_by}") for cell, row in zip(cells[1:], rows, strict=True)
        ]
        cells.insert(0, ("layer", "channels", "grid", "kind", "prefix", "role", "read"))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = {1, 4}
    return [
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
