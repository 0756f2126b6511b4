"""What ships: a record per trained network, its weights beside it, the digest checked before they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("resnet-caltech101", "vit-caltech101", "clip-caltech101")
FOLDER = Path(__file__).parent / "weights"
FORMAT = "encoscope.zoo/1"


@dataclass(frozen=True)
class ZooEntry:
    """A shipped network.

    architecture, kwargs: what builds it: ``timm.create_model(architecture, **kwargs)`` where ``library`` is "timm", a
    folder for open_clip's ``local-dir:`` (that of ``file``) where it is "open_clip". preprocess: the fields of
    ``encoscope.images.Preprocess``. accuracy: shares on Caltech-101's test list, as the model card tells them.
    """

    name: str
    library: str
    architecture: str
    kwargs: Mapping[str, Any]
    file: Path
    sha256: str
    preprocess: Mapping[str, Any]
    classes: tuple[str, ...]
    accuracy: Mapping[str, float]
    parameters: int
    about: str


def _record(name: str) -> Path:
    return FOLDER / f"{name}.json"


def list_names() -> tuple[str, ...]:
    """The names of the networks that are there, without the ``zoo:`` before them."""
    return tuple(name for name in NAMES if _record(name).is_file())


def find_entry(name: str) -> ZooEntry:
    """The record of a shipped network, by its name with or without ``zoo:``.

    Raises:
        UsageError: no such name.
        MissingError: a name of ours whose weights this installation lacks.
        EncoscopeError: the record cannot be read.
    """
    short = name.removeprefix("zoo:")
    if short not in NAMES:
        raise UsageError(f"the zoo has no {short!r}; it has {', '.join(NAMES)}{suggest_nearest(short, NAMES)}")
    path = _record(short)
    if not path.is_file():
        raise MissingError(
            f"zoo:{short} is not in this installation ({path} is not there); "
            f"train it with python -m encoscope.recipes.{short.replace('-', '_')}"
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("format")
        pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in fields["preprocess"].items()}
        fields |= {"file": FOLDER / fields["file"], "classes": tuple(fields["classes"]), "preprocess": pairs}
        return ZooEntry(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise EncoscopeError(f"zoo:{short}'s record {path} is damaged ({error}); install encoscope again") from error


def verify_weights(entry: ZooEntry) -> Path:
    """The path of the weights, once their digest is the record's.

    Raises:
        MissingError: the file is not there.
        EncoscopeError: the file is not the one that the record describes.
    """
    try:
        found = hashlib.sha256(entry.file.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingError(f"zoo:{entry.name}'s weights {entry.file} are not there; install encoscope again") from None
    if found != entry.sha256:
        raise EncoscopeError(
            f"zoo:{entry.name}'s weights {entry.file} are damaged: sha256 {found[:12]}..., not {entry.sha256[:12]}...; "
            "install encoscope again"
        )
    return entry.file


def load_weights(entry: ZooEntry) -> dict[str, Tensor]:
    """The verified weights by parameter name, floats as float32 (they are stored as float16)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = verify_weights(entry)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise EncoscopeError(
            f"zoo:{entry.name}'s weights {path} cannot be read: {error}; install encoscope again"
        ) from error
    return {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
