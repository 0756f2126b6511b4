"""The atlas: seconds until 10,000 features are shown and searched in a browser, and what the pages cost to write."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 5


def run() -> list[dict[str, Any]]:
    """Two rows from a browser, if there is one, and one from a build, if there are photos."""
    return [*_browsing(), *_writing()]


def _browsing() -> list[dict[str, Any]]:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support import atlas_records

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("no chromium: the pages are not measured\n")
        return []
    opened, answered, nodes = [], [], 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        site = atlas_records.large_site(Path(folder) / "site")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(ROUNDS):
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(f"{site.as_uri()}/index.html")
            page.wait_for_selector(".card img")
            opened.append(time.perf_counter() - start)
            # from the key to the frame that shows the answer, as the page's own clock has it
            answered.append(
                page.evaluate(
                    """() => new Promise((resolve) => {
                        const search = document.getElementById("search");
                        const start = performance.now();
                        search.value = "quincunx";
                        search.dispatchEvent(new Event("input"));
                        requestAnimationFrame(() => setTimeout(() => resolve((performance.now() - start) / 1000)));
                    })"""
                )
            )
            nodes = max(nodes, page.evaluate("document.getElementsByTagName('*').length"))
            page.close()
        browser.close()
    return [
        _row("a site of 10,000 features is open, of one second", statistics.median(opened), "< 1"),
        _row(f"a search in it is answered, of one second ({nodes} nodes)", statistics.median(answered), "< 1"),
    ]


def _writing() -> list[dict[str, Any]]:
    """The writer's share of a build with words and pictures of some features, segments of some photos."""
    root = os.environ.get("ENCOSCOPE_DATA")
    if not root or not Path(root, "caltech101").is_dir():
        sys.stderr.write("no photos (ENCOSCOPE_DATA): the writing is not measured\n")
        return []
    import encoscope
    from encoscope.atlas.build import build_atlas
    from encoscope.atlas.writer import Writer

    spent = {"seconds": 0.0, "depth": 0}
    for name in ("__init__", "add", "flush", "get", "save_image", "publish", "save_activations"):
        setattr(Writer, name, _timed(getattr(Writer, name), spent))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENCOSCOPE_CACHE"] = str(Path(folder) / "cache")
        start = time.perf_counter()
        encoder = encoscope.load("zoo:resnet-caltech101", device="cpu")
        images, site = f"caltech101:{root}/caltech101#train", Path(folder) / "site"
        build_atlas(encoder, images, site, features=8, classes=2, max_images=120, layers=("layer4",))
        total = time.perf_counter() - start
    methods = total - spent["seconds"]
    return [
        {
            "what": "writing pages, pictures and tables, of what the methods take (8 features, 2 classes, 120 photos)",
            "ratio": spent["seconds"] / methods,
            "target": "< 0.05",
            "seconds": {"writing": spent["seconds"], "methods": methods},
        }
    ]


def _timed(method: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        spent["depth"] += 1
        start = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            spent["depth"] -= 1
            if not spent["depth"]:  # calls within calls are in these seconds already
                spent["seconds"] += time.perf_counter() - start

    return timed


def _row(what: str, seconds: float, target: str) -> dict[str, Any]:
    return {"what": what, "ratio": seconds, "target": target, "seconds": {"median": seconds}}
