"""The settings of FALCON, and where its presets differ. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from encoscope.defaults import RANDOM_STATE
from encoscope.settings import Settings, setting

MODES = ("threshold", "exact")
SCORES = ("cosine", "softmax")
RANKS = ("score", "specific")
FALLBACKS = ("dissect", "none")
CAPTION_KINDS = ("text", "image")
CONTROLS = ("permuted", "captions")
"""Controls of a description's AUC: the same words on other units' images, and words of random captions."""
CONTROLS_TEXT = ",".join(CONTROLS)

HOLDOUT = 0.2
"""The share of a probe that is kept to test descriptions."""


@dataclass(frozen=True)
class FalconSettings(Settings):
    """What decides a description. "paper" takes units of a single image, too; "authors" follows the authors' code.

    Attributes:
        mode: T_i holds the images above alpha ("threshold", the paper), or those whose set of features at or above
            alpha is exactly the unit's own ("exact", the authors' groups).
        alpha_stds: Alpha is the mean plus this many standard deviations, over all entries of the normalized matrix.
        alpha: The threshold itself, in place of ``alpha_stds``; None computes it.
        epsilon: An image below it is lowly activating; None is the mean over all entries.
        beta: The least similarity of a counterfactual, in [-1, 1].
        n_counterfactuals: The most counterfactuals of a unit; the most similar are taken.
        min_images: The images that T_i needs; with fewer it counts as empty, since a mean over one photo is that photo.
            The paper names no number (1); the authors drop groups of up to 10.
        top_k_if_empty: The number of strongest images that are used where T_i is empty; 0 leaves it empty.
        max_images: The most images of T_i, strongest first; None takes all.
        mask_threshold: The part of a GradCAM that is kept, as a share of its range, in (0, 1]. 0.6 is the authors'.
        captions_per_crop: The best captions of each crop that words are taken from.
        n_concepts: The words, phrases and example images that are kept.
        score: "cosine", or "softmax" (over all captions, of 100 times the cosines).
        contrast: Drop the words that the counterfactuals share.
        spurious_threshold: The score from which a word of the counterfactuals is spurious. None with cosine scores
            calibrates it on ``random_sets`` sets of images, and is 0.1 with softmax scores.
        random_sets: Random sets of images that the threshold of a word is calibrated on.
        spurious_quantile: The quantile of a word's scores over those sets that is its threshold, in (0, 1).
        fallback: What labels units that FALCON finds no word for: "dissect" (CLIP-Dissect's soft-WPMI) or "none".
        rank: The order of words: by their scores s ("score", the paper), or by s log(s / u), u being the word's score
            over the whole probe ("specific", an extension).
        clarity_threshold: The mean pairwise cosine of crops above which a unit counts as interpretable.
        random_state: The seed of everything random.

    Source: FALCON, section 3; the constants are those of the authors' code.
    """

    METHOD: ClassVar[str] = "describe"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("random_state",)
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "paper": {"min_images": 1},
        "authors": {"mode": "exact", "score": "softmax", "spurious_threshold": 0.1, "min_images": 11},
    }

    mode: str = setting(
        "threshold",
        "Images where all members of a unit pass alpha, or those with exactly this set of features.",
        choices=MODES,
    )
    alpha_stds: float = setting(5.0, "Alpha is the mean plus this many standard deviations.")
    alpha: float | None = setting(None, "Activation above which an image stands for a unit, itself.", type=float)
    epsilon: float | None = setting(None, "Activation below which an image is a counterfactual.", type=float)
    beta: float = setting(0.3, "The least similarity of a counterfactual.", low=-1, high=1)
    n_counterfactuals: int = setting(10, "The most counterfactuals of a unit.", low=0, flag="counterfactuals")
    min_images: int = setting(5, "Images that have to pass alpha.", low=1)
    top_k_if_empty: int = setting(10, "Strongest images that are used where too few pass alpha; 0 for none.", low=0)
    max_images: int | None = setting(None, "The most images of a unit, strongest first.", type=int, low=1)
    mask_threshold: float = setting(
        0.6, "Share of a GradCAM's range from which on it is cropped; less crops less.", low=0, high=1, open_low=True
    )
    captions_per_crop: int = setting(5, "The best captions of a crop that words are taken from.", low=1)
    n_concepts: int = setting(8, "Words, phrases and images kept.", low=1, flag="concepts")
    score: str = setting("cosine", "Of captions.", choices=SCORES)
    contrast: bool = setting(True, "Drop words that counterfactuals share.")
    spurious_threshold: float | None = setting(
        None, "Score from which a word of the counterfactuals is dropped. Default: calibrated on the probe.", type=float
    )
    random_sets: int = setting(100, "Random sets of images that the threshold is calibrated on.", low=1)
    spurious_quantile: float = setting(
        0.95,
        "Quantile of a word's scores over those sets that is its threshold.",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
    )
    fallback: str = setting("dissect", "What labels units that FALCON finds no word for.", choices=FALLBACKS)
    rank: str = setting(
        "score", "Order of words: their scores; or first those that the whole probe has less of.", choices=RANKS
    )
    clarity_threshold: float = setting(0.8, "Mean cosine of crops above which a unit counts as interpretable.")
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)


@dataclass(frozen=True)
class GroupSettings(Settings):
    """What decides which features form a group, beside FALCON's settings.

    Attributes:
        more_than: A group is shared by more images than this; 10 is the authors'.
        largest: The most members of a group in mode "threshold".

    Source: FALCON, section 3.4, and the authors' code.
    """

    METHOD: ClassVar[str] = "groups"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset",)

    more_than: int = setting(10, "A group is shared by more images than this.", low=0)
    largest: int = setting(4, "Members of a group at most (threshold mode).", low=2)


@dataclass(frozen=True)
class FailureSettings(Settings):
    """What decides which features explain a prediction, beside FALCON's settings.

    Attributes:
        n_features: The number of features of each kind.
    """

    METHOD: ClassVar[str] = "explain_failure"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset",)

    n_features: int = setting(5, "How many features.", low=1, flag="features")


@dataclass(frozen=True)
class CaptionSettings(Settings):
    """What a caption store is made of.

    Attributes:
        column: The column with the captions; None takes the one called caption, text or title.
        kind: Of LAION's shards: vectors of the captions ("text"), or of their images ("image").
    """

    METHOD: ClassVar[str] = "captions"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset",)

    column: str | None = setting(
        None, "Column with the captions. Default: the one called caption, text or title.", type=str
    )
    kind: str = setting(
        "text", "Of LAION's shards: vectors of the captions, or of their images.", choices=CAPTION_KINDS
    )
