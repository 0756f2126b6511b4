"""Small circuits (paper, section 4.1.2 and figure 4): the channels a class rests on, each pictured."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from encoscope.concise_repr import concise_repr
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.progress import Progress
from encoscope.relevance import RelevanceMethod, choose_method, compute_channel_relevance
from encoscope.units import Unit, channel_unit, parse_unit
from encoscope.vital.estimator import Vital
from encoscope.vital.references.references import References, Source, find_class_references
from encoscope.vital.visualization import Visualization

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Link:
    """A channel of a circuit. share: of the relevance that its layer's channels have for the class, summed over all."""

    unit: Unit
    relevance: float
    share: float


@concise_repr
@dataclass(frozen=True, eq=False)
class Circuit:
    """A class and the channels of its last hidden layer of highest relevance, the highest first.

    pictures: of the class, then of each channel. images: how many real images the relevance is a mean over.
    """

    unit: Unit
    layer: str
    method: str
    images: int
    links: tuple[Link, ...]
    pictures: tuple[Visualization, ...]

    def entry(self) -> dict[str, Any]:
        """For a result document; ``pictures`` apart."""
        return {
            "unit": self.unit.text,
            "layer": self.layer,
            "relevance": self.method,
            "images": self.images,
            "channels": [
                {"unit": link.unit.text, "relevance": link.relevance, "share": link.share} for link in self.links
            ],
        }

    def plot(self) -> Figure:
        """The class's picture above, its channels' below, an arrow each with the channel's share of the relevance."""
        from matplotlib.figure import Figure
        from matplotlib.patches import ConnectionPatch

        columns = len(self.links)
        figure = Figure(figsize=(2.6 * max(columns, 2), 6.6), layout="constrained")
        grid = figure.add_gridspec(3, 2 * columns, height_ratios=(1, 0.22, 1))  # arrows have the row between
        above = figure.add_subplot(grid[0, columns - 1 : columns + 1])
        above.imshow(self.pictures[0].picture)
        above.set_title(self.unit.text)
        above.set_axis_off()
        widest = max(link.share for link in self.links)
        for place, (link, found) in enumerate(zip(self.links, self.pictures[1:], strict=True)):
            axes = figure.add_subplot(grid[2, 2 * place : 2 * place + 2])
            axes.imshow(found.picture)
            axes.set_title("\n".join(textwrap.wrap(f"{link.unit.text}: {link.share:.1%}", 24)), fontsize=10, y=-0.16)
            axes.set_axis_off()
            arrow = ConnectionPatch(
                xyA=(0.5, 1.02),
                coordsA=axes.transAxes,
                xyB=((place + 0.5) / columns, -0.03),
                coordsB=above.transAxes,
                arrowstyle="-|>",
                mutation_scale=14,
                linewidth=0.8 + 3 * link.share / max(widest, 1e-12),
                color="0.35",
            )
            figure.add_artist(arrow)
        return figure


def rank_channels(
    encoder: Encoder,
    unit: Unit | str,
    references: References,
    *,
    top: int = 3,
    layer: str | None = None,
    method: RelevanceMethod | None = None,
    progress: Progress = None,
) -> tuple[str, str, list[Link]]:
    """The layer (the last hidden one if left out), the method's name, and the ``top`` channels by relevance.

    A channel's relevance is summed over space and averaged over the references. Raises UsageError for a unit that is
    no class or feature and for fewer than one channel.
    """
    unit = parse_unit(unit, encoder)
    if unit.layer is not None:
        raise UsageError(f"a circuit is of a class or feature, not of {unit.text}")
    if top < 1:
        raise UsageError(f"a circuit has at least one channel, not {top}")
    name = layer or encoder.depths[-1]
    how: RelevanceMethod = choose_method(encoder) if method is None else method
    sources = [item.source for item in references.items]
    found = compute_channel_relevance(encoder, sources, unit, name, method=how, progress=progress).double().numpy()
    total = max(float(np.abs(found).sum()), 1e-30)
    order = np.argsort(-found, kind="stable")[:top]
    links = [Link(channel_unit(name, int(i)), float(found[i]), float(found[i]) / total) for i in order]
    return name, how if isinstance(how, str) else "own", links


def circuit(
    encoder: Encoder,
    unit: Unit | str,
    references: Source,
    *,
    top: int = 3,
    layer: str | None = None,
    method: RelevanceMethod | None = None,
    progress: Progress = None,
    **settings: Any,
) -> Circuit:
    """The class pictured, and the ``top`` channels it rests on, each pictured from its own top patches.

    references: images of the class among others: where top patches are searched, too. settings: those of ``Vital``.

    Raises UsageError for what is no class, MissingError where there is no image of it.
    """
    unit = parse_unit(unit, encoder)
    vital = Vital(encoder, **settings)
    pool = find_class_references(references, encoder, unit, count=vital.number, seed=vital.random_state)
    name, how, links = rank_channels(encoder, unit, pool, top=top, layer=layer, method=method, progress=progress)
    vital.fit(references, [unit, *(link.unit for link in links)], progress=progress)
    pictures = vital.synthesize(progress=progress)
    return Circuit(unit, name, how, len(pool), tuple(links), tuple(pictures))
