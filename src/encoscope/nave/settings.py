"""The settings of NAVE, checked before anything is computed. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.settings import Settings, parse_counts, parse_names, parse_numbers, setting, word_or_count

if TYPE_CHECKING:
    from encoscope.encoder import Encoder

Clusters: TypeAlias = int | str | Sequence[int]  # the words are "auto" and "smallest-drop"
Layers: TypeAlias = str | Sequence[str]
Weighting: TypeAlias = str | Sequence[float]  # the words are in WEIGHTINGS
Resolution: TypeAlias = int | str  # the words are in RESOLUTIONS
Size: TypeAlias = int | str  # the words are in SIZES
Upsampler: TypeAlias = str | Callable[..., Any]  # the text is py:module:function

COUNT_RULES = ("auto", "smallest-drop")
GROUPINGS = ("kmeans", "ward", "pca", "attn")
WEIGHTINGS = ("paper", "equal", "variance")
NORMALIZATIONS = ("unit", "centered", "none")
RESOLUTIONS = ("auto", "first-layer", "double", "image")
SIZES = ("auto", "model", "native")
TOLERANCES = ("relative", "absolute")
FOREGROUNDS = ("all", "high", "low")
PRECISIONS = ("fp16", "fp32", "none")
BATCH_SIZE = 8
"""Images at a time, whose maps are held. It changes no result."""
MAX_CLUSTERS = 256
"""What a label of 8 bits, and a palette, can tell apart."""


def _parse_clusters(text: str) -> int | str | tuple[int, ...]:
    return parse_counts(text) if "," in text else word_or_count(COUNT_RULES)(text)


def _parse_weighting(text: str) -> str | tuple[float, ...]:
    return text if text in WEIGHTINGS else parse_numbers(text)


_PAPER: Mapping[str, Any] = {"weighting": "paper", "size": "model", "resolution": "first-layer"}
"""Algorithm 1 as written."""


@dataclass(frozen=True)
class NaveSettings(Settings):
    """What decides a segmentation.

    Attributes:
        n_clusters: K, from 1 to 256; several give nested cuts of one Ward tree, a result each; "auto" takes the elbow
            of the inertia over 3 to 10; "smallest-drop" is the rule of the authors' code over the same.
        layers: Names from ``encoder.layers``; empty takes the last three stages of a network that has stages (section
            4.3), and the last block of one that keeps its grid (section 4.2); see ``choose_layers``.
        grouping: "kmeans" (k-means++, the best of ``n_init`` starts), "ward" (deterministic), "pca" (appendix F), or
            "attn": each head of a transformer's last block is a cluster, and a pixel goes to the one whose class token
            attends there most; K is then the number of heads.
        weighting: "equal", which measured best; "paper" divides each layer's unit vectors by 1 + its channels, so that
            early, narrow layers weigh most (Algorithm 1, line 8); "variance" gives each layer the same variance over
            the image; or one factor for each layer.
        normalization: "unit" divides each pixel's vector in a layer by its length (Algorithm 1, line 7); "centered"
            subtracts the image's mean vector first; "none" leaves the vectors as they are.
        resolution: The grid that is clustered: the first layer's own ("first-layer", the paper's advice), the
            network's input ("image"), twice the first layer's ("double"), or that many cells along the short side.
            "auto" is the first layer's, but 56 cells where a network keeps one coarser grid (ViT).
        size: The short side of the image in pixels: "auto" (twice the network's own, which measured best, where it
            takes any size; three times where it keeps one coarse grid), "model" (the network's own), "native" (not
            resized), or a number.
        upsampler: A function (maps ``[B, C, h, w]``, image ``[B, channels, H, W]``) that gives maps of a higher
            resolution, such as AnyUp, JAFAR or FeatUp, or its name, "py:module:function"; None takes the maps as they
            are. What it adds in detail comes from the image, not from the encoder.
        min_region: Connected regions below this share of the image are joined to the region beside them that they
            resemble most in the features; 0 joins none.
        n_init: Starts of k-means.
        tolerance: K-means of one image stops when its centers move by less than 1e-4 of the features' variance
            ("relative"), or by less than 1e-5 ("absolute", the authors' code).
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "segment"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "paper": _PAPER,
        "authors": {**_PAPER, "n_init": 1, "tolerance": "absolute"},
    }
    RECORDED_APART: ClassVar[tuple[str, ...]] = ("layers", "random_state")
    GROUPING_ALONE: ClassVar[tuple[str, ...]] = ("n_clusters", "grouping", "min_region", "n_init", "tolerance")
    """Settings that shape the clusters, not the features."""

    n_clusters: int | str | tuple[int, ...] = setting(
        5,
        'K; several (2,5,10) give nested segmentations; "auto" is the elbow of 3 to 10; "smallest-drop".',
        flag="clusters",
        parse=_parse_clusters,
    )
    layers: tuple[str, ...] = setting(
        (),
        "Names from 'encoscope layers', with commas. Default: last 3 stages, or last block (colors: two late blocks).",
        parse=parse_names,
    )
    grouping: str = setting("kmeans", "How features are grouped.", choices=GROUPINGS)
    weighting: str | tuple[float, ...] = setting(
        "equal",
        '"equal"; "paper" favors early, narrow layers; "variance"; or a factor for each layer, with commas.',
        parse=_parse_weighting,
    )
    normalization: str = setting(
        "unit",
        'Each pixel\'s vector in a layer: of "unit" length, "centered" on the image\'s mean before that, "none".',
        choices=NORMALIZATIONS,
    )
    resolution: Resolution = setting(
        "auto",
        'Grid that is clustered: "first-layer", "double" that, "image", or cells along the short side; "auto".',
        parse=word_or_count(RESOLUTIONS),
    )
    size: Size = setting(
        "auto",
        'Short side the network sees: "auto" (twice its own), "model" (its own), "native", or pixels.',
        unit="pixels",
        parse=word_or_count(SIZES),
    )
    upsampler: Upsampler | None = setting(
        None, "py:module:function: (maps, image) -> maps of a higher resolution. The detail is the image's."
    )
    min_region: float = setting(
        0.0, "Regions below this share of the image join the one beside them that they resemble most.", low=0, high=1
    )
    n_init: int = setting(4, "Starts of k-means; the best is kept.", low=1, flag="starts")
    tolerance: str = setting(
        "relative", "When k-means stops: by the features' variance, or absolute (1e-5).", choices=TOLERANCES
    )
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    @classmethod
    def without_layers(cls, preset: str | None = None, **changes: Any) -> NaveSettings:
        """Make settings as far as they do not depend on an encoder: sequences as tuples.

        Args:
            preset: The preset; None is "default".
            **changes: Settings by name; None leaves the preset's own value.

        Returns:
            The settings.

        Raises:
            UsageError: For settings that cannot be.
        """
        for name in ("n_clusters", "weighting"):
            value = changes.get(name)
            if value is not None and not isinstance(value, int | str):
                changes[name] = tuple(value)
        return cls.from_preset(preset, **changes)

    @classmethod
    def of(cls, encoder: Encoder, preset: str | None = None, **changes: Any) -> NaveSettings:
        """Make settings for an encoder: its layers chosen or checked, sequences as tuples.

        Args:
            encoder: The encoder.
            preset: The preset; None is "default".
            **changes: Settings by name; None leaves the preset's own value.

        Returns:
            The settings, with ``layers`` filled in.

        Raises:
            UsageError: For settings that cannot be, alone or for this encoder.
        """
        from encoscope.nave.composite import layer_weights
        from encoscope.nave.layers import choose_authors_settings, choose_layers, choose_resolution, choose_size

        layers = changes.pop("layers", None)
        settings = cls.without_layers(preset, **changes)
        layers = settings.layers or None if layers is None else layers
        if settings.preset == "authors" and layers is None:
            extra = choose_authors_settings(encoder)
            settings = replace(settings, **{name: extra[name] for name in extra if changes.get(name) is None})
        chosen = choose_layers(encoder, layers, preset=settings.preset)
        layer_weights([encoder.layer(name).channels for name in chosen], settings.weighting)
        size = choose_size(encoder) if settings.size == "auto" else settings.size
        resolution = choose_resolution(encoder, size) if settings.resolution == "auto" else settings.resolution
        return replace(settings, layers=chosen, size=size, resolution=resolution)

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as plain values, for result documents; an upsampler by its name and what it computes."""
        return {name: value for name, value in self._plain().items() if name not in self.RECORDED_APART}

    def as_key(self) -> dict[str, Any]:
        """Give what shapes the results as plain values, for cache keys."""
        return {name: value for name, value in self._plain().items() if name != "preset"}

    def _plain(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "upsampler": self._upsampler_record}

    @cached_property
    def _upsampler_record(self) -> dict[str, str] | None:
        return record_upsampler(self.upsampler)

    def check(self) -> None:
        """Check every setting, and what does not go together.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        clusters = self.n_clusters
        numbers = (clusters,) if isinstance(clusters, int) else clusters
        words = " or ".join(f'"{word}"' for word in COUNT_RULES)
        if numbers not in COUNT_RULES and not (numbers and all(_is_count(k, MAX_CLUSTERS) for k in numbers)):
            raise UsageError(f"n_clusters is {words}, or whole numbers from 1 to {MAX_CLUSTERS}, not {clusters!r}")
        if clusters in COUNT_RULES and self.grouping != "kmeans":
            raise UsageError(f'n_clusters="{clusters}" reads k-means inertia: use grouping="kmeans" with it')
        if isinstance(clusters, tuple) and self.grouping in ("pca", "attn"):
            raise UsageError(
                f'several numbers of clusters are cuts of a Ward tree: grouping="{self.grouping}" takes one number'
            )
        if isinstance(clusters, tuple) and self.min_region:
            raise UsageError("several numbers of clusters are nested cuts, which min_region would break: give one")
        if self.resolution not in RESOLUTIONS and not _is_count(self.resolution):
            raise UsageError(
                f'resolution is "auto", "first-layer", "double", "image" or a number of cells, not {self.resolution!r}'
            )
        if self.size not in SIZES and not _is_count(self.size):
            raise UsageError(f'size is "auto", "model", "native" or a number of pixels, not {self.size!r}')
        if self.upsampler is not None:
            from encoscope.nave.upsampler import find_upsampler

            find_upsampler(self.upsampler)
        if not _is_count(self.n_init):
            raise UsageError(f"n_init is the number of starts, at least 1, not {self.n_init!r}")


