"""Read a file of weights without running code, and find the state dictionaries in it."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from encoscope.errors import EncoscopeError, MissingError
from encoscope.file_kind import require_ordinary_file

StateDict: TypeAlias = dict[str, Tensor]

_INDEX = ".index.json"
_NAMES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_MOST_REPEATED = 10**8  # bytes of a tensor that repeats its values


def read_weights_file(path: Path) -> Any:
    """Read a file of weights without running code.

    Args:
        path: A .safetensors file, a torch file that holds weights and plain data, or the index (.index.json) of weights
            in several such files.

    Returns:
        Its contents, on the CPU.

    Raises:
        MissingError: If the file, or one that an index names, does not exist.
        EncoscopeError: If the file is damaged, or if reading it could run code.
    """
    require_ordinary_file(path)
    if not path.is_file():
        raise MissingError(f"there is no checkpoint file {path}")
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported global" in str(error):
            raise EncoscopeError(
                f"checkpoint {path} holds more than weights (pickled Python objects), and reading it could run code: "
                "save its state_dict() alone, with torch.save or safetensors"
            ) from error
        raise EncoscopeError(f"checkpoint {path} is damaged or not a torch file") from error
    except Exception as error:  # each format has its own exceptions
        if "TorchScript" in str(error):
            raise EncoscopeError(
                f"checkpoint {path} is a TorchScript archive (torch.jit.save): save the state_dict() of the module "
                "that it was made from"
            ) from error
        detail = " ".join(str(error).split())[:200]
        raise EncoscopeError(
            f"checkpoint {path} is damaged or not a file of weights: {detail or type(error).__name__}"
        ) from error


def check_tensors(state: StateDict, path: Path) -> None:
    """Refuse tensors that hold no weights that a network could get.

    Args:
        state: The tensors by name.
        path: The file, for messages.

    Raises:
        EncoscopeError: For tensors without values (on the device meta), sparse ones, ones that repeat a few stored
            values many times, and ones with NaN.
    """
    for name, tensor in state.items():
        if tensor.is_meta:
            raise EncoscopeError(
                f"checkpoint {path} has no values for {name} (device meta): save the weights themselves"
            )
        if tensor.layout != torch.strided:
            kind = str(tensor.layout).removeprefix("torch.")
            raise EncoscopeError(f"checkpoint {path} has {name} as {kind}: save it dense, with tensor.to_dense()")
        size = tensor.numel() * tensor.element_size()
        stored = tensor.untyped_storage().nbytes()
        if size > max(stored, _MOST_REPEATED):
            raise EncoscopeError(
                f"checkpoint {path}: {name} repeats {stored} stored bytes to {size / 1e9:.1f} GB: save it whole if it "
                "is a weight, with tensor.contiguous()"
            )
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise EncoscopeError(f"checkpoint {path} has NaN in {name}: its training diverged, or the file is damaged")


def find_weights_file(folder: Path) -> Path | None:
    """Find the weights in a folder that a library's ``save_pretrained`` wrote.

    Args:
        folder: The folder.

    Returns:
        The file of weights, or the index of weights in several files; None if there is none.

    Raises:
        EncoscopeError: For a folder of ``torch.distributed.checkpoint``.
    """
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        raise EncoscopeError(
            f"checkpoint {folder} is in shards of torch.distributed.checkpoint: make one file of them with "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
        )
    names = [name + end for name in _NAMES for end in ("", _INDEX)]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_shards(index: Path) -> StateDict:
    """The tensors of all files that an index names."""
    try:
        files: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(files.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoscopeError(f"checkpoint {index} is damaged or no index of weights in several files") from error
    state: StateDict = {}
    for name in names:
        state |= read_weights_file(index.parent / Path(name).name)
    lost = [name for name in files if name not in state]
    if lost:
        raise EncoscopeError(f"checkpoint {index}: {lost[0]} is not in {files[lost[0]]}, where the index has it")
    return state


def _plain_data() -> list[Any]:
    """Types that training scripts save with the weights and that cannot run code."""
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]  # its name in numpy 2; files of numpy 1 hold another name
    return [argparse.Namespace, np.dtype, np.ndarray, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]


def find_state_dicts(node: Any, label: str = "", depth: int = 3) -> Iterator[tuple[str, StateDict]]:
    """Find every dictionary of tensors in nested dictionaries.

    Args:
        node: The contents of a file.
        label: The keys that lead to ``node``, with slashes between them.
        depth: How many levels of dictionaries to search.

    Yields:
        The keys that lead to a dictionary that holds tensors, and its tensors by name.
    """
    if isinstance(node, nn.Module) or not isinstance(node, Mapping):
        return
    tensors = {key: value for key, value in node.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield label, tensors
    if depth:
        for key, value in node.items():
            yield from find_state_dicts(value, f"{label}/{key}" if label else str(key), depth - 1)
