"""The settings of a study, checked before anything is loaded. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.settings import Settings, parse_names, setting
from encoscope.vital.settings import METHOD_NAMES

CLASSES_ONLY = ("deepinversion", "plugin")
"""Methods that visualize classes alone, no units inside a network."""
TEXT_ENCODER = "zoo:clip-caltech101"
"""Compares descriptions with words when answers are scored."""


def _parse_classes(text: str) -> int | tuple[str, ...]:
    return int(text) if text.isascii() and text.isdigit() else parse_names(text)


def _parse_channels(text: str) -> int | tuple[str, ...]:
    if text.isascii() and text.isdigit():
        return int(text)
    layer, colon, rest = text.partition(":")
    if not (layer and colon and rest):
        raise ValueError("a number or LAYER:CHANNEL,CHANNEL")
    return tuple(f"{layer}:{channel.strip()}" for channel in rest.split(","))


@dataclass(frozen=True)
class StudySettings(Settings):
    """What a study asks about, and how its visualizations are made. The defaults are the paper's numbers.

    Attributes:
        methods: Two or more of vital, fourier, maco, deepinversion, plugin; the last two are asked about classes only.
        classes: The classes of part 1: how many at random, or their names. No word is asked about twice.
        channels: The channels of part 2: how many at random, or their units.
        layer: The layer of channels drawn at random; None for the last hidden one.
        described: The classes of part 3, as for part 1.
        matched: The number of channels of part 4 (the second study of appendix D); 0 leaves it out.
        examples: The number of crops of real images beside each question of part 2.
        title: The questionnaire's title; None for a plain one.
        participants: The number of codes to hand out.
        visualizations: A folder with METHOD/result.json of each method, to show these; None to make visualizations.
        steps: Steps of each method; None for each method's own number.
        n_references: References of a unit.
        n_candidates: Images of largest value in which top patches are searched; None for all images.
        random_state: The seed of the study and of its visualizations.

    Source: VITAL, section 4.3 and appendix D.
    """

    METHOD: ClassVar[str] = "a study"
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("preset", "methods", "title", "participants", "random_state")

    methods: tuple[str, ...] = setting(
        ("vital", "deepinversion", "maco"),
        "With commas, two or more of vital, fourier, maco, deepinversion, plugin.",
        parse=parse_names,
    )
    classes: int | tuple[str, ...] = setting(
        10, "Part 1, word given: the number of random classes, or names with commas.", parse=_parse_classes
    )
    channels: int | tuple[str, ...] = setting(
        10,
        "Part 2, images given: the number of random channels, or LAYER:CHANNEL,CHANNEL; 0 for none.",
        parse=_parse_channels,
    )
    layer: str | None = setting(None, "Layer of the random channels. Default: the last hidden one.")
    described: int | tuple[str, ...] = setting(
        9,
        "Part 3, described freely: the number of other random classes, or names with commas.",
        parse=_parse_classes,
    )
    matched: int = setting(0, "Part 4, one of two images chosen: the number of other random channels.", low=0)
    examples: int = setting(9, "Real images of a channel in part 2.", low=1)
    title: str | None = setting(None, "Title of the questionnaire.")
    participants: int = setting(60, "Codes to hand out, spread evenly over the subsets.", low=0)
    visualizations: str | None = setting(
        None, "Show the visualizations that visualize --out saved in FOLDER/METHOD, and make none."
    )
    steps: int | None = setting(None, "Steps of each method. Default: its own number.", type=int, low=1)
    n_references: int = setting(50, "References of a unit.", low=1)
    n_candidates: int | None = setting(
        None,
        "Search top patches only in this many images of largest value. Default: in every image.",
        type=int,
        low=1,
        flag="candidates",
    )
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    @property
    def channel_methods(self) -> list[str]:
        """The methods that visualize channels, too."""
        return [method for method in self.methods if method not in CLASSES_ONLY]

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as plain values. The folder that visualizations came from is not part of them."""
        return super().as_dict() | {"visualizations": "saved" if self.visualizations else "made"}

    def check(self) -> None:
        """Check every setting, and what does not go together.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        _check_methods(self.methods)
        for name, kind in (("classes", "names"), ("channels", "units"), ("described", "names")):
            value = getattr(self, name)
            if not isinstance(value, tuple) and not (type(value) is int and value >= 0):
                raise UsageError(f"{name} is a number from 0 on, or a list of {kind}, not {value!r}")
        methods = self.channel_methods
        if len(methods) < 2 and (self.channels or self.matched):
            raise UsageError(
                f"of {', '.join(self.methods)}, {'only ' + methods[0] if methods else 'none'} visualizes channels: "
                "name another of vital, fourier, maco, or leave channels out with --channels 0"
            )


def _check_methods(methods: Sequence[str]) -> None:
    wrong = next((name for name in methods if name not in METHOD_NAMES), None)
    if wrong is not None:
        raise UsageError(f"unknown method {wrong!r}: some of {', '.join(METHOD_NAMES)}")
    if len(set(methods)) < len(methods) or len(methods) < 2:
        raise UsageError(f"a study compares two methods or more, each once, not {', '.join(methods) or 'none'}")
