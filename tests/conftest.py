"""What all tests share: real data where it is, the photos that come inside scikit-image's and scikit-learn's wheels."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # small networks: threads would only wait


def need(what: str, reason: str) -> NoReturn:
    """Skip, or fail where ENCOSCOPE_REQUIRE (a comma-separated list) says that ``what`` must be there."""
    if what in os.environ.get("ENCOSCOPE_REQUIRE", "").split(","):
        pytest.fail(f"ENCOSCOPE_REQUIRE asks for {what}: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real photos that ENCOSCOPE_DATA points to."""
    named = os.environ.get("ENCOSCOPE_DATA")
    if not named:
        need("data", "ENCOSCOPE_DATA is not set: it points to a folder of real photos")
    root = Path(named or "")
    if not root.is_dir():
        need("data", f"ENCOSCOPE_DATA points to {root}, which is no folder")
    return root


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command line gives the library's logger handlers and a level: they are gone after the test."""
    logger = logging.getLogger("encoscope")
    before = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = before


def _inside(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *parts)


@pytest.fixture(scope="session")
def image_paths() -> dict[str, Path]:
    """Real photos by name: chelsea 451 x 300, coffee 600 x 400, astronaut 512 x 512, china and flower 640 x 427."""
    paths = {name: _inside("skimage", "data", f"{name}.png") for name in ("chelsea", "coffee", "astronaut")}
    return paths | {name: _inside("sklearn", "datasets", "images", f"{name}.jpg") for name in ("china", "flower")}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright. Debian's own is taken: playwright's would have to be downloaded."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        need("browser", "playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        need("browser", "there is no chromium: apt-get install chromium")
    with sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            need("browser", f"chromium does not start: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes on one thread, so that sums are in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
