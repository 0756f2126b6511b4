"""What a server takes from a stranger, and what it tells browsers to refuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on an upload. bytes: of the file. pixels: of the image, read from its header before it is decoded.

    seconds: for the upload to arrive, and as many again for the answer. waiting: uploads that may wait for their turn;
    one is worked on at a time, and more are told to come back.
    """

    bytes: int = 16_000_000
    pixels: int = 24_000_000
    seconds: float = 30.0
    waiting: int = 8


TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Pillow's names of what is decoded: formats whose size stands in the header and whose decoders are in wide use."""

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_of(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    if header.startswith("["):  # an IPv6 address
        return header.partition("]")[0].lower() + "]"
    return header.partition(":")[0].lower()


def allowed_hosts(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The names a server answers to: a page elsewhere whose name is made to point here is none of them.

    A server that was told to listen on an address answers to it; one on all addresses to any that is an address, see
    ``is_allowed``, and to the names in ``more``.
    """
    names = {"127.0.0.1", "localhost", "[::1]", *(name.lower() for name in more)}
    if host not in ("0.0.0.0", "::"):
        names.add(f"[{host.lower()}]" if ":" in host else host.lower())
    else:
        names.add("*")
    return frozenset(names)


def is_allowed(header: str, names: frozenset[str]) -> bool:
    """Whether a Host header is one of these names; with "*" among them, also any literal address."""
    import ipaddress

    name = host_of(header)
    if name in names:
        return True
    if "*" not in names:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
