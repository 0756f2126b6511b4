"""The discovery methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

from encoscope.discovery.lost import lost
from encoscope.discovery.ncut import maskcut, tokencut
from encoscope.discovery.result import DiscoveredObjects
from encoscope.discovery.sam import load_sam, sam
from encoscope.discovery.segments import felzenszwalb, segment_by_grid, segment_randomly, slic
from encoscope.discovery.simple import dino_seg, pca
from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import LoadedImage


@runtime_checkable
class DiscoveryMethod(Protocol):
    """A function from an encoder and an image to objects; methods without a network take None for the encoder."""

    def __call__(self, encoder: Encoder | None, image: LoadedImage, /) -> DiscoveredObjects:
        """Find the objects or segments of one image; their boxes and masks are in the image's own pixels."""
        ...


METHODS: Mapping[str, Callable[..., DiscoveredObjects]] = {
    "slic": slic,
    "felzenszwalb": felzenszwalb,
    "random": segment_randomly,
    "grid": segment_by_grid,
    "pca": pca,
    "dino-seg": dino_seg,
    "lost": lost,
    "tokencut": tokencut,
    "maskcut": maskcut,
    "sam": sam,
}
"""The methods by name."""


def get_base_name(name: str) -> str:
    """Get a method's name in METHODS.

    Args:
        name: The method's name, also with weights after a colon.

    Returns:
        "sam" for "sam:FOLDER"; any other name unchanged.

    Example:
        >>> get_base_name("sam:weights/sam"), get_base_name("lost")
        ('sam', 'lost')
    """
    return "sam" if name.startswith("sam:") else name


def get_method(name: str, **settings: Any) -> DiscoveryMethod:
    """Get a discovery method with its settings.

    Args:
        name: A name of METHODS; "sam:WEIGHTS" is "sam" with these ``weights``, which are loaded at once.
        **settings: Settings of the method.

    Returns:
        The method, to be called on an encoder and an image.

    Raises:
        UsageError: For an unknown method or setting.
        MissingError: For weights of "sam" that are not available.

    Example:
        ``get_method("lost", k=50)(encoder, read_image("dog.jpg")).boxes``
    """
    if get_base_name(name) != name:
        name, settings = get_base_name(name), {"weights": name.partition(":")[2], **settings}
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{suggest_nearest(name, METHODS)}; there are {', '.join(METHODS)}")
    known = list(inspect.signature(METHODS[name]).parameters)[2:]
    wrong = next((setting for setting in settings if setting not in known), None)
    if wrong is not None:
        raise UsageError(f"{name} has no setting {wrong!r}{suggest_nearest(wrong, known)}; it has {', '.join(known)}")
    if name == "sam":  # an error in the weights is raised before the first image
        load_sam(settings.get("weights", ""), settings.get("device", "cpu"))
    return partial(METHODS[name], **settings)
