"""The flags every verb with a model takes, those that a method's settings stand for, and values that flags share."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.defaults import DEVICE, PRECISION, RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.settings import SettingInfo, Settings, parse_counts, parse_names, parse_numbers, parse_sides
from encoscope.settings import word_or_count as one_of_words_or_count
from encoscope.zoo.registry import DEFAULT_MODEL as DEFAULT_MODEL

if TYPE_CHECKING:
    from encoscope.encoder import Encoder
    from encoscope.encoder.convert import ModelString

_group = Group("Model", sort_key=1)

PROGRESS_HELP = "Of a long run, on stderr; auto: a bar on a terminal, elsewhere lines after ten seconds."


@Parameter(name="*", group=_group)
@dataclass(frozen=True)
class Common:
    """How the model is loaded, and how results are shown."""

    checkpoint: Annotated[Path | None, Parameter(help="Weights: a .safetensors or torch file.")] = None
    untrained: Annotated[bool, Parameter(help="Random weights, from --seed.")] = False
    device: Annotated[str, Parameter(help='"cpu", "cuda", "cuda:1", ...; "auto" is a GPU if there is one.')] = DEVICE
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Parameter(help="Of the forward pass; the halves by autocast.")
    ] = PRECISION
    grid: Annotated[
        str | None,
        Parameter(help="Rows and columns of a transformer's patches, such as 14x14; else they are found by a trial."),
    ] = None
    prefix: Annotated[
        int | None, Parameter(help="With --grid: tokens before the patches (class token, prompts, registers).")
    ] = None
    seed: Annotated[int, Parameter(help="Seed of everything random.")] = RANDOM_STATE
    allow_missing: Annotated[
        tuple[str, ...],
        Parameter(help="Weights that the checkpoint may lack: a tensor, a module, or a pattern. Can be repeated."),
    ] = ()
    allow_unused: Annotated[
        tuple[str, ...],
        Parameter(help="Likewise what it may hold though the network has no place for it."),
    ] = ()
    logits: Annotated[
        str | None,
        Parameter(help="Which output is the logits, by name or index, where a network gives several."),
    ] = None
    trust: Annotated[bool, Parameter(help="Allow a model's own code from a hub to run.")] = False
    class_order: Annotated[
        Literal["numeric", "text", "index", "none"] | None,
        Parameter(
            help="What labels that are no class names stand for: the classes in this order, the classes of the numbers "
            "in them (index), or no classes."
        ),
    ] = None
    mean: Annotated[
        str | None, Parameter(help="Mean of each channel, for pixels from 0 to 1. Default: the model's own.")
    ] = None
    std: Annotated[
        str | None,
        Parameter(help="Standard deviation of each channel, for pixels from 0 to 1. Default: the model's own."),
    ] = None
    input_size: Annotated[
        str | None, Parameter(help="Side of the model's input in pixels, or HEIGHTxWIDTH. Default: the model's own.")
    ] = None
    interpolation: Annotated[
        Literal["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"] | None,
        Parameter(help="How images are resized. Default: the model's own."),
    ] = None
    bands: Annotated[
        str | None,
        Parameter(help="Which bands of an image the model's channels are, numbered from 1, such as 4,3,2."),
    ] = None
    channels: Annotated[
        int | None,
        Parameter(help="Number of channels of the model's input. Default: that of its first convolution, or by trial."),
    ] = None
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False
    progress: Annotated[Literal["auto", "bar", "lines", "none"], Parameter(help=PROGRESS_HELP)] = "auto"

    def loading(self) -> dict[str, Any]:
        """The flags as keyword arguments of ``encoscope.load``."""
        names = (
            "checkpoint",
            "untrained",
            "device",
            "precision",
            "trust",
            "class_order",
            "allow_missing",
            "allow_unused",
            "logits",
        )
        loading = {name: getattr(self, name) for name in names} | {"random_state": self.seed} | self._stating()
        if self.grid is not None:
            loading["token_layout"] = (_read_grid(self.grid), self.prefix or 0)
        elif self.prefix is not None:
            raise UsageError("--prefix says how many tokens stand before the patches of a --grid: give both")
        return loading

    def _stating(self) -> dict[str, Any]:
        """The flags that state the preprocessing, as keyword arguments of ``encoscope.load``."""
        texts = {
            "mean": (self.mean, parse_numbers),
            "std": (self.std, parse_numbers),
            "input_size": (self.input_size, parse_sides),
            "bands": (self.bands, parse_counts),
        }
        stated: dict[str, Any] = {
            name: read_flag(f"--{name.replace('_', '-')}", text, parse)
            for name, (text, parse) in texts.items()
            if text is not None
        }
        plain = {"interpolation": self.interpolation, "channels": self.channels}
        return stated | {name: value for name, value in plain.items() if value is not None}

    def load(self, model: str) -> Encoder:
        """Load the encoder that a model string and these flags name.

        Args:
            model: The model string.

        Returns:
            The encoder.
        """
        from encoscope.encoder import load

        return load(model, **self.loading())

    def defer(self, model: str) -> ModelString:
        """Give a model string that a function loads, with these flags, as soon as it needs the network.

        Args:
            model: The model string.

        Returns:
            The string with the flags.
        """
        from encoscope.encoder.convert import ModelString

        return ModelString(model, **self.loading())


def _read_grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UsageError(f"--grid takes rows and columns, such as 14x14, not {text!r}")
    return int(rows), int(columns)


class MethodFlags:
    """The base of the flags that stand for a method's settings; see ``method_flags``."""

    INFOS: Mapping[str, SettingInfo]

    def changes(self) -> dict[str, Any]:
        """Give the settings that were set on the command line, by name.

        Raises:
            UsageError: For a value that cannot be read, naming its flag.
        """
        return {
            name: parse_flag(flag_of(name, self.INFOS[name]), self.INFOS[name], value)
            for name, value in vars(self).items()
            if value is not None
        }


