"""Ask model hubs for weights without a minute of retries and without their chatter."""

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

_CHATTY = ("huggingface_hub", "timm", "transformers", "open_clip", "root", "torch.hub", "httpx")
_PATIENCE = 5.0  # seconds to wait for a hub's first answer


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Libraries neither warn nor log inside; what matters reaches the user as an error or as our own line."""
    loggers = [logging.getLogger(name if name != "root" else None) for name in _CHATTY]
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
    """Whether a server answers at all; assumed so behind a proxy, which this does not ask."""
    if urllib.request.getproxies().get("https") and not urllib.request.proxy_bypass(host):
        return True
    try:
        socket.create_connection((host, 443), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


@contextmanager
def hugging_face_access() -> Iterator[None]:
    """Inside, the Hugging Face hub's files come from its cache alone when the hub cannot be reached."""
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
    """Why a hub's files cannot be had, from what its library raised."""
    said = " ".join(str(error).split())
    hub = isinstance(error, OSError) or "download" in said or "locate" in said
    return "not in the cache, and the hub cannot be reached or does not have them" if hub else said[:200]


def load_pretrained(kind: Any, name: str, source: str) -> Any:
    """A network of transformers' class ``kind`` in float32, all of its weights from a folder, the cache or the hub.

    source: what messages call it. Raises MissingError for weights that cannot be had, EncoscopeError for damaged or
    incomplete ones.
    """
    import torch

    try:
        network, info = kind.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except OSError as error:
        raise MissingError(f"the weights of {source} cannot be had ({explain_hub_error(error)})") from error
    except Exception as error:  # whatever a damaged file makes of safetensors, torch and pickle
        detail = " ".join(str(error).split())[:200]
        raise EncoscopeError(f"{source} cannot be loaded: {detail or type(error).__name__}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise EncoscopeError(f"the weights of {source} lack {len(missing)} tensors, {missing[0]} among them")
    return network


def missing_weights_error(source: str, reason: str) -> MissingError:
    """The error for pretrained weights that cannot be had, with what to do."""
    return MissingError(
        f"the weights of {source} cannot be had ({reason}): "
        "give a file (--checkpoint FILE) or use random weights (--untrained)"
    )


def torch_hub_file_available(url: str) -> bool:
    """Whether a file of torch's own download cache is there already, or can be fetched."""
    import torch

    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    return cached.exists() or is_reachable(urlparse(url).hostname or "")
