"""What features and classes look like (VITAL): visualizations, one after the other as they are synthesized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from encoscope.atlas.build.plan import BuildPlan, name_class
from encoscope.atlas.records import ClassRecord, FeatureRecord, Measure, VisualizationRecord
from encoscope.atlas.writer import Writer
from encoscope.errors import EncoscopeError
from encoscope.progress import nest_progress, track
from encoscope.units import Unit, parse_unit
from encoscope.vital.estimator import Vital
from encoscope.vital.references.references import Source
from encoscope.vital.references.shipped import load_shipped
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.visualization import Visualization

_HARDLY_EXCITED = "this picture hardly excites it: the optimization did not succeed, so little can be read from it"


def add_visualizations(writer: Writer, plan: BuildPlan, units: Sequence[Unit], preferred: Sequence[Unit] = ()) -> None:
    """Add a visualization of every unit that has none yet, and of every class.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
        units: The units.
        preferred: The units that come first where not all get a visualization. They are synthesized in the order of
            ``units`` all the same.
    """
    choice = plan.settings.visualize
    ranked = list(dict.fromkeys([*(unit for unit in preferred if unit in units), *units]))
    first = set(ranked if choice == "all" else [] if choice == "none" else ranked[:choice])
    chosen = [unit for unit in units if unit in first]
    todo = [unit for unit in chosen if _lacks_visualization(writer, unit)]
    indices = () if choice == "none" else plan.classes
    classes = [index for index in indices if _lacks_class_visualization(writer, index)]
    total = len(chosen) + len(indices)
    done = total - len(todo) - len(classes)
    writer.set_method("visualization (VITAL)", steps=plan.settings.steps)
    settings: dict[str, Any] = {"steps": plan.settings.steps, "random_state": plan.settings.random_state}
    inner = nest_progress(plan.progress)
    if todo:
        vital = Vital(plan.encoder, todo, progress=plan.progress, **settings).fit(plan.files).set_params(progress=inner)
        stream = track(vital.stream(), len(todo), "visualizations", plan.progress, shorter="--visualize N")
        for unit, visualization in zip(todo, stream, strict=True):
            record = _make_record(writer, visualization)
            writer.add(FeatureRecord(unit.text, layer=unit.layer, visualizations=(record,)))
            done += 1
            writer.set_stage("visualize", done, total)
    for index in track(classes, len(classes), "class visualizations", plan.progress, shorter="--visualize N"):
        unit = parse_unit(f"class:{index}", plan.encoder)
        references = _find_references(plan, unit, index)
        if references is None:
            total -= 1
            continue
        (visualization,) = Vital(plan.encoder, unit, progress=inner, **settings).fit(references).synthesize()
        record = _make_record(writer, visualization)
        writer.add(ClassRecord(name_class(plan.encoder, index), index, visualizations=(record,)))
        done += 1
        writer.set_stage("visualize", done, total)
    writer.set_stage("visualize", done, total)


def _find_references(plan: BuildPlan, unit: Unit, index: int) -> Source | Mapping[str, Prototype] | None:
    """What a class's visualization is matched to: its images here; else statistics that ship with a zoo encoder."""
    is_labelled = any(label is not None for label in plan.first_probe.labels)
    if is_labelled and plan.rows_of_class(index):
        return plan.files
    try:
        return load_shipped(plan.encoder, [unit])
    except EncoscopeError:
        return None


def _make_record(writer: Writer, visualization: Visualization) -> VisualizationRecord:
    control = visualization.reference_activation
    record = VisualizationRecord(
        visualization.method,
        writer.save_image(visualization.picture, quality=90),
        writer.save_image(visualization.transparent, quality=90),
        Measure(
            float(f"{visualization.activation:.4g}"),
            "its value on this picture",
            None if control is None else float(f"{control:.4g}"),
            "" if control is None else "mean over the real images it was matched to",
        ),
        notes=visualization.notes,
    )
    return record if record.is_representative else replace(record, notes=(*record.notes, _HARDLY_EXCITED))


def _lacks_visualization(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or not record.visualizations


def _lacks_class_visualization(writer: Writer, index: int) -> bool:
    record = writer.get(ClassRecord, str(index))
    return record is None or not record.visualizations
