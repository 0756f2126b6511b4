"""The methods VITAL is compared with, by name: each plans, for a batch of units, what the synthesis loop is to do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.units import Unit
from encoscope.vital.settings import METHOD_NAMES
from encoscope.vital.synthesis.plan import SynthesisPlan

Planner: TypeAlias = Callable[[Encoder, Sequence[Unit], Any, Any], SynthesisPlan]
"""Takes an encoder, units, the method's settings, and real images for a method that needs them."""

METHODS: Mapping[str, str] = {
    "fourier": "encoscope.vital.baselines.fourier",
    "maco": "encoscope.vital.baselines.maco",
    "deepinversion": "encoscope.vital.baselines.deepinversion",
    "plugin": "encoscope.vital.baselines.plugin",
}
"""Modules with a function ``plan``. VITAL has an estimator of its own: ``Vital``."""


def find_planner(name: str) -> Planner:
    """Find the planner of a method.

    Args:
        name: A key of `METHODS`.

    Returns:
        Its function ``plan(encoder, units, settings, images)``.

    Raises:
        UsageError: For an unknown name, with the nearest one.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{suggest_nearest(name, METHODS)}: one of {', '.join(METHOD_NAMES)}")
    return importlib.import_module(METHODS[name]).plan
