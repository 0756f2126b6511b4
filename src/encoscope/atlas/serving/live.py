"""An uploaded image, decoded in memory and segmented as the atlas's own images are; nothing of it is kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from encoscope.atlas.build import segmentation
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import name_class
from encoscope.atlas.codec import to_plain
from encoscope.atlas.reader import Atlas
from encoscope.atlas.records import CircuitLink, ImageSegmentation, LabelMap, Measure, SegmentationInfo
from encoscope.atlas.serving.limits import FORMATS, Limits
from encoscope.encoder import Encoder, gives_kept_outputs
from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.images import Channels, LoadedImage, SkippedImage, read_image
from encoscope.nave import Nave, similar
from encoscope.units import Unit, measure_units, parse_unit

_TOP, _PREDICTIONS = 8, 3


def decode_upload(content: bytes, limits: Limits, channels: Channels) -> LoadedImage:
    """Decode an uploaded file.

    Args:
        content: Of the file.
        limits: On its size.
        channels: Of the image that is returned.

    Returns:
        The image.

    Raises:
        ImageError: In one line, for anything but an image within the limits.
    """
    if not content:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has more than {limits.pixels / 1e6:.0f} megapixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("this is no JPEG, PNG, WebP, GIF or BMP image") from error
    except Exception as error:  # a parser may raise anything on damaged files
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
class UploadAnalyzer:
    """Analyzes images as an atlas was built: with the same layers, trees and joint fits.

    Attributes:
        atlas: The atlas.
        encoder: The encoder that it was built from.

    Raises:
        UsageError: The encoder is another one.
    """

    atlas: Atlas
    encoder: Encoder

    def __post_init__(self) -> None:
        model = self.atlas.manifest["model"] or {}
        if model.get("digest") != self.encoder.digest:
            raise UsageError(
                f"the atlas was made with other weights than {self.encoder.source} has: its model is "
                f"{model.get('source')} (digest {str(model.get('digest'))[:12]})"
            )
        kept = model.get("trial")
        if kept is not None and not gives_kept_outputs(self.encoder, kept):
            raise UsageError(
                f"the atlas was made with a network of the same weights that gives other outputs than "
                f"{self.encoder.source}: build it again"
            )

    def analyze_upload(self, content: bytes, limits: Limits) -> Mapping[str, Any]:
        """Analyze an uploaded file.

        Args:
            content: Of the file.
            limits: On its size.

        Returns:
            As ``analyze_image``.

        Raises:
            ImageError: For anything but an image within the limits.
        """
        return self.analyze_image(decode_upload(content, limits, self.encoder.preprocess.image_channels))

    def analyze_image(self, image: LoadedImage) -> Mapping[str, Any]:
        """What the atlas would say of an image.

        Args:
            image: The image.

        Returns:
            In JSON's own types: its size, segmentations, the features that stand out, and predictions.
        """
        with torch.inference_mode():
            segmentations = tuple(self._segment(image, info) for info in self.atlas.segmentations)
            return {
                "width": image.width,
                "height": image.height,
                "segmentations": to_plain(segmentations),
                "tops": to_plain(self._find_tops(image)),
                "predictions": to_plain(self._predict(image)),
            }

    def find_similar(
        self, content: bytes, limits: Limits, point: tuple[str, str], *, segmentation: str = ""
    ) -> Mapping[str, Any]:
        """Where the like of a place in an uploaded image is, by the features that a segmentation clusters.

        Args:
            content: Of the file.
            limits: On its size.
            point: x and y in pixels of the image, as they came in.
            segmentation: The segmentation's id; where the atlas has no such one, its first.

        Returns:
            In JSON's own types: the cosines on a grid, its size, what random places typically have, and the layers.

        Raises:
            ImageError: For anything but an image within the limits.
            UsageError: For a place that is not in the image, and an atlas without segmentations.
        """
        infos = self.atlas.segmentations
        if not infos:
            raise UsageError("this atlas has no segmentations, whose layers places are compared by")
        info = next((info for info in infos if info.id == segmentation), infos[0])
        try:
            x, y = (float(text) for text in point)
        except ValueError:
            raise UsageError("a place is two numbers, x and y") from None
        image = decode_upload(content, limits, self.encoder.preprocess.image_channels)
        cells, seed = int(self.atlas.manifest["settings"]["cells"]), int(self.atlas.manifest["seed"] or 0)
        maps = similar(
            self.encoder,
            image,
            at=(x, y),
            layers=list(info.layers),
            resolution=cells,
            weighting="equal",
            size=_read_size(info),
            random_state=seed,
            progress=False,
        )
        rows, columns = maps.query.values.shape
        values = maps.query.values.astype(np.float64).round(3).ravel().tolist()
        return {
            "rows": rows,
            "columns": columns,
            "values": values,
            "typical": round(maps.typical, 3),
            "layers": list(info.layers),
        }

    @cached_property
    def _values(self) -> tuple[list[Unit], np.ndarray, np.ndarray]:
        """The atlas's units that can be measured here, with their mean and standard deviation."""
        table = self.atlas.read_table().select(["unit", "mean", "std"]).to_pydict()
        rows = zip(table["unit"], table["mean"], table["std"], strict=True)
        known = [(parse_unit(text, self.encoder), mean, std) for text, mean, std in rows if mean is not None]
        mean, std = np.array([row[1:] for row in known], dtype=np.float64).reshape(-1, 2).T
        return [unit for unit, _, _ in known], mean, std

    @cached_property
    def _statistics(self) -> segmentation.UnitStatistics:
        return segmentation.UnitStatistics.select(self.encoder, *self._values)

    @cached_property
    def _fits(self) -> dict[str, tuple[Nave, np.ndarray]]:
        fits = {}
        for info in self.atlas.segmentations:
            if info.scope == "joint":
                nave = segmentation.load_fit(self.atlas.path, info, self.encoder)
                fits[info.id] = (nave, segmentation.extract_shared_tree(nave, info)[1])
        return fits

    def _segment(self, image: LoadedImage, info: SegmentationInfo) -> ImageSegmentation:
        segment = self._segment_jointly if info.scope == "joint" else self._segment_alone
        _, labels, merges = segment(image, info)
        maps = self._statistics.compute_maps(image, (labels.shape[0], labels.shape[1]))
        tops = self._statistics.find_tops(maps, labels, merges or info.merges, info.layers)
        return ImageSegmentation(info.id, LabelMap.from_array(labels), merges, tops)

    def _segment_jointly(self, image: LoadedImage, info: SegmentationInfo) -> segmentation.Segmented:
        nave, leaves = self._fits[info.id]
        (result,) = nave.predict_stream([image], [len(leaves)])
        if isinstance(result, SkippedImage):
            raise ImageError(result.reason)
        return image, leaves[result[1].grid_labels], ()

    def _segment_alone(self, image: LoadedImage, info: SegmentationInfo) -> segmentation.Segmented:
        cells, seed = int(self.atlas.manifest["settings"]["cells"]), int(self.atlas.manifest["seed"] or 0)
        size = _read_size(info)
        (result,) = segmentation.segment_alone(self.encoder, [image], info.layers, cells, seed, size)
        if isinstance(result, SkippedImage):
            raise ImageError(result.reason)
        return result

    def _find_tops(self, image: LoadedImage) -> tuple[CircuitLink, ...]:
        units, mean, std = self._values
        if not units:
            return ()
        values = measure_units(self.encoder, image, units)[0].double().cpu().numpy()
        scores = (values - mean) / np.where(std > 0, std, np.inf)
        best = [index for index in np.argsort(-scores, kind="stable")[:_TOP].tolist() if scores[index] > 0]
        return tuple(CircuitLink(units[index].text, Measure(float(f"{scores[index]:.4g}"), SIGMA)) for index in best)

    def _predict(self, image: LoadedImage) -> tuple[CircuitLink, ...]:
        if self.encoder.outputs is None:
            return ()
        shares = torch.softmax(self.encoder.logits(image)[0].double(), 0).cpu().numpy()
        chance, name = 1 / len(shares), f"one of {len(shares)} classes at random"
        return tuple(
            CircuitLink(
                f"class:{name_class(self.encoder, index)}",
                Measure(float(f"{shares[index]:.4g}"), "probability", chance, name),
            )
            for index in np.argsort(-shares, kind="stable")[:_PREDICTIONS].tolist()
        )


def _read_size(info: SegmentationInfo) -> int | str:
    """How large the network saw the images for a segmentation: its own size where the atlas does not say."""
    text = info.settings.get("size", "model")
    return int(text) if text.isdigit() else text
