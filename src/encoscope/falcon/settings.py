"""FALCON's settings, and the two presets where the paper and its authors' code differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from encoscope.errors import UsageError, suggest_nearest

Score: TypeAlias = Literal["cosine", "softmax"]
Mode: TypeAlias = Literal["threshold", "exact"]
Fallback: TypeAlias = Literal["dissect", "none"]
Rank: TypeAlias = Literal["score", "specific"]


@dataclass(frozen=True)
class FalconSettings:
    """What decides a description.

    mode: T_i holds the images above alpha ("threshold", the paper), or those whose set of features above alpha is
        exactly the unit's own ("exact", the authors' groups).
    deviations: alpha = mean + so many standard deviations over all entries of the normalised matrix; ``alpha`` itself,
        where it is given, takes its place. epsilon: below it an image is lowly activating; None is the global mean.
    beta: least similarity of a counterfactual, in [-1, 1]. lows: at most so many of them, the most similar.
    least: images that T_i needs; with fewer it counts as empty. The authors drop groups of up to 10.
    adaptive: so many strongest images stand in for an empty T_i; 0 leaves it empty. most: cap on T_i, strongest first.
    mask: part of the GradCAM kept, as a share of its range. captions: captions a crop. top: words and phrases kept.
    score: "cosine" or "softmax" (over all captions, of 100 cosines). contrast: drop what the counterfactuals share.
    spurious: score from which a concept of the counterfactuals is spurious; None: calibrated on ``random_sets`` random
        sets of images, at their ``quantile``. fallback: what labels the units FALCON finds no concept for.
    rank: concepts stand in the order of their scores s (the paper), or of s log(s / u), u being the word's score over
        the probe as a whole ("specific", an extension: words that many images have give way to those of few).
    clear: mean pairwise cosine of the crops above which a unit counts as interpretable.
    """

    preset: str = "paper"
    mode: Mode | str = "threshold"
    deviations: float = 5.0
    alpha: float | None = None
    epsilon: float | None = None
    beta: float = 0.3
    lows: int = 10
    least: int = 1
    adaptive: int = 10
    most: int | None = None
    mask: float = 0.6
    captions: int = 5
    top: int = 8
    score: Score | str = "cosine"
    contrast: bool = True
    spurious: float | None = None
    random_sets: int = 100
    quantile: float = 0.95
    fallback: Fallback | str = "dissect"
    rank: Rank | str = "score"
    clear: float = 0.8
    seed: int = 0

    @classmethod
    def of(cls, preset: str = "paper", **changes: Any) -> FalconSettings:
        """A preset with changes; None leaves the preset's own. UsageError for what cannot be."""
        if preset not in PRESETS:
            raise UsageError(f"preset is paper or authors, not {preset!r}")
        names = [field.name for field in fields(cls)]
        for name in changes:
            if name not in names:
                raise UsageError(f"FALCON has no setting {name!r}{suggest_nearest(name, names)}")
        return replace(
            PRESETS[preset], **{name: value for name, value in changes.items() if value is not None}
        )._checked()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        return asdict(self)

    def _checked(self) -> FalconSettings:
        for name, allowed in (
            ("mode", ("threshold", "exact")),
            ("score", ("cosine", "softmax")),
            ("fallback", ("dissect", "none")),
            ("rank", ("score", "specific")),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {' or '.join(allowed)}, not {getattr(self, name)!r}")
        for name, least in (
            ("lows", 0),
            ("least", 1),
            ("adaptive", 0),
            ("captions", 1),
            ("top", 1),
            ("random_sets", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is a number from {least} on, not {getattr(self, name)}")
        if self.most is not None and self.most < 1:
            raise UsageError(f"most is a number from 1 on, not {self.most}")
        if not 0 < self.mask <= 1 or not 0 < self.quantile < 1 or not -1 <= self.beta <= 1:
            raise UsageError(
                f"mask lies in (0, 1], quantile in (0, 1) and beta in [-1, 1], not {self.mask}, {self.quantile}, "
                f"{self.beta}"
            )
        return self


PRESETS = {
    "paper": FalconSettings(),
    # identical sets of features, and the contrast threshold that their softmax scores are made for
    "authors": FalconSettings(preset="authors", mode="exact", score="softmax", spurious=0.1, least=11),
}
