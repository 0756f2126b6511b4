"""Load weights from model hubs without long retries, and without their libraries' log messages."""

from __future__ import annotations

import logging
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from encoscope.errors import EncoscopeError, MissingError

_LIBRARIES = ("huggingface_hub", "timm", "transformers", "open_clip", "root", "torch.hub", "httpx")
_TIMEOUT = 5.0  # seconds to wait for a server's answer


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings and log messages of libraries for the block. Errors are raised as always.

    Yields:
        Nothing.
    """
    loggers = [logging.getLogger(name if name != "root" else None) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_reachable(host: str) -> bool:
    """Tell whether a server accepts connections.

    Args:
        host: Its name.

    Returns:
        Whether it answers within five seconds. True behind a proxy, which is not asked.
    """
    if urllib.request.getproxies().get("https") and not urllib.request.proxy_bypass(host):
        return True
    try:
        socket.create_connection((host, 443), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True


@contextmanager
def hugging_face_access() -> Iterator[None]:
    """Take the Hugging Face hub's files from its cache alone during the block if the hub cannot be reached.

    Yields:
        Nothing.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    host = urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    constants.HF_HUB_OFFLINE = before or not is_reachable(host)
    try:
        with quiet_libraries():
            yield
    finally:
        constants.HF_HUB_OFFLINE = before


def explain_hub_error(error: BaseException) -> str:
    """Explain why files of a hub are not available.

    Args:
        error: What the hub's library raised.

    Returns:
        The reason, for a message.
    """
    detail = " ".join(str(error).split())
    hub = isinstance(error, OSError) or "download" in detail or "locate" in detail
    return "not in the cache, and the hub cannot be reached or does not have them" if hub else detail[:200]


def load_pretrained(kind: Any, name: str, source: str) -> Any:
    """Load a network of transformers with all of its weights, in float32.

    Args:
        kind: The network's class in transformers.
        name: A folder, or a name on the hub.
        source: What messages call the network.

    Returns:
        The network.

    Raises:
        MissingError: For weights that are not available.
        EncoscopeError: For weights that are damaged or incomplete.
    """
    import torch

    try:
        network, info = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        raise MissingError(f"the weights of {source} are not available ({explain_hub_error(error)})") from error
    except Exception as error:  # whatever safetensors, torch and pickle raise for a damaged file
        detail = " ".join(str(error).split())[:200]
        raise EncoscopeError(f"{source} cannot be loaded: {detail or type(error).__name__}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise EncoscopeError(f"the weights of {source} lack {len(missing)} tensors, {missing[0]} among them")
    return network


def missing_weights_error(source: str, reason: str) -> MissingError:
    """Make the error for pretrained weights that are not available, with what the user can do.

    Args:
        source: The network's source string.
        reason: Why they are not available.

    Returns:
        The error, to be raised.
    """
    return MissingError(
        f"the weights of {source} are not available ({reason}): "
        "use a file (--checkpoint FILE) or random weights (--untrained)"
    )


def torch_hub_file_available(url: str) -> bool:
    """Tell whether a file is in torch's download cache, or its server can be reached.

    Args:
        url: The file's address.

    Returns:
        Whether it can be loaded.
    """
    import torch

    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    return cached.exists() or is_reachable(urlparse(url).hostname or "")
