"""Where everything is in a site, and the form of the browser's shards: JSON inside one call, readable from both sides.

``index.html`` and ``assets/`` are the pages, ``manifest.json`` what made the site, ``features.parquet`` the table of
features, ``data/*.js`` the shards, ``images/ab/abcdef….webp`` the pictures, named by their content.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from encoscope import results
from encoscope.atlas.records import ClassRecord, ComparisonRecord, FeatureRecord, ImageRecord, Record
from encoscope.errors import EncoscopeError, MissingError

KIND = "atlas"
MANIFEST = "manifest.json"
TABLE = "features.parquet"
ACTIVATIONS = "activations.npz"
DATA, IMAGES, ASSETS = "data", "images", "assets"

KINDS: dict[str, type[Record]] = {
    "features": FeatureRecord,
    "images": ImageRecord,
    "classes": ClassRecord,
    "comparisons": ComparisonRecord,
}
SHARD = {"features": 32, "images": 1, "classes": 8, "comparisons": 1}
"""Records a shard. A page loads one to read one record, so they are small; an image's label maps are large already."""

ROWS = 2000
"""Rows of the overview tables a shard."""

_CALL = "encoscope.shard("
_DETAILS = re.compile(r"(features|images|classes|comparisons)-(\d{6})\.js")


def shard_name(kind: str, number: int) -> str:
    """The name of a shard of records, of which ``SHARD[kind]`` share one."""
    return f"{kind}-{number:06d}"


def table_name(kind: str, number: int) -> str:
    """The name of a shard of an overview table."""
    return f"{kind}-table-{number:03d}"


def details(site: Path) -> dict[str, list[int]]:
    """The numbers of the shards of records that are there, by kind, in order."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    folder = site / DATA
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _DETAILS.fullmatch(file.name)
        if match:
            found[match[1]].append(int(match[2]))
    return {kind: sorted(numbers) for kind, numbers in found.items()}


def write_shard(site: Path, name: str, content: Any) -> None:
    """Write a shard, whole or not at all. It is plain ASCII, so that it reads the same whatever a host says it is."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False)
    with results.atomic_write(site / DATA / f"{name}.js") as temporary:
        temporary.write_text(f"{_CALL}{json.dumps(name)},{body});\n", encoding="ascii")


def read_shard(site: Path, name: str) -> Any:
    """What a shard holds. MissingError when there is none, EncoscopeError when it is damaged."""
    file = site / DATA / f"{name}.js"
    head = f"{_CALL}{json.dumps(name)},"
    try:
        text = file.read_text(encoding="ascii")
        if not (text.startswith(head) and text.endswith(");\n")):
            raise ValueError("it is no call of encoscope.shard")
        return json.loads(text[len(head) : -3])
    except FileNotFoundError as error:
        raise MissingError(f"the atlas has no shard {name}: {file}") from error
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"{file} is damaged ({error}): build the atlas again") from error


def write_pages(site: Path) -> None:
    """Put the pages into a site: ``index.html`` and its assets, as they ship with the package."""
    sources = {file.name: file.read_bytes() for file in (resources.files("encoscope.atlas") / "pages").iterdir()}
    digest = hashlib.sha256(b"".join(sources[name] for name in sorted(sources))).hexdigest()[:12]
    for name, content in sources.items():
        target = site / ASSETS / name
        if name == "index.html":  # the digest makes browsers take new assets with a new page
            target, content = site / name, content.replace(b"@VERSION@", digest.encode())
        if not target.is_file() or target.read_bytes() != content:
            with results.atomic_write(target) as temporary:
                temporary.write_bytes(content)
