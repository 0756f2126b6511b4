"""What is explained: a channel, a group or direction of them, a pooled feature, a class, and its value on an image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from encoscope.encoder import Activation, Encoder, Observation
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest

_IMAGENET = 1000  # classes
_WORDNET = re.compile(r"n\d{8}")  # a noun's number in WordNet, as ImageNet's folders are called

UnitKind: TypeAlias = Literal["channel", "group", "direction", "token", "features", "class"]


@dataclass(frozen=True)
class Unit:
    """One thing to explain; made by ``parse``, ``channel_unit`` or ``direction_unit``.

    text: as the user wrote it; results name it so. kind: "channel", "group" and "direction" live in a layer's maps,
    "token" in its class token, "features" in the pooled representation, "class" in the logits.
    layer: its layer; None for "features" and "class". channels: indices of channels, features, or of the class.
    direction: one number a channel (or feature) in place of ``channels``.
    """

    text: str
    kind: UnitKind
    layer: str | None = None
    channels: tuple[int, ...] = ()
    direction: tuple[float, ...] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def index(self) -> int:
        """The one channel, feature or class; UsageError for groups and directions."""
        if len(self.channels) != 1:
            raise UsageError(f"{self.text} is not a single channel, feature or class")
        return self.channels[0]

    @property
    def space(self) -> str:
        """The representation whose channels the unit is made of: "features", "logits", a layer's name, or LAYER@cls."""
        if self.kind == "features":
            return "features"
        if self.kind == "class":
            return "logits"
        return f"{self.layer}@cls" if self.kind == "token" else str(self.layer)

    @property
    def unit_vector(self) -> Float32[np.ndarray, " channels"]:
        """The direction, scaled to length 1; UsageError for a unit without one."""
        if self.direction is None:
            raise UsageError(f"{self.text} is no direction")
        vector = np.asarray(self.direction, dtype=np.float32)
        return vector / np.linalg.norm(vector)

    @overload
    def activation(
        self, values: Float[np.ndarray, "_images _channels"], *, normalized: bool = False
    ) -> Float[np.ndarray, " _images"]: ...
    @overload
    def activation(
        self, values: Float[Tensor, "_images _channels"], *, normalized: bool = False
    ) -> Float[Tensor, " _images"]: ...
    def activation(self, values: Any, *, normalized: bool = False) -> Any:
        """Compute the unit's value on images from the values of its space's channels.

        Args:
            values: ``[images, channels]``, an array or a tensor: every channel of the unit's ``space`` on each image.
                The result of a tensor is differentiable.
            normalized: Scale a direction to length 1, as FALCON does for values that have length 1 themselves. It
                changes no other kind of unit.

        Returns:
            One value for each image: of a channel, feature or class its column; of a group the sum of its columns;
            of a direction the dot product with it.

        Example:
            >>> Unit("layer4:0,2", "group", "layer4", (0, 2)).activation(np.array([[1.0, 2.0, 3.0]])).tolist()
            [4.0]
        """
        if self.direction is None:
            columns = values[:, list(self.channels)]
            return columns.sum(1) if isinstance(columns, Tensor) else np.asarray(columns).sum(1)
        vector = self.unit_vector if normalized else self.direction
        if isinstance(values, Tensor):
            return values @ torch.tensor(vector, dtype=values.dtype, device=values.device)
        return np.asarray(values) @ np.asarray(vector, dtype=np.float32)


def parse_unit(text: str | Unit, encoder: Encoder) -> Unit:
    """The unit that a text names, checked against the encoder.

    ``layer4:485`` a channel; ``layer4:12,97`` a group; ``layer4@direction.npy`` a direction, a file of one number a
    channel; ``blocks.7@cls:12`` a channel of the class token; ``features:31`` (also a group or ``@FILE``) of the pooled
    representation, what FALCON means by a feature; ``class:207`` the class of that index, ``class:golden retriever``
    one by name, whatever its case, ``_`` standing for a space.

    Raises UsageError for what is not there or is ambiguous, naming the nearest; MissingError for a missing file.
    """
    if isinstance(text, Unit):
        return text
    place, mark, rest = _split(text)
    if place == "class" and mark == ":":
        return Unit(text, "class", channels=(_class_index(rest, encoder),))
    if place == "features":
        if mark == "@":
            return Unit(text, "features", direction=_direction(rest, encoder.width, "features"))
        return Unit(text, "features", channels=_indices(rest, encoder.width, text, "features"))
    info = encoder.layer(place)
    if mark == "@" and rest.startswith("cls:"):
        if not info.prefix:
            raise UsageError(f"layer {place!r} has no class token: name a channel as {place}:{rest[4:]}")
        return Unit(text, "token", place, _one(rest[4:], info.channels, text))
    if mark == "@":
        return Unit(text, "direction", place, direction=_direction(rest, info.channels, f"channels of {place}"))
    indices = _indices(rest, info.channels, text, f"channels of {place}")
    return Unit(text, "channel" if len(indices) == 1 else "group", place, indices)


