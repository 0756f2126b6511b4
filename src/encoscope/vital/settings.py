"""The settings of VITAL and of the methods it is compared with. Nothing heavy is imported here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeGuard

from encoscope.errors import UsageError, suggest_nearest
from encoscope.settings import Settings, parse_names, parse_numbers, setting

if TYPE_CHECKING:
    from encoscope.encoder import Encoder

Relevance: TypeAlias = str | Callable[..., Any]
"""A method's name, or a callable (encoder, pixels, unit, layers) -> {layer: maps}."""
Size: TypeAlias = Sequence[int]  # (height, width)

RELEVANCES = ("auto", "none", "lrp", "guided-backprop", "gradient-input")
RANKINGS = ("lrp", "guided-backprop", "gradient-input")
MATCHINGS = ("sort", "moments")
PARAMETRIZATIONS = ("auto", "pyramid", "pixels")
SCALES = ("auto", "references", "absolute")
VIEWS = ("wander", "crops")
VIEW_KINDS = ("auto", "whole", "crops")
FRAMES = 0
"""Images on the way that are kept: none unless they are requested."""
NOT_OF_CIRCUITS = ("n_facets", "n_variants", "diversity", "start", "strengths")
"""Settings of VITAL that make several pictures of a unit, or one that belongs to a photo: a circuit has one of each."""
OPTIMIZERS = ("adam", "nadam")
SELECTIONS = ("labels", "top")
SEARCHES = ("maps", "patches")
METHOD_NAMES = ("vital", "fourier", "maco", "deepinversion", "plugin")
DEFAULT_METHOD = "vital"

_SAME_PRESETS: Mapping[str, Mapping[str, Any]] = {"default": {}, "paper": {}}


def _parse_side(text: str) -> tuple[int, int]:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("a whole number of pixels from 1 on")
    return int(text), int(text)


def _parse_relevance(text: str) -> str:
    if text not in RELEVANCES:
        raise ValueError(f"one of {', '.join(RELEVANCES)}")
    return text


def _parse_ranking(text: str) -> str:
    if text not in RANKINGS:
        raise ValueError(f"one of {', '.join(RANKINGS)}")
    return text


_PUBLISHED = {
    "steps": 2000,
    "parametrization": "pixels",
    "scale": "absolute",
    "view": "whole",
    "search": "patches",
}

_RELEVANCE_HELP = (
    "Multiplied into activations: lrp, guided-backprop, gradient-input, none, or auto (none; with the paper's numbers "
    "LRP for units inside the network)."
)


def _steps(default: int) -> Any:
    return setting(default, "Steps of the optimization. Default: the method's own; VITAL's are 400.", low=1)


def _size() -> Any:
    return setting(None, "Side in pixels. Default: the model's own.", unit="pixels", parse=_parse_side)


def _seed() -> Any:
    return setting(0, "The seed of everything random.", type=int, on_command_line=False)


