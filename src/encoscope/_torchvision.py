"""Make ``import torchvision`` work where its compiled operators cannot be loaded.

With a CPU-only torch, PyPI's torchvision cannot load its operators, and its import fails with "operator
torchvision::nms does not exist" although no encoder needs that operator. It is enough to declare the two schemas that
the import looks for. If the operators can be loaded, nothing is declared.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_declared: torch.library.Library | None = None  # the declarations last as long as this object


def ensure_torchvision() -> None:
    """Declare the schemas that torchvision's import needs, if its own operators cannot be loaded.

    Call this before importing torchvision, timm or open_clip. Further calls cost nothing. Nothing is imported.
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
        return True  # not installed: there is nothing to do
    folder = Path(spec.submodule_search_locations[0])
    for library in [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(library))
        except (OSError, ImportError):
            continue
        return True
    return False
