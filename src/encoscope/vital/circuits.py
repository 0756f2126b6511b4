"""Small circuits: the channels of highest relevance for a class, each visualized (VITAL, section 4.1.2, figure 4)."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import EncoscopeError, UsageError, explain_calls
from encoscope.estimator import Estimator
from encoscope.progress import Progress
from encoscope.relevance import choose_method, compute_channel_relevance
from encoscope.results import Document, Result, ResultList
from encoscope.settings import refuse_unknown
from encoscope.units import Unit, channel_unit, parse_unit
from encoscope.vital.estimator import Vital
from encoscope.vital.references.references import References, Source, find_class_references
from encoscope.vital.run import VisualizationPreview
from encoscope.vital.settings import NOT_OF_CIRCUITS, CircuitSettings, Relevance, Size, VitalSettings
from encoscope.vital.visualization import KIND, Visualization, make_file_name, read_entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = "circuit.png"


@dataclass(frozen=True)
class CircuitChannel:
    """A channel of a circuit.

    Attributes:
        unit: The channel's text, such as "layer4:485".
        relevance: Its relevance for the class: summed over space, averaged over the references.
        relevance_share: Its share of the relevance of all channels of the layer, summed without sign.
    """

    unit: str
    relevance: float
    relevance_share: float


@concise_repr
@dataclass(frozen=True, eq=False)
class ClassCircuit(Result):
    """A class and the channels of highest relevance for it in one layer, all visualized.

    Attributes:
        unit: The class as the user wrote it.
        layer: The layer of the channels.
        ranking: The relevance method that ranked them.
        n_images: How many real images the relevance is averaged over.
        channels: The channels, the most relevant first.
        visualizations: Of the class, then of each channel.
    """

    unit: str
    layer: str
    ranking: str
    n_images: int
    channels: tuple[CircuitChannel, ...]
    visualizations: tuple[Visualization, ...]

    def __str__(self) -> str:
        return f"{self.unit}: {', '.join(f'{each.unit} ({each.relevance_share:.1%})' for each in self.channels)}"

    def entry(self) -> dict[str, Any]:
        """Give what a result document says of the circuit, without the visualizations."""
        return {
            "unit": self.unit,
            "layer": self.layer,
            "ranking": self.ranking,
            "n_images": self.n_images,
            "channels": [vars(channel) for channel in self.channels],
        }

    def to_dict(self) -> Document:
        """Give the result document, without images."""
        return self._document([visualization.entry() for visualization in self.visualizations])

    def _document(self, entries: Sequence[dict[str, Any]]) -> Document:
        circuit = self.entry() | {"figure": FIGURE}
        return self.visualizations[0].make_document(entries) | {"circuit": circuit}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the visualizations, ``circuit.png`` and ``result.json`` into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder, which ``load`` reads.
        """
        folder = Path(path)
        document = folder / "result.json"
        entries = [
            each.write(folder / make_file_name(each.name), document, arrays=True) for each in self.visualizations
        ]
        with results.atomic_write(folder / FIGURE) as temporary:
            self.plot().savefig(temporary, dpi=120)
        results.write(document, self._document(entries))
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ClassCircuit:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The circuit.

        Raises:
            MissingError: When nothing is there, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        if "circuit" not in document:
            raise EncoscopeError(f"{file} is of visualizations, not of a circuit")
        circuit = document["circuit"]
        return cls(
            circuit["unit"],
            circuit["layer"],
            circuit["ranking"],
            circuit["n_images"],
            tuple(CircuitChannel(**channel) for channel in circuit["channels"]),
            tuple(read_entry(entry, document, file) for entry in document["visualizations"]),
        )

    def plot(self) -> Figure:
        """Draw the class above its channels, with an arrow and the share of the relevance for each channel."""
        from matplotlib.figure import Figure
        from matplotlib.patches import ConnectionPatch

        columns = len(self.channels)
        figure = Figure(figsize=(2.6 * max(columns, 2), 6.6), layout="constrained")
        grid = figure.add_gridspec(3, 2 * columns, height_ratios=(1, 0.22, 1))  # arrows have the row between
        above = figure.add_subplot(grid[0, columns - 1 : columns + 1])
        above.imshow(self.visualizations[0].picture)
        above.set_title(self.unit)
        above.set_axis_off()
        largest = max(channel.relevance_share for channel in self.channels)
        for index, (channel, visualization) in enumerate(zip(self.channels, self.visualizations[1:], strict=True)):
            axes = figure.add_subplot(grid[2, 2 * index : 2 * index + 2])
            axes.imshow(visualization.picture)
            title = "\n".join(textwrap.wrap(f"{channel.unit}: {channel.relevance_share:.1%}", 24))
            axes.set_title(title, fontsize=10, y=-0.16)
            axes.set_axis_off()
            arrow = ConnectionPatch(
                xyA=(0.5, 1.02),
                coordsA=axes.transAxes,
                xyB=((index + 0.5) / columns, -0.03),
                coordsB=above.transAxes,
                arrowstyle="-|>",
                mutation_scale=14,
                linewidth=0.8 + 3 * channel.relevance_share / max(largest, 1e-12),
                color="0.35",
            )
            figure.add_artist(arrow)
        return figure