@dataclass(frozen=True)
class VitalSettings(Settings):
    """What decides a visualization by VITAL.

    The preset "default" has no number that belongs to one network: the image is a pyramid in the references' colors,
    and each layer's loss is a share of the references' own. The paper's five networks keep the paper's numbers in it.
    "paper" optimizes pixels against absolute losses, as published. "authors" does, too; it scales relevance to [0, 1],
    weights channels, takes whole images as references of units inside the network, and smaller regularizers there.

    Attributes:
        steps: Steps of the optimization; 2,000 in the authors' code, and in the presets "paper" and "authors".
        relevance: What activations are multiplied by: "none", "lrp", "guided-backprop", "gradient-input", or a callable
            (encoder, pixels, unit, layers) -> {layer: maps}. "auto" is nothing; LRP, or gradient x input where LRP
            has no rule, for concepts, and with the paper's numbers (the presets "paper" and "authors", and the paper's
            networks) for all units but classes. Without relevance, the default also matches all channels of the unit's
            own layer.
        matching: "sort" (equation 2) matches sorted values; "moments" mean and standard deviation, for comparison.
        parametrization: What is optimized: "pyramid" (noise of several resolutions in the references' colors) or
            "pixels" (as published); "auto" is pixels for the paper's networks, else the pyramid.
        scale: "references" divides each layer's loss by the references' own, and counts total variation and l2 norm
            only where they are above the references'; "absolute" (as published) does not; "auto" is absolute for the
            paper's networks, else references.
        layers: The layers that are matched; empty for the recipe's.
        weights: A weight for each of ``layers``; empty for the recipe's, or 1 each beside ``layers``.
        tv_weight: Weight of total variation; None for the recipe's.
        l2_weight: Weight of the l2 norm; None for the recipe's.
        n_references: References of a unit; the paper's figures saturate around 50 (Table 5).
        select: Which images are a class's references: "labels", images with its label, drawn with the seed; "top", the
            images that the network itself scores highest for the class, whatever their labels. Other units always
            have their top patches.
        n_facets: So many visualizations of each unit, one for each cluster of the images it answers to; None makes
            one of all.
        n_variants: So many pictures of each unit, which begin differently; None makes one.
        diversity: Weight of the mean cosine similarity of each variant's Gram matrix, in the last layer, with those of
            the others (Olah, Mordvintsev and Schubert 2017); 0 leaves the variants to chance.
        start: An image to begin with, in place of noise: the visualization changes it towards the unit's references and
            keeps its features in the first half of the layers (after feature accentuation, Hamblin et al. 2024). None
            begins with noise.
        strengths: How much the references count beside ``start``, one visualization for each.
        patch_size: Side of the patches that are references of units inside the network, in pixels of an image whose
            short side is the network's; None is 64, or half of a smaller network's input.
        search: How top patches are found: "maps" reads from one forward pass of each whole image where each unit is
            largest, and scores one patch there in each of the best images; "patches" scores all patches of an image, as
            published. The presets "paper" and "authors" have "patches", cut from the network's own resize and crop.
        n_candidates: In how many images patches are scored for a unit, those in which its map has the largest mean over
            a patch (with "patches" the largest cell, as in the authors' code). None is twice ``n_references``, or with
            "patches" every image. Patches are scored at every 32 pixels, in every image at every int(0.8 patch_size).
        size: (height, width) of the visualization in pixels; None is the network's own.
        view: What of it the network sees in each step: "whole", or "crops": in turn the whole of it and a random part,
            both at the network's own size; "auto" is crops for a size above the network's own.
        jitter: Largest shift of the image in each step, in pixels; None is 30 for 224, in proportion for other sizes.
        lr: Adam's learning rate: of a pyramid in units of the references' colors, 0.1 unless said; of pixels in the
            network's normalized units, 1 unless said, or a tenth of the range from black to white where losses are
            scaled by the references.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "vital"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "paper": _PUBLISHED, "authors": _PUBLISHED}

    steps: int = _steps(400)
    relevance: Relevance = setting("auto", _RELEVANCE_HELP, parse=_parse_relevance)
    matching: str = setting("sort", "How distributions are matched.", choices=MATCHINGS)
    parametrization: str = setting(
        "auto",
        "What is optimized: a pyramid in the references' colors, or pixels as published.",
        choices=PARAMETRIZATIONS,
    )
    scale: str = setting(
        "auto",
        "What a layer's loss counts in: the references' own, or absolute as published.",
        choices=SCALES,
    )
    layers: tuple[str, ...] = setting(
        (), "Layers that are matched, with commas. Default: the recipe's.", parse=parse_names
    )
    weights: tuple[float, ...] = setting(
        (), "A weight for each layer, with commas. Default: the recipe's.", flag="layer-weights", parse=parse_numbers
    )
    tv_weight: float | None = setting(
        None,
        "Weight of total variation. Default: the recipe's.",
        low=0,
        type=float,
    )
    l2_weight: float | None = setting(None, "Weight of the l2 norm. Default: the recipe's.", low=0, type=float)
    n_references: int = setting(50, "References of a unit.", low=1)
    select: str = setting(
        "labels",
        "A class's references: images with its label, or the top images by the network's own score.",
        choices=SELECTIONS,
    )
    n_facets: int | None = setting(
        None,
        "So many visualizations of a unit, one for each group of its images.",
        flag="facets",
        low=2,
        type=int,
    )
    n_variants: int | None = setting(
        None, "So many pictures of a unit, which begin differently.", flag="variants", low=2, type=int
    )
    diversity: float = setting(0.0, "Weight of the variants' likeness to each other.", low=0)
    start: Any = setting(None, "An image to begin with: what of the unit is in it is drawn out.")
    strengths: tuple[float, ...] = setting(
        (1.0,), "How much the references count beside --start, with commas: a picture for each.", parse=parse_numbers
    )
    patch_size: int | None = setting(
        None,
        "Side of the patches. Default: 64, or half of a smaller network's input.",
        unit="pixels",
        flag="patch",
        low=1,
        type=int,
    )
    search: str = setting(
        "maps",
        "How top patches are found: by the maps of whole images, or by scoring all patches.",
        choices=SEARCHES,
    )
    n_candidates: int | None = setting(
        None,
        "Score patches only in so many images of a unit. Default: twice the references; with patches every image.",
        flag="candidates",
        low=1,
        type=int,
    )
    size: tuple[int, int] | None = _size()
    view: str = setting(
        "auto", "What the network sees in a step; auto is crops for a size above its own.", choices=VIEW_KINDS
    )
    jitter: int | None = setting(
        None,
        "Largest shift of the image in a step. Default: 30 for 224 pixels, in proportion.",
        unit="pixels",
        low=0,
        type=int,
    )
    lr: float | None = setting(
        None, "Learning rate of Adam. Default: the method's own; of VITAL's pyramid 0.1.", type=float
    )
    random_state: int = _seed()

    @property
    def patch_geometry(self) -> Literal["model", "whole"]:
        """What patches are cut from: the whole image, or as published the network's own resize and crop."""
        return "whole" if self.preset == "default" else "model"

    @property
    def authors(self) -> bool:
        """Whether the authors' code decides where it differs from the paper."""
        return self.preset == "authors"

    @classmethod
    def from_preset(cls, preset: str | None = None, **changes: Any) -> VitalSettings:
        """Make the settings of a preset, with changes; sequences become tuples, and one layer a list of one.

        Args:
            preset: "default", "paper" or "authors"; None is "default".
            **changes: Settings by name; None leaves the preset's own value.

        Returns:
            The settings, checked.

        Raises:
            UsageError: For an unknown preset or setting (the nearest name is given), and for a value that cannot be.
        """
        if isinstance(changes.get("layers"), str):
            changes["layers"] = parse_names(changes["layers"])
        return super().from_preset(preset, **_tuples(changes, "layers", "weights", "size", "strengths"))

    def check(self) -> None:
        """Check every setting, and what does not go together.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        _check_relevance(self.relevance)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"size is (height, width) in pixels, not {self.size!r}")
        if not self.strengths or not all(0 < strength < float("inf") for strength in self.strengths):
            raise UsageError(f"strengths are numbers above 0, not {self.strengths!r}")
        if len(set(self.strengths)) < len(self.strengths):
            raise UsageError(f"strengths name a number twice: {self.strengths!r}")
        if self.start is None and self.strengths != (1.0,):
            raise UsageError("strengths go with start, an image to begin with")
        if self.start is not None and self.n_variants is not None:
            raise UsageError("variants begin with noise: leave start out, or ask for several strengths of it")
        if self.diversity and self.n_variants is None:
            raise UsageError("diversity goes with variants, several pictures of a unit")

    def choose_view(self, encoder: Encoder) -> str:
        """Choose what the network sees of a visualization in each step.

        Args:
            encoder: The encoder.

        Returns:
            "whole" or "crops".

        Raises:
            UsageError: For a size that the network cannot take, and crops of an image that is not above its size.
        """
        own, size = encoder.preprocess.size, self.size or encoder.preprocess.size
        above = size != own and size[0] >= own[0] and size[1] >= own[1]
        if self.view == "crops" and not above:
            raise UsageError(f"crops are shown of a size above the network's own, {own[0]} x {own[1]} pixels")
        if self.view == "crops" or (self.view == "auto" and above):
            return "crops"
        if size != own and not encoder.resizable:
            raise UsageError(f"{encoder.source} takes {own[0]} x {own[1]} pixels: leave size out, or ask for more")
        return "whole"

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document; the seed has its own place in it."""
        return _plain(self)

    def as_key(self) -> dict[str, Any]:
        """Give what shapes the result as plain values, for cache keys."""
        return {name: value for name, value in _plain(self).items() if name != "preset"} | {"authors": self.authors}