@dataclass(frozen=True)
class JointSettings(Settings):
    """What decides how the clusters of many images are fitted, beside `NaveSettings`.

    Attributes:
        max_iter: Passes of k-means over all pixels; None is 300, and 18 without a feature cache.
        tol: K-means stops when its centers move by less than this share of the features' variance.
        n_sample: Pixels of the uniform sample that the start is found on.
        feature_cache: The precision of the maps kept on disk while fitting, "fp16" or "fp32"; "none" keeps none and
            runs the encoder again in each pass.
    """

    METHOD: ClassVar[str] = "Nave"

    max_iter: int | None = setting(None, "Passes over all pixels at most.", type=int, low=1)
    tol: float = setting(1e-4, "Stop when centers move by less than this share of the variance.", low=0)
    n_sample: int = setting(65_536, "Pixels that the start is found on.", low=1)
    feature_cache: str = setting(
        "fp16",
        'Precision of feature maps kept on disk while fitting; "none" runs the encoder again in each pass.',
        choices=PRECISIONS,
        flag="cache",
    )


@dataclass(frozen=True)
class ColorSettings(Settings):
    """What decides the colors of `FeatureColors`, beside the layers, weighting, resolution and size of `NaveSettings`.

    Attributes:
        foreground: "all" colors every pixel. "high" and "low" take the pixels above or below a threshold of the first
            principal component, and color these alone, by their own components; which side the objects lie on is
            seen in the colors of all pixels.
        threshold: The threshold, in standard deviations of the first component from its mean; None is Otsu's.
        n_sample: Pixels of the uniform sample that the components are found on.
    """

    METHOD: ClassVar[str] = "colors"

    foreground: str = setting(
        "all", "Color all pixels, or those above or below a threshold of the first component.", choices=FOREGROUNDS
    )
    threshold: float | None = setting(
        None, "Threshold in standard deviations of the first component. Default: Otsu's.", type=float
    )
    n_sample: int = setting(65_536, "Pixels that the components are found on.", low=256)