def rank_channels(
    encoder: Encoder,
    unit: Unit | str,
    references: References,
    *,
    n_channels: int = CircuitSettings.n_channels,
    layer: str | None = None,
    ranking: Relevance | None = None,
    progress: Progress = None,
) -> tuple[str, str, list[CircuitChannel]]:
    """Find the channels of a layer with the highest relevance for a class.

    A channel's relevance is summed over space and averaged over the references.

    Args:
        encoder: The encoder.
        unit: A class or a pooled feature.
        references: Images of the class.
        n_channels: How many channels.
        layer: The layer; None is the last hidden one.
        ranking: The relevance method; None is LRP where it reaches, else gradient x input.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The layer, the method's name, and the channels, the most relevant first.

    Raises:
        UsageError: For a unit that is no class or feature, and for fewer than one channel.

    Source: VITAL, section 4.1.2.
    """
    unit = parse_unit(unit, encoder)
    if unit.kind not in ("class", "features"):
        raise UsageError(f"a circuit is of a class or feature, not of {unit.text}")
    if n_channels < 1:
        raise UsageError(f"a circuit has at least one channel, not {n_channels}")
    name = layer or encoder.depths[-1]
    method: Relevance = choose_method(encoder) if ranking is None else ranking
    sources = [item.source for item in references.items]
    relevance = compute_channel_relevance(encoder, sources, unit, name, method=method, progress=progress)
    values = relevance.double().numpy()
    total = max(float(np.abs(values).sum()), 1e-30)
    order = np.argsort(-values, kind="stable")[:n_channels]
    channels = [
        CircuitChannel(channel_unit(name, int(i)).text, float(values[i]), float(values[i]) / total) for i in order
    ]
    return name, method if isinstance(method, str) else "own", channels


