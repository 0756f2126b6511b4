"""What a visualization method asks of the synthesis loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from encoscope.vital.synthesis.loop import Objective, Stage


@dataclass(frozen=True)
class SynthesisPlan:
    """What the synthesis loop needs to visualize some units.

    Attributes:
        stages: The stages of the run, in order.
        objective: The loss of each image.
        settings: Plain values that, with network, units and seed, decide the result: for the record and the name of
            the checkpoint.
        together: Whether the objective looks at the batch as a whole, so that the batch must not be split.
    """

    stages: tuple[Stage, ...]
    objective: Objective
    settings: Mapping[str, Any]
    together: bool = False
