"""What every result can do, and the envelope it is written in: strict JSON, whole or not there, read with a check."""

from __future__ import annotations

import base64
import functools
import html
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import secrets
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from encoscope.errors import EncoscopeError, MissingError
from encoscope.file_kind import require_ordinary_file

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

DAMAGED = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error)
"""What reading a damaged file of arrays raises: cut short, with wrong bytes, or with a shape that fits no memory."""

Document: TypeAlias = dict[str, Any]
R = TypeVar("R", bound="Result")

VERSION = 1
_NUMBERS = re.compile(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]")  # boxes and the like: one line each (no text holds a bare \n)
_LISTS = {
    "segmentation": "images",
    "feature-colors": "images",
    "visualization": "visualizations",
    "description": "descriptions",
}
_PACKAGES = ("encoscope", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")


@dataclass(frozen=True)
class ModelRecord:
    """The encoder behind a result.

    Attributes:
        source: Its source as the user wrote it.
        digest: The digest of its weights and preprocessing.
        layers: The layers that were read.
        preprocess: How images were brought to its input, with what was stated or assumed; empty in older documents.
        record: What else was decided about the network, such as the weights that its checkpoint was missing.
        warnings: What was said of the encoder, one line each.
    """

    source: str
    digest: str
    layers: tuple[str, ...]
    preprocess: Mapping[str, Any] = field(default_factory=dict, compare=False)
    record: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document; what is empty is left out."""
        plain: dict[str, Any] = {"source": self.source, "digest": self.digest, "layers": list(self.layers)}
        plain |= {"preprocess": dict(self.preprocess)} if self.preprocess else {}
        return plain | dict(self.record) | ({"warnings": list(self.warnings)} if self.warnings else {})

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ModelRecord:
        """Read what ``as_dict`` gave.

        Args:
            plain: The "model" of a result document.

        Returns:
            The record.
        """
        known = ("source", "digest", "layers", "preprocess", "warnings")
        record = {name: value for name, value in plain.items() if name not in known}
        preprocess, warnings = plain.get("preprocess", {}), tuple(plain.get("warnings", ()))
        return cls(plain["source"], plain["digest"], tuple(plain["layers"]), preprocess, record, warnings)


def record_model(encoder: Any, layers: Sequence[str], *, trial: Sequence[str] | None = None) -> ModelRecord:
    """Write down the encoder of a result. This computes its digest, and tries it, if that was not done yet.

    Args:
        encoder: The Encoder (this room lies below encoders and cannot name their class).
        layers: The layers that were read.
        trial: Layers whose outputs for trial inputs are kept, beside features and logits, so that the result is used
            again for the same network alone; None keeps nothing.

    Returns:
        Its record, for the "model" of a result document.
    """
    return ModelRecord(
        encoder.source,
        encoder.digest,
        tuple(layers),
        encoder.record_preprocess(),
        dict(encoder.record) | ({} if trial is None else {"trial": encoder.trial(trial).as_dict()}),
        tuple(getattr(encoder, "warnings", ())),
    )


def explain_damage(load: Callable[..., Any]) -> Callable[..., Any]:
    """Make what a class method stumbles over, while it reads a result, one line that says which and what to do.

    Args:
        load: The method: ``load(cls, path, ...)``.

    Returns:
        The same method, whose errors are EncoscopeErrors.
    """

    @functools.wraps(load)
    def checked(cls: type, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        try:
            return load(cls, path, *args, **kwargs)
        except EncoscopeError:
            raise
        except FileNotFoundError as error:
            raise MissingError(f"{error.filename} is missing: the result is not whole") from error
        except Exception as error:  # of any kind: a flipped bit may do anything
            if not isinstance(path, str | os.PathLike):
                raise
            detail = " ".join(f"{type(error).__name__} {error}".split())[:160]
            raise EncoscopeError(f"{os.fspath(path)} is damaged ({detail}): make the result again") from error

    return checked


class Result(ABC):
    """The base of all results: arrays and provenance that can be saved, loaded, drawn and shown in a notebook.

    Whatever a ``load`` stumbles over in damaged files becomes one line that names the folder.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("load")
        if isinstance(own, classmethod):
            setattr(cls, "load", classmethod(explain_damage(own.__func__)))  # noqa: B010 - for type checkers

    @abstractmethod
    def to_dict(self) -> Document:
        """Give the result document: plain values, without the arrays and pictures."""

    @abstractmethod
    def plot(self) -> Figure:
        """Draw it as a matplotlib figure."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json`` and what belongs to it into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """

    @classmethod
    @abstractmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The result.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result, or not whole.
        """

    def _repr_png_(self) -> bytes:
        """The figure, for notebooks."""
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """The figure with the result's own line of text, for notebooks."""
        data = base64.b64encode(self._repr_png_()).decode()
        image = f'<img src="data:image/png;base64,{data}" style="max-width: 100%">'
        return f"<figure>{image}<figcaption>{html.escape(str(self))}</figcaption></figure>"


class ResultList(list[R]):
    """Several results in their order: a list that notebooks show as all of its figures."""

    def _repr_html_(self) -> str:
        return "".join(result._repr_html_() for result in self)


def envelope(
    kind: str,
    entries: Sequence[Mapping[str, Any]],
    *,
    model: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    seed: int | None,
    skipped: Iterable[Any] = (),
) -> Document:
    """Make a result document, ready for `write` or `dumps`.

    Args:
        kind: "segmentation", "visualization", "description", or another word, whose entries are then called "results".
        entries: One mapping for each image, visualization, and so on.
        model: The encoder's source, digest and layers; None where there is none.
        settings: The settings that made it.
        seed: The seed; None where nothing was random.
        skipped: What was left out, as mappings or objects with ``path`` and ``reason``.

    Returns:
        The document.
    """
    left_out = [
        dict(item) if isinstance(item, Mapping) else {"path": item.path, "reason": item.reason} for item in skipped
    ]
    return {
        "format": f"encoscope.{kind}/{VERSION}",
        "model": None if model is None else dict(model),
        "settings": dict(settings),
        "seed": seed,
        "versions": versions(),
        _LISTS.get(kind, "results"): [dict(entry) for entry in entries],
        "skipped": left_out,
    }


def versions() -> dict[str, str]:
    """The versions that shape a result's numbers, without importing anything."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def dumps(document: Mapping[str, Any]) -> str:
    """Write a document as strict JSON.

    Args:
        document: The document.

    Returns:
        Its text.

    Raises:
        EncoscopeError: With the place of a number that JSON cannot hold.
    """
    plain = _plain(document, "$")
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file's name that is no text: only escapes keep it
        text = json.dumps(plain, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda match: f"[{', '.join(part.strip() for part in match[1].split(','))}]", text) + "\n"


def write(path: str | os.PathLike[str], document: Mapping[str, Any]) -> Path:
    """Write a document, whole or not at all.

    Args:
        path: The file.
        document: The document.

    Returns:
        The file.

    Raises:
        EncoscopeError: When it cannot be written.
    """
    text = dumps(document)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read(path: str | os.PathLike[str], kind: str) -> Document:
    """Read a document of one kind back.

    Args:
        path: The file.
        kind: The kind, as for `envelope`.

    Returns:
        The document.

    Raises:
        MissingError: When there is no such file.
        EncoscopeError: When it is something else, or was written by a newer version.
    """
    path = Path(path)
    require_ordinary_file(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise EncoscopeError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    written = document.get("format") if isinstance(document, dict) else None
    name, _, version = str(written).partition("/")
    if name != f"encoscope.{kind}" or not version.isdigit():
        raise EncoscopeError(f"{path} is no {kind}: its format is {written!r}, not 'encoscope.{kind}/{VERSION}'")
    if int(version) > VERSION:
        raise EncoscopeError(
            f"{path} was written by a newer encoscope ({written}); this one reads up to /{VERSION}: update it"
        )
    return document


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all arrays of a ``.npz`` file into memory.

    Args:
        path: The file.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: When there is none.
        Exception: One of ``DAMAGED``, for a file that cannot be read.
    """
    import numpy as np

    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:  # which leaves damaged ones open
        return dict(stored)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number that a result holds")


def relative(path: str | os.PathLike[str], document: str | os.PathLike[str]) -> str:
    """Name a file as a document does: relative to the document's folder, with forward slashes.

    Args:
        path: The file.
        document: The document's file.

    Returns:
        The name.
    """
    folder = os.path.abspath(Path(document).parent)  # noqa: PTH100 - symbolic links are not followed
    try:
        return Path(os.path.relpath(os.path.abspath(path), folder)).as_posix()  # noqa: PTH100
    except ValueError:  # another drive
        return Path(path).absolute().as_posix()


def resolve(name: str, document: str | os.PathLike[str]) -> Path:
    """Find a file that a document names.

    Args:
        name: The name in the document.
        document: The document's file.

    Returns:
        The file.
    """
    return Path(document).parent / name


def resolve_path(name: str, document: str | os.PathLike[str]) -> str:
    """Find an input that a document names, as the result in memory names it: a plain path without "..".

    Args:
        name: The name in the document.
        document: The document's file.

    Returns:
        The path.
    """
    return os.path.normpath(resolve(name, document))


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside a file; what is written there is synced and renamed when the block ends well.

    Folders on the way are made. When the block fails, nothing of it is left and an older file stays as it was.

    Args:
        path: The file.

    Yields:
        The temporary path.

    Raises:
        EncoscopeError: For a full disk, a read-only folder and the like.
    """
    path = Path(path)
    # the suffix stays last: Pillow and numpy go by it
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EncoscopeError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _plain(value: Any, where: str) -> Any:
    """Scalars and arrays of numpy, and paths, as JSON's own types; numbers that JSON cannot hold are refused."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise EncoscopeError(
            f"the result holds {value} at {where}, which JSON cannot: this is a fault in its computation"
        )
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{type(value).__name__} at {where} has no form in JSON")
