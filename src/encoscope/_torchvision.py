"""Make ``import torchvision`` work where its compiled operators cannot be loaded.

With a CPU-only torch, PyPI's torchvision cannot load its operators, and ``import torchvision`` (so ``import timm`` and
``import open_clip`` as well) fails with "operator torchvision::nms does not exist". It is enough to declare the two
operators that the import looks for; non-maximum suppression gets an implementation, so that detectors work. Where the
operators can be loaded, nothing is changed: torchvision's own ``_has_ops`` decides.

The file ``encoscope_torchvision.pth``, installed beside the package, imports the module ``_encoscope_torchvision``
whenever Python starts, so that scripts which import torchvision before encoscope work, too.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

import _encoscope_torchvision as at_start

_EXTENSION, _BOXES = at_start.WATCHED
_declared: torch.library.Library | None = None  # the declarations last as long as this object


def ensure_torchvision() -> None:
    """See to it that torchvision can be imported, whether or not its compiled operators can be loaded.

    Call this before importing torchvision, timm or open_clip. Further calls cost nothing. Nothing is imported.
    """
    if at_start.TorchvisionFinder not in sys.meta_path:
        sys.meta_path.insert(0, at_start.TorchvisionFinder)
    if _EXTENSION in sys.modules and "torchvision" not in sys.modules:  # an earlier import failed half-way
        complete_module(sys.modules[_EXTENSION])


def complete_module(module: ModuleType) -> None:
    """Add to a module of torchvision what it lacks where the compiled operators could not be loaded.

    Args:
        module: ``torchvision.extension`` or ``torchvision.ops.boxes``, just executed.
    """
    if module.__name__ == _EXTENSION and not getattr(module, "_has_ops", lambda: True)():
        _declare_operators()
    elif module.__name__ == _BOXES and _declared is not None:
        module.__dict__["_assert_has_ops"] = _accept


def suppress_overlaps(
    dets: Float[Tensor, "boxes 4"], scores: Float[Tensor, " boxes"], iou_threshold: float
) -> Int[Tensor, " kept"]:
    """Keep the boxes that do not overlap a box of a higher score too much (non-maximum suppression).

    Args:
        dets: Boxes (x0, y0, x1, y1).
        scores: Their scores.
        iou_threshold: A box is left out if its intersection over union with a box that is kept is larger.

    Returns:
        The indices of the boxes that are kept, the highest score first.
    """
    order = scores.sort(stable=True, descending=True).indices
    x0, y0, x1, y1 = dets[order].unbind(1)
    areas = (x1 - x0) * (y1 - y0)
    kept = torch.ones_like(order, dtype=torch.bool)
    for index in range(len(order)):
        if kept[index]:
            rest = slice(index + 1, None)
            width = (torch.minimum(x1[index], x1[rest]) - torch.maximum(x0[index], x0[rest])).clamp(min=0)
            height = (torch.minimum(y1[index], y1[rest]) - torch.maximum(y0[index], y0[rest])).clamp(min=0)
            common = width * height
            kept[rest] &= ~(common / (areas[index] + areas[rest] - common) > iou_threshold)
    return order[kept]


def _declare_operators() -> None:
    global _declared
    if _declared is not None or hasattr(torch.ops.torchvision, "nms"):
        return
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.impl("nms", suppress_overlaps, "CompositeExplicitAutograd")


def _accept() -> None:
    """Stands for torchvision's check of its operators where the one that is needed is declared."""