class Circuit(Estimator):
    """Find the channels a class depends on most, and visualize the class and each of them (VITAL).

    `CircuitSettings` and `VitalSettings` say what each setting means and what its default is; None leaves the preset's
    own value. Each channel is visualized from its own top patches.

    Args:
        encoder: The frozen network: an encoder, a module or a source string.
        unit: A class or a pooled feature.
        n_channels: Channels of the circuit.
        layer: The layer of the channels; None is the last hidden one.
        ranking: The relevance method that ranks them: "lrp", "guided-backprop", "gradient-input" or a callable.
        preset: "default", "paper" or "authors"; None is "default".
        steps: Steps of each visualization's optimization.
        relevance: What activations are multiplied by.
        matching: "sort", or "moments" for comparison.
        parametrization: "pyramid", "pixels" or "auto".
        scale: What losses count in: "references", "absolute" or "auto".
        layers: The layers that are matched, in place of the recipe's.
        weights: A weight for each layer, in place of the recipe's.
        tv_weight: Weight of total variation, in place of the recipe's.
        l2_weight: Weight of the l2 norm, in place of the recipe's.
        n_references: References of each visualization.
        select: The class's references: "labels", or "top" for those that the network itself scores highest.
        patch_size: Side of the patches that are references of channels, in pixels.
        search: "maps" or "patches": how top patches are found.
        n_candidates: Score patches only in so many images of a unit.
        size: (height, width) of the visualizations in pixels; None is the network's own.
        view: What of them the network sees in a step: "whole", "crops" or "auto", crops above its own size.
        jitter: Largest shift of the image in a step, in pixels.
        lr: Adam's learning rate.
        random_state: The seed of everything random.
        batch_size: Visualizations made together; None is one on the CPU and eight on a GPU.
        cache: Whether statistics and the states of runs are kept, so that a stopped run is resumed.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Attributes:
        encoder_: The encoder.
        layer_: The layer of the channels.
        ranking_: The name of the relevance method that ranked them.
        channels_: The channels, the most relevant first.
        n_images_: How many images the relevance is averaged over.
        vital_: A fitted `Vital` of the class and the channels.

    Source: VITAL, section 4.1.2 and figure 4.
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str,
        unit: Unit | str,
        *,
        n_channels: int | None = None,
        layer: str | None = None,
        ranking: Relevance | None = None,
        preset: str | None = None,
        steps: int | None = None,
        relevance: Relevance | None = None,
        matching: str | None = None,
        parametrization: str | None = None,
        scale: str | None = None,
        layers: Sequence[str] | str | None = None,
        weights: Sequence[float] | None = None,
        tv_weight: float | None = None,
        l2_weight: float | None = None,
        n_references: int | None = None,
        select: str | None = None,
        patch_size: int | None = None,
        search: str | None = None,
        n_candidates: int | None = None,
        size: Size | None = None,
        view: str | None = None,
        jitter: int | None = None,
        lr: float | None = None,
        random_state: int = VitalSettings.random_state,
        batch_size: int | None = None,
        cache: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.unit = unit
        self.n_channels = n_channels
        self.layer = layer
        self.ranking = ranking
        self.preset = preset
        self.steps = steps
        self.relevance = relevance
        self.matching = matching
        self.parametrization = parametrization
        self.scale = scale
        self.layers = layers
        self.weights = weights
        self.tv_weight = tv_weight
        self.l2_weight = l2_weight
        self.n_references = n_references
        self.select = select
        self.patch_size = patch_size
        self.search = search
        self.n_candidates = n_candidates
        self.size = size
        self.view = view
        self.jitter = jitter
        self.lr = lr
        self.random_state = random_state
        self.batch_size = batch_size
        self.cache = cache
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Source, y: None = None) -> Circuit:
        """Rank the channels, and compute the statistics of the references of the class and of each channel.

        Args:
            X: Images of the class among others: a dataset string, a folder, or files. Top patches are searched in all
                of them.
            y: Not used; it is there as in all of scikit-learn's estimators.

        Returns:
            Itself, fitted.

        Raises:
            UsageError: For a unit that is no class or feature, and for settings that cannot be.
            MissingError: Where there is no image of the class.
        """
        settings = CircuitSettings.from_preset(
            self.preset, n_channels=self.n_channels, layer=self.layer, ranking=self.ranking
        )
        values = {name: getattr(self, name) for name in VitalSettings.infos() if name not in NOT_OF_CIRCUITS}
        vital_settings = VitalSettings.from_preset(**values)
        self.encoder_ = encoder = as_encoder(self.encoder)
        unit = parse_unit(self.unit, encoder)
        pool = find_class_references(
            X,
            encoder,
            unit,
            select=vital_settings.select,
            count=vital_settings.n_references,
            random_state=vital_settings.random_state,
            cache_dir=self.cache_dir,
            progress=self.progress,
        )
        self.layer_, self.ranking_, self.channels_ = rank_channels(
            encoder,
            unit,
            pool,
            n_channels=settings.n_channels,
            layer=settings.layer,
            ranking=settings.ranking,
            progress=self.progress,
        )
        self.n_images_ = len(pool)
        units = [unit, *(channel.unit for channel in self.channels_)]
        run = {name: getattr(self, name) for name in ("batch_size", "cache", "cache_dir", "progress")}
        self.vital_ = Vital(encoder, units, **values, **run).fit(X)
        return self

    def synthesize(self, *, preview: VisualizationPreview | None = None, fresh: bool = False) -> ClassCircuit:
        """Visualize the class and its channels.

        Args:
            preview: Receives the unfinished visualizations of the current batch now and then.
            fresh: Neither resume a run that was stopped nor take a finished one.

        Returns:
            The circuit.

        Raises:
            UsageError: When nothing was fitted.
        """
        self._check_fitted()
        visualizations: ResultList[Visualization] = self.vital_.synthesize(preview=preview, fresh=fresh)
        return ClassCircuit(
            visualizations[0].unit,
            self.layer_,
            self.ranking_,
            self.n_images_,
            tuple(self.channels_),
            tuple(visualizations),
        )


@explain_calls
def circuit(
    encoder: Encoder | nn.Module | str,
    unit: Unit | str,
    references: Source,
    *,
    n_channels: int | None = None,
    layer: str | None = None,
    ranking: Relevance | None = None,
    preset: str | None = None,
    steps: int | None = None,
    relevance: Relevance | None = None,
    matching: str | None = None,
    parametrization: str | None = None,
    scale: str | None = None,
    layers: Sequence[str] | str | None = None,
    weights: Sequence[float] | None = None,
    tv_weight: float | None = None,
    l2_weight: float | None = None,
    n_references: int | None = None,
    select: str | None = None,
    patch_size: int | None = None,
    search: str | None = None,
    n_candidates: int | None = None,
    size: Size | None = None,
    view: str | None = None,
    jitter: int | None = None,
    lr: float | None = None,
    random_state: int = VitalSettings.random_state,
    batch_size: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    preview: VisualizationPreview | None = None,
    fresh: bool = False,
    **unknown: Any,
) -> ClassCircuit:
    """Find the channels a class depends on most, and visualize the class and each of them (VITAL).

    `CircuitSettings` and `VitalSettings` say what each setting means and what its default is; None leaves the preset's
    own value.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50".
        unit: A class or a pooled feature.
        references: Images of the class among others: a dataset string, a folder, or files.
        n_channels: Channels of the circuit.
        layer: The layer of the channels; None is the last hidden one.
        ranking: The relevance method that ranks them: "lrp", "guided-backprop", "gradient-input" or a callable.
        preset: "default", "paper" or "authors"; None is "default".
        steps: Steps of each visualization's optimization.
        relevance: What activations are multiplied by.
        matching: "sort", or "moments" for comparison.
        parametrization: "pyramid", "pixels" or "auto".
        scale: What losses count in: "references", "absolute" or "auto".
        layers: The layers that are matched, in place of the recipe's.
        weights: A weight for each layer, in place of the recipe's.
        tv_weight: Weight of total variation, in place of the recipe's.
        l2_weight: Weight of the l2 norm, in place of the recipe's.
        n_references: References of each visualization.
        select: The class's references: "labels", or "top" for those that the network itself scores highest.
        patch_size: Side of the patches that are references of channels, in pixels.
        search: "maps" or "patches": how top patches are found.
        n_candidates: Score patches only in so many images of a unit.
        size: (height, width) of the visualizations in pixels; None is the network's own.
        view: What of them the network sees in a step: "whole", "crops" or "auto", crops above its own size.
        jitter: Largest shift of the image in a step, in pixels.
        lr: Adam's learning rate.
        random_state: The seed of everything random.
        batch_size: Visualizations made together; None is one on the CPU and eight on a GPU.
        cache: Whether statistics and the states of runs are kept, so that a stopped run is resumed.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        preview: Receives the unfinished visualizations of the current batch now and then.
        fresh: Neither resume a run that was stopped nor take a finished one.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The circuit, with the visualizations.

    Raises:
        UsageError: For a unit that is no class or feature, and for settings that cannot be.
        MissingError: Where there is no image of the class.

    Example:
        >>> circuit = encoscope.circuit("timm:resnet50", "class:zebra", "photos/")  # doctest: +SKIP
        >>> circuit.plot().savefig("circuit.png")  # doctest: +SKIP

    Source: VITAL, section 4.1.2 and figure 4.
    """
    settings = [*CircuitSettings.infos(), *(name for name in VitalSettings.infos() if name not in NOT_OF_CIRCUITS)]
    refuse_unknown("circuit", unknown, [*settings, "preview", "fresh", "batch_size", "cache", "cache_dir", "progress"])
    estimator = Circuit(
        encoder,
        unit,
        n_channels=n_channels,
        layer=layer,
        ranking=ranking,
        preset=preset,
        steps=steps,
        relevance=relevance,
        matching=matching,
        parametrization=parametrization,
        scale=scale,
        layers=layers,
        weights=weights,
        tv_weight=tv_weight,
        l2_weight=l2_weight,
        n_references=n_references,
        select=select,
        patch_size=patch_size,
        search=search,
        n_candidates=n_candidates,
        size=size,
        view=view,
        jitter=jitter,
        lr=lr,
        random_state=random_state,
        batch_size=batch_size,
        cache=cache,
        cache_dir=cache_dir,
        progress=progress,
    )
    return estimator.fit(references).synthesize(preview=preview, fresh=fresh)
