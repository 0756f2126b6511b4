"""The server against strangers: paths, names, uploads of every bad kind, many at once; and an image segmented live."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope import Encoder, similar
from encoscope.atlas import open as open_atlas
from encoscope.atlas import trees
from encoscope.atlas.build import build_atlas
from encoscope.atlas.serving import Limits, create_app
from encoscope.atlas.serving.limits import is_host_allowed, list_allowed_hosts
from encoscope.atlas.serving.live import UploadAnalyzer
from encoscope.errors import UsageError
from support import atlas_records as synthetic
from support.atlas_browsing import Visit, served

LIMITS = Limits(bytes=300_000, pixels=250_000, seconds=20, waiting=3)


def network(seed: int = 3) -> Encoder:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    whole = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    return Encoder(whole, size=48, classes=("cat", "cup", "temple"), source="py:tiny")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, image_paths: dict[str, Path]) -> Iterator[Path]:
    """An atlas of a tiny network over six crops of two images; a secret lies beside it, and another inside."""
    root = tmp_path_factory.mktemp("served")
    (root / "images").mkdir()
    (root / "secret.txt").write_text("secret")
    for name in ("chelsea", "coffee"):
        with Image.open(image_paths[name]) as image:
            small = image.convert("RGB").resize((120, 90))
        for number in range(3):
            small.crop((number * 10, 0, number * 10 + 80, 64)).save(root / "images" / f"{name}{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCOSCOPE_CACHE", str(root / "cache"))
        made = build_atlas(
            network(),
            str(root / "images"),
            root / "site",
            features=4,
            classes="none",
            describe=False,
            visualize="none",
            cells=8,
            crops=2,
            progress=False,
        )
        (made / "notes.txt").write_text("secret")
        (made / "data" / "link.js").symlink_to(root / "secret.txt")
        yield made


@pytest.fixture(scope="module")
def base(site: Path) -> Iterator[str]:
    analyzer = UploadAnalyzer(open_atlas(site), network())
    with served(create_app(site, analyzer, limits=LIMITS)) as address:
        yield address


def raw(base: str, request: bytes, wait: float = 10) -> bytes:
    """The answer to bytes as they are: clients tidy up the paths and headers that are tried here."""
    place = urlsplit(base)
    with socket.create_connection((place.hostname, place.port), timeout=wait) as line:
        line.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it closes on a body that it did not read
            while part := line.recv(65536):
                answer += part
    return answer


def get(base: str, path: str, host: str = "127.0.0.1") -> bytes:
    return raw(base, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header promises so many pixels, whatever its data hold."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded_pixels(seed: int = 1, side: int = 64, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(synthetic.pixels(seed, side)).save(buffer, kind)
    return buffer.getvalue()


def post(base: str, content: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{base}/api/segment", content=content, headers=headers, timeout=60)


def test_the_sites_files_are_served_with_strict_headers(base: str, site: Path) -> None:
    names = ["", "index.html", "assets/core.js", "assets/atlas.css", "data/manifest.js", "data/features-000000.js"]
    names += [f"images/{file.parent.name}/{file.name}" for file in list((site / "images").rglob("*.webp"))[:3]]
    for name in names:
        found = httpx.get(f"{base}/{name}")
        assert found.status_code == 200 and found.content == (site / (name or "index.html")).read_bytes()
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert found.headers["x-content-type-options"] == "nosniff" and found.headers["x-frame-options"] == "DENY"
        assert found.headers["referrer-policy"] == "no-referrer"
    assert "script" not in httpx.get(f"{base}/docs").text and httpx.get(f"{base}/openapi.json").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/data/../../secret.txt",
        "/data/..%2f..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/..%5csecret.txt",
        "//etc/passwd",
        "/data//etc/passwd",
        "/data/link.js",
        "/notes.txt",
        "/.lock",
        "/nave/x/result.json",
        "/data/",
        "/data",
        "/images/../manifest.json",
        "/data/manifest.js%00.html",
        "/" + "a" * 3000,
        "/assets/%252e%252e/manifest.json",
    ],
)
def test_no_path_leads_out_of_the_site(base: str, path: str) -> None:
    answer = get(base, path)
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:80]
    assert b"secret" not in answer and b"root:" not in answer


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::2]", "localhost@evil"]
)
def test_other_names_are_refused(base: str, host: str) -> None:
    for answer in (get(base, "/data/manifest.js", host), get(base, "/", host)):
        assert answer.startswith(b"HTTP/1.1 400") and b"encoscope.shard" not in answer
    body = encoded_pixels()
    head = f"POST /api/segment HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert raw(base, head.encode() + body).startswith(b"HTTP/1.1 400")


def test_which_names_are_ours() -> None:
    mine = list_allowed_hosts("127.0.0.1")
    assert all(is_host_allowed(name, mine) for name in ("localhost:8765", "127.0.0.1", "[::1]:1", "LOCALHOST"))
    open_to_all = list_allowed_hosts("0.0.0.0", ["Atlas.lab"])
    assert all(is_host_allowed(name, open_to_all) for name in ("192.168.1.7:8765", "atlas.lab", "[fe80::1]"))
    assert not is_host_allowed("evil.example", open_to_all) and not is_host_allowed("192.168.1.7", mine)
    assert is_host_allowed("10.0.0.5:1", list_allowed_hosts("10.0.0.5"))


def test_an_image_is_segmented_as_the_atlas_segments_its_own(base: str, site: Path, tmp_path: Path) -> None:
    found = open_atlas(site)
    image = found.image(found.images[1])
    content = (site.parent / "images" / image.name).read_bytes()
    before = sorted(file for file in site.rglob("*"))
    answer = post(base, content)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["width"], said["height"]) == (80, 64)
    assert [part["segmentation"] for part in said["segmentations"]] == [
        part.segmentation for part in image.segmentations
    ]
    for ours, theirs in zip(said["segmentations"], image.segmentations, strict=True):
        assert ours["labels"]["runs"] == list(theirs.labels.runs)
        assert [tuple(pair) for pair in ours.get("merges", [])] == list(theirs.merges)
    assert [link["target"] for link in said["tops"]][:6] == [link.target for link in image.tops]
    assert said["predictions"][0]["target"] == image.predictions[0].target
    assert sorted(site.rglob("*")) == before  # nothing was kept


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 422, "empty"),
        (b"no image at all", 422, "no JPEG, PNG, WebP, GIF or BMP"),
        (b"GIF89a" + b"\xff" * 50, 422, ""),
        (encoded_pixels()[:200], 422, ""),
        (encoded_pixels(kind="TIFF"), 422, "no JPEG, PNG, WebP, GIF or BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "no JPEG"),
        (b"x" * (LIMITS.bytes + 1), 413, "MB are taken"),
        (encoded_pixels(side=600, kind="JPEG"), 422, "megapixels"),
        (png(60_000, 60_000, zlib.compress(b"\0" * 1000)), 422, "megapixels"),  # a bomb: 10 GB from 100 bytes
        (png(400, 400, zlib.compress(b"\0" * 100)), 422, ""),
    ],
    ids=["empty", "text", "gif", "cut", "tiff", "svg", "large", "pixels", "bomb", "short"],
)
def test_bad_uploads_are_one_clear_line(base: str, content: bytes, status: int, said: str) -> None:
    answer = post(base, content)
    assert answer.status_code == status and said in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text and "/" not in answer.json()["error"].replace("BMP/", "")
    assert post(base, encoded_pixels()).status_code == 200  # and the next one is taken


def test_a_body_that_never_ends_is_cut_off(base: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 65536

    with contextlib.suppress(httpx.HTTPError):  # the line may be closed on us, which will do
        assert post(base, endless()).status_code == 413
    head = f"POST /api/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {10**12}\r\n\r\n"
    assert raw(base, head.encode()).startswith(b"HTTP/1.1 413")


def test_uploads_that_are_slow_or_from_elsewhere(site: Path) -> None:
    analyzer = UploadAnalyzer(open_atlas(site), network())
    with served(create_app(site, analyzer, limits=Limits(seconds=0.5))) as base:
        place = urlsplit(base)
        with socket.create_connection((place.hostname, place.port), timeout=20) as line:
            line.sendall(b"POST /api/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc")
            began = time.monotonic()
            assert line.recv(1000).startswith(b"HTTP/1.1 503") and time.monotonic() - began < 15
        assert post(base, encoded_pixels(), Origin="http://evil.example").status_code == 403
        assert post(base, encoded_pixels(), Origin="null").status_code == 403
    with served(create_app(site)) as base:
        answer = post(base, encoded_pixels())
        assert answer.status_code == 503 and "--model" in answer.json()["error"]


def test_two_hundred_at_once(base: str, site: Path) -> None:
    """Pages for all of them; images for as many as may wait, and a clear answer for the rest; then all is as before."""
    content, expected = encoded_pixels(2), (site / "data" / "manifest.js").read_bytes()
    threads = threading.active_count()

    def ask(number: int) -> int:
        with httpx.Client(timeout=120) as client:
            if number % 2:
                found = client.get(f"{base}/data/manifest.js")
                assert found.content == expected
            else:
                found = client.post(f"{base}/api/segment", content=content)
                assert (
                    found.status_code == 200 or "try again" in found.json()["error"] or "long" in found.json()["error"]
                )
            return found.status_code

    with ThreadPoolExecutor(200) as pool:
        codes = list(pool.map(ask, range(200)))
    assert set(codes) <= {200, 503} and codes.count(200) > 100 and all(code == 200 for code in codes[1::2])
    assert post(base, content).status_code == 200
    assert threading.active_count() < threads + 60


def test_another_model_than_the_atlass_is_refused(site: Path) -> None:
    with pytest.raises(UsageError, match="made with other weights than py:tiny has"):
        UploadAnalyzer(open_atlas(site), network(4))


def test_dropping_an_image_in_the_browser(browser: Any, base: str, site: Path, tmp_path: Path) -> None:
    window = Visit(browser, base)
    page = window.open("#/live")
    assert "Up to 0.3 MB and 0.25 megapixels" in page.inner_text(".drop")
    file = tmp_path / "mine.png"
    file.write_bytes(encoded_pixels(5, 96))
    page.set_input_files("#file", file)
    page.wait_for_selector(".explorer .region")
    page.fill("#granularity", "9")
    layers = open_atlas(site).segmentations
    assert layers[0].scope == "image" and page.locator(".regions > li").count() == 9
    page.select_option("#layer", layers[-1].id)
    page.locator(".region").first.focus()
    page.wait_for_selector(".elsewhere a")  # the same cluster in the atlas's own images
    data = np.frombuffer(encoded_pixels(5, 96), dtype=np.uint8).tolist()
    page.evaluate(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            const drop = new DragEvent("drop", {dataTransfer: transfer, cancelable: true});
            document.querySelector(".drop").dispatchEvent(drop);
        }""",
        data,
    )
    page.wait_for_selector(".explorer .region")
    assert window.problems == []
    file.write_bytes(b"no image")
    page.set_input_files("#file", file)
    page.wait_for_selector("text=this is no JPEG")
    assert page.locator(".explorer").count() == 0
    assert [problem for problem in window.problems if "422" not in problem] == []
    file.write_bytes(b"x" * 400_000)  # refused where it is, before anything is sent
    page.set_input_files("#file", file)
    page.wait_for_selector("text=This file has 0.4 MB; at most 0.3 are taken.")
    window.close()


