"""Where everything is in a site, and the form of the browser's shards: JSON inside one call, readable from both sides.

``index.html`` and ``assets/`` are the pages, ``manifest.json`` what the site was built from, ``features.parquet`` the
table of features, ``data/*.js`` the shards, ``images/ab/abcdef….webp`` the pictures, named by their content.
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
_RECORDS = re.compile(r"(features|images|classes|comparisons)-(\d{6})\.js")


def name_shard(kind: str, number: int) -> str:
    """The name of a shard of records.

    Args:
        kind: One of ``KINDS``.
        number: The shard's number; each holds ``SHARD[kind]`` records.

    Returns:
        Its name, without the ending of its file.

    Example:
        >>> name_shard("features", 3)
        'features-000003'
    """
    return f"{kind}-{number:06d}"


def name_table(kind: str, number: int) -> str:
    """The name of a shard of an overview table.

    Args:
        kind: One of ``KINDS``.
        number: The shard's number; each holds ``ROWS`` rows.

    Returns:
        Its name, without the ending of its file.

    Example:
        >>> name_table("features", 0)
        'features-table-000'
    """
    return f"{kind}-table-{number:03d}"


def list_shards(site: Path) -> dict[str, list[int]]:
    """The shards of records that a site holds.

    Args:
        site: The site's folder.

    Returns:
        For every kind the numbers of its shards, in order.
    """
    numbers: dict[str, list[int]] = {kind: [] for kind in KINDS}
    folder = site / DATA
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _RECORDS.fullmatch(file.name)
        if match:
            numbers[match[1]].append(int(match[2]))
    return {kind: sorted(entries) for kind, entries in numbers.items()}


def write_shard(site: Path, name: str, content: Any) -> None:
    """Write a shard, whole or not at all. It is plain ASCII, so that it reads the same whatever a host says it is.

    Args:
        site: The site's folder.
        name: The shard's name.
        content: What it holds, in JSON's own types.
    """
    body = json.dumps(content, separators=(",", ":"), allow_nan=False)
    with results.atomic_write(site / DATA / f"{name}.js") as temporary:
        temporary.write_text(f"{_CALL}{json.dumps(name)},{body});\n", encoding="ascii")


def read_shard(site: Path, name: str) -> Any:
    """The content of a shard.

    Args:
        site: The site's folder.
        name: The shard's name.

    Returns:
        What it holds, in JSON's own types.

    Raises:
        MissingError: There is no such shard.
        EncoscopeError: It is damaged.
    """
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
    """Put the pages into a site: ``index.html`` and its assets, as they ship with the package.

    Args:
        site: The site's folder.
    """
    sources = {file.name: file.read_bytes() for file in (resources.files("encoscope.atlas") / "pages").iterdir()}
    digest = hashlib.sha256(b"".join(sources[name] for name in sorted(sources))).hexdigest()[:12]
    for name, content in sources.items():
        target = site / ASSETS / name
        if name == "index.html":  # the digest makes browsers take new assets with a new page
            target, content = site / name, content.replace(b"@VERSION@", digest.encode())
        if not target.is_file() or target.read_bytes() != content:
            with results.atomic_write(target) as temporary:
                temporary.write_bytes(content)
