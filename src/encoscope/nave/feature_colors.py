"""Colors for what an encoder computes: the first three principal components of composite features as red, green, blue.

The components are found on a sample of the pixels of all images, so a color means the same in all of them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import ImageError, UsageError, explain_calls
from encoscope.estimator import Estimator
from encoscope.images import LoadedImage, SkippedImage, read_image, read_images
from encoscope.nave.colored_image import ColoredImage
from encoscope.nave.composite import Composite, features_from_vectors
from encoscope.nave.features import EncodedImage, encode_stream
from encoscope.nave.inputs import ImageLike, is_single
from encoscope.nave.layers import choose_color_layers
from encoscope.nave.pca import find_components
from encoscope.nave.sample import PixelSample
from encoscope.nave.segmentation import model_of
from encoscope.nave.settings import (
    BATCH_SIZE,
    ColorSettings,
    Layers,
    NaveSettings,
    Resolution,
    Size,
    Upsampler,
    Weighting,
)
from encoscope.progress import Progress, track
from encoscope.results import ModelRecord, ResultList
from encoscope.settings import refuse_unknown
from encoscope.zoo.registry import DEFAULT_MODEL

BACKGROUND = 255
"""The grey value of pixels that are no foreground."""
N_COMPONENTS = 3
RANGE = (1.0, 99.0)
"""The percentiles of a component over the sample that become black and full color."""

_log = logging.getLogger(__name__)


class FeatureColors(Estimator):
    """Colors for the features of a set of images: alike features get a like color, in all of them.

    Args:
        encoder: The encoder; the default as in ``load``.
        preset: "default", "paper" or "authors".
        layers: As for ``segment``; by default two late blocks, on two grids.
        weighting: As for ``segment``.
        normalization: As for ``segment``.
        resolution: As for ``segment``.
        size: As for ``segment``.
        upsampler: As for ``segment``.
        foreground: "all", "high" or "low"; see `ColorSettings`.
        threshold: The foreground's threshold, in standard deviations of the first component; None is Otsu's.
        n_sample: Pixels that the components are found on.
        random_state: The seed of the sample.
        batch_size: Images at a time; it does not change the result.
        progress: None shows a bar on a terminal; True, False, or a callable.

    Attributes:
        mean_: The mean of the composite features of the sample.
        layers_: The layers that are read.
        components_: ``[3, dim]``, the principal components.
        explained_: The share of the sample's variance that each explains.
        ranges_: ``[3, 2]``, the values of each component that become no and full color.
        n_images_: The images that were read.

    Example:
        >>> colors = encoscope.FeatureColors("zoo:tf_efficientnet_lite0").fit("photos/")  # doctest: +SKIP
        >>> colors.transform(["new.jpg"])[0].save("new")  # doctest: +SKIP

    Source: The pictures of DINO's and DINOv2's features (Oquab et al., 2023, section 7.4), on NAVE's composite
    features.
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str = DEFAULT_MODEL,
        *,
        preset: str | None = None,
        layers: Layers | None = None,
        weighting: Weighting | None = None,
        normalization: str | None = None,
        resolution: Resolution | None = None,
        size: Size | None = None,
        upsampler: Upsampler | None = None,
        foreground: str | None = None,
        threshold: float | None = None,
        n_sample: int | None = None,
        random_state: int = NaveSettings.random_state,
        batch_size: int = BATCH_SIZE,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.layers = layers
        self.weighting = weighting
        self.normalization = normalization
        self.resolution = resolution
        self.size = size
        self.upsampler = upsampler
        self.foreground = foreground
        self.threshold = threshold
        self.n_sample = n_sample
        self.random_state = random_state
        self.batch_size = batch_size
        self.progress = progress

    def fit(self, X: Any, y: None = None) -> FeatureColors:
        """Find the components of a set of images, holding one batch at a time.

        Args:
            X: A folder, a dataset string, one image, a list of images, a torch Dataset, or a stream of images.
            y: Not used.

        Returns:
            Itself, fitted.

        Raises:
            UsageError: For settings that cannot be.
            ImageError: When no image can be read.
        """
        self.settings_ = ColorSettings.from_preset(
            self.preset, foreground=self.foreground, threshold=self.threshold, n_sample=self.n_sample
        )
        NaveSettings.without_layers(self.preset, weighting=self.weighting, resolution=self.resolution, size=self.size)
        if self.batch_size < 1:
            raise UsageError(f"batch_size is a number from 1 on, not {self.batch_size}")
        self.encoder_ = as_encoder(self.encoder)
        sample = PixelSample(self.settings_.n_sample, random_state=self.random_state)
        self.layers_ = self._nave_settings().layers
        self.n_images_ = 0
        for item in self._encode(track(self._read(X), None, "encoding", self.progress)):
            if isinstance(item, SkippedImage):
                _log.warning("left out: %s", item.reason)
                continue
            sample.partial_fit(item.features, [item.image.id])
            self.n_images_ += 1
        if not self.n_images_:
            raise ImageError("there was no image to color")
        self._find_components(sample.finalize(self.encoder_.device))
        return self

    def transform(self, X: Any) -> ResultList[ColoredImage]:
        """Color images by the components of the fit.

        Args:
            X: As for ``fit``.

        Returns:
            The colored images, in their order.

        Raises:
            UsageError: When it is not fitted.
            ImageError: For an image that cannot be read.
        """
        self._check_fitted()
        colored: ResultList[ColoredImage] = ResultList()
        for result in self.transform_stream(self._read(X)):
            if isinstance(result, SkippedImage):
                raise ImageError(result.reason)
            colored.append(result[1])
        return colored

    def fit_transform(self, X: Any, y: None = None) -> ResultList[ColoredImage]:
        """Find the components of a set of images, and color the same images.

        Args:
            X: As for ``fit``; not a one-shot iterator, as it is read twice.
            y: Not used.

        Returns:
            The colored images, in their order.

        Raises:
            UsageError: As for ``fit``, and for a one-shot iterator.
            ImageError: For an image that cannot be read.
        """
        if hasattr(X, "__next__"):
            raise UsageError("a one-shot iterator cannot be read again: give a list")
        return self.fit(X).transform(X)

    def transform_stream(
        self, items: Iterable[LoadedImage | SkippedImage]
    ) -> Iterator[tuple[LoadedImage, ColoredImage] | SkippedImage]:
        """Color a stream of images of any length, in its order.

        Args:
            items: Images, and images that could not be read.

        Yields:
            An image with its colors; what could not be read comes back as it is.

        Raises:
            UsageError: When it is not fitted.
        """
        self._check_fitted()
        model = model_of(self.encoder_, self.layers_)()
        for item in self._encode(items):
            yield item if isinstance(item, SkippedImage) else (item.image, self._color(item, model))

    def _find_components(self, sample: Composite) -> None:
        """Find the axes and ranges of the colors, and what is foreground, on a sample of pixels."""
        mean, axes, explained = find_components(sample, N_COMPONENTS)
        self.split_: tuple[np.ndarray, np.ndarray, float] | None = None
        if self.settings_.foreground != "all":
            first = project(sample, mean, axes[:1])[:, 0]
            threshold = self.settings_.threshold
            value = find_otsu_threshold(first) if threshold is None else threshold * float(first.std())
            sign = 1.0 if self.settings_.foreground == "high" else -1.0
            self.split_ = (mean, sign * axes[:1], sign * value)
            inside = torch.from_numpy(np.flatnonzero(self._is_foreground(sample))).to(sample.device)
            if len(inside) <= N_COMPONENTS:
                raise UsageError("no pixel of the images is foreground: give another threshold")
            sample = features_from_vectors(sample.rows(inside[None])[0])
            mean, axes, explained = find_components(sample, N_COMPONENTS)
        self.mean_, self.components_, self.explained_ = mean, axes, explained
        self.ranges_ = np.percentile(project(sample, mean, axes), RANGE, axis=0).T

    def _is_foreground(self, features: Composite) -> Bool[np.ndarray, " pixels"]:
        if self.split_ is None:
            return np.ones(features.pixels, dtype=bool)
        mean, axis, threshold = self.split_
        return project(features, mean, axis)[:, 0] > threshold

    def _show_foreground(self, item: EncodedImage) -> Bool[np.ndarray, "height width 1"]:
        """The foreground on the original pixels: the first component is interpolated before its threshold."""
        if self.split_ is None:
            return np.ones((*item.geometry.original, 1), dtype=bool)
        mean, axis, threshold = self.split_
        first = project(item.features, mean, axis).reshape(*item.features.grid, 1)
        return item.geometry.interpolate(first, item.grid) > threshold

    def _color(self, item: EncodedImage, model: ModelRecord) -> ColoredImage:
        values = project(item.features, self.mean_, self.components_)
        foreground = self._is_foreground(item.features)
        low, high = self.ranges_.T
        relative = ((values - low) / np.maximum(high - low, np.finfo(float).tiny)).clip(0, 1)
        shape = item.features.grid
        rgb = item.geometry.interpolate(relative.reshape(*shape, N_COMPONENTS), item.grid)
        first, second, third = self.explained_
        return ColoredImage(
            rgb=np.where(self._show_foreground(item), np.round(rgb * 255), BACKGROUND).astype(np.uint8),
            components=np.where(foreground[:, None], values, np.nan).reshape(*shape, N_COMPONENTS).astype(np.float32),
            explained=(float(first), float(second), float(third)),
            settings=self.recorded(),
            path=item.image.path,
            _model=model,
        )

    def _encode(self, items: Iterable[LoadedImage | SkippedImage]) -> Iterator[EncodedImage | SkippedImage]:
        return encode_stream(self.encoder_, items, self._nave_settings(), self.batch_size)

    def _nave_settings(self) -> NaveSettings:
        return NaveSettings.of(
            self.encoder_,
            self.preset,
            layers=choose_color_layers(self.encoder_, self.layers, self.preset),
            weighting=self.weighting,
            normalization=self.normalization,
            resolution=self.resolution,
            size=self.size,
            upsampler=self.upsampler,
            random_state=self.random_state,
        )

    def recorded(self) -> dict[str, Any]:
        """Give the settings that take part, for result documents."""
        plain = self._nave_settings().as_dict()
        shared = {name: value for name, value in plain.items() if name not in NaveSettings.GROUPING_ALONE}
        return shared | self.settings_.as_dict() | {"random_state": self.random_state, "n_images": self.n_images_}

    def _read(self, images: Any) -> Iterator[LoadedImage | SkippedImage]:
        channels = self.encoder_.preprocess.image_channels
        if is_single(images):
            return iter([read_image(images, channels=channels)])
        return read_images(images, channels=channels)


