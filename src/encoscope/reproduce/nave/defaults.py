"""Which settings of NAVE follow things best, over several networks: how ``preset="default"`` was chosen.

A full product of all settings is out of reach, so one factor is chosen after another (layers and size together, then
resolution, weighting, grouping, normalization, the smallest region). Half of the images serves for choosing;
what is chosen is measured on the other half, beside Algorithm 1 as written, untrained networks, and methods that know
no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation import localization
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import (
    drop_duplicates,
    shorten_dataset,
)
from encoscope.images import open_boxed_dataset
from encoscope.reproduce.inputs import load_model
from encoscope.reproduce.nave.candidates import Candidate
from encoscope.reproduce.nave.default_search import Search
from encoscope.reproduce.nave.default_table import NetworkTable
from encoscope.reproduce.nave.shared_maps import MaskedImage, open_network_cache
from encoscope.settings import parse_names

NAME = "nave-defaults"
NETWORKS = (
    "zoo:tf_efficientnet_lite0",
    "zoo:resnet-caltech101",
    "zoo:vit-caltech101",
    "zoo:tf_efficientnet_lite1",
    "zoo:tf_efficientnet_lite2",
)
OPTIONS: Mapping[str, Any] = {
    "clusters": "5,10",
    "rounds": 1,
    "heldout": "zoo:tf_efficientnet_lite1,zoo:tf_efficientnet_lite2",
    "reported": "",
    "joined": "zoo:tf_efficientnet_lite0",
}
"""What can be set. clusters: the numbers of clusters that count alike. rounds: how often the search goes through all
factors, at most; it ends when a round changes nothing. heldout: networks that are measured but not chosen on, to show
whether the choice holds for others. reported: networks that the table shows; empty for all. joined: networks that a
further table shows with small regions joined."""


def run(request: EvaluationRequest) -> Report:
    """Choose settings on half of the images, and measure them on the other half.

    Args:
        request: its datasets are images with panoptic masks, and if wanted the same images with boxes; its models take
            the place of the zoo's networks.

    Returns:
        The table of the half that reports; what the other half chose by is a further table.

    Raises:
        UsageError: without masks, for fewer than two images, and for wrong numbers.

    Source: NAVE, Algorithm 1 (the row "as written").
    """
    settings = request.settings(OPTIONS)
    clusters = parse_clusters(str(settings["clusters"]))
    images = read_masked_images(request)
    choosing, reporting = split_images(images, request.seed)
    encoders = load_networks(request)
    steps: list[dict[str, Any]] = []
    chosen: dict[str, Candidate] = {}
    heldout, reported, joined = (parse_names(str(settings[name])) for name in ("heldout", "reported", "joined"))
    caches = {
        name: open_network_cache(encoder, fresh=request.fresh, random_state=request.seed)
        for name, encoder in encoders.items()
    }
    seen = {name: encoder for name, encoder in encoders.items() if name not in heldout}
    for family in group_by_family(encoders):
        if family not in group_by_family(seen):
            raise UsageError(f"all networks with {family} are held out: leave one to choose on")
    for family, members in group_by_family(seen).items():
        search = Search(family, members, clusters, choosing, request, caches)
        chosen[family] = search.run(int(settings["rounds"]))
        steps += search.steps
    rows: list[dict[str, Any]] = []
    rows_joined: list[dict[str, Any]] = []
    skipped = []
    for family, members in group_by_family(encoders).items():
        for name, encoder in members.items():
            if reported and name not in reported:
                continue
            table = NetworkTable(name, encoder, clusters, reporting, request, caches[name])
            rows += table.make_rows(family, chosen[family])
            rows_joined += table.make_joined_rows(chosen[family]) if name in joined else []
            skipped += table.skipped
    return Report(
        NAME,
        "Which settings of NAVE follow things best",
        rows,
        [*_notes(chosen, choosing, reporting, request), *_name_heldout(encoders, heldout)],
        {},
        {"datasets": list(request.datasets), "models": list(encoders), "limit": request.limit, **settings}
        | {"chosen": {family: str(candidate) for family, candidate in chosen.items()}},
        request.seed,
        drop_duplicates(skipped),
        {**({"joined": rows_joined} if rows_joined else {}), "search": steps},
    )


def parse_clusters(text: str) -> tuple[int, ...]:
    """Read the numbers of clusters.

    Args:
        text: Such as "5,10".

    Returns:
        The numbers.

    Raises:
        UsageError: for anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 2 <= int(part) <= 256 for part in parts):
        raise UsageError(f"clusters are whole numbers from 2 to 256, such as 5,10, not {text!r}")
    return tuple(int(part) for part in parts)


