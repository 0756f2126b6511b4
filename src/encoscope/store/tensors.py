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


class Contents(NamedTuple):
    """An open file. about: its head. names: its tensors. tensor: reads one of them."""

    about: dict[str, Any]
    names: frozenset[str]
    tensor: Callable[[str], Tensor]


def write(path: str | os.PathLike[str], about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write a file, whole or not at all. about: has ``format``, by which ``opened`` knows it."""
    from safetensors.torch import save_file

    values = {name: value.contiguous() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(values, temporary, metadata={_HEAD: json.dumps(about)})
    return Path(path)


@contextmanager
def opened(path: str | os.PathLike[str], format: str, what: str) -> Iterator[Contents]:
    """A file of this format, to read in the block.

    Raises MissingError when there is none, and EncoscopeError, saying that it is not ``what`` (a plural), for another
    format, a damaged file, and whatever the block does not find in it.
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
            yield Contents(about, frozenset(file.keys()), file.get_tensor)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise EncoscopeError(f"{path} holds no {what}, or is damaged ({error})") from error