@dataclass(frozen=True)
class CircuitSettings(Settings):
    """What decides which channels a circuit has, beside `VitalSettings`.

    Attributes:
        n_channels: Channels of the circuit.
        layer: The layer of the channels; None is the last hidden one.
        ranking: The relevance that channels are ranked by: "lrp", "guided-backprop", "gradient-input" or a callable;
            None is LRP where it reaches, else gradient x input.
    """

    METHOD: ClassVar[str] = "circuit"

    n_channels: int = setting(3, "Channels of the circuit.", flag="channels", low=1)
    layer: str | None = setting(None, "The layer of the channels. Default: the last hidden one.")
    ranking: Relevance | None = setting(
        None,
        "How channels are ranked: lrp, guided-backprop or gradient-input. Default: LRP where it reaches.",
        parse=_parse_ranking,
    )

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.ranking is not None:
            _check_relevance(self.ranking, RANKINGS, "ranking")


@dataclass(frozen=True)
class FourierSettings(Settings):
    """Settings of Fourier feature visualization (Olah, Mordvintsev and Schubert 2017).

    Attributes:
        steps: Steps of the optimization, as published.
        size: (height, width) in pixels; None is the network's own.
        lr: Adam's learning rate.
        views: "wander" (shifts, zooms and turns, as published) or "crops" (MACO's, as in VITAL's comparison).
        n_views: Crops of the image a step, where ``views`` are crops.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "fourier"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _SAME_PRESETS

    steps: int = _steps(512)
    size: tuple[int, int] | None = _size()
    lr: float = setting(0.05, "Learning rate of Adam.")
    views: str = setting("wander", "Of fourier: how the image is shown to the network.", choices=VIEWS)
    n_views: int = setting(1, "Of fourier, maco, plugin: views of the image a step. Default: the method's own.", low=1)
    random_state: int = _seed()

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        values = _plain(self)
        if self.views == "wander":
            del values["n_views"]
        return values


@dataclass(frozen=True)
class MacoSettings(Settings):
    """Settings of MACO (Fel et al. 2023).

    Attributes:
        steps: Steps of the optimization.
        size: (height, width) in pixels; None is the network's own.
        n_views: Crops of the image a step; 32 as first published (VITAL names no number).
        crop_side: Mean side of the crops, as a share of the image's.
        optimizer: "adam", or "nadam" as first published.
        magnitude: The magnitude spectrum, an array [channels, height, width // 2 + 1] from
            ``compute_mean_magnitude``; None takes it from the references.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "maco"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _SAME_PRESETS

    steps: int = _steps(256)
    size: tuple[int, int] | None = _size()
    n_views: int = setting(32, "Of fourier, maco, plugin: views of the image a step. Default: the method's own.", low=1)
    crop_side: float = setting(0.25, "Of maco: mean side of the crops, as a share of the image's.", high=1)
    optimizer: str = setting("adam", "Of maco: the optimizer.", choices=OPTIMIZERS)
    magnitude: Any = setting(None, "The magnitude spectrum; else it is the references'.", on_command_line=False)
    random_state: int = _seed()

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.crop_side <= 0:
            raise UsageError(f"crop_side is a share above 0, not {self.crop_side!r}")


@dataclass(frozen=True)
class DeepInversionSettings(Settings):
    """Settings of DeepInversion (Yin et al. 2020), as in VITAL's comparison.

    Attributes:
        steps: Steps of the optimization.
        size: (height, width) in pixels; None is the network's own.
        lr: Adam's learning rate.
        statistics_weight: Weight of the distance to the statistics of batch normalization; 0.05 in the original code,
            0.01 in its documentation, none in the paper.
        tv_weight: Weight of total variation.
        l2_weight: Weight of the l2 norm.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "deepinversion"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _SAME_PRESETS

    steps: int = _steps(2000)
    size: tuple[int, int] | None = _size()
    lr: float = setting(0.05, "Learning rate of Adam.")
    statistics_weight: float = setting(
        0.05, "Of deepinversion: weight of the distance to batch normalization's statistics.", low=0
    )
    tv_weight: float = setting(1e-4, "Weight of total variation.", low=0)
    l2_weight: float = setting(1e-5, "Weight of the l2 norm.", low=0)
    random_state: int = _seed()


@dataclass(frozen=True)
class PluginSettings(Settings):
    """Settings of Plug-In Inversion (Ghiasi et al. 2022).

    Attributes:
        steps: Steps of all seven stages together; 401 each as published.
        size: (height, width) in pixels; None is the network's own.
        lr: Adam's learning rate.
        n_views: Views of the image a step, each in colors of its own.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "plugin"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _SAME_PRESETS

    steps: int = _steps(7 * 401)
    size: tuple[int, int] | None = _size()
    lr: float = setting(0.01, "Learning rate of Adam.")
    n_views: int = setting(8, "Of fourier, maco, plugin: views of the image a step. Default: the method's own.", low=1)
    random_state: int = _seed()


METHOD_SETTINGS: Mapping[str, type[Settings]] = {
    "vital": VitalSettings,
    "fourier": FourierSettings,
    "maco": MacoSettings,
    "deepinversion": DeepInversionSettings,
    "plugin": PluginSettings,
}
"""The settings class of each visualization method."""


def check_request(
    method: str, n_facets: int | None, references: Any, control: str | None, *, select: str | None = None
) -> None:
    """Refuse what does not go together in a request for visualizations.

    Args:
        method: The method's name.
        n_facets: The number of facets; None for none.
        references: The references; None for none.
        control: The control; None for none.
        select: How a class's references are selected; None for the usual way.

    Raises:
        UsageError: For facets, top images or a control without images, and a control that is unknown or with another
            method than VITAL.
    """
    if control not in (None, "untrained"):
        raise UsageError(f"control is 'untrained' or None, not {control!r}")
    if control is not None and method != "vital":
        raise UsageError(f"control goes with method vital, not with {method}")
    if method != "vital" and is_statistics_file(references):
        raise UsageError(f"statistics of references go with method vital, not with {method}: give real images")
    without_images = references is None or is_statistics_file(references)
    if n_facets is not None and method == "vital" and without_images:
        raise UsageError("facets are groups of a unit's images: give references, real images")
    if select == "top" and method == "vital" and without_images:
        raise UsageError("the top images are selected among real images: give references, a folder of them")
    if control is not None and without_images:
        raise UsageError("a control is made from the same images: give references, real images")


def is_statistics_file(references: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether references are named by a file of statistics that ``encoscope.recipes.statistics`` made.

    Args:
        references: What a user gave.

    Returns:
        Whether it is the path of a .safetensors file.
    """
    return isinstance(references, str | os.PathLike) and os.fspath(references).endswith(".safetensors")


def make_settings(method: str, preset: str | None = None, **changes: Any) -> Settings:
    """Make the settings of a visualization method.

    Args:
        method: One of `METHOD_NAMES`.
        preset: The preset; None is "default".
        **changes: Settings by name; None leaves the preset's own value.

    Returns:
        The settings, checked.

    Raises:
        UsageError: For an unknown method, a setting that the method does not have, and a value that cannot be.

    Example:
        >>> make_settings("fourier", steps=8).steps
        8
    """
    if method not in METHOD_SETTINGS:
        raise UsageError(
            f"unknown method {method!r}{suggest_nearest(method, METHOD_NAMES)}: one of {', '.join(METHOD_NAMES)}"
        )
    kind = METHOD_SETTINGS[method]
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in changes:
        owners = [other for other, each in METHOD_SETTINGS.items() if name in each.infos()]
        if owners and method not in owners:
            raise UsageError(f"{name} goes with method {' or '.join(owners)}, not with {method}")
    return kind.from_preset(preset, **_tuples(changes, "size"))


def _check_relevance(value: Relevance, names: Sequence[str] = RELEVANCES, name: str = "relevance") -> None:
    if isinstance(value, str) and value not in names:
        raise UsageError(
            f"{name} is one of {', '.join(names)} or a callable, not {value!r}{suggest_nearest(value, names)}"
        )


def _tuples(changes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The changes, with sequences of these names as tuples."""
    sequences = {name: tuple(changes[name]) for name in names if changes.get(name) is not None}
    return {**changes, **sequences}


def _plain(settings: Settings) -> dict[str, Any]:
    """All settings but the seed, as JSON can hold them; a callable is "own"."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "random_state"}
    return {name: _describe_value(value) for name, value in values.items()}


def _describe_value(value: Any) -> Any:
    """A setting's value as JSON can hold it; an image by its path, or its type."""
    if callable(value):
        return "own"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple):
        return list(value)
    plain = value is None or isinstance(value, str | int | float | list | dict)
    return value if plain else type(value).__name__
