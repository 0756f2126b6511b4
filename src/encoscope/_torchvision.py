"""Let torchvision be imported where its compiled operators cannot be loaded.

PyPI's torchvision beside a CPU-only torch fails at import with "operator torchvision::nms does not exist", and timm and
open_clip with it. Declaring the two schemas is enough: nothing here calls the operators.
"""

from __future__ import annotations

import importlib
import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = None  # a torch.library.Library takes its schemas with it when it is collected


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators first if they stop it. Call before timm or open_clip."""
    global _library
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                _library.define(operator + _SCHEMA)
        importlib.import_module("torchvision")
