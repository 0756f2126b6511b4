"""The statistics that a zoo encoder ships with: ``python -m encoscope.recipes.statistics NAME [--data FOLDER]``.

For every class the mean sorted activations of up to 50 training images (fewer where Caltech-101 has fewer), on the
layers of VITAL's recipe, all classes compressed together; see ``encoscope.vital.references.compressed``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from encoscope.encoder import Encoder, load
from encoscope.errors import MissingError
from encoscope.images import open_dataset
from encoscope.progress import Progress, track
from encoscope.recipes.commandline import logger, run_recipe
from encoscope.units import parse_unit
from encoscope.vital import Vital
from encoscope.vital.references.compressed import CompressedPrototypes, compress_prototypes, save_compressed
from encoscope.vital.references.shipped import statistics_path, write_proof
from encoscope.vital.references.statistics import Prototype

NUMBER = 50


def compute_statistics(
    encoder: Encoder, references: str, *, number: int = NUMBER, megabytes: float = 10.0, progress: Progress = None
) -> CompressedPrototypes:
    """Compute the statistics of every class from a labelled dataset, and compress them.

    Args:
        encoder: A classifier.
        references: The dataset.
        number: The number of references of a class.
        megabytes: The size that the compressed statistics must not exceed.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The compressed statistics.
    """
    prototypes: dict[str, Prototype] = {}
    dataset = open_dataset(references)
    for index in track(range(encoder.outputs or 0), encoder.outputs, "classes", progress):
        unit = parse_unit(f"class:{index}", encoder)
        vital = Vital(encoder, unit, n_references=number, progress=False).fit(dataset)
        prototypes[unit.text] = vital.targets_[0].prototype
    return compress_prototypes(encoder.digest, prototypes, megabytes=megabytes)


def main() -> None:
    """Make the file of a network's statistics and log what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="such as resnet-caltech101")
    parser.add_argument("--data", type=Path, help="folder of Caltech-101 (default: $ENCOSCOPE_DATA/caltech101)")
    parser.add_argument("--output", type=Path, help="file to write (default: where the zoo looks for it)")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    if chosen.data is None and not os.environ.get("ENCOSCOPE_DATA"):
        raise MissingError("where is Caltech-101? give --data FOLDER, or set ENCOSCOPE_DATA to the folder above it")
    root = chosen.data or Path(os.environ["ENCOSCOPE_DATA"]) / "caltech101"
    encoder = load(f"zoo:{chosen.name.removeprefix('zoo:')}")
    compressed = compute_statistics(encoder, f"caltech101:{root}#train")
    path = save_compressed(compressed, chosen.output or statistics_path(chosen.name.removeprefix("zoo:")))
    write_proof(encoder, path, list(compressed.error))
    logger.info("%s: %.1f MB, %d classes", path, path.stat().st_size / 1e6, len(compressed.names))
    logger.info("%d classes have fewer than %d images", sum(count < NUMBER for count in compressed.counts), NUMBER)
    for layer, lost in compressed.error.items():
        logger.info("%s: %d curves, root mean square error %.2f %%", layer, len(compressed.curves[layer]), 100 * lost)


if __name__ == "__main__":
    run_recipe(main)
