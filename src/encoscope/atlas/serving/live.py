"""An uploaded image, decoded in memory and parted as the atlas's own images are; nothing of it is kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from encoscope.atlas import trees
from encoscope.atlas.build import segmentation
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import class_text
from encoscope.atlas.codec import to_plain
from encoscope.atlas.reader import Atlas
from encoscope.atlas.records import CircuitLink, ImageSegmentation, LabelMap, Measure, SegmentationInfo
from encoscope.atlas.serving.limits import FORMATS, Limits
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.images import LoadedImage, SkippedImage, read_image
from encoscope.nave import Nave
from encoscope.units import Unit, measure_units, parse_unit

_TOP, _SAID = 8, 3


def decode(content: bytes, limits: Limits, channels: int) -> LoadedImage:
    """An uploaded file as a Photo. ImageError, in one line, for anything but an image within the limits."""
    if not content:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has more than {limits.pixels / 1e6:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("this is no JPEG, PNG, WebP, GIF or BMP image") from error
    except Exception as error:  # a parser trips over whatever it is given
        raise ImageError("this image cannot be read") from error
    if image.width * image.height > limits.pixels:
        raise ImageError(
            f"{image.width} x {image.height} are more than the {limits.pixels / 1e6:.0f} megapixels that are taken"
        )
    try:
        return read_image(image, channels=channels, max_pixels=limits.pixels)
    except EncoscopeError:
        raise
    except Exception as error:
        raise ImageError("this image cannot be read") from error


@dataclass
class Live:
    """Looks at photos as an atlas was made: the same layers, trees and fits. The encoder must be the atlas's own."""

    atlas: Atlas
    encoder: Encoder

    def __post_init__(self) -> None:
        model = self.atlas.manifest["model"] or {}
        if model.get("digest") != self.encoder.digest:
            raise UsageError(
                f"the atlas was made with other weights than {self.encoder.source} has: its model is "
                f"{model.get('source')} (digest {str(model.get('digest'))[:12]})"
            )

    @cached_property
    def _gauge(self) -> tuple[list[Unit], segmentation.Gauge]:
        """The atlas's units that can be measured here, with what is usual for them."""
        table = self.atlas.table().select(["unit", "mean", "std"]).to_pydict()
        units, means, stds = [], [], []
        for text, mean, std in zip(table["unit"], table["mean"], table["std"], strict=True):
            if mean is not None:
                units.append(parse_unit(text, self.encoder))
                means.append(mean)
                stds.append(std)
        return units, segmentation.Gauge.of(self.encoder, units, np.array(means), np.array(stds))

    @cached_property
    def _usual(self) -> tuple[np.ndarray, np.ndarray]:
        table = self.atlas.table().select(["mean", "std"]).to_pydict()
        known = [pair for pair in zip(table["mean"], table["std"], strict=True) if pair[0] is not None]
        mean, std = np.array(known, dtype=np.float64).reshape(-1, 2).T
        return mean, std

    @cached_property
    def _fits(self) -> dict[str, tuple[Nave, np.ndarray]]:
        found = {}
        for info in self.atlas.segmentations:
            if info.scope == "joint":
                nave = segmentation.load_fit(self.atlas.path, info, self.encoder)
                found[info.id] = (nave, segmentation.shared_tree(nave, info)[1])
        return found

    def look_at(self, content: bytes, limits: Limits) -> Mapping[str, Any]:
        """``look`` at an uploaded file. ImageError for anything but an image within the limits."""
        return self.look(decode(content, limits, self.encoder.preprocess.channels))

    def look(self, photo: LoadedImage) -> Mapping[str, Any]:
        """What the atlas would say of a photo, ready for JSON: its size, parts, standing-out features, predictions."""
        with torch.inference_mode():
            parts = tuple(self._parts(photo, info) for info in self.atlas.segmentations)
            return {
                "width": photo.width,
                "height": photo.height,
                "segmentations": to_plain(parts),
                "tops": to_plain(self._tops(photo)),
                "predictions": to_plain(self._said(photo)),
            }

    def _parts(self, photo: LoadedImage, info: SegmentationInfo) -> ImageSegmentation:
        merges: trees.Merges = ()
        if info.scope == "joint":
            nave, leaves = self._fits[info.id]
            (result,) = nave.predict_stream([photo], [len(leaves)])
            if isinstance(result, SkippedImage):
                raise ImageError(result.reason)
            labels = leaves[result[1].grid_labels]
        else:
            settings = self.atlas.manifest["settings"]
            (result,) = segmentation.alone(
                self.encoder, [photo], info.layers, int(settings["cells"]), int(self.atlas.manifest["seed"] or 0)
            )
            if isinstance(result, SkippedImage):
                raise ImageError(result.reason)
            _, labels, merges = result
        whole = merges or info.merges
        planes = self._gauge[1].planes(photo, (labels.shape[0], labels.shape[1]))
        tops = self._gauge[1].tops(planes, labels, whole, info.layers)
        return ImageSegmentation(info.id, LabelMap.of(labels), merges, tops)

    def _tops(self, photo: LoadedImage) -> tuple[CircuitLink, ...]:
        units = self._gauge[0]
        if not units:
            return ()
        mean, std = self._usual
        values = measure_units(self.encoder, photo, units)[0].double().cpu().numpy()
        scores = (values - mean) / np.where(std > 0, std, np.inf)
        best = [place for place in np.argsort(-scores, kind="stable")[:_TOP].tolist() if scores[place] > 0]
        return tuple(CircuitLink(units[place].text, Measure(float(f"{scores[place]:.4g}"), SIGMA)) for place in best)

    def _said(self, photo: LoadedImage) -> tuple[CircuitLink, ...]:
        if self.encoder.outputs is None:
            return ()
        shares = torch.softmax(self.encoder.logits(photo)[0].double(), 0).cpu().numpy()
        chance, name = 1 / len(shares), f"one of {len(shares)} classes at random"
        return tuple(
            CircuitLink(
                f"class:{class_text(self.encoder, index)}",
                Measure(float(f"{shares[index]:.4g}"), "probability", chance, name),
            )
            for index in np.argsort(-shares, kind="stable")[:_SAID].tolist()
        )
