"""The flags every verb with a model takes, and the values that several flags share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.errors import UsageError

if TYPE_CHECKING:
    from encoscope.encoder import Encoder

_group = Group("Model", sort_key=1)


@Parameter(name="*", group=_group)
@dataclass(frozen=True)
class Common:
    """How the model is loaded, and how results are shown."""

    checkpoint: Annotated[Path | None, Parameter(help="Weights: a .safetensors or torch file.")] = None
    untrained: Annotated[bool, Parameter(help="Random weights, from --seed.")] = False
    device: Annotated[str, Parameter(help='"cpu", "cuda", "cuda:1", ...; "auto" is a GPU if there is one.')] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Parameter(help="Of the forward pass; the halves by autocast.")
    ] = "fp32"
    seed: Annotated[int, Parameter(help="Seed of everything random.")] = 0
    trust: Annotated[bool, Parameter(help="Allow a model's own code from a hub to run.")] = False
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False

    def loading(self) -> dict[str, Any]:
        """The flags as keyword arguments of ``encoscope.load``."""
        taken = ("checkpoint", "untrained", "device", "precision", "seed", "trust")
        return {name: getattr(self, name) for name in taken}

    def load(self, model: str) -> Encoder:
        """The encoder that a model string and these flags name."""
        from encoscope.encoder import load

        return load(model, **self.loading())


def names(text: str | None) -> list[str] | None:
    """``a,b`` as a list; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """``1,0.5`` as numbers; UsageError names the flag."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} takes numbers with commas between them, not {text!r}") from error


def counts(flag: str, text: str) -> tuple[int, ...]:
    """``2,5,10`` as whole numbers from 1 on; UsageError names the flag."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{flag} takes whole numbers from 1 on, with commas between them, not {text!r}")
    return tuple(int(part) for part in parts)


def word_or_count(flag: str, text: str, words: tuple[str, ...]) -> str | int:
    """One of the words, or a whole number from 1 on. UsageError names the flag and what it takes."""
    if text in words:
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"{flag} takes {''.join(f'{word}, ' for word in words)}or a whole number from 1 on, not {text!r}")