def project(
    features: Composite, mean: Float[np.ndarray, " dim"], axes: Float[np.ndarray, "k dim"]
) -> Float[np.ndarray, "pixels k"]:
    """Project the composite features of one image on axes through a mean.

    Args:
        features: The features of one image, or a sample of pixels.
        mean: The origin.
        axes: The axes.

    Returns:
        The coordinate of each pixel on each axis.
    """
    tensor = torch.from_numpy(axes[None]).to(features.device, features.dtype)
    return features.scores(tensor)[0].T.double().cpu().numpy() - axes @ mean


def find_otsu_threshold(values: Float[np.ndarray, " n"]) -> float:
    """Find the threshold that parts values into two groups with the largest variance between them.

    Args:
        values: The values.

    Returns:
        The threshold.

    Source: Otsu, A threshold selection method from gray-level histograms (1979), over all cuts instead of a histogram.
    """
    ordered = np.sort(values)
    count = np.arange(1, len(ordered))
    below = np.cumsum(ordered)[:-1]
    means = below / count, (ordered.sum() - below) / (len(ordered) - count)
    between = count * (len(ordered) - count) * (means[0] - means[1]) ** 2
    cut = int(between.argmax())
    return float((ordered[cut] + ordered[cut + 1]) / 2)


def color_with(
    encoder: Encoder,
    image: LoadedImage,
    settings: NaveSettings,
    *,
    foreground: str | None = None,
    threshold: float | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Color one image by the features that a segmentation of it was made of.

    Args:
        encoder: The encoder.
        image: The image.
        settings: The settings of the segmentation, from ``NaveSettings.of``.
        foreground: "all", "high" or "low"; see `ColorSettings`.
        threshold: The foreground's threshold, in standard deviations of the first component; None is Otsu's.

    Returns:
        ``[height, width, 3]``, as `colors` gives them for this image alone.

    Raises:
        UsageError: For settings that cannot be.
    """
    names = ("preset", "layers", "weighting", "normalization", "resolution", "size", "upsampler", "random_state")
    shared = {name: getattr(settings, name) for name in names}
    coloring = FeatureColors(encoder, **shared, foreground=foreground, threshold=threshold, progress=False)
    return coloring.fit_transform(image)[0].rgb


@overload
def colors(
    encoder: Encoder | nn.Module | str,
    images: ImageLike,
    *,
    preset: str | None = ...,
    layers: Layers | None = ...,
    weighting: Weighting | None = ...,
    normalization: str | None = ...,
    resolution: Resolution | None = ...,
    size: Size | None = ...,
    upsampler: Upsampler | None = ...,
    foreground: str | None = ...,
    threshold: float | None = ...,
    n_sample: int | None = ...,
    random_state: int = ...,
    batch_size: int = ...,
    progress: Progress = ...,
    **unknown: Any,
) -> ColoredImage: ...
@overload
def colors(
    encoder: Encoder | nn.Module | str,
    images: Sequence[Any],
    *,
    preset: str | None = ...,
    layers: Layers | None = ...,
    weighting: Weighting | None = ...,
    normalization: str | None = ...,
    resolution: Resolution | None = ...,
    size: Size | None = ...,
    upsampler: Upsampler | None = ...,
    foreground: str | None = ...,
    threshold: float | None = ...,
    n_sample: int | None = ...,
    random_state: int = ...,
    batch_size: int = ...,
    progress: Progress = ...,
    **unknown: Any,
) -> ResultList[ColoredImage]: ...
@overload
def colors(
    encoder: Encoder | nn.Module | str,
    images: Any,
    *,
    preset: str | None = ...,
    layers: Layers | None = ...,
    weighting: Weighting | None = ...,
    normalization: str | None = ...,
    resolution: Resolution | None = ...,
    size: Size | None = ...,
    upsampler: Upsampler | None = ...,
    foreground: str | None = ...,
    threshold: float | None = ...,
    n_sample: int | None = ...,
    random_state: int = ...,
    batch_size: int = ...,
    progress: Progress = ...,
    **unknown: Any,
) -> ColoredImage | ResultList[ColoredImage]: ...
@explain_calls
def colors(
    encoder: Encoder | nn.Module | str,
    images: Any,
    *,
    preset: str | None = None,
    layers: Layers | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    foreground: str | None = None,
    threshold: float | None = None,
    n_sample: int | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    **unknown: Any,
) -> ColoredImage | ResultList[ColoredImage]:
    """Color images by the first three principal components of an encoder's features, the same for all images.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50".
        images: One image, or several: a list, a torch Dataset, a folder, a dataset string.
        preset: "default", "paper" or "authors"; None is "default".
        layers: As for ``segment``; by default two late blocks, on two grids.
        weighting: As for ``segment``.
        normalization: As for ``segment``.
        resolution: As for ``segment``.
        size: As for ``segment``.
        upsampler: As for ``segment``.
        foreground: "all", "high" or "low"; see `ColorSettings`.
        threshold: The foreground's threshold, in standard deviations of the first component; None is Otsu's.
        n_sample: Pixels that the components are found on.
        random_state: The seed of the sample.
        batch_size: Images at a time; it does not change the result.
        progress: None shows a bar on a terminal; True, False, or a callable.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        A ColoredImage for one image; a list for several.

    Raises:
        UsageError: For settings that cannot be.
        ImageError: For an image that cannot be read.

    Example:
        >>> colored = encoscope.colors("zoo:tf_efficientnet_lite0", "photos/")  # doctest: +SKIP
        >>> colored[0].rgb.shape  # doctest: +SKIP
        (300, 400, 3)
    """
    names = [name for name in inspect.signature(colors).parameters if name not in ("encoder", "images", "unknown")]
    refuse_unknown("colors", unknown, names)
    estimator = FeatureColors(
        encoder,
        preset=preset,
        layers=layers,
        weighting=weighting,
        normalization=normalization,
        resolution=resolution,
        size=size,
        upsampler=upsampler,
        foreground=foreground,
        threshold=threshold,
        n_sample=n_sample,
        random_state=random_state,
        batch_size=batch_size,
        progress=progress,
    )
    colored = estimator.fit_transform(images)
    return colored[0] if is_single(images) else colored
