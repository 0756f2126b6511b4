"""What the recipes' command lines share."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from encoscope.errors import EncoscopeError, MissingError

logger = logging.getLogger("encoscope.recipes")


def parse_arguments(description: str) -> argparse.Namespace:
    """Parse the flags that every recipe has, and send log messages to stderr.

    Args:
        description: What ``--help`` says of the recipe.

    Returns:
        The flags' values; ``data`` is always a folder.

    Raises:
        MissingError: If it is not said where Caltech-101 is.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, help="folder that holds 101_ObjectCategories (default: $ENCOSCOPE_DATA/caltech101)"
    )
    parser.add_argument("--stop-epoch", type=int, help="stop after this epoch; run again without it to go on")
    parser.add_argument(
        "--keep-at",
        type=_epochs,
        default=(),
        metavar="N,N",
        help="also keep the weights after these epochs, as epoch-NNN.safetensors beside the state",
    )
    parser.add_argument("--state", type=Path, help="folder of the run's state (default: one in the cache)")
    parser.add_argument(
        "--tune", action="store_true", help="train on nine tenths of train.txt and measure on the last tenth"
    )
    parser.add_argument("--output", type=Path, help="folder for weights, log and card (default: the run's own folder)")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    chosen = parser.parse_args()
    if chosen.data is None:
        root = os.environ.get("ENCOSCOPE_DATA")
        if not root:
            raise MissingError(
                "where is Caltech-101? give --data FOLDER, or set ENCOSCOPE_DATA to the folder above caltech101"
            )
        chosen.data = Path(root) / "caltech101"
    return chosen


def _epochs(text: str) -> tuple[int, ...]:
    """Comma-separated epochs, from 1 on; a ValueError is argparse's word for wrong usage."""
    epochs = tuple(int(part) for part in text.split(","))
    if min(epochs) < 1:
        raise ValueError(text)
    return epochs


def choose_device() -> torch.device:
    """Choose a GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_recipe(main: Callable[[], object]) -> None:
    """Run a recipe; an expected error becomes one line and its exit code.

    Args:
        main: The recipe.
    """
    try:
        main()
    except EncoscopeError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)
