"""What every cache of an encoder's values needs: a key, a check before a value is used again, and a folder."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoscope.encoder.encoder import Encoder
from encoscope.encoder.trial import find_difference

_log = logging.getLogger("encoscope")


def identify_encoder(encoder: Encoder) -> dict[str, Any]:
    """Give what every cache key holds of an encoder.

    Args:
        encoder: The encoder.

    Returns:
        Its digest and precision, by the names that manifests use.
    """
    return {"encoder": encoder.digest, "precision": encoder.precision}


def record_trial(encoder: Encoder, layers: Sequence[str] = ()) -> dict[str, Any]:
    """Give what a cache keeps beside its values, for ``is_same_network``.

    Args:
        encoder: The encoder.
        layers: The layers that were read.

    Returns:
        The outputs for the trial inputs, as plain values for JSON.
    """
    return encoder.trial(layers).as_dict()


def is_same_network(encoder: Encoder, kept: Any, layers: Sequence[str] = (), what: str = "values") -> bool:
    """Compare the trial beside kept values with the network's own, before they are used; a warning if they differ.

    Args:
        encoder: The encoder.
        kept: What ``record_trial`` gave when the values were computed.
        layers: The layers that were read.
        what: What was kept, for the message.

    Returns:
        Whether the values may be used.
    """
    difference = find_difference(kept, encoder.trial(layers), encoder.precision)
    if difference is not None:
        _log.warning(
            "%s: those kept are of a network of the same weights that gives other outputs (%s) than %s: computed anew",
            what,
            difference,
            encoder.source,
        )
    return difference is None


def gives_kept_outputs(encoder: Encoder, kept: Any, layers: Sequence[str] = ()) -> bool:
    """Compare the trial beside a result with a network's own, where another network is refused.

    Args:
        encoder: The encoder.
        kept: What ``record_trial`` gave when the result was made.
        layers: The layers that were read.

    Returns:
        Whether they agree.
    """
    return find_difference(kept, encoder.trial(layers), encoder.precision) is None


def choose_cache_dir(encoder: Encoder, cache_dir: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Choose the folder for an encoder's cached values.

    Args:
        encoder: The encoder.
        cache_dir: The user's own cache folder; None is the usual one.

    Returns:
        The same; for a network that is random, an empty folder that is deleted when the process ends, so that nothing
        is used again.
    """
    if not encoder.trial().random:
        return cache_dir
    folder = tempfile.mkdtemp(prefix="encoscope-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
