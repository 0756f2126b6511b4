"""What features and classes look like (VITAL): pictures with transparency, one after the other as they are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from encoscope.atlas.build.plan import BuildPlan, class_text
from encoscope.atlas.records import ClassRecord, FeatureRecord, Measure, VisualizationRecord
from encoscope.atlas.writer import Writer
from encoscope.errors import EncoscopeError
from encoscope.progress import track
from encoscope.units import Unit, parse_unit
from encoscope.vital.estimator import Vital
from encoscope.vital.references.references import Source
from encoscope.vital.references.shipped import load_shipped
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.visualization import Visualization as Found

_HARDLY = "it is hardly excited by this picture: the optimisation found no way up, so little can be read from it"


def add_pictures(writer: Writer, made: BuildPlan, units: Sequence[Unit], wanted: Sequence[Unit] = ()) -> None:
    """A picture of every unit that has none yet, and of every class.

    wanted: the units that come first where not all get one. They are made in the order of ``units`` all the same.
    """
    choice = made.options.visualize
    ranked = list(dict.fromkeys([*(unit for unit in wanted if unit in units), *units]))
    first = set(ranked if choice == "all" else [] if choice == "none" else ranked[:choice])
    chosen = [unit for unit in units if unit in first]
    todo = [unit for unit in chosen if _lacks(writer, unit)]
    classes = [] if choice == "none" else [index for index in made.classes if _lacks_class(writer, index)]
    total = len(chosen) + (0 if choice == "none" else len(made.classes))
    done = total - len(todo) - len(classes)
    writer.method("visualization (VITAL)", steps=made.options.steps)
    vital = Vital(made.encoder, steps=made.options.steps, random_state=made.options.seed)
    if todo:
        vital.fit(made.files, todo, progress=made.progress)
        for unit, found in zip(todo, track(vital.stream(), len(todo), "pictures", made.progress), strict=True):
            writer.add(FeatureRecord(unit.text, layer=unit.layer, visualizations=(_shown(writer, found),)))
            done += 1
            writer.stage("visualize", done, total)
    for index in track(classes, len(classes), "class pictures", made.progress):
        unit = parse_unit(f"class:{index}", made.encoder)
        references = _references(made, unit, index)
        if references is None:
            total -= 1
            continue
        (found,) = vital.fit(references, [unit]).synthesize(progress=False)
        name = class_text(made.encoder, index)
        writer.add(ClassRecord(name, index, visualizations=(_shown(writer, found),)))
        done += 1
        writer.stage("visualize", done, total)
    writer.stage("visualize", done, total)


def _references(made: BuildPlan, unit: Unit, index: int) -> Source | Mapping[str, Prototype] | None:
    """What a class's picture is to be alike to: its images here; else the statistics that ship with a zoo encoder."""
    labelled = any(label is not None for label in made.any.labels)
    if labelled and made.of_class(index):
        return made.files
    try:
        return load_shipped(made.encoder, [unit])
    except EncoscopeError:
        return None


def _shown(writer: Writer, found: Found) -> VisualizationRecord:
    control = found.reference_activation
    shown = VisualizationRecord(
        found.method,
        writer.picture(found.picture, quality=90),
        writer.picture(found.transparent, quality=90),
        Measure(
            float(f"{found.activation:.4g}"),
            "its value on this picture",
            None if control is None else float(f"{control:.4g}"),
            "" if control is None else "mean over the real images it was matched to",
        ),
        notes=found.notes,
    )
    return shown if shown.stands else replace(shown, notes=(*shown.notes, _HARDLY))


def _lacks(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or not record.visualizations


def _lacks_class(writer: Writer, index: int) -> bool:
    record = writer.get(ClassRecord, str(index))
    return record is None or not record.visualizations
