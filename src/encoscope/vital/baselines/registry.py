"""The visualization methods by name: each plans, for a batch of units, what the synthesis loop is to do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.units import Unit
from encoscope.vital.synthesis.loop import Objective, Stage


@dataclass(frozen=True)
class BaselineOptions:
    """What a user may ask of any method; None leaves a thing to the method.

    steps: in all stages together. size: (height, width) of the picture in pixels. photos: real images, as
    ``encoscope.images.photos`` takes them (paths, folders, dataset strings), for methods that take something from
    photos, such as MACO's magnitude spectrum. extra: settings of one method alone, by the names its ``plan`` documents.
    """

    steps: int | None = None
    size: tuple[int, int] | None = None
    photos: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SynthesisPlan:
    """What the synthesis loop needs to picture some units.

    settings: plain values that, with network, units and seed, make the result: for the record and the checkpoint's
    name. together: whether the objective looks at the batch as a whole, so that it must not be cut up.
    """

    stages: tuple[Stage, ...]
    objective: Objective
    settings: Mapping[str, Any]
    together: bool = False


Planner: TypeAlias = Callable[[Encoder, Sequence[Unit], BaselineOptions], SynthesisPlan]

METHODS: Mapping[str, str] = {
    "fourier": "encoscope.vital.baselines.fourier",
    "maco": "encoscope.vital.baselines.maco",
    "deepinversion": "encoscope.vital.baselines.deepinversion",
    "plugin": "encoscope.vital.baselines.plugin",
}
"""Where the comparison methods live: modules with a function ``plan`` (a Planner). VITAL has its own: ``Vital``."""

NAMES = ("vital", *METHODS)


def find_planner(name: str) -> Planner:
    """A comparison method by name; UsageError for an unknown one."""
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{suggest_nearest(name, METHODS)}: one of {', '.join(NAMES)}")
    return importlib.import_module(METHODS[name]).plan
