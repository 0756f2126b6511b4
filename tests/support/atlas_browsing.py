"""A browser on an atlas: what it shows, and everything that went wrong on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Visit:
    """One window on one site. problems: messages of the console, errors, and requests that failed or went elsewhere."""

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.base = base
        self.problems: list[str] = []
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("requestfailed", lambda request: self._note("failed", request.url))
        self.page.on("request", self._request)
        self.page.on("response", lambda found: found.status >= 400 and self._note(str(found.status), found.url))

    def _note(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "blob:")):
            self._note("elsewhere", request.url)

    def open(self, route: str = "#/features") -> Any:
        """Go to a route, and wait for it to be drawn; gives the page."""
        self.page.goto(f"{self.base}/index.html{route}")
        return self.settled()

    def settled(self) -> Any:
        """The page, once the one that the address names is drawn."""
        self.page.wait_for_selector("main .page h1")
        self.wait("document.getElementById('main').dataset.drawn === location.hash.split('?')[0]")
        return self.page

    def heading(self) -> str:
        """The page's title as it is read."""
        return self.page.inner_text("h1")

    def wait(self, script: str, argument: Any = None) -> None:
        """Until a script gives something true; asked for again and again, since pages may not evaluate text."""
        deadline = time.monotonic() + 30
        while not self.page.evaluate(script, argument):
            assert time.monotonic() < deadline, f"still not true: {script}"
            self.page.wait_for_timeout(30)

    def count_loaded_images(self) -> int:
        """How many pictures there are, all of them loaded; those below the window are scrolled to first."""
        self.page.evaluate("for (const image of document.images) image.loading = 'eager'")
        self.wait("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        return self.page.evaluate("document.images.length")

    def close(self) -> None:
        self.context.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application on a free port of this machine; gives its address."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
