"""VITAL's Figs. 27 to 30: a class's concepts, found by CRAFT, each pictured with LRP and with guided backprop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL import Image

from encoscope.craft import find_concepts
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.reproduce.vital.harness import figures
from encoscope.reproduce.vital.report import report, sheet, shown
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


def concepts(number: int, request: EvaluationRequest) -> Report:
    """The concepts of a class, the most important first: patches that show each, and its pictures."""
    asked, benches = figures(request, {"concepts": 5, "photos": 100, "layer": ""})
    (bench,) = benches.values()
    label = bench.classes(1, CLASSES[number])[0]
    files = [path for path, own in zip(bench.photos.paths, bench.photos.labels, strict=True) if own == label]
    bank = find_concepts(
        bench.encoder,
        f"class:{label}",
        files,
        number=min(int(asked["concepts"]), request.limit or int(asked["concepts"])),
        layer=bench.layer if asked["layer"] else None,
        images=int(asked["photos"]),
        seed=request.seed,
        progress=request.progress,
    )
    units = [bank.as_unit(index) for index in range(len(bank))]
    made: dict[str, Any] = {}
    notes: list[str] = []
    for caption, method in METHODS.items():
        try:
            estimator = bench.estimator([units[0].text], relevance=method).fit(files, units, progress=request.progress)
            made[caption] = estimator.synthesize(progress=request.progress, fresh=request.fresh)
        except UsageError as error:
            notes.append(f"{caption} on {bench.model} cannot run: {error}.")
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for index, crops in enumerate(bank.crops):
        row: dict[str, Any] = {"concept": index + 1, "importance": float(bank.importances[index])}
        patches: list[Any] = [shown(Reference(patch.id, patch)) for patch in crops[:_CROPS]]
        patches += [Image.new("RGB", (64, 64), "white")] * (_CROPS - len(patches))
        cells += [(patch, "" if place else f"concept {index + 1}") for place, patch in enumerate(patches)]
        for caption, pictures in made.items():
            cells.append((pictures[index].picture, caption))
            row |= {f"{caption}: on the picture": pictures[index].activation}
        row["on its patches"] = next(iter(made.values()))[index].reference_activation if made else None
        rows.append(row)
    about = [
        f"{bench.names[label]}: {len(bank.images)} photos, {len(bank)} directions in {bank.layer} by non-negative "
        f"factorisation of patches (it leaves out {bank.error:.0%}); importance: total Sobol index for the logit.",
        "Relevance starts, on each image, at the place most like the direction. The direction's value on the pictures "
        "and, mean, on the patches they are made from.",
    ]
    title = f"concepts of {bench.names[label]}"
    key = f"vital-fig{number}"
    pictures = {key: sheet(cells, _CROPS + len(made), cell=150)}
    return report(key, title, rows, benches, notes=[*about, *notes], pictures=pictures)


fig27, fig28, fig29, fig30 = (partial(concepts, number) for number in CLASSES)
