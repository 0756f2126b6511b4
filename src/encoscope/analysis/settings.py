"""The settings of the analyses, checked before anything is computed. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from encoscope.craft.settings import CraftSettings
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.nave.settings import NaveSettings
from encoscope.settings import Settings, parse_counts, setting
from encoscope.vital.settings import RELEVANCES, Relevance


def _parse_relevance(text: str) -> str:
    if text not in RELEVANCES:
        raise ValueError(f"one of {', '.join(RELEVANCES)}")
    return text


@dataclass(frozen=True)
class ConceptsSettings(CraftSettings):
    """What decides the concepts of a class and their visualizations: CRAFT's settings and two of VITAL's.

    Attributes:
        visualize: Whether concepts are visualized.
        steps: Steps of each concept's visualization.
        relevance: What activations are multiplied by, as in ``VitalSettings``: "auto" is the paper's LRP where it
            reaches, "none" shows the whole patches, which is smoother.
    """

    METHOD: ClassVar[str] = "concepts"

    visualize: bool = setting(
        True,
        "Visualize each concept; --no-visualizations: directions and patches only.",
        flag="visualizations",
    )
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


@dataclass(frozen=True)
class CompareSettings(Settings):
    """What decides a comparison of two encoders.

    Attributes:
        n_clusters: The granularities of the segmentations.
        limit: At most so many images; None takes all.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "compare"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset", "random_state")

    n_clusters: tuple[int, ...] = setting(
        (2, 3, 5, 8, 12), "Granularities, with commas.", flag="clusters", parse=parse_counts, recorded_as="clusters"
    )
    limit: int | None = setting(
        None,
        "At most so many images, drawn with the seed from every class in proportion where there are labels.",
        type=int,
        low=1,
    )
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        NaveSettings(n_clusters=self.n_clusters)


@dataclass(frozen=True)
class AuditSettings(Settings):
    """What decides an audit, beside the watermark or the labels.

    Attributes:
        share: Side of the watermark over the short side of the image.
        n_clusters: Joint clusters.
        limit: At most so many images, drawn with the seed.
        permutations: Of the labels, for p-values.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "audit"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset", "random_state")

    share: float = setting(
        0.125,
        "Side of the watermark over the short side of the image.",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
    )
    n_clusters: int = setting(10, "Joint clusters.", flag="clusters", recorded_as="clusters")
    limit: int = setting(
        200,
        "At most so many images, drawn with the seed from every class in proportion.",
        low=4,
    )
    permutations: int = setting(1000, "Of the labels, for p-values.", low=1)
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        NaveSettings(n_clusters=self.n_clusters)
        if not isinstance(self.n_clusters, int):
            raise UsageError(f"n_clusters is one whole number, not {self.n_clusters!r}")
