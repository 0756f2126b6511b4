"""``encoscope visualize``: what units look like (VITAL), beside the methods it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common
from encoscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from encoscope.encoder import Encoder
    from encoscope.vital import Visualization
    from encoscope.vital.run import Preview

    Made = Iterator[tuple[Visualization, Visualization | None]]

_references = Group("References", sort_key=1)
_picture = Group("Picture", sort_key=2)


def visualize(
    *units: Annotated[
        str, Parameter(help='Such as "class:golden retriever", layer4:485, layer4:12,97, layer4@FILE.npy, features:31.')
    ],
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    references: Annotated[
        str | None,
        Parameter(
            group=_references,
            help="Real images: caltech101:ROOT#train, or a folder. Default: the statistics a zoo model ships with.",
        ),
    ] = None,
    number: Annotated[int, Parameter(group=_references, help="References of a unit.")] = 50,
    candidates: Annotated[
        int | None,
        Parameter(
            group=_references,
            help="Search top patches only in so many images of largest value. Default: in every image.",
        ),
    ] = None,
    facets: Annotated[
        int | None, Parameter(group=_references, help="So many pictures of a unit, one for each group of its images.")
    ] = None,
    method: Annotated[
        Literal["vital", "fourier", "maco", "deepinversion", "plugin"], Parameter(help="How pictures are made.")
    ] = "vital",
    preset: Annotated[Literal["paper", "authors"], Parameter(help="Where the paper and its authors' code differ.")] = (
        "paper"
    ),
    relevance: Annotated[
        Literal["auto", "none", "lrp", "guided-backprop", "gradient-input"],
        Parameter(help="Multiplied into activations. auto: none for classes, LRP inside, where it reaches."),
    ] = "auto",
    matching: Annotated[Literal["sort", "moments"], Parameter(help="Of distributions.")] = "sort",
    steps: Annotated[
        int | None, Parameter(group=_picture, help="Of the optimisation. Default: the method's own.")
    ] = None,
    size: Annotated[int | None, Parameter(group=_picture, help="Side in pixels. Default: the model's own.")] = None,
    smooth: Annotated[
        float | None,
        Parameter(group=_picture, help="Weight of both regularisers: 0 is vivid and noisy, 1e-3 smooth and pale."),
    ] = None,
    batch: Annotated[
        int | None, Parameter(group=_picture, help="Pictures made together. Default: 1; 8 on a GPU.")
    ] = None,
    fresh: Annotated[bool, Parameter(group=_picture, help="Do not go on with a run that was stopped.")] = False,
    control: Annotated[
        Literal["untrained"] | None, Parameter(help="Show beside it: the same with untrained weights.")
    ] = None,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("visualizations"),
    common: Common | None = None,
) -> int:
    """Picture what units of an encoder respond to (VITAL, or a method it is compared with).

    For each unit NAME.png and NAME.transparent.png go into the output folder, and result.json, which lists all of them
    with the ids of their references; several units also give sheet.png. While a picture is made, NAME.preview.png shows
    it as it is. An interrupted run goes on when the same command is given again.
    """
    if not units:
        raise UsageError("give at least one unit, such as class:NAME or LAYER:CHANNEL")
    common = common or Common()
    chosen: dict[str, Any] = {
        "number": number,
        "preset": preset,
        "relevance": relevance,
        "matching": matching,
        "smooth": smooth,
    }
    if candidates is not None:
        chosen |= {"scoring": "preselect", "candidates": candidates}
    _check(method, references, facets, control, chosen)

    # only now what takes seconds to load
    from encoscope import results
    from encoscope.units import parse_unit
    from encoscope.vital import make_contact_sheet

    encoder = common.load(model)
    parsed = [parse_unit(unit, encoder) for unit in units]  # wrong units fail before the first image
    square = None if size is None else (size, size)
    document = out / "result.json"
    names = _Names(out)
    preview = _preview(names)
    if method == "vital":
        chosen |= {"size": square, "batch": batch, "random_state": common.seed}
        chosen |= {} if steps is None else {"steps": steps}
        stream = _vital(encoder, parsed, references, facets, chosen, control, preview, fresh, names.expect)
    else:
        how: dict[str, Any] = {"steps": steps, "size": square, "photos": references}
        stream = _other(method, encoder, parsed, how, batch, common.seed, preview, fresh, names.expect)
    entries: list[dict[str, Any]] = []
    sheet: list[Visualization] = []
    try:
        for found, beside in stream:
            base = names.of(found.name)
            entry = found.write(base, document)
            sheet.append(found)
            if beside is not None:
                other = beside.write(base.with_name(f"{base.name}.{beside.control}"), document)
                entry["controls"] = [other]
                sheet.append(beside)
            names.done(found.name)
            entries.append(entry)
            for line in found.notes:
                note(f"{found.name}: {line}")
            if not common.json:
                say(f"{found.caption}: {out / entry['picture']}")
    except KeyboardInterrupt:
        note(f"interrupted: the pictures so far are in {out}; give the same command to go on")
        raise
    if len(sheet) > 1:
        with results.atomic_write(out / "sheet.png") as temporary:
            make_contact_sheet(sheet).save(temporary)
    envelope = sheet[0].document(entries)
    results.write(document, envelope)
    say(results.dumps(envelope) if common.json else f"{len(entries)} results: {document}")
    return 0


def _check(
    method: str, references: str | None, facets: int | None, control: str | None, chosen: dict[str, Any]
) -> None:
    """What does not go together, before anything is loaded."""
    if facets is not None and references is None:
        raise UsageError("--facets groups a unit's images: give --references")
    if control is not None and references is None:
        raise UsageError("--control makes a second picture from the same images: give --references")
    if method == "vital":
        return
    usual = {"relevance": "auto", "matching": "sort", "smooth": None, "preset": "paper"}
    other = next((name for name, value in usual.items() if chosen[name] != value), None)
    other = "facets" if facets is not None else "control" if control is not None else other
    if other is not None:
        raise UsageError(f"--{other} goes with --method vital, not with {method}")


def _vital(
    encoder: Encoder,
    units: list[Any],
    references: str | None,
    facets: int | None,
    chosen: dict[str, Any],
    control: str | None,
    preview: Preview,
    fresh: bool,
    expect: Callable[[list[str]], None],
) -> Made:
    from dataclasses import replace

    from encoscope.encoder.untrained_copy import untrained_copy
    from encoscope.vital import Vital
    from encoscope.vital.references.shipped import load_shipped
    from encoscope.vital.run import judge_visualization

    vital = Vital(encoder, **chosen)
    vital.fit(load_shipped(encoder, units) if references is None else references, units, facets=facets)
    expect([target.name for target in vital.targets_])
    other = Vital(untrained_copy(encoder, random_state=chosen["random_state"] + 1), **chosen) if control else None
    for target, found in zip(vital.targets_, vital.stream(preview=preview, fresh=fresh), strict=True):
        if other is None or target.references is None:
            yield found, None
            continue
        other.fit({target.unit.text: target.references}, target.unit)
        (beside,) = other.synthesize(fresh=fresh)
        yield found, replace(beside, control=control, judged=judge_visualization(encoder, beside, target.unit))


def _other(
    method: str,
    encoder: Encoder,
    units: list[Any],
    how: dict[str, Any],
    batch: int | None,
    seed: int,
    preview: Preview,
    fresh: bool,
    expect: Callable[[list[str]], None],
) -> Made:
    from encoscope.vital.baselines.registry import BaselineOptions, find_planner
    from encoscope.vital.run import SynthesisSubject, run_synthesis

    plan = find_planner(method)
    expect([unit.text for unit in units])
    together = method == "deepinversion"
    number = batch or (len(units) if together else 1 if encoder.device.type == "cpu" else 8)
    for first in range(0, len(units), number):
        part = units[first : first + number]
        made = plan(encoder, part, BaselineOptions(**how))
        subjects = [SynthesisSubject.of(unit) for unit in part]
        for found in run_synthesis(encoder, made, subjects, seed=seed, fresh=fresh, preview=preview):
            yield found, None


class _Names:
    """What the files of each picture are called: safe names that never meet."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._known: dict[str, str] = {}

    def expect(self, names: list[str]) -> None:
        from encoscope.vital.visualization import file_name

        taken: set[str] = set()
        for name in names:
            if name in self._known:
                continue
            base = chosen = file_name(name)
            number = 1
            while chosen.casefold() in taken:
                number += 1
                chosen = f"{base}-{number}"
            taken.add(chosen.casefold())
            self._known[name] = chosen

    def of(self, name: str) -> Path:
        return self._out / self._known[name]

    def preview(self, name: str) -> Path:
        return self._out / f"{self._known[name]}.preview.png"

    def done(self, name: str) -> None:
        self.preview(name).unlink(missing_ok=True)


def _preview(names: _Names) -> Preview:
    """Writes each picture of the batch at work as it is."""
    from encoscope.results import atomic_write

    def show(found: list[Visualization]) -> None:
        for each in found:
            with atomic_write(names.preview(each.name)) as temporary:
                each.picture.save(temporary)

    return show
