"""The settings of the evaluations, checked before anything is loaded. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError, suggest_nearest
from encoscope.nave.settings import GROUPINGS, MAX_CLUSTERS, SIZES, NaveSettings, Size
from encoscope.settings import Settings, parse_counts, parse_names, setting, word_or_count

SELECTS = ("outer", "inner", "border")
SCORES = ("outer", "inner")
FILLS = ("standard", "mean", "blur")


def _presets(*names: str) -> dict[str, dict[str, Any]]:
    """What NAVE's presets say of its settings of these names; the rest of a preset reaches NAVE by its name."""
    return {
        preset: {name: value for name, value in changes.items() if name in names}
        for preset, changes in NaveSettings.PRESETS.items()
    }


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """What every evaluation of NAVE is decided by. The presets are NAVE's.

    Attributes:
        n_clusters: NAVE's K, one number or several.
        limit: At most so many images; None takes all.
        layers: NAVE's layers; empty takes the model's own.
        grouping: How NAVE groups features, "kmeans", "ward", "pca" or "attn".
        size: Short side that the network sees: "auto" (see ``segment``), "native", "model", or pixels.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "evaluate"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets("layers", "grouping", "size")
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("layers", "random_state")

    n_clusters: int | tuple[int, ...] = setting(
        NaveSettings.n_clusters, "Numbers of clusters, with commas.", flag="clusters", parse=parse_counts
    )
    limit: int | None = setting(
        None,
        "At most so many images, drawn with the seed from every class in proportion where there are labels.",
        type=int,
        low=1,
    )
    layers: tuple[str, ...] = setting((), "NAVE's layers, with commas.", parse=parse_names)
    grouping: str = setting(NaveSettings.grouping, "How NAVE groups features.", choices=GROUPINGS)
    size: Size = setting(
        NaveSettings.size,
        'Short side the network sees: "auto", "native", "model", or pixels.',
        unit="pixels",
        parse=word_or_count(SIZES),
    )
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of clusters, also where there is one."""
        return (self.n_clusters,) if isinstance(self.n_clusters, int) else self.n_clusters

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        numbers = self.n_clusters if isinstance(self.n_clusters, tuple) else (self.n_clusters,)
        if not numbers or not all(type(number) is int and 1 <= number <= MAX_CLUSTERS for number in numbers):
            raise UsageError(f"n_clusters takes whole numbers from 1 to {MAX_CLUSTERS}, not {self.n_clusters!r}")
        if self.size not in SIZES and not (type(self.size) is int and self.size > 0):
            raise UsageError(f'size is "auto", "native", "model" or a number of pixels, not {self.size!r}')


@dataclass(frozen=True)
class _ComparingSettings(EvaluationSettings):
    """What evaluations that show other methods beside NAVE are decided by.

    Attributes:
        methods: The methods; NAVE and random segments are always among them.
        n_points: Of sam: prompts on a side of its grid over the image.
    """

    methods: tuple[str, ...] = setting(
        ("nave",),
        "With commas: nave, slic, felzenszwalb, random, grid, pca, dino-seg, lost, tokencut, maskcut, sam:FOLDER "
        "(Segment Anything, in transformers' format). NAVE and random segments are always among them.",
        flag="method",
        parse=parse_names,
    )
    n_points: int = setting(32, "Of sam: prompts on a side of its grid over the image.", low=1, flag="points")

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.methods == ("nave",):
            return
        from encoscope.discovery.methods import METHODS, get_base_name  # which takes a moment to load

        known = ("nave", *METHODS)
        wrong = [name for name in self.methods if get_base_name(name) not in known or name in ("sam", "sam:")]
        if wrong or not self.methods:
            names = ", ".join("sam:FOLDER" if name == "sam" else name for name in known)
            name = wrong[0] if wrong else ""
            raise UsageError(f"a method is {names}, not {name!r}{suggest_nearest(name, known)}")


@dataclass(frozen=True)
class CorlocSettings(_ComparingSettings):
    """What decides ``evaluation.corloc``. The rules for candidates are the paper's.

    Attributes:
        size: Short side that the network sees: "native" (the paper's), "model", or pixels.
        select: The candidate with the best IoU of its "outer" or "inner" box (an oracle), or, without the true boxes,
            the one that touches the image's "border" least.
        score: The box of it that is scored.
        min_area: Segments of at most so many pixels are no candidates.
        border: Pixels along the border that are taken away from segments; the paper's 14 are one patch.
        n_segments: Of slic, felzenszwalb, random and grid; None takes as many as NAVE has candidates.

    Source: NAVE, section 4.2.
    """

    METHOD: ClassVar[str] = "corloc"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets("layers", "grouping")

    size: Size = setting(
        "native",
        'Short side the network sees: "auto", "native", "model", or pixels.',
        unit="pixels",
        parse=word_or_count(SIZES),
    )
    select: str = setting(
        "outer",
        "Choose a segment by the IoU of its outer or inner box (an oracle), or without the true boxes.",
        choices=SELECTS,
    )
    score: str = setting("outer", "The box of it that is scored.", choices=SCORES)
    min_area: int = setting(784, "Segments of no more pixels are no candidates.", unit="pixels", low=0)
    border: int = setting(14, "Pixels along the border taken away from segments.", unit="pixels", low=0)
    n_segments: int | None = setting(
        None,
        "Of slic, felzenszwalb, random, grid. Default: as many as NAVE has.",
        type=int,
        low=1,
        flag="segments",
        recorded_as="segments",
    )


@dataclass(frozen=True)
class OverlapSettings(_ComparingSettings):
    """What decides ``evaluation.overlap``.

    Attributes:
        joint: One clustering of all images, whose clusters are named once for all of them.
    """

    METHOD: ClassVar[str] = "overlap"

    joint: bool = setting(False, "One clustering of all images, named once for all of them.")

    def check(self) -> None:
        """Check every setting, and what does not go together.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.joint and (set(self.methods) != {"nave"} or self.grouping in ("pca", "attn")):
            raise UsageError("joint goes with the method nave alone, by k-means or ward")


@dataclass(frozen=True)
class StabilitySettings(EvaluationSettings):
    """What decides ``evaluation.stability``.

    Attributes:
        runs: k-means starts that are compared.
    """

    METHOD: ClassVar[str] = "stability"

    runs: int = setting(5, "k-means starts that are compared, at least 2.", low=2)


@dataclass(frozen=True)
class FaithfulnessSettings(_ComparingSettings):
    """What decides ``evaluation.faithfulness``.

    Attributes:
        fill: What stands in for a segment: "standard" (mean color in deletion, blur in insertion), "mean", "blur".
    """

    METHOD: ClassVar[str] = "faithfulness"

    fill: str = setting(
        "standard",
        "What stands in for a segment: mean color in deletion and blur in insertion, or one of them.",
        choices=FILLS,
    )