def ask_place(base: str, content: Any, **query: Any) -> httpx.Response:
    return httpx.post(f"{base}/api/similar", params=query, content=content, timeout=60)


def test_a_place_is_compared_as_similar_compares_it(base: str, site: Path) -> None:
    content, atlas = encoded_pixels(5, 96), open_atlas(site)
    info = atlas.segmentations[-1]
    answer = ask_place(base, content, x=70, y=20, segmentation=info.id)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    options: dict[str, Any] = {"layers": list(info.layers), "resolution": int(atlas.manifest["settings"]["cells"])}
    assert int(info.settings["size"]) == 2 * 48  # as similar's default
    expected = similar(network(), synthetic.pixels(5, 96), at=(70, 20), weighting="equal", **options)
    values = np.array(said["values"]).reshape(said["rows"], said["columns"])
    np.testing.assert_allclose(values, expected.query.values, atol=2e-3)
    assert said["typical"] == pytest.approx(expected.typical, abs=2e-3) and said["layers"] == list(info.layers)
    assert values.max() == pytest.approx(1, abs=1e-3)
    first = ask_place(base, content, x=70, y=20, segmentation="no such one").json()
    assert first["layers"] == list(atlas.segmentations[0].layers)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"x": 64, "y": 3}, "outside of the image, which is 64 x 64"),
        ({"x": 3, "y": -1}, "outside of the image"),
        ({"x": "nan", "y": 3}, "a point"),
        ({"x": "1e400", "y": 3}, "a point"),
        ({"x": "left", "y": 3}, "two numbers"),
        ({"x": 3}, "two numbers"),
        ({}, "two numbers"),
    ],
)
def test_what_is_no_place_is_one_clear_line(base: str, query: dict[str, Any], said: str) -> None:
    answer = ask_place(base, encoded_pixels(), **query)
    assert answer.status_code == 422 and said in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_places_have_the_limits_of_uploads(base: str, site: Path) -> None:
    assert ask_place(base, b"x" * (LIMITS.bytes + 1), x=1, y=1).status_code == 413
    assert "no JPEG" in ask_place(base, b"no image at all", x=1, y=1).json()["error"]
    headers = {"Origin": "http://evil.example"}
    assert httpx.post(f"{base}/api/similar?x=1&y=1", content=encoded_pixels(), headers=headers).status_code == 403
    with served(create_app(site)) as other:
        assert "--model" in ask_place(other, encoded_pixels(), x=1, y=1).json()["error"]