@dataclass(frozen=True)
class SimilarSettings(Settings):
    """What decides how places are compared, beside the layers, weighting, resolution and size of `NaveSettings`.

    Attributes:
        threshold: A cell belongs to a place's region when its score exceeds this and it is connected to the place.
            None is 0 where there are negative points, and Otsu's threshold of the asked image's scores where not.
        n_random: Random places, of the asked image and of a sample of the others, that every figure is compared with.
        n_maps: How many of the other images keep their maps; the ranking lists all.
    """

    METHOD: ClassVar[str] = "similar"

    threshold: float | None = setting(
        None,
        "Score that cells of the region exceed. Default: 0 with --not-at, else Otsu's of the asked image.",
        type=float,
        low=-2,
        high=2,
    )
    n_random: int = setting(
        100, "Random places of the images that figures are compared with.", low=1, high=10_000, flag="random"
    )
    n_maps: int = setting(
        11, "How many other images are shown, the most similar first; all are ranked.", low=0, flag="top"
    )


def record_upsampler(upsampler: Upsampler | None) -> dict[str, str] | None:
    """Write down an upsampler, for result documents and cache keys.

    Args:
        upsampler: The upsampler; None for none.

    Returns:
        Its name, and a digest of what it computes; None for None.
    """
    if upsampler is None:
        return None
    from encoscope.nave.upsampler import identify_upsampler, name_upsampler

    return {"name": name_upsampler(upsampler), "digest": identify_upsampler(upsampler)}


def _is_count(value: object, high: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and (high is None or value <= high)
