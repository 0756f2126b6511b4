"""``hub:OWNER/REPO:ENTRY`` and ``hub:FOLDER:ENTRY``: torch.hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from encoscope._offline import is_reachable, missing_weights_error, quiet_libraries
from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.input_channels import find_input_channels
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import Preprocess


def build_model(request: SourceRequest) -> LoadedModel:
    """Build a network with torch.hub; this runs code of the repository.

    Args:
        request: The network; its name is OWNER/REPO:ENTRY or FOLDER:ENTRY.

    Returns:
        What the entry of the repository's ``hubconf.py`` returns, with the default preprocessing.

    Raises:
        UsageError: For a name of another form, without ``trust``, and for an entry that returns no network.
        MissingError: For a repository or weights that are not available.
        EncoscopeError: If the repository's code fails, or if a checkpoint does not fit.
    """
    repository, _, entry = request.name.rpartition(":")
    if not repository or not entry:
        raise UsageError(f"hub:{request.name}: write hub:OWNER/REPO:ENTRY or hub:FOLDER:ENTRY")
    if not request.trust:
        raise UsageError(f"hub:{request.name} runs the Python code of {repository}: allow it with --trust (trust=True)")
    local = Path(repository).is_dir()
    if not local and not _is_cached(repository) and not is_reachable("github.com"):
        raise missing_weights_error(
            f"hub:{request.name}", "the repository is not in torch's cache, and github.com cannot be reached"
        )
    source: Literal["local", "github"] = "local" if local else "github"

    def build_network(classes: int | None = None, channels: int | None = None) -> nn.Module:
        with fixed_seed(request.random_state), quiet_libraries():
            network = _call_entry(repository, entry, source, pretrained=request.pretrained)
        if not isinstance(network, nn.Module):
            raise UsageError(f"hub:{request.name} returned {type(network).__name__}, not a torch.nn.Module")
        return network

    try:
        module = build_network() if request.checkpoint is None else load_checkpoint(request, build_network)
    except EncoscopeError:
        raise
    except OSError as error:
        raise missing_weights_error(f"hub:{request.name}", " ".join(str(error).split())[:200]) from error
    except Exception as error:  # the repository's own code
        detail = " ".join(str(error).split())[:300]
        raise EncoscopeError(f"hub:{request.name} failed: {type(error).__name__}: {detail}") from error
    preprocess = Preprocess(channels=find_input_channels(module, Preprocess().size))
    return LoadedModel(module, preprocess, assumed=None if request.untrained else "the usual settings")


def _call_entry(repository: str, entry: str, source: Literal["local", "github"], *, pretrained: bool) -> Any:
    """Call the entry with ``pretrained``; without it if the entry lacks that argument and weights are requested."""
    options: dict[str, Any] = {"source": source, "trust_repo": True, "verbose": False}
    try:
        return torch.hub.load(repository, entry, pretrained=pretrained, **options)
    except TypeError as error:
        if "pretrained" not in str(error):
            raise
        if not pretrained:
            raise UsageError(
                f"hub entry {entry!r} has no argument 'pretrained', so it has no untrained form"
            ) from error
        return torch.hub.load(repository, entry, **options)


def _is_cached(repository: str) -> bool:
    owner_and_name = repository.partition(":")[0].replace("/", "_")
    return any(Path(torch.hub.get_dir()).glob(f"{owner_and_name}_*"))
