"""Reports of VITAL's tables and figures, which say what stands in for the paper's networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import LoadedImage
from encoscope.plots import to_rgb
from encoscope.probing import Patch
from encoscope.reproduce.inputs import choose_heldout_dataset, describe_matching
from encoscope.reproduce.vital.harness import Bench
from encoscope.reproduce.vital.published import WEIGHTS
from encoscope.vital.references.references import Reference


def open_reference(reference: Reference) -> Image.Image:
    """Open a reference as an image.

    Args:
        reference: an image, or a patch of one.

    Returns:
        The image, or the patch cut out of it.
    """
    source = reference.source
    if isinstance(source, Patch):
        x0, y0, x1, y1 = source.box
        with Image.open(source.path) as opened:
            return opened.convert("RGB").crop((x0, y0, x1 + 1, y1 + 1))
    pixels = source.pixels if isinstance(source, LoadedImage) else None
    if pixels is not None:
        return Image.fromarray(to_rgb(pixels))
    with Image.open(str(source)) as opened:
        return opened.convert("RGB")


def build_report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    benches: Mapping[str, Bench],
    *,
    notes: Sequence[str] = (),
    sheets: Mapping[str, Image.Image] | None = None,
) -> Report:
    """Build the report of an experiment, with notes on what stands in for the paper's networks and images.

    Args:
        name: name of the experiment, such as ``vital-table1``.
        title: what it shows.
        rows: the table.
        benches: our networks, by the paper's names.
        notes: what a reader must know, before the notes on the stand-ins.
        sheets: images by file name.

    Returns:
        The report.
    """
    bench = next(iter(benches.values()))
    request, settings = bench.request, bench.settings
    paper, _, number = name.partition("-")
    kind = number.rstrip("0123456789")
    heading = {"table": "Table", "fig": "Fig."}[kind]
    return Report(
        name,
        f"{paper.upper()}, {heading} {number.removeprefix(kind)}: {title}",
        rows,
        [*notes, *_provenance(benches)],
        sheets or {},
        {
            "models": {network: bench.model for network, bench in benches.items()},
            "datasets": list(request.datasets),
            "limit": request.limit,
            **settings,
        },
        request.seed,
    )


def _provenance(benches: Mapping[str, Bench]) -> list[str]:
    bench = next(iter(benches.values()))
    foreign = [f"{bench.model} for {network}" for network, bench in benches.items() if bench.model != WEIGHTS[network]]
    notes = []
    if foreign:
        notes.append(
            f"Stand-ins, which reproduce no figure of the paper: {', '.join(foreign)}. Its own weights: --model paper "
            "with ImageNet's images."
        )
    other = choose_heldout_dataset(bench.request.datasets)
    against = f"compared with images of {shorten_dataset(other)}" if other else "compared with the same images"
    notes.append(f"Visualizations from images of {shorten_dataset(bench.references)}, {against}.")
    return [*notes, *list_matchings(benches)]


def list_matchings(benches: Mapping[str, Bench]) -> list[str]:
    """Say how labels were matched with each network's classes.

    Args:
        benches: the networks' benches.

    Returns:
        A line for each network and dataset whose labels were used.
    """
    networks = {bench.model: bench for bench in benches.values()}.values()
    return [
        describe_matching(bench.encoder, dataset, shorten_dataset(dataset))
        for bench in networks
        for dataset in bench.labelled
    ]
