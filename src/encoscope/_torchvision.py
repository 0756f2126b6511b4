"""Make ``import torchvision`` work where its compiled operators cannot be loaded.

PyPI's torchvision beside a CPU-only torch cannot load its operators, and the import dies with "operator
torchvision::nms does not exist" although no encoder needs that operator. Declaring the two schemas the import
looks for is enough. Where the operators load, nothing is declared.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_declared: torch.library.Library | None = None  # a Library's declarations live as long as the object


def ensure_torchvision() -> None:
    """Declare the schemas torchvision's import needs, if its own operators cannot be loaded; imports nothing itself.

    Call it before torchvision, timm or open_clip; cheap to call again.
    """
    global _declared
    if _declared is not None or "torchvision" in sys.modules or _operators_load():
        return
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # not installed: nothing to cure
    folder = Path(spec.submodule_search_locations[0])
    for library in [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(library))
        except (OSError, ImportError):
            continue
        return True
    return False
