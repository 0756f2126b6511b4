"""``encoscope visualize``: what units look like (VITAL), or by the methods it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags
from encoscope.counting import count_noun
from encoscope.errors import UsageError
from encoscope.vital.settings import (
    DEFAULT_METHOD,
    FRAMES,
    METHOD_NAMES,
    METHOD_SETTINGS,
    VitalSettings,
    check_request,
    make_settings,
)

if TYPE_CHECKING:
    from encoscope.vital import Visualization
    from encoscope.vital.run import VisualizationPreview

_visualization = Group("Visualization", sort_key=0)
_run = Group("Run", sort_key=1)

if TYPE_CHECKING:
    VitalFlags = MethodFlags
    MethodName: TypeAlias = str
else:
    MethodName = Literal[METHOD_NAMES]
    _others = [kind for kind in METHOD_SETTINGS.values() if kind is not VitalSettings]
    VitalFlags = method_flags(VitalSettings, _visualization, *_others)


def visualize(
    *units: Annotated[
        str,
        Parameter(
            help='Such as "class:golden retriever", layer4:485, layer4:12,-97, "class:tiger - class:lion", layer4:all.'
        ),
    ],
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    references: Annotated[
        str | None,
        Parameter(
            group=_run,
            help="Real images: caltech101:ROOT#train, or a folder; or a file of statistics. "
            "Default: the statistics a zoo model ships with.",
        ),
    ] = None,
    method: Annotated[
        MethodName, Parameter(group=_visualization, help="VITAL, or a method it is compared with.")
    ] = DEFAULT_METHOD,
    settings: VitalFlags | None = None,
    batch: Annotated[
        int | None, Parameter(group=_run, help="Visualizations made together. Default: 1; 8 on a GPU.")
    ] = None,
    fresh: Annotated[bool, Parameter(group=_run, help="Do not resume an interrupted run.")] = False,
    frames: Annotated[
        int, Parameter(group=_run, help="Also write NAME.webp, an animation of so many images on the way.")
    ] = FRAMES,
    sprite_map: Annotated[
        bool,
        Parameter(
            name="--map",
            negative="",
            group=_run,
            help="Also write map.png, with units of alike references near.",
        ),
    ] = False,
    control: Annotated[
        Literal["untrained"] | None, Parameter(group=_run, help="Show beside it: the same with untrained weights.")
    ] = None,
    out: Annotated[Path, Parameter(group=_run, help="Folder for the results.")] = Path("visualizations"),
    common: Common | None = None,
) -> int:
    """Visualize units of an encoder by VITAL, or by a method it is compared with.

    For each unit NAME.png and NAME.transparent.png go into the output folder, and result.json, which lists all of them
    with the ids of their references; several pictures also give sheet.png. During the optimization NAME.preview.png
    shows the image so far. An interrupted run is resumed when the same command is given again.
    """
    if not units:
        raise UsageError("give at least one unit, such as class:NAME or LAYER:CHANNEL")
    common = common or Common()
    changes: dict[str, Any] = {} if settings is None else settings.changes()
    make_settings(method, **changes)  # wrong values fail before the network is loaded
    check_run(common, out=out, sources=[references], batch=batch)
    check_request(method, changes.get("n_facets"), references, control, select=changes.get("select"))

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.units import parse_units
    from encoscope.vital import make_contact_sheet, make_sprite_map, visualize_stream

    encoder = common.load(model)
    document = out / "result.json"
    files = _Files(out)
    stream = visualize_stream(
        encoder,
        parse_units(units, encoder)[0],
        references,
        method=method,
        control=control,
        preview=_write_previews(files),
        fresh=fresh,
        frames=frames,
        random_state=common.seed,
        batch_size=batch,
        progress=common.progress,
        **changes,
    )
    entries: list[dict[str, Any]] = []
    visualizations: list[Visualization] = []
    try:
        for visualization in stream:
            entry = visualization.write(files.base(visualization.name), document)
            files.preview(visualization.name).unlink(missing_ok=True)
            visualizations.append(visualization)
            entries.append(entry)
            for line in visualization.notes:
                note(f"{visualization.name}: {line}")
            if not common.json:
                say(f"{visualization.caption}: {out / entry['picture']}")
                if visualization.reference_line:
                    say(f"  {visualization.reference_line}")
    except KeyboardInterrupt:
        note(f"interrupted: the images so far are in {out}; give the same command to resume")
        raise
    if len(visualizations) > 1 or visualizations[0].controls:
        with results.atomic_write(out / "sheet.png") as temporary:
            make_contact_sheet(visualizations).save(temporary)
    if sprite_map:
        with results.atomic_write(out / "map.png") as temporary:
            make_sprite_map(visualizations).save(temporary)
    envelope = visualizations[0].make_document(entries)
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{count_noun(len(entries), 'result')}: {document}")
    return 0


class _Files:
    """The files of each visualization: safe names of which no two are the same."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._names: dict[str, str] = {}

    def base(self, name: str) -> Path:
        """The path without a suffix."""
        from encoscope.vital.visualization import make_file_name

        if name not in self._names:
            taken = {known.casefold() for known in self._names.values()}
            base = chosen = make_file_name(name)
            number = 1
            while chosen.casefold() in taken:
                number += 1
                chosen = f"{base}-{number}"
            self._names[name] = chosen
        return self._out / self._names[name]

    def preview(self, name: str) -> Path:
        """The path of the image so far."""
        base = self.base(name)
        return base.with_name(f"{base.name}.preview.png")


def _write_previews(files: _Files) -> VisualizationPreview:
    """Writes each visualization of the current batch as it is."""
    from encoscope.results import atomic_write

    def write(visualizations: list[Visualization]) -> None:
        for visualization in visualizations:
            with atomic_write(files.preview(visualization.name)) as temporary:
                visualization.picture.save(temporary)

    return write