def read_masked_images(request: EvaluationRequest) -> list[MaskedImage]:
    """Read the masks of the request's images, and their boxes where a dataset has them.

    Args:
        request: its datasets and limit.

    Returns:
        The images, with no boxes where there are none.

    Raises:
        UsageError: without a dataset with masks, and for fewer than two images.
    """
    masks = [dataset for dataset in request.datasets if overlap.is_panoptic(dataset)]
    if not masks:
        raise UsageError(f"{NAME} needs --dataset: images with panoptic masks, coco:IMAGES#PANOPTIC.json")
    boxes: dict[str, np.ndarray] = {}
    for dataset in request.datasets:
        if dataset not in masks:
            boxes |= {
                example.path.name: example.annotation
                for example in localization.list_boxed_images(open_boxed_dataset(dataset))
            }
    examples = [example for dataset in masks for example in overlap.open_panoptic(dataset, request.limit, request.seed)]
    if len(examples) < 2:
        raise UsageError(f"{NAME} chooses on half of the images and measures on the other: give at least two")
    none = np.zeros((0, 4))
    return [MaskedImage(example, boxes.get(example.path.name, none)) for example in examples]


def split_images(images: Sequence[MaskedImage], random_state: int) -> tuple[list[MaskedImage], list[MaskedImage]]:
    """Split images at random into two halves.

    Args:
        images: The images.
        random_state: The seed.

    Returns:
        The half to choose on, and the half to report.
    """
    order = np.random.default_rng(random_state).permutation(len(images))
    half = len(images) // 2
    first, second = (sorted(part.tolist()) for part in (order[:half], order[half:]))
    return [images[index] for index in first], [images[index] for index in second]


def load_networks(request: EvaluationRequest) -> dict[str, Encoder]:
    """Load the networks that the request names, or those of the zoo that are installed.

    Args:
        request: its ``models``.

    Returns:
        The encoders by their source.
    """
    encoders: dict[str, Encoder] = {}
    for model in request.models or NETWORKS:
        try:
            encoders[model] = load_model(request, model)
        except MissingError:
            if request.models:
                raise
    return encoders


def group_by_family(encoders: Mapping[str, Encoder]) -> dict[str, dict[str, Encoder]]:
    """Group networks by what a rule can go by: whether they have stages, or keep one grid throughout.

    Args:
        encoders: The encoders by name.

    Returns:
        The networks of each family that occurs.
    """
    families: dict[str, dict[str, Encoder]] = {}
    for name, encoder in encoders.items():
        family = "stages" if encoder.layer(encoder.depths[-1]).role == "stage" else "one grid"
        families.setdefault(family, {})[name] = encoder
    return families


def _name_heldout(encoders: Mapping[str, Encoder], heldout: Sequence[str]) -> list[str]:
    names = [name for name in encoders if name in heldout]
    return [f"Measured with what was chosen on the other networks: {', '.join(names)}."] if names else []


def _notes(
    chosen: Mapping[str, Candidate],
    choosing: Sequence[MaskedImage],
    reporting: Sequence[MaskedImage],
    request: EvaluationRequest,
) -> list[str]:
    return [
        *(f"Chosen for networks with {family}: {candidate}." for family, candidate in chosen.items()),
        f"{len(choosing)} images to choose on, by the mean mIoU over networks and numbers of clusters, the smallest "
        "size and the settings nearest to Algorithm 1 where the best are not clearly better (paired bootstrap); "
        f"{len(reporting)} others for the table: {', '.join(map(shorten_dataset, request.datasets))}. The search goes "
        "through one factor after another, not through all combinations.",
        "mIoU: each cluster named by the category it shares most pixels with, the image's own mask known (an oracle). "
        "region mIoU: each connected region named so by itself, which more regions always make easier: compare it at "
        "equal numbers of regions. CorLoc: the region chosen with the true boxes known (an oracle); border: without "
        "them. [95 % bootstrap interval over images]; differences are paired, on the same images.",
        "felzenszwalb, slic, random: as many segments as the chosen settings have clusters, or as they have connected "
        "regions, image by image. joined: the chosen settings, where a region below 1 % of the image joins the one "
        "beside it that it resembles most.",
        "Foreground ARI looks at the pixels of things alone. Each random segment is large and connected, so most of a "
        "thing falls into one or two of them, which the index rewards; that the segment reaches far beyond the thing "
        "costs nothing. It says little about segmentations of a whole image, where NAVE also tells parts of a thing "
        "apart.",
        "Imagenette has neither masks nor boxes, so none of these measures exists there.",
    ]
