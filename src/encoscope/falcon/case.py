"""A unit on its way to a description: one object that each step of the pipeline fills in further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from encoscope.falcon.heldout import HeldoutTest, give_verdict
from encoscope.falcon.selection import DescriptionOutcome, Selection, select_images
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.units import Unit


@dataclass(eq=False)
class DescriptionCase:
    """All that is known of one unit while it is being described. Each step fills in what it computes.

    Attributes:
        unit: The unit.
        space: Its space on the probing set.
        selection: The images that stand for it and its counterfactuals.
        crop_rows: The rows of its crops in the nearest captions.
        counterfactual_rows: The rows of its counterfactuals there; empty without contrast.
        crop_vectors: ``[crops, width]``, the embeddings of its crops.
        concepts: The words that are kept, with their scores, best first.
        phrases: The noun phrases that are kept.
        spurious: The words and phrases that its counterfactuals share.
        dissected: Whether ``concepts`` come from CLIP-Dissect.
        strong: Which held-out images activate it strongly; None where there is no test.
        heldout: Its test on these images; None where there is none.
        untested: Why there is none, for a unit with concepts.
    """

    unit: Unit
    space: Space
    selection: Selection
    crop_rows: range = range(0)
    counterfactual_rows: tuple[int, ...] = ()
    crop_vectors: Float[np.ndarray, "crops width"] = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    concepts: Mapping[str, float] = field(default_factory=dict)
    phrases: Mapping[str, float] = field(default_factory=dict)
    spurious: Mapping[str, float] = field(default_factory=dict)
    dissected: bool = False
    strong: Bool[np.ndarray, " images"] | None = None
    heldout: HeldoutTest | None = None
    untested: str = ""

    @property
    def verdict(self) -> str:
        """What the test came to."""
        return give_verdict(self.heldout, bool(self.concepts))

    @property
    def values(self) -> Float[np.ndarray, " images"]:
        """The unit's value on each image that descriptions are made from, as the encoder gives it."""
        return self.unit.activation(self.space.fit.values)

    @property
    def heldout_activation(self) -> Float[np.ndarray, " images"] | None:
        """The unit's normalized value on each held-out image; None where there are none."""
        return None if self.space.heldout is None else self.unit.activation(self.space.heldout.h, normalized=True)

    @property
    def high_ids(self) -> list[str]:
        """The ids of the images that stand for the unit, strongest first."""
        return [self.space.fit.ids[row] for row in self.selection.high]

    @property
    def low_ids(self) -> list[str]:
        """The ids of its counterfactuals, most similar first."""
        return [self.space.fit.ids[row] for row in self.selection.low]

    @property
    def outcome(self) -> DescriptionOutcome:
        """What becomes of the unit, as far as it is known now."""
        if self.dissected:
            return DescriptionOutcome.DISSECTED
        has_images = self.selection.outcome in (DescriptionOutcome.EXPLAINED, DescriptionOutcome.TOP_K)
        return self.selection.outcome if self.concepts or not has_images else DescriptionOutcome.NOTHING_LEFT

    def explain(self, min_images: int) -> str:
        """Say why the description is not plain FALCON.

        Args:
            min_images: The setting.

        Returns:
            One clause about the images, or else about the words; empty where FALCON finds concepts from images above
            alpha.
        """
        reason = self.selection.outcome
        if reason is DescriptionOutcome.EXPLAINED and self.outcome is not DescriptionOutcome.EXPLAINED:
            reason = DescriptionOutcome.NOTHING_LEFT
        return reason.note(
            alpha=self.space.thresholds.alpha,
            min_images=min_images,
            n_used=len(self.selection.high),
            n_probed=len(self.space.fit.ids),
        )


def select_cases(units: Sequence[Unit], spaces: Mapping[str, Space], settings: FalconSettings) -> list[DescriptionCase]:
    """Select the images of each unit, and begin its case.

    Args:
        units: The units.
        spaces: Their spaces by name.
        settings: FALCON's settings.

    Returns:
        A case for each unit, in their order.
    """
    cases: dict[Unit, DescriptionCase] = {}
    for name, space in spaces.items():
        members = [unit for unit in units if unit.space == name]
        selections = select_images(space.fit.h, members, settings, space.thresholds, space.fit.ids)
        for unit, selection in zip(members, selections, strict=True):
            cases[unit] = DescriptionCase(unit, space, selection)
    return [cases[unit] for unit in units]


def list_spaces(cases: Sequence[DescriptionCase]) -> dict[str, Space]:
    """List the spaces of some cases.

    Args:
        cases: The cases.

    Returns:
        The spaces by name, in the order of their first case.
    """
    return {case.space.name: case.space for case in cases}
