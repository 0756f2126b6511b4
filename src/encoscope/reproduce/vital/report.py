"""Sheets of pictures and reports of VITAL's tables and figures, which say what stands in for the paper's networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import short
from encoscope.images import LoadedImage
from encoscope.plots import draw_contact_sheet, to_rgb
from encoscope.probing import Patch
from encoscope.reproduce.inputs import held_out
from encoscope.reproduce.vital.harness import Bench
from encoscope.reproduce.vital.published import WEIGHTS
from encoscope.vital.references.references import Reference


def shown(reference: Reference) -> Image.Image:
    """A reference as a picture: the photo, or the patch of it."""
    source = reference.source
    if isinstance(source, Patch):
        x0, y0, x1, y1 = source.box
        with Image.open(source.path) as photo:
            return photo.convert("RGB").crop((x0, y0, x1 + 1, y1 + 1))
    pixels = source.pixels if isinstance(source, LoadedImage) else None
    if pixels is not None:
        return Image.fromarray(to_rgb(pixels))
    with Image.open(str(source)) as photo:
        return photo.convert("RGB")


def sheet(cells: Sequence[tuple[Any, str]], columns: int, cell: int = 180) -> Image.Image:
    """Pictures (files, images, arrays) in rows with their captions."""
    opened = [Image.open(picture) if isinstance(picture, Path) else picture for picture, _ in cells]
    return Image.fromarray(draw_contact_sheet(opened, [caption for _, caption in cells], columns, cell=cell))


def report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    benches: Mapping[str, Bench],
    *,
    notes: Sequence[str] = (),
    pictures: Mapping[str, Image.Image] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """The report of an experiment, with notes on what stands in for the paper's networks, photos and compute."""
    some = next(iter(benches.values()))
    request, asked = some.request, some.asked
    what, _, number = name.partition("-")
    kind = number.rstrip("0123456789")
    shown = {"table": "Table", "fig": "Fig."}[kind]
    return Report(
        name,
        f"{what.upper()}, {shown} {number.removeprefix(kind)}: {title}",
        rows,
        [*notes, *_provenance(benches)],
        pictures or {},
        {
            "models": {network: bench.model for network, bench in benches.items()},
            "datasets": list(request.datasets),
            "limit": request.limit,
            **asked,
            **(settings or {}),
        },
        request.seed,
    )


def _provenance(benches: Mapping[str, Bench]) -> list[str]:
    some = next(iter(benches.values()))
    foreign = [f"{bench.model} for {network}" for network, bench in benches.items() if bench.model != WEIGHTS[network]]
    notes = []
    if foreign:
        notes.append(
            f"Stand-ins, which reproduce no figure of the paper: {', '.join(foreign)}. Its own weights: --model paper "
            "with ImageNet's photos."
        )
    other = held_out(some.request.datasets)
    against = f"compared with photos of {short(other)}" if other else "compared with the same photos"
    notes.append(f"Pictures from photos of {short(some.references)}, {against}.")
    return notes
