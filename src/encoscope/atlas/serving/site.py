"""Serve a site by one call, with the model that segments what is dropped on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from encoscope.atlas.reader import Atlas, open_atlas
from encoscope.atlas.serving.app import create_app, serve
from encoscope.atlas.settings import HOST, PORT
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import EncoscopeError, explain_calls

_log = logging.getLogger(__name__)


@explain_calls
def serve_atlas(
    site: str | os.PathLike[str],
    encoder: Encoder | nn.Module | str | None = None,
    *,
    host: str = HOST,
    port: int = PORT,
    names: Iterable[str] = (),
    load: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve an atlas until interrupted, with a page on which an image can be dropped to see its segmentation.

    Uploads are limited in bytes, pixels and time, decoded in memory and kept nowhere.

    Args:
        site: The folder of an atlas.
        encoder: The atlas's model, for live segmentation; None takes it from the zoo where the atlas's is of the zoo,
            and does without otherwise: no other name in an atlas is trusted.
        host: The address to listen on; any other than this machine's own lets others in.
        port: The port to listen on.
        names: Other names that the server answers to.
        load: Keyword arguments of ``encoscope.load``, where the encoder is a source.
        announce: Gets a line about the atlas and one with its address when the server starts.

    Raises:
        MissingError: When there is no atlas, or FastAPI is not installed.
        EncoscopeError: When the port is taken, or the model is not the atlas's.
    """
    atlas = open_atlas(site)
    model, reason = _find_encoder(atlas, encoder, load or {})
    analyzer = None
    if model is not None:
        from encoscope.atlas.serving.live import UploadAnalyzer

        analyzer = UploadAnalyzer(atlas, model)
    else:
        _log.warning(reason)
    app = create_app(site, analyzer, host=host, hosts=names, reason=reason)
    shown = f"[{host}]" if ":" in host else host
    announce(f"{atlas.summary}\nhttp://{shown}:{port}/ (Ctrl-C ends it)")
    serve(app, host=host, port=port)


def _find_encoder(
    atlas: Atlas, encoder: Encoder | nn.Module | str | None, load: Mapping[str, Any]
) -> tuple[Encoder | None, str]:
    """The model for uploads, or why there is none."""
    if encoder is not None:
        return as_encoder(encoder, **(load if isinstance(encoder, str) else {})), ""
    source = str((atlas.manifest["model"] or {}).get("source", ""))
    if not (source.startswith("zoo:") and "@" not in source):
        return None, f"no live segmentation: give the atlas's model with --model {source}"
    try:
        return as_encoder(source, **load), ""
    except EncoscopeError as error:
        return None, f"no live segmentation: {error}"
