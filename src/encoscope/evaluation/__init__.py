"""How good segmentations are: localization, overlap, stability and faithfulness, beside baselines, resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.evaluation.localization import corloc
    from encoscope.evaluation.mask_overlap import overlap
    from encoscope.evaluation.result import Evaluation
    from encoscope.evaluation.segment_faithfulness import faithfulness
    from encoscope.evaluation.segment_stability import stability

_HOMES = {
    "Evaluation": "encoscope.evaluation.result",
    "corloc": "encoscope.evaluation.localization",
    "faithfulness": "encoscope.evaluation.segment_faithfulness",
    "overlap": "encoscope.evaluation.mask_overlap",
    "stability": "encoscope.evaluation.segment_stability",
}

__all__ = ["Evaluation", "corloc", "faithfulness", "overlap", "stability"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
