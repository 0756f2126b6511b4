"""How much of a representation FALCON explains, which its abstract makes a claim about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import UsageError
from encoscope.evaluation.charts import BarRow, bars
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Falcon
from encoscope.metrics import bootstrap
from encoscope.reproduce.falcon.figures import TRUTH
from encoscope.reproduce.falcon.harness import (
    DEFAULTS,
    DINO,
    SIMCLR,
    described,
    drawn,
    encoders,
    features,
    fitted,
    report,
)
from encoscope.units import parse_unit

_ALIKE = "alone: and its crops are alike"


def coverage(request: EvaluationRequest) -> Report:
    """How much of the features is explained, alone and in groups, beside the untrained network's."""
    asked = request.settings({**DEFAULTS, "more_than": 10, "largest": 2, "groups": 200})
    (encoder,) = encoders(request, DINO)[:1]
    falcon = fitted(request, asked, encoder)
    units = drawn(request, encoder.width, None)
    ours = shares(falcon, units, asked)
    control, why = _untrained(encoder, units, request, asked)
    rows = [
        {
            "of the features": what,
            "paper": "under 0.2" if what == _ALIKE else None,
            "ours": bootstrap(values, seed=request.seed),
            "untrained": bootstrap(control[what], seed=request.seed) if control else None,
            "features": len(units),
        }
        for what, values in ours.items()
    ]
    notes = [
        "Shares of the features, [95 % bootstrap interval over features]; untrained: the same of the network with "
        "random weights. The abstract says that under 20 % of the space is explained by single features.",
        f"alike: the mean cosine of the crops is above {falcon.settings_.clear}, the authors' threshold for CLIP "
        f"ViT-B/32; groups: of at most {asked['largest']} features that more than {asked['more_than']} photos share, "
        f"the {asked['groups']} that the most do.",
        TRUTH,
        *([why] if why else []),
    ]
    paper = "" if encoder.source == DINO else f"{SIMCLR}, and DINO's ResNet-50"
    return report(
        "falcon-coverage",
        "how much is explained",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        paper=paper,
        pictures={"falcon-coverage": drawn_shares(rows)},
    )


def shares(falcon: Falcon, units: Sequence[str], asked: Mapping[str, Any]) -> dict[str, Float[np.ndarray, " features"]]:
    """1 or 0 for each feature: whether it is explained, by what that is taken to mean."""
    found = described(falcon, units)
    space = features(falcon)
    numbers = [parse_unit(text, falcon.encoder).index for text in units]
    above = (space.fit.h[:, numbers] > space.thresholds.alpha).any(0)
    together = falcon.groups(more_than=asked["more_than"], largest=asked["largest"], embed=False)[: asked["groups"]]
    clear = {unit for item in _clear_groups(falcon, [group.unit for group in together]) for unit in item}
    explained = np.array([item.explained for item in found])
    tests = {
        "alone: some photo passes alpha": above,
        "alone: it has concepts": explained,
        _ALIKE: explained & np.array([item.interpretable for item in found]),
        "alone: and its concepts predict (AUC above 0.5)": explained
        & np.array([item.heldout is not None and item.heldout.auc.low > 0.5 for item in found]),
        "in a group whose crops are alike": np.array([number in clear for number in numbers]),
    }
    return {what: np.asarray(values, dtype=np.float64) for what, values in tests.items()}


def drawn_shares(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The table as bars."""
    shown = [BarRow(row["of the features"], {"ours": row["ours"], "untrained": row["untrained"]}) for row in rows]
    return bars(shown, "share of the features", limits=(0, 1))


def _untrained(
    encoder: Encoder, units: Sequence[str], request: EvaluationRequest, asked: Mapping[str, Any]
) -> tuple[dict[str, Float[np.ndarray, " features"]] | None, str]:
    """The same of the network with random weights; None, and why, where there is no such network."""
    try:
        twin = untrained_copy(encoder, random_state=request.seed)
    except UsageError as error:
        return None, f"{error}."
    return shares(fitted(request, asked, twin), units, asked), ""


def _clear_groups(falcon: Falcon, units: Sequence[str]) -> list[tuple[int, ...]]:
    """The members of the groups whose crops are alike."""
    if not units:
        return []
    found = described(falcon, units)
    return [parse_unit(item.unit, falcon.encoder).channels for item in found if item.interpretable]
