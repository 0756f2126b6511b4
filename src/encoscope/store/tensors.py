"""Tensors in one .safetensors file, with a JSON head that says what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from encoscope.errors import EncoscopeError, MissingError
from encoscope.results import atomic_write

_HEAD = "encoscope"


class TensorFile(NamedTuple):
    """An open file of tensors.

    Attributes:
        about: The JSON that the file begins with.
        names: Of its tensors.
        tensor: Reads one of them, by its name.
    """

    about: dict[str, Any]
    names: frozenset[str]
    tensor: Callable[[str], Tensor]


def write_tensors(path: str | os.PathLike[str], about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors and what they are into a .safetensors file, whole or not at all.

    Args:
        path: The file.
        about: Plain JSON values, with ``format``, by which ``open_tensors`` recognizes the file.
        tensors: By name.

    Returns:
        The path.

    Raises:
        EncoscopeError: a full disk, a folder that cannot be written.
    """
    from safetensors.torch import save_file

    values = {name: value.contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        Path(temporary).touch()
        mode = Path(temporary).stat().st_mode  # as any other file's: safetensors writes for the owner alone
        save_file(values, temporary, metadata={_HEAD: json.dumps(about)})
        Path(temporary).chmod(mode)
    return Path(path)


@contextmanager
def open_tensors(path: str | os.PathLike[str], format: str, what: str) -> Iterator[TensorFile]:
    """Open a file that ``write_tensors`` wrote.

    Args:
        path: The file.
        format: The format that it must have.
        what: What it should hold, for messages, in the plural.

    Yields:
        The open file; its tensors are read in the block.

    Raises:
        MissingError: there is no such file.
        EncoscopeError: another format, a damaged file, or one that lacks what the block reads.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_HEAD])
            if about["format"] != format:
                raise ValueError(about["format"])
            yield TensorFile(about, frozenset(file.keys()), file.get_tensor)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise EncoscopeError(f"{path} holds no {what}, or is damaged ({error})") from error
