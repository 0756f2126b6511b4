"""An endoscope for vision encoders.

``load`` an encoder, then ask which parts of an image it treats alike: ``segment`` (NAVE); what a feature stands for,
in words: ``describe`` (FALCON); and what it looks like: ``visualize`` (VITAL).
Names are imported when first used, so ``import encoscope`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from encoscope._version import __version__

if TYPE_CHECKING:
    from encoscope.encoder import Encoder, load
    from encoscope.falcon import Description, Falcon, describe
    from encoscope.nave import Nave, Segmentation, segment
    from encoscope.units import Unit
    from encoscope.vital import Visualization, Vital, visualize

_HOMES = {
    "Encoder": "encoscope.encoder",
    "load": "encoscope.encoder",
    "Unit": "encoscope.units",
    "Description": "encoscope.falcon",
    "Falcon": "encoscope.falcon",
    "describe": "encoscope.falcon",
    "Nave": "encoscope.nave",
    "Segmentation": "encoscope.nave",
    "segment": "encoscope.nave",
    "Visualization": "encoscope.vital",
    "Vital": "encoscope.vital",
    "visualize": "encoscope.vital",
}

__all__ = [
    "Description",
    "Encoder",
    "Falcon",
    "Nave",
    "Segmentation",
    "Unit",
    "Visualization",
    "Vital",
    "__version__",
    "describe",
    "load",
    "segment",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'encoscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