def test_pointing_at_a_place_in_the_browser(browser: Any, base: str, tmp_path: Path) -> None:
    window = Visit(browser, base)
    page = window.open("#/live")
    file = tmp_path / "mine.png"
    file.write_bytes(encoded_pixels(5, 96))
    page.set_input_files("#file", file)
    page.wait_for_selector(".similar-stage")
    stage = page.locator(".similar-stage")
    box = stage.bounding_box()
    assert box is not None
    stage.click(position={"x": box["width"] * 0.755, "y": box["height"] * 0.255})
    page.wait_for_selector("text=Cosine with 72, 24 (column, row)")
    said = ask_place(base, encoded_pixels(5, 96), x=72, y=24).json()
    # what is drawn is what the server says: the place is the brightest of its cells
    shown = page.evaluate(
        """() => {
            const canvas = document.querySelector(".similar-stage canvas");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return {rows: canvas.height, columns: canvas.width, green: [...data].filter((_, i) => i % 4 === 1)};
        }"""
    )
    assert (shown["rows"], shown["columns"]) == (said["rows"], said["columns"])
    brightest = int(np.argmax(shown["green"]))
    assert said["values"][brightest] >= 0.97 * max(said["values"])
    page.focus(".similar-stage")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Cosine with 70, 24 (column, row)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and window.problems == []
    window.close()


def test_cuts_of_an_upload_are_those_of_its_tree(base: str) -> None:
    part = json.loads(post(base, encoded_pixels(7)).text)["segmentations"][0]
    merges = [tuple(pair) for pair in part["merges"]]
    assert [len(set(trees.cut_tree(merges, 20, k).tolist())) for k in range(1, 21)] == list(range(1, 21))
