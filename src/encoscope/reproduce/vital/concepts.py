"""VITAL's Figs. 27 to 30: a class's concepts, found by CRAFT, each visualized with LRP and with guided backprop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL import Image

from encoscope.craft import find_concepts
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.reproduce.inputs import select_first_images
from encoscope.reproduce.sheets import Cell, draw_sheet
from encoscope.reproduce.vital.harness import prepare_benches
from encoscope.reproduce.vital.report import build_report, open_reference
from encoscope.vital.references.references import Reference

CLASSES: Mapping[int, tuple[str, str]] = {
    27: ("wood rabbit", "kangaroo"),
    28: ("brown bear", "panda"),
    29: ("tabby", "wild_cat"),
    30: ("German shepherd", "dalmatian"),
}
"""The paper's rabbit, bear, tabby cat and German shepherd among ImageNet's classes (which rabbit and which bear it does
not say), and one of Caltech-101's in its place."""
METHODS = {"LRP": "lrp", "guided backprop": "guided-backprop"}
_CROPS = 3


def draw_concepts(number: int, request: EvaluationRequest) -> Report:
    """Draw the concepts of a class, the most important first: patches that show each, and its visualizations.

    Args:
        number: number of the figure, a key of ``CLASSES``.
        request: the experiment's request.

    Returns:
        The figure, with the importance of each concept.

    Source: VITAL, Figs. 27 to 30.
    """
    settings, benches = prepare_benches(request, {"concepts": 5, "images": 100, "layer": ""})
    (bench,) = benches.values()
    label = bench.choose_classes(1, CLASSES[number])[0]
    files = list(select_first_images(bench.images, [label]).paths)
    bank = find_concepts(
        bench.encoder,
        f"class:{label}",
        files,
        n_concepts=min(int(settings["concepts"]), request.limit or int(settings["concepts"])),
        layer=bench.layer if settings["layer"] else None,
        n_images=int(settings["images"]),
        random_state=request.seed,
        progress=request.progress,
    )
    units = [bank.as_unit(index) for index in range(len(bank))]
    visualizations: dict[str, Any] = {}
    notes: list[str] = []
    for caption, method in METHODS.items():
        try:
            estimator = bench.create_estimator(units, relevance=method).fit(files)
            visualizations[caption] = estimator.synthesize(fresh=request.fresh)
        except UsageError as error:
            notes.append(f"{caption} on {bench.model} cannot run: {error}.")
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    for index, crops in enumerate(bank.crops):
        row: dict[str, Any] = {"concept": index + 1, "importance": float(bank.importances[index])}
        patches: list[Any] = [open_reference(Reference(patch.id, patch)) for patch in crops[:_CROPS]]
        patches += [Image.new("RGB", (64, 64), "white")] * (_CROPS - len(patches))
        cells += [(patch, "" if column else f"concept {index + 1}") for column, patch in enumerate(patches)]
        for caption, items in visualizations.items():
            cells.append((items[index].picture, caption))
            row |= {f"{caption}: on the picture": items[index].activation}
        row["on its patches"] = (
            next(iter(visualizations.values()))[index].reference_activation if visualizations else None
        )
        rows.append(row)
    reading = [
        f"{bench.names[label]}: {len(bank.images)} images, {len(bank)} directions in {bank.layer} by non-negative "
        f"factorization of patches (it leaves out {bank.error:.0%}); importance: total Sobol index for the logit.",
        "Relevance starts, on each image, at the position most like the direction. The direction's value on the "
        "visualizations and, mean, on the patches they are made from.",
    ]
    title = f"concepts of {bench.names[label]}"
    key = f"vital-fig{number}"
    sheets = {key: draw_sheet(cells, _CROPS + len(visualizations), cell=150)}
    return build_report(key, title, rows, benches, notes=[*reading, *notes], sheets=sheets)


fig27, fig28, fig29, fig30 = (partial(draw_concepts, number) for number in CLASSES)
