"""An endoscope for vision encoders.

``load`` an encoder, then ask which parts of an image it treats alike: ``segment`` (NAVE).
Names are imported when first used, so ``import encoscope`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoscope.encoder import Encoder, load
    from encoscope.nave import Nave, Segmentation, segment
    from encoscope.units import Unit

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "encoscope.encoder",
    "load": "encoscope.encoder",
    "Unit": "encoscope.units",
    "Nave": "encoscope.nave",
    "Segmentation": "encoscope.nave",
    "segment": "encoscope.nave",
}

__all__ = ["Encoder", "Nave", "Segmentation", "Unit", "__version__", "load", "segment"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'encoscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
