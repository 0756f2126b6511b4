"""``encoscope circuit``: the channels a class depends on most, each visualized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.counting import count_noun
from encoscope.vital.settings import NOT_OF_CIRCUITS, CircuitSettings, VitalSettings

_channels = Group("Channels", sort_key=0)
_visualization = Group("Visualizations", sort_key=1)

if TYPE_CHECKING:
    CircuitFlags = VitalFlags = MethodFlags
else:
    CircuitFlags = method_flags(CircuitSettings, _channels, without=("preset",))
    VitalFlags = method_flags(VitalSettings, _visualization, without=NOT_OF_CIRCUITS, name="CircuitVitalFlags")


def circuit(
    unit: Annotated[str, Parameter(help='A class, such as "class:zebra".')],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    references: Annotated[
        str, Parameter(help="Real images, of the class among others: caltech101:ROOT#train, a folder.")
    ],
    channels: CircuitFlags | None = None,
    settings: VitalFlags | None = None,
    fresh: Annotated[bool, Parameter(help="Do not resume an interrupted run.")] = False,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("circuit"),
    common: Common | None = None,
) -> int:
    """Find the channels of the last hidden layer that a class depends on most, and visualize each (VITAL).

    Channels are ranked by relevance. circuit.png shows the class above its channels, with each channel's share of the
    layer's relevance; the visualizations are beside it, and result.json lists them. An interrupted run is resumed when
    the same command is given again.
    """
    common = common or Common()
    channel_changes = read_changes(CircuitSettings, channels)
    changes = read_changes(VitalSettings, settings)
    check_run(common, out=out, sources=[references])

    # only now what takes seconds to load
    from encoscope.vital import circuit as find_circuit

    encoder = common.load(model)
    run: dict[str, Any] = {"random_state": common.seed, "fresh": fresh, "progress": common.progress}
    result = find_circuit(encoder, unit, references, **channel_changes, **changes, **run)
    result.save(out)
    for visualization in result.visualizations:
        for line in visualization.notes:
            note(f"{visualization.name}: {line}")
    if common.json:
        say((out / "result.json").read_text(encoding="utf-8"))
        return 0
    for visualization in result.visualizations:
        say(f"{visualization.name}: {visualization.reference_line}")
    for channel in result.channels:
        say(f"{channel.unit}: {channel.relevance_share:.1%} of the relevance of {result.layer}")
    say(f"{count_noun(len(result.visualizations), 'visualization')}: {out / 'circuit.png'}")
    return 0