def method_flags(
    settings: type[Settings],
    group: Group,
    *others: type[Settings],
    without: Container[str] = (),
    name: str | None = None,
    groups: Mapping[str, Group] | None = None,
) -> Any:
    """Make the flags of a method's settings: names, help and defaults come from the settings' fields.

    Args:
        settings: The settings class.
        group: The group of the help that they stand in.
        *others: Settings classes of methods that the same command offers. What they have beside is added; a setting
            that several have states its default only where it is the same in all.
        without: Settings that get no flag here.
        name: The name of the class; by default that of the settings. Two classes need two names.
        groups: The groups of single settings, by their names; the rest stand in ``group``.

    Returns:
        A dataclass for a command's parameter ``settings: ... | None = None``. Its ``changes()`` gives what was set.
    """
    owners: dict[str, list[type[Settings]]] = {}
    for kind in (settings, *others):
        for field, info in kind.infos().items():
            if info.on_command_line and field not in without:
                owners.setdefault(field, []).append(kind)
    infos = {field: kinds[0].infos()[field] for field, kinds in owners.items()}
    fields = [
        (
            field,
            Annotated[
                _type_of(kinds[0], field, infos[field]) | None,
                _parameter(kinds, field, (groups or {}).get(field, group)),
            ],
            None,
        )
        for field, kinds in owners.items()
    ]
    flags = make_dataclass(name or f"{settings.__name__}Flags", fields, bases=(MethodFlags,), frozen=True)
    flags.INFOS = infos
    flags.__module__ = __name__  # cyclopts looks no further into classes of Python's own modules
    return Parameter(name="*", group=group)(flags)


def read_changes(settings: type[Settings], *flags: MethodFlags | None) -> dict[str, Any]:
    """Give the settings of a method that were set on the command line, checked before anything is loaded.

    Args:
        settings: The method's settings class.
        *flags: Its flags; None where none was given.

    Returns:
        The settings by name, as keyword arguments of the method.

    Raises:
        UsageError: For a value that cannot be.
    """
    changes = {name: value for part in flags if part is not None for name, value in part.changes().items()}
    settings.from_preset(**changes)
    return changes


def flag_of(name: str, info: SettingInfo) -> str:
    """Give the flag of a setting.

    Args:
        name: The setting's name.
        info: What is known about it.

    Returns:
        Such as "--clusters".
    """
    return f"--{info.flag or name.replace('_', '-')}"


def parse_flag(flag: str, info: SettingInfo, value: Any) -> Any:
    """Turn a flag's text into the setting's value.

    Args:
        flag: The flag, for the message.
        info: What is known about the setting.
        value: What the command line gave.

    Returns:
        The value.

    Raises:
        UsageError: For a text that cannot be read, saying what the flag takes.
    """
    if info.parse is None:
        return value
    try:
        return info.parse(value)
    except ValueError as error:
        raise UsageError(f"{flag} takes {error}, not {value!r}") from error


def _type_of(settings: type[Settings], name: str, info: SettingInfo) -> Any:
    if info.choices:
        return Literal[info.choices]
    default = getattr(settings, name)
    return str if info.parse is not None else info.type if default is None else type(default)


def _parameter(kinds: Sequence[type[Settings]], name: str, group: Group) -> Parameter:
    info = kinds[0].infos()[name]
    defaults = [getattr(kind, name) for kind in kinds]
    default, help, flag = defaults[0], info.help, flag_of(name, info)
    is_shared = all(other == default for other in defaults)
    is_unset = default is None or default is False or default == ()
    if is_shared and not is_unset and "Default:" not in help:
        help = f"{help} Default: {_as_text(default)}."
    negative = f"--no-{flag[2:]}" if default is True else ()
    return Parameter(name=flag, group=group, help=help, negative=negative)


def _as_text(default: Any) -> str:
    """A default as the command line takes it."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def read_flag(flag: str, text: str, parse: Any) -> Any:
    """Read the text of a flag that stands for no setting.

    Args:
        flag: The flag, for the message.
        text: Its text.
        parse: A parser of `encoscope.settings`.

    Returns:
        The value.

    Raises:
        UsageError: For a text that cannot be read, saying what the flag takes.
    """
    return parse_flag(flag, SettingInfo("", parse=parse), text)


def names(text: str | None) -> list[str] | None:
    """Split ``a,b`` into a list.

    Args:
        text: Names with commas; None where the flag was not given.

    Returns:
        The names; None for None.
    """
    return None if text is None else list(parse_names(text))


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Read ``1,0.5`` as numbers.

    Args:
        flag: The flag, for the message.
        text: Its text.

    Returns:
        The numbers.

    Raises:
        UsageError: For anything else.
    """
    return read_flag(flag, text, parse_numbers)


def counts(flag: str, text: str) -> tuple[int, ...]:
    """Read ``2,5,10`` as whole numbers from 1 on.

    Args:
        flag: The flag, for the message.
        text: Its text.

    Returns:
        The numbers.

    Raises:
        UsageError: For anything else.
    """
    return read_flag(flag, text, parse_counts)


def word_or_count(flag: str, text: str, words: tuple[str, ...]) -> str | int:
    """Read one of some words, or a whole number from 1 on.

    Args:
        flag: The flag, for the message.
        text: Its text.
        words: The words.

    Returns:
        The word or the number.

    Raises:
        UsageError: For anything else, saying what the flag takes.
    """
    return read_flag(flag, text, one_of_words_or_count(words))
