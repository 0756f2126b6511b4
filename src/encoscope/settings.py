"""The settings of a method: one frozen dataclass, from which everything else that knows settings is derived.

Signatures of functions, estimators, command-line flags, presets, cache keys and result records all read the same
fields, so each default stands once. This module and the ``settings`` module of each method import nothing heavy: the
command line reads them to print its help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from encoscope.errors import UsageError, suggest_nearest

S = TypeVar("S", bound="Settings")

PRESET_NAMES = ("default", "paper", "authors")
_KEY = "setting"


@dataclass(frozen=True)
class SettingInfo:
    """What is known about one setting beside its default.

    Attributes:
        help: One or two sentences for the command line and the docs.
        unit: Its unit, such as "pixels"; empty where it has none.
        choices: The values it can take; empty where they are not a list.
        low: The smallest number it can be; None where there is no bound.
        high: The largest number it can be; None where there is no bound.
        open_low: Whether it must be larger than ``low``.
        open_high: Whether it must be smaller than ``high``.
        flag: Its flag on the command line without the dashes; empty for the field's own name with dashes.
        parse: Turns the flag's text into the value, raising ValueError with what is expected; None where the type of
            the default (or ``type``) is enough.
        type: The type of a flag's value where the default is None and ``parse`` is not given.
        on_command_line: Whether there is a flag for it.
        recorded_as: Its name in result documents; empty for the field's own name.
    """

    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    flag: str = ""
    parse: Callable[[str], Any] | None = None
    type: type = str
    on_command_line: bool = True
    recorded_as: str = ""


def setting(default: Any, help: str, **info: Any) -> Any:
    """Declare a field of a settings class.

    Args:
        default: Its value in the preset "default".
        help: One or two sentences for the command line and the docs.
        **info: The other attributes of `SettingInfo`.

    Returns:
        A dataclass field with its `SettingInfo` as metadata.

    Example:
        >>> @dataclass(frozen=True)
        ... class Blur(Settings):
        ...     radius: int = setting(3, "How far a pixel is spread.", unit="pixels", low=1)
        >>> Blur.from_preset("default", radius=5).radius
        5
    """
    return dataclasses.field(default=default, metadata={_KEY: SettingInfo(help, **info)})


@dataclass(frozen=True)
class Settings:
    """The base of every method's settings.

    A subclass is a frozen dataclass whose fields are made by `setting`. It lists in ``PRESETS`` how each preset differs
    from the defaults, and may extend ``check``. Making one checks it.

    Attributes:
        preset: The preset that it was made from.
    """

    METHOD: ClassVar[str] = "a method"
    """What messages call the method."""
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "paper": {}, "authors": {}}
    """How each preset differs from the defaults of the fields."""
    RECORDED_APART: ClassVar[tuple[str, ...]] = ()
    """Settings that have a place of their own in result documents, such as the seed."""

    preset: str = setting(
        "default",
        "What measured best, the paper to the letter, or the authors' code where it differs from the paper.",
        choices=PRESET_NAMES,
    )

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def infos(cls) -> dict[str, SettingInfo]:
        """The settings by name, with what is known about each, in the order of their fields."""
        return {field.name: field.metadata[_KEY] for field in dataclasses.fields(cls) if _KEY in field.metadata}

    @classmethod
    def from_preset(cls: type[S], preset: str | None = None, **changes: Any) -> S:
        """Make the settings of a preset, with changes.

        Args:
            preset: "default", "paper" (the paper to the letter) or "authors" (the authors' code where it differs);
                None is "default".
            **changes: Settings by name; None leaves the preset's own value. Lists become tuples, and a text
                stands for the names in it where a setting is names.

        Returns:
            The settings, checked.

        Raises:
            UsageError: For an unknown preset or setting (the nearest name is given), and for a value that cannot be.
        """
        name = preset or "default"
        if name not in cls.PRESETS:
            raise UsageError(f"preset is one of {', '.join(cls.PRESETS)}, not {name!r}")
        refuse_unknown(cls.METHOD, changes, [name for name in cls.infos() if name != "preset"])
        infos = cls.infos()
        changed = {key: _freeze(value, infos[key]) for key, value in changes.items() if value is not None}
        return cls(**{**cls.PRESETS[name], **changed}, preset=name)

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as plain values, for result documents: all but those that are recorded apart."""
        infos = self.infos()
        return {
            infos[name].recorded_as or name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in self.RECORDED_APART
        }

    def as_key(self) -> dict[str, Any]:
        """Give what shapes the results as plain values, for cache keys: all but the preset's name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "preset"}

    def check(self) -> None:
        """Check every setting against its choices and bounds.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        for name, info in self.infos().items():
            value = getattr(self, name)
            if value is None:
                continue
            if info.choices and value not in info.choices:
                raise UsageError(f"{name} is one of {', '.join(info.choices)}, not {value!r}")
            if info.low is None and info.high is None:
                continue
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if not numeric or not _is_inside(value, info):
                raise UsageError(f"{name} {_bounds(info)}, not {value!r}")


def refuse_unknown(method: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse settings that a method does not have.

    Args:
        method: What the message calls the method, such as "segment".
        names: The names that were passed.
        known: The names of all its settings.

    Raises:
        UsageError: For the first name that is not known, with the nearest ones that are.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"{method} has no setting {name!r}{suggest_nearest(name, known)}")


def parse_names(text: str) -> tuple[str, ...]:
    """Split names with commas between them.

    Args:
        text: Such as "layer3, layer4".

    Returns:
        The names without surrounding spaces; empty ones are left out.

    Example:
        >>> parse_names("layer3, layer4")
        ('layer3', 'layer4')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them.

    Args:
        text: Such as "1,0.5".

    Returns:
        The numbers.

    Raises:
        ValueError: For anything else, saying what is expected.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("numbers with commas between them") from None


def parse_counts(text: str) -> tuple[int, ...]:
    """Read whole numbers from 1 on, with commas between them.

    Args:
        text: Such as "2,5,10".

    Returns:
        The numbers.

    Raises:
        ValueError: For anything else, saying what is expected.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError("whole numbers from 1 on, with commas between them")
    return tuple(int(part) for part in parts)


def parse_sides(text: str) -> tuple[int, int]:
    """Read the size of an image.

    Args:
        text: Such as "96", for a square, or "96x128".

    Returns:
        (height, width) in pixels.

    Raises:
        ValueError: For anything else, saying what is expected.
    """
    parts = [part.strip() for part in text.split("x")]
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 6 for part in parts):
        raise ValueError("a number of pixels, or HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


def word_or_count(words: Sequence[str]) -> Callable[[str], str | int]:
    """Make the parser of a setting that is one of some words or a whole number from 1 on.

    Args:
        words: The words.

    Returns:
        A function of a text that gives the word or the number, and raises ValueError saying what is expected.
    """

    def parse(text: str) -> str | int:
        if text in words:
            return text
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
        raise ValueError(f"{''.join(f'{word}, ' for word in words)}or a whole number from 1 on")

    return parse


def _freeze(value: Any, info: SettingInfo) -> Any:
    """A sequence as a tuple, which cannot change, and names in one text as on the command line; else as it is."""
    if isinstance(value, str):
        return parse_names(value) if info.parse is parse_names else value
    return tuple(value) if isinstance(value, Sequence) else value


def _is_inside(value: float, info: SettingInfo) -> bool:
    """Whether a number is within the bounds; one that is not a number is not."""
    above = info.low is None or (value > info.low if info.open_low else value >= info.low)
    below = info.high is None or (value < info.high if info.open_high else value <= info.high)
    return above and below


def _bounds(info: SettingInfo) -> str:
    """What a number can be, for messages."""
    low, high = (None if bound is None else f"{bound:g}" for bound in (info.low, info.high))
    if low is not None and high is not None and (info.open_low or info.open_high):
        return f"lies in {'(' if info.open_low else '['}{low}, {high}{')' if info.open_high else ']'}"
    if high is None:
        return f"is a number above {low}" if info.open_low else f"is a number from {low} on"
    if low is None:
        return f"is a number below {high}" if info.open_high else f"is a number up to {high}"
    return f"is a number from {low} to {high}"
