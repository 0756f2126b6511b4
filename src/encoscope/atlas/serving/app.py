"""The server: the site's files and nothing else, and two routes that take an image."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope.atlas import layout
from encoscope.atlas.reader import open_atlas
from encoscope.atlas.serving.limits import HEADERS, TYPES, Limits, is_host_allowed, list_allowed_hosts
from encoscope.atlas.settings import HOST, PORT
from encoscope.errors import EncoscopeError, MissingError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from encoscope.atlas.serving.live import UploadAnalyzer

_FILES = re.compile(
    r"index\.html|manifest\.json|features\.parquet|assets/[a-z]+\.(?:js|css|svg)|data/[a-z-]+(?:\d+)?\.js"
    r"|images/[0-9a-f]{2}/[0-9a-f]{32}\.webp"
)
"""All names that a site has for its readers; anything else is not there, whatever lies in the folder."""

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}
_NO_MODEL = "This server has no model to segment images with: start it with --model."


def create_app(
    site: str | os.PathLike[str],
    analyzer: UploadAnalyzer | None = None,
    *,
    host: str = HOST,
    hosts: Iterable[str] = (),
    limits: Limits | None = None,
    reason: str = _NO_MODEL,
) -> FastAPI:
    """An ASGI application that serves a site.

    Args:
        site: The site's folder.
        analyzer: What analyzes uploads; without it the upload page says ``reason``.
        host: The address that it will listen on.
        hosts: Other names that it answers to.
        limits: On uploads; None takes the defaults.
        reason: Why uploads are not taken.

    Returns:
        The application.

    Raises:
        MissingError: There is no site, or FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request, Response
    except ImportError as error:
        raise MissingError("serving needs FastAPI and uvicorn: pip install encoscope[atlas]") from error
    root = Path(site).resolve()
    open_atlas(root)  # there is an atlas, of a format that is known
    bounds = limits or Limits()
    names = list_allowed_hosts(host, hosts)
    # no interactive documentation: it would load scripts from elsewhere
    app = FastAPI(title="Encoscope atlas", openapi_url=None, docs_url=None, redoc_url=None)
    turn = asyncio.Lock()
    queue = {"length": 0}

    def answer(status: int, content: Any, **headers: str) -> Response:
        return Response(
            json.dumps(content, allow_nan=False), status, {"Cache-Control": "no-store", **headers}, "application/json"
        )

    @app.middleware("http")
    async def guard(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
        if not is_host_allowed(request.headers.get("host", ""), names):
            response = answer(400, {"error": "this server does not answer to that name"})
        else:
            response = await following(request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    async def take_upload(request: Request, work: Callable[[UploadAnalyzer, bytes], Any]) -> Response:
        """Answer with what is worked out of an uploaded file, one file at a time."""
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("//")[2] != request.headers.get("host"):
            return answer(403, {"error": "uploads are taken from this server's own pages only"})
        if analyzer is None:
            return answer(503, {"error": reason})
        if queue["length"] > bounds.waiting:
            return answer(503, {"error": "too many images are waiting: try again in a moment"}, **{"Retry-After": "5"})
        queue["length"] += 1
        try:
            async with asyncio.timeout(bounds.seconds):
                content = await read_body(request)
            if content is None:
                return answer(413, {"error": f"at most {bounds.bytes / 1e6:.0f} MB are taken"}, Connection="close")
            async with asyncio.timeout(bounds.seconds):
                async with turn:
                    result = await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(work, analyzer, content)))
            return answer(200, result)
        except TimeoutError:
            return answer(503, {"error": "this took too long"}, Connection="close")
        except EncoscopeError as error:
            return answer(422, {"error": " ".join(str(error).split())})
        finally:
            queue["length"] -= 1

    async def segment(request: Request) -> Response:
        return await take_upload(request, lambda analyzer, content: analyzer.analyze_upload(content, bounds))

    async def similar(request: Request) -> Response:
        query = request.query_params
        point, name = (query.get("x", ""), query.get("y", "")), query.get("segmentation", "")
        return await take_upload(
            request, lambda analyzer, content: analyzer.find_similar(content, bounds, point, segmentation=name)
        )

    async def read_body(request: Request) -> bytes | None:
        """The body, or None when it is, or says it is, larger than the limit; no more than that is ever held."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > bounds.bytes:
            return None
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > bounds.bytes:
                return None
        return bytes(content)

    async def abilities(_: Request) -> Response:
        document = {
            "available": analyzer is not None,
            "reason": reason,
            "types": TYPES,
            "max_bytes": bounds.bytes,
            "max_pixels": bounds.pixels,
            "joint": analyzer is not None,
        }
        content = f'encoscope.shard("live",{json.dumps(document)});\n'
        return Response(content, 200, {"Cache-Control": "no-store"}, _KINDS[".js"])

    async def file(request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        target = root / name
        if not _FILES.fullmatch(name) or not target.is_file() or not target.resolve().is_relative_to(root):
            return answer(404, {"error": "there is no such file"})
        content = await asyncio.to_thread(target.read_bytes)
        # pictures are named by their content; everything else may be built anew at any time
        kept = "public, max-age=31536000, immutable" if name.startswith(layout.IMAGES) else "no-cache"
        return Response(content, 200, {"Cache-Control": kept}, _KINDS[target.suffix])

    # plain routes: what comes in is taken as it is, nothing is read out of annotations
    app.add_route("/api/segment", segment, methods=["POST"])
    app.add_route("/api/similar", similar, methods=["POST"])
    app.add_route("/data/live.js", abilities, methods=["GET"])
    app.add_route("/{name:path}", file, methods=["GET"])
    return app


def serve(app: FastAPI, *, host: str = HOST, port: int = PORT) -> None:
    """Serve until interrupted.

    Args:
        app: What ``create_app`` gave.
        host: The address to listen on.
        port: The port to listen on.

    Raises:
        EncoscopeError: The port is taken.
        MissingError: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingError("serving needs FastAPI and uvicorn: pip install encoscope[atlas]") from error
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise EncoscopeError(f"cannot listen on {host}:{port}: {error.strerror}; give another --port") from error
        settings = {"log_level": "warning", "server_header": False, "timeout_keep_alive": 5, "limit_concurrency": 512}
        server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=2, **settings))
        asyncio.run(server.serve([listening]))
