"""The methods by name."""

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
    """From an encoder and a photo to what is found there; methods without a network take None for the encoder."""

    def __call__(self, encoder: Encoder | None, photo: LoadedImage, /) -> DiscoveredObjects:
        """The boxes and masks of one photo, in its own pixels."""
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


def get_base_name(name: str) -> str:
    """A method's name in METHODS: "sam" of "sam:FOLDER", any other as it is."""
    return "sam" if name.startswith("sam:") else name


def get_method(name: str, **settings: Any) -> DiscoveryMethod:
    """A discovery method with its settings, ready to be called on an encoder and a photo.

    name: of METHODS; "sam:WEIGHTS" is "sam" with ``weights``, which are loaded now.

    Raises UsageError for an unknown name or a setting the method does not have; for sam, what its weights raise.
    """
    if get_base_name(name) != name:
        name, settings = get_base_name(name), {"weights": name.partition(":")[2], **settings}
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{suggest_nearest(name, METHODS)}; there are {', '.join(METHODS)}")
    known = list(inspect.signature(METHODS[name]).parameters)[2:]
    wrong = next((setting for setting in settings if setting not in known), None)
    if wrong is not None:
        raise UsageError(f"{name} has no setting {wrong!r}{suggest_nearest(wrong, known)}; it has {', '.join(known)}")
    if name == "sam":  # weights that cannot be had are told of before the first photo
        load_sam(settings.get("weights", ""), settings.get("device", "cpu"))
    return partial(METHODS[name], **settings)