def channel_unit(layer: str, channel: int) -> Unit:
    """The unit of one channel of a layer; neither is checked."""
    return Unit(f"{layer}:{channel}", "channel", layer, (channel,))


def direction_unit(layer: str, direction: Sequence[float] | np.ndarray | Tensor, text: str) -> Unit:
    """The unit of a direction in a layer's channel space, under a name of one's own."""
    vector = np.asarray(direction, dtype=np.float64)
    return Unit(text, "direction", layer, direction=tuple(vector.tolist()))


def unit_weights(unit: Unit, encoder: Encoder) -> Float[Tensor, " channels"]:
    """The unit as a vector over its layer's channels, the features or the classes: ones at its indices, or itself."""
    if unit.direction is not None:
        return torch.tensor(unit.direction, dtype=torch.float32)
    if unit.layer is not None:
        width = encoder.layer(unit.layer).channels
    else:
        width = (encoder.outputs or 0) if unit.kind == "class" else encoder.width
    vector = torch.zeros(width)
    vector[list(unit.channels)] = 1
    return vector


def required_outputs(units: Iterable[Unit]) -> dict[str, Any]:
    """What ``Encoder.observe`` has to be asked for to measure the units: its layers, features and logits."""
    units = list(units)
    kinds = {unit.kind for unit in units}
    layers = list(dict.fromkeys(unit.layer for unit in units if unit.layer is not None))
    return {"layers": layers, "features": "features" in kinds, "logits": "class" in kinds}


def compute_values(seen: Observation, units: Sequence[Unit]) -> Float[Tensor, "batch units"]:
    """The units' values on the images of an observation; differentiable where that is.

    The spatial mean of a channel over the map (over the patch tokens of a transformer); of a group the sum over its
    channels; of a direction the mean dot product; of a token unit the class token's channel; of a feature its pooled
    value; of a class its logit. ``seen`` must hold what ``needs`` says.
    """
    pooled: dict[str, Tensor] = {}
    columns = []
    for unit in units:
        if unit.space not in pooled:
            pooled[unit.space] = _pool(seen, unit)
        columns.append(unit.activation(pooled[unit.space]))
    return torch.stack(columns, 1)


def measure_units(encoder: Encoder, images: Any, units: Sequence[Unit]) -> Float[Tensor, "batch units"]:
    """The units' values on images (a Batch, a normalised tensor, or what ``Encoder.prepare`` takes), in one pass."""
    return compute_values(encoder.observe(images, **required_outputs(units)), units)


def _pool(seen: Observation, unit: Unit) -> Tensor:
    """[B, channels]: what a unit's kind reads its channels from."""
    if unit.kind == "class" or unit.kind == "features":
        found = seen.logits if unit.kind == "class" else seen.features
        if found is None:
            raise UsageError(f"{unit.text} needs {'logits' if unit.kind == 'class' else 'features'}: see needs")
        return found
    if unit.layer is None or unit.layer not in seen.activations:
        raise UsageError(f"{unit.text} needs layer {unit.layer!r}: see needs")
    activation: Activation = seen.activations[unit.layer]
    if unit.kind != "token":
        return activation.maps.mean((2, 3))
    if activation.prefix is None:
        raise UsageError(f"layer {unit.layer!r} has no class token")
    return activation.prefix[:, 0]


def _split(text: str) -> tuple[str, str, str]:
    """A unit's text as (layer, ":" or "@", the rest)."""
    marks = [place for place in (text.find(":"), text.find("@")) if place > 0]
    if not marks or min(marks) == len(text) - 1:
        raise UsageError(
            f"{text!r} names no unit: write LAYER:CHANNEL (layer4:485), LAYER@FILE.npy, features:31 or class:NAME"
        )
    return text[: min(marks)], text[min(marks)], text[min(marks) + 1 :]


