"""How much of a representation FALCON explains, about which its abstract makes a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import UsageError
from encoscope.evaluation.charts import BarRow, draw_bars
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Falcon
from encoscope.metrics import bootstrap
from encoscope.reproduce.falcon.figures import HELDOUT_NOTE
from encoscope.reproduce.falcon.harness import (
    DEFAULTS,
    DINO,
    SIMCLR,
    STAND_IN,
    build_report,
    describe_units,
    draw_features,
    feature_space,
    fit_falcon,
)
from encoscope.reproduce.inputs import load_encoders
from encoscope.units import parse_unit

_ALIKE = "alone: and its crops are alike"


def run(request: EvaluationRequest) -> Report:
    """Measure how much of the features is explained, alone and in groups, beside the untrained network.

    Args:
        request: the experiment's request.

    Returns:
        The table, with a chart of it.

    Source: FALCON, abstract.
    """
    settings = request.settings({**DEFAULTS, "more_than": 10, "largest": 2, "groups": 200})
    (encoder,) = load_encoders(request, (STAND_IN,), (DINO,))[:1]
    falcon = fit_falcon(request, settings, encoder)
    units = draw_features(request, encoder.width, None)
    ours = measure_shares(falcon, units, settings)
    control, reason = _measure_untrained(encoder, units, request, settings)
    rows = [
        {
            "of the features": name,
            "paper": "under 0.2" if name == _ALIKE else None,
            "ours": bootstrap(values, random_state=request.seed),
            "untrained": bootstrap(control[name], random_state=request.seed) if control else None,
            "features": len(units),
        }
        for name, values in ours.items()
    ]
    notes = [
        "Shares of the features, [95 % bootstrap interval over features]; untrained: the same of the network with "
        "random weights. The abstract says that under 20 % of the space is explained by single features.",
        f"alike: the mean cosine of the crops is above {falcon.settings_.clarity_threshold}, the authors' threshold "
        f"for CLIP ViT-B/32; groups: of at most {settings['largest']} features that more than {settings['more_than']} "
        f"images share, the {settings['groups']} that the most do.",
        HELDOUT_NOTE,
        *([reason] if reason else []),
    ]
    paper = "" if encoder.source == DINO else f"{SIMCLR}, and DINO's ResNet-50"
    return build_report(
        "falcon-coverage",
        "how much is explained",
        rows,
        falcon,
        request,
        settings,
        notes=notes,
        paper=paper,
        sheets={"falcon-coverage": draw_shares(rows)},
    )


def measure_shares(
    falcon: Falcon, units: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Float[np.ndarray, " features"]]:
    """Measure for each feature whether it is explained, by several meanings of the word.

    Args:
        falcon: a fitted estimator.
        units: the features.
        settings: the experiment's settings.

    Returns:
        1 or 0 for each feature, by meaning.
    """
    descriptions = describe_units(falcon, units)
    space = feature_space(falcon)
    numbers = [parse_unit(text, falcon.encoder_).index for text in units]
    above = (space.fit.h[:, numbers] > space.thresholds.alpha).any(0)
    groups = falcon.find_groups(more_than=settings["more_than"], largest=settings["largest"], embed=False).groups[
        : settings["groups"]
    ]
    clear = {unit for item in _clear_groups(falcon, [group.unit for group in groups]) for unit in item}
    explained = np.array([item.explained for item in descriptions])
    tests = {
        "alone: some photo passes alpha": above,
        "alone: it has concepts": explained,
        _ALIKE: explained & np.array([item.interpretable for item in descriptions]),
        "alone: and its concepts predict (AUC above 0.5)": explained
        & np.array([item.heldout is not None and item.heldout.auc.low > 0.5 for item in descriptions]),
        "in a group whose crops are alike": np.array([number in clear for number in numbers]),
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in tests.items()}


def draw_shares(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw the table as bars.

    Args:
        rows: the table.

    Returns:
        The chart.
    """
    shown = [BarRow(row["of the features"], {"ours": row["ours"], "untrained": row["untrained"]}) for row in rows]
    return draw_bars(shown, "share of the features", limits=(0, 1))


def _measure_untrained(
    encoder: Encoder, units: Sequence[str], request: EvaluationRequest, settings: Mapping[str, Any]
) -> tuple[dict[str, Float[np.ndarray, " features"]] | None, str]:
    """The same of the network with random weights; None, and the reason, where there is no such network."""
    try:
        untrained = untrained_copy(encoder, random_state=request.seed)
    except UsageError as error:
        return None, f"{error}."
    return measure_shares(fit_falcon(request, settings, untrained), units, settings), ""


def _clear_groups(falcon: Falcon, units: Sequence[str]) -> list[tuple[int, ...]]:
    """The members of the groups whose crops are alike."""
    if not units:
        return []
    descriptions = describe_units(falcon, units)
    return [parse_unit(item.unit, falcon.encoder_).channels for item in descriptions if item.interpretable]
