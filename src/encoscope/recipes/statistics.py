"""The statistics that a zoo encoder ships with: ``python -m encoscope.recipes.statistics NAME [--data FOLDER]``.

For every class the mean sorted activations of up to 50 training images (fewer where there are fewer), on the layers of
VITAL's recipe, all classes compressed together; see ``encoscope.vital.references.compressed``. The networks of
Caltech-101 get all of their classes. The ImageNet networks get the classes that Caltech-101 has too (see
``encoscope.recipes.shared_classes``), since those photos may be given away. ``--dataset imagenet:ROOT#train`` takes
other photos, and all classes that they have, into a file of your own, which ``visualize --references FILE`` reads.

A class that is done is kept in the cache: a run that was stopped is resumed when the same command is given again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from encoscope.classes import match_labels
from encoscope.encoder import Encoder, load
from encoscope.errors import MissingError, UsageError
from encoscope.images import LabelledImages, open_dataset
from encoscope.images.caltech101 import read_caltech101
from encoscope.progress import Progress, track
from encoscope.recipes.commandline import logger, run_recipe
from encoscope.recipes.shared_classes import EQUAL, read_shared_classes
from encoscope.units import parse_unit
from encoscope.vital import Vital
from encoscope.vital.references.compressed import CompressedPrototypes, compress_prototypes, save_compressed
from encoscope.vital.references.shipped import statistics_path, write_proof
from encoscope.vital.references.statistics import Prototype

NUMBER = 50
IMAGENET_CLASSES = 1000


def compute_statistics(
    encoder: Encoder,
    references: LabelledImages,
    *,
    number: int = NUMBER,
    megabytes: float = 10.0,
    sources: Mapping[str, str] | None = None,
    progress: Progress = None,
) -> CompressedPrototypes:
    """Compute the statistics of every class that a labelled dataset has, and compress them.

    Args:
        encoder: A classifier.
        references: The dataset.
        number: The number of references of a class.
        megabytes: The size that the compressed statistics must not exceed.
        sources: Where the images of a label are from, for a note in each result; None for no notes.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The compressed statistics, in the order of the classes.

    Raises:
        UsageError: If no label of the dataset is a class of the network.
    """
    matches = match_labels(encoder, references.classes).values()
    labels = {match.index: match.label for match in matches if match.index is not None}
    if not labels:
        raise UsageError(f"no label of the images is a class of {encoder.source}: {', '.join(references.classes[:5])}")
    prototypes: dict[str, Prototype] = {}
    for index in track(sorted(labels), len(labels), "classes", progress):
        unit = parse_unit(f"class:{index}", encoder)
        vital = Vital(encoder, unit, n_references=number, progress=False).fit(references)
        prototype = vital.targets_[0].prototype
        if sources is not None:
            source = f"its references are {prototype.count} photos of {sources[labels[index]]}"
            prototype = replace(prototype, notes=(source, *prototype.notes))
        prototypes[unit.text] = prototype
    return compress_prototypes(encoder.digest, prototypes, megabytes=megabytes)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="such as resnet-caltech101")
    parser.add_argument("--data", type=Path, help="folder of Caltech-101 (default: $ENCOSCOPE_DATA/caltech101)")
    parser.add_argument("--dataset", help="other labelled images, such as imagenet:ROOT#train; needs --output")
    parser.add_argument("--number", type=int, default=NUMBER, help=f"images of a class, at most (default: {NUMBER})")
    parser.add_argument("--output", type=Path, help="file to write (default: where the zoo looks for it)")
    chosen = parser.parse_args()
    chosen.name = chosen.name.removeprefix("zoo:")
    if chosen.dataset is not None and chosen.output is None:
        raise UsageError("--dataset needs --output FILE.safetensors: the zoo's own file is of Caltech-101's photos")
    if chosen.dataset is None and chosen.data is None and not os.environ.get("ENCOSCOPE_DATA"):
        raise MissingError("where is Caltech-101? give --data FOLDER, or set ENCOSCOPE_DATA to the folder above it")
    return chosen


def _find_images(encoder: Encoder, chosen: argparse.Namespace) -> tuple[LabelledImages, Mapping[str, str]]:
    """The images of the classes, and where those of each label are from."""
    if chosen.dataset is not None:
        images = open_dataset(chosen.dataset)
        name = chosen.dataset.partition(":")[0] if ":" in chosen.dataset else Path(chosen.dataset).name
        split = f"#{chosen.dataset.rpartition('#')[2]}" if "#" in chosen.dataset else ""
        return images, {label: f"{name}{split}, class {label}" for label in images.classes}
    root = chosen.data or Path(os.environ["ENCOSCOPE_DATA"]) / "caltech101"
    shared = encoder.outputs == IMAGENET_CLASSES
    images = read_shared_classes(root) if shared else read_caltech101(root)
    folders = (
        {number: folder for folder, number in EQUAL.items()} if shared else {name: name for name in images.classes}
    )
    return images, {label: f"Caltech-101's training list, folder {folders[label]}" for label in images.classes}


def main() -> None:
    """Make the file of a network's statistics and log what it holds."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    chosen = _parse_arguments()
    encoder = load(f"zoo:{chosen.name}")
    images, sources = _find_images(encoder, chosen)
    compressed = compute_statistics(encoder, images, number=chosen.number, sources=sources)
    path = save_compressed(compressed, chosen.output or statistics_path(chosen.name))
    write_proof(encoder, path, list(compressed.error))
    logger.info("%s: %.1f MB, %d classes", path, path.stat().st_size / 1e6, len(compressed.names))
    fewer = sum(count < chosen.number for count in compressed.counts)
    logger.info("%d photos; %d classes have fewer than %d", sum(compressed.counts), fewer, chosen.number)
    for layer, lost in compressed.error.items():
        logger.info("%s: %d curves, root mean square error %.2f %%", layer, len(compressed.curves[layer]), 100 * lost)


if __name__ == "__main__":
    run_recipe(main)
