"""The methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

from encoscope.discovery.lost import lost
from encoscope.discovery.ncut import maskcut, tokencut
from encoscope.discovery.result import Discovery
from encoscope.discovery.segments import felzenszwalb, grid, random_segments, slic
from encoscope.discovery.simple import dino_seg, pca
from encoscope.encoder import Encoder
from encoscope.errors import UsageError, nearest
from encoscope.images import Photo


@runtime_checkable
class Method(Protocol):
    """From an encoder and a photo to what is found there; methods without a network take None for the encoder."""

    def __call__(self, encoder: Encoder, photo: Photo, /) -> Discovery:
        """The boxes and masks of one photo, in its own pixels."""
        ...


METHODS: Mapping[str, Callable[..., Discovery]] = {
    "slic": slic,
    "felzenszwalb": felzenszwalb,
    "random": random_segments,
    "grid": grid,
    "pca": pca,
    "dino-seg": dino_seg,
    "lost": lost,
    "tokencut": tokencut,
    "maskcut": maskcut,
}


def method(name: str, **settings: Any) -> Method:
    """A discovery method with its settings, ready to be called on an encoder and a photo.

    Raises UsageError for an unknown name or a setting the method does not have.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{nearest(name, METHODS)}; there are {', '.join(METHODS)}")
    known = list(inspect.signature(METHODS[name]).parameters)[2:]
    wrong = next((setting for setting in settings if setting not in known), None)
    if wrong is not None:
        raise UsageError(f"{name} has no setting {wrong!r}{nearest(wrong, known)}; it has {', '.join(known)}")
    return partial(METHODS[name], **settings)
