"""What a server takes from a stranger, and what it tells browsers to refuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on an upload.

    Attributes:
        bytes: Of the file.
        pixels: Of the image, read from its header before it is decoded.
        seconds: For the upload to arrive, and as many again for the answer.
        waiting: How many uploads may wait while another is worked on; more are told to come back.
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


def parse_host(header: str) -> str:
    """The name in a Host header.

    Args:
        header: The header's value.

    Returns:
        The name without its port, in lower case.

    Example:
        >>> parse_host("LOCALHOST:8765"), parse_host("[::1]:8765")
        ('localhost', '[::1]')
    """
    if header.startswith("["):  # an IPv6 address
        return header.partition("]")[0].lower() + "]"
    return header.partition(":")[0].lower()


def list_allowed_hosts(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The names a server answers to; a page elsewhere whose name is made to point here has none of them.

    Args:
        host: The address that the server listens on.
        more: Other names.

    Returns:
        The names in lower case. With an address of all interfaces "*" is among them: any literal address is allowed,
        see ``is_host_allowed``.
    """
    names = {"127.0.0.1", "localhost", "[::1]", *(name.lower() for name in more)}
    if host not in ("0.0.0.0", "::"):
        names.add(f"[{host.lower()}]" if ":" in host else host.lower())
    else:
        names.add("*")
    return frozenset(names)


def is_host_allowed(header: str, names: frozenset[str]) -> bool:
    """Whether a Host header is one of the names that a server answers to.

    Args:
        header: The header's value.
        names: What ``list_allowed_hosts`` gave; with "*" among them any literal address is allowed, too.

    Returns:
        True when it is.
    """
    import ipaddress

    name = parse_host(header)
    if name in names:
        return True
    if "*" not in names:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
