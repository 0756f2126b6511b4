"""The settings of the analyses, checked before anything is computed. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from encoscope.craft.settings import CraftSettings
from encoscope.errors import UsageError
from encoscope.settings import setting
from encoscope.vital.settings import RELEVANCES, Relevance


def _parse_relevance(text: str) -> str:
    if text not in RELEVANCES:
        raise ValueError(f"one of {', '.join(RELEVANCES)}")
    return text


@dataclass(frozen=True)
class ConceptsSettings(CraftSettings):
    """What decides the concepts of a class and their visualizations: CRAFT's settings and two of VITAL's.

    Attributes:
        steps: Steps of each concept's visualization.
        relevance: What activations are multiplied by, as in ``VitalSettings``: "auto" is the paper's LRP where it
            reaches, "none" shows the whole patches, which is smoother.
    """

    METHOD: ClassVar[str] = "concepts"

    steps: int = setting(500, "Steps of each concept's visualization (VITAL).", low=1)
    relevance: Relevance = setting(
        "auto",
        "As for visualize; auto: the paper's LRP. Smoother: none, the whole patches.",
        parse=_parse_relevance,
    )

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if isinstance(self.relevance, str) and self.relevance not in RELEVANCES:
            raise UsageError(f"relevance is one of {', '.join(RELEVANCES)} or a callable, not {self.relevance!r}")