def _indices(text: str, width: int, unit: str, what: str) -> tuple[int, ...]:
    """Distinct indices below ``width``, from a text with commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{unit!r} names no unit: after the colon come numbers with commas between them")
    found = tuple(int(part) for part in parts)
    high = [index for index in found if index >= width]
    if high:
        raise UsageError(f"{unit!r} is out of range: there are {width} {what}, 0 to {width - 1}")
    if len(set(found)) < len(found):
        raise UsageError(f"{unit!r} names an index twice")
    return found


def _one(text: str, width: int, unit: str) -> tuple[int, ...]:
    found = _indices(text, width, unit, "channels of the class token")
    if len(found) > 1:
        raise UsageError(f"{unit!r} names several channels: a class token's unit is a single one")
    return found


def _direction(text: str, width: int, what: str) -> tuple[float, ...]:
    """The vector in a .npy file: ``width`` finite numbers, not all zero."""
    file = Path(text).expanduser()
    try:
        vector = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"no direction file {os.fspath(file)}") from None
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error
    vector = np.squeeze(np.asarray(vector))
    if vector.shape != (width,) or vector.dtype.kind not in "fiu":
        raise UsageError(f"{os.fspath(file)} holds {vector.dtype} {vector.shape}, not {width} numbers for the {what}")
    if not np.isfinite(vector).all() or not vector.any():
        raise UsageError(f"{os.fspath(file)} holds NaN or infinite numbers, or only zeros")
    return tuple(vector.astype(np.float64).tolist())


def _class_index(text: str, encoder: Encoder) -> int:
    """The index of a class given by index or by name."""
    count = encoder.outputs
    if count is None:
        raise UsageError(f"{encoder.source} has no classification head, so it has no classes: use features:N")
    if text.isascii() and text.strip().isdigit():
        return _indices(text, count, f"class:{text}", "classes")[0]
    if encoder.classes is None:
        raise UsageError(f"{encoder.source} has no class names: use class:N with an index from 0 to {count - 1}")
    return find_class_index(text, encoder.classes)


def find_class_index(name: str, classes: Sequence[str]) -> int:
    """The place of a name among class names, whatever its case, ``_`` a space; one of comma-separated synonyms counts.

    Raises UsageError for a name that is not there (naming the nearest) or that several classes bear.
    """
    wanted = normalize_name(name)
    plain = [normalize_name(known) for known in classes]
    found = [index for index, known in enumerate(plain) if known == wanted] or [
        index for index, known in enumerate(plain) if wanted in [part.strip() for part in known.split(",")]
    ]
    if not found:
        raise UsageError(f"no class is called {name!r}{suggest_nearest(wanted, plain)}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} classes are called {name!r}: use an index, one of {', '.join(map(str, found))}")
    return found[0]


def normalize_name(name: str) -> str:
    """A class name as it is compared: lower case, single spaces, none of ``_``."""
    return " ".join(name.replace("_", " ").casefold().split())


def find_class_label(encoder: Encoder, index: int, labels: Iterable[str]) -> str | None:
    """Which of a dataset's labels the images of a class bear; None where none is the class's.

    Its name, whatever the case, ``_`` a space. Where no label is the name of any class, as in folders called by
    WordNet's numbers: its number, for ImageNet's 1,000 classes; else the label at its place in alphabetical order, if
    there are as many labels as classes. Raises UsageError for labels that are no names and of another number.
    """
    known = sorted(set(labels))
    if encoder.classes is not None:
        named = {normalize_name(label): label for label in known}
        wanted = normalize_name(encoder.classes[index])
        if wanted in named or any(normalize_name(name) in named for name in encoder.classes):
            return named.get(wanted)
    if encoder.outputs == _IMAGENET and all(_WORDNET.fullmatch(label) for label in known):
        number = _wordnet()[index]
        return number if number in known else None
    if len(known) == encoder.outputs:
        return known[index]
    if encoder.classes is None:
        raise UsageError(
            f"{encoder.source} has no class names, and the images have {len(known)} labels for its {encoder.outputs} "
            f"classes: give images of class {index} alone, in a folder without subfolders"
        )
    return None


def find_class_images(encoder: Encoder, index: int, labels: Sequence[str | None]) -> list[int]:
    """Find the images of a class among labelled images.

    Args:
        encoder: A network with a classification head.
        index: The class, an index of the logits.
        labels: The label of each image, None for an image without one.

    Returns:
        The positions in ``labels`` of the label that stands for the class (see ``find_class_label``), whatever its
        case, ``_`` standing for a space; empty if none does.

    Raises:
        UsageError: Neither names nor the number of labels say which label is the class.
    """
    label = find_class_label(encoder, index, (known for known in labels if known is not None))
    if label is None:
        return []
    name = normalize_name(label)
    return [position for position, known in enumerate(labels) if known is not None and normalize_name(known) == name]


@cache
def _wordnet() -> tuple[str, ...]:
    """The WordNet numbers of ImageNet's 1,000 classes."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
