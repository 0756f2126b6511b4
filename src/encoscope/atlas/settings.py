"""The settings of an atlas, checked before anything is loaded. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.settings import Settings, parse_names, setting, word_or_count

Count: TypeAlias = int | Literal["all", "none"]

HOST, PORT = "127.0.0.1", 8765
"""Where an atlas is served: by this machine, for itself alone."""


def _parse_features(text: str) -> Any:
    return parse_names(text) if ":" in text or "@" in text else word_or_count(("all",))(text)


@dataclass(frozen=True)
class AtlasSettings(Settings):
    """What an atlas holds and how it is built.

    Attributes:
        layers: The layers whose channels are features, and over which images are segmented; empty takes the last ones.
        features: "all" channels of the layers, a number of them (the most telling), or a list of units.
        classes: "all", "none", or a number of them: those with most images, and where labels do not decide, those
            that are predicted most.
        visualize: "all", "none", or how many features get a visualization, those that classes rest on first (of a
            list: its first). Classes get one unless it is "none".
        describe: Whether features get descriptions.
        max_images: At most so many of the dataset's images, evenly drawn; None takes all.
        crops: How many of a feature's strongest images are shown.
        cells: Of the label maps, along the short side.
        captions: A store of captions, as for ``describe``; None takes the zoo's.
        vlm: An image-text model, as for ``describe``; None takes the captions' own.
        steps: Of a visualization's optimization.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "an atlas"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset", "random_state")

    layers: tuple[str, ...] = setting(
        (), "With commas: layers whose channels are features. Default: the last stages.", parse=parse_names
    )
    features: Count | tuple[str, ...] = setting(
        64, '"all", a number (the most telling ones), or units such as layer4:485,12.', parse=_parse_features
    )
    classes: Count = setting(
        "all", '"all", "none", or a number: those with most images.', parse=word_or_count(("all", "none"))
    )
    visualize: Count = setting(
        "all", 'Of "all", "none", or a number of features (and of the classes).', parse=word_or_count(("all", "none"))
    )
    describe: bool = setting(True, "Describe features; --no-describe leaves it out.")
    max_images: int | None = setting(None, "Take at most this number of images, evenly drawn.", type=int, low=1)
    crops: int = setting(8, "Strongest images shown of a feature.", low=1)
    cells: int = setting(24, "Cells of the label maps along the short side.", low=1)
    captions: str | None = setting(None, "A store of captions. Default: the zoo's vocabulary.", type=str)
    vlm: str | None = setting(None, "An image-text model. Default: the captions' own.", type=str)
    steps: int = setting(500, "Of a visualization's optimization.", low=1)
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.features == "none":
            raise UsageError('features is "all", a number or a list of units: an atlas without features is empty')
        if not isinstance(self.features, tuple):
            _check_count("features", self.features, ("all",))
        _check_count("classes", self.classes, ("all", "none"))
        _check_count("visualize", self.visualize, ("all", "none"))


def _check_count(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words and not (type(value) is int and value >= 1):
        known = " or ".join(f'"{word}"' for word in words)
        raise UsageError(f"{name} is {known}, or a number from 1 on, not {value!r}")
