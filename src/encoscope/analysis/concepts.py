"""The concepts of a class (CRAFT), each with its visualization (VITAL)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn

from encoscope import plots, results
from encoscope.analysis.settings import ConceptsSettings
from encoscope.craft.bank import FILE, KIND, ConceptBank
from encoscope.craft.estimator import find_concepts
from encoscope.craft.settings import CraftSettings
from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import explain_calls
from encoscope.images import list_images, read_image
from encoscope.probing import hash_files
from encoscope.progress import Progress
from encoscope.results import Document, Result
from encoscope.settings import refuse_unknown
from encoscope.units import Unit
from encoscope.vital import Visualization, Vital
from encoscope.vital.settings import Relevance
from encoscope.vital.visualization import read_entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class VisualizedConcepts(Result):
    """The concepts of a class and what each looks like to the network.

    Attributes:
        bank: The concepts, the most important first.
        visualizations: One for each concept; empty where none were asked for.
    """

    bank: ConceptBank
    visualizations: tuple[Visualization, ...] = ()

    def __len__(self) -> int:
        """The number of concepts."""
        return len(self.bank)

    def __str__(self) -> str:
        return f"{self.bank.unit}: {len(self)} concepts of {self.bank.layer}, from {len(self.bank.images)} images"

    def to_dict(self) -> Document:
        """Give the result document, without files."""
        return self.bank.make_document(
            [{"visualization": item.entry() | {"model": item.model.as_dict()}} for item in self.visualizations] or None
        )

    def sheet(self) -> Image.Image:
        """Draw a contact sheet with a row for each concept: its visualization, and the patches that hold most of it."""
        cells: list[Any] = []
        captions: list[str] = []
        columns = max((len(patches) for patches in self.bank.crops), default=0)
        columns = max(columns, int(self.bank.settings["n_crops"])) + bool(self.visualizations)
        for index, patches in enumerate(self.bank.crops):
            row: list[Any] = [self.visualizations[index].picture] if self.visualizations else []
            for patch in patches:
                x0, y0, x1, y1 = patch.box
                row.append(plots.to_rgb(read_image(patch.path, channels=None))[y0 : y1 + 1, x0 : x1 + 1])
            row += [Image.new("RGB", (8, 8), "white")] * (columns - len(row))
            cells += row
            captions.append(f"concept {index + 1}, importance {self.bank.importances[index]:.2f}")
            captions += [""] * (columns - 1)
        return Image.fromarray(np.asarray(plots.draw_contact_sheet(cells, captions, columns, cell=120)))

    def plot(self) -> Figure:
        """Draw the contact sheet as a matplotlib figure."""
        from matplotlib.figure import Figure

        sheet = self.sheet()
        figure = Figure(figsize=(12, 12 * sheet.height / sheet.width), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet)
        axes.set_axis_off()
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write directions, visualizations, sheet.png and result.json into a folder.

        Args:
            path: The folder; it is made if it is not there. ``ConceptBank.load`` reads the concepts alone.

        Returns:
            The folder.
        """
        folder = Path(path)
        entries = []
        for index, visualization in enumerate(self.visualizations):
            base = folder / Path(self.bank.file(index)).stem
            entry = visualization.write(base, folder / FILE, arrays=True)
            entries.append({"visualization": entry | {"model": visualization.model.as_dict()}})
        with results.atomic_write(folder / "sheet.png") as temporary:
            self.sheet().save(temporary)
        return self.bank.save(folder, entries or None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VisualizedConcepts:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The concepts with their visualizations.

        Raises:
            MissingError: When there is none, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / FILE
        document = results.read(file, KIND)
        entries = [item["visualization"] for item in document["results"] if "visualization" in item]
        return cls(ConceptBank.load(path), tuple(read_entry(entry, document, file) for entry in entries))


@explain_calls
def concepts(
    encoder: Encoder | nn.Module | str,
    unit: Unit | str,
    references: Any,
    *,
    preset: str | None = None,
    n_concepts: int | None = None,
    layer: str | None = None,
    n_images: int | None = None,
    patch_size: int | None = None,
    n_samples: int | None = None,
    n_crops: int | None = None,
    visualize: bool | None = None,
    steps: int | None = None,
    relevance: Relevance | None = None,
    random_state: int = ConceptsSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    out: str | os.PathLike[str] | None = None,
    **unknown: Any,
) -> VisualizedConcepts:
    """Find the concepts that a network makes up a class of, and visualize each.

    `ConceptsSettings` says what each setting means and what its default is; None leaves the preset's own value.

    Args:
        encoder: An encoder, a module, or a source string.
        unit: The class, ``class:NAME`` or ``class:INDEX``.
        references: Images of the class: a dataset string, a folder or files.
        preset: "default", "paper" or "authors", as for ``visualize``; the concepts themselves are the same in all.
        n_concepts: How many concepts.
        layer: A layer without negative activations; None takes the last stage.
        n_images: Images of the class at most.
        patch_size: The side of the patches in pixels.
        n_samples: Masks for the importances, a power of two.
        n_crops: Patches shown for each concept.
        visualize: Whether concepts are visualized.
        steps: Steps of each visualization.
        relevance: As for ``visualize``; "auto" is the paper's LRP where it reaches, "none" the whole patches.
        random_state: The seed of everything random.
        batch_size: Patches at a time; it does not change the result.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        out: A folder that the directions are written into as soon as they are there, before the visualizations.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The concepts, the most important first, with their visualizations.

    Raises:
        UsageError: For a unit that is no class, a layer with negative activations, and settings that cannot be.
        MissingError: When there is no image of the class.

    Example:
        >>> concepts = encoscope.concepts("zoo:resnet-caltech101", "class:sunflower", "images/")  # doctest: +SKIP
        >>> concepts.sheet().save("sunflower.png")  # doctest: +SKIP

    Source: CRAFT (Fel et al. 2023), with VITAL for the pictures in place of CRAFT's own.
    """
    refuse_unknown("concepts", unknown, [*ConceptsSettings.infos(), "batch_size", "progress", "out"])
    settings = ConceptsSettings.from_preset(
        preset,
        n_concepts=n_concepts,
        layer=layer,
        n_images=n_images,
        patch_size=patch_size,
        n_samples=n_samples,
        n_crops=n_crops,
        visualize=visualize,
        steps=steps,
        relevance=relevance,
        random_state=random_state,
    )
    encoder = as_encoder(encoder)
    names = CraftSettings.infos()
    bank = find_concepts(
        encoder,
        unit,
        references,
        **{name: getattr(settings, name) for name in names},
        batch_size=batch_size,
        progress=progress,
    )
    if out is not None:
        bank.save(out)
    if not settings.visualize:
        return VisualizedConcepts(bank)
    visualizations = _visualize(encoder, bank, references, settings, progress)
    return VisualizedConcepts(bank, tuple(visualizations))


def _visualize(
    encoder: Encoder, bank: ConceptBank, references: Any, settings: ConceptsSettings, progress: Progress
) -> Iterator[Visualization]:
    """Each concept's visualization; its references are the patches of the class's own images that hold most of it."""
    known = set(bank.images)
    paths = list_images(references).paths
    own = [path for path, identity in zip(paths, hash_files(paths), strict=True) if identity in known]
    units = [bank.as_unit(index) for index in range(len(bank))]
    vital = Vital(
        encoder,
        units,
        preset=settings.preset,
        steps=settings.steps,
        relevance=settings.relevance,
        patch_size=bank.settings["patch_size"],
        random_state=bank.seed,
        progress=progress,
    )
    yield from vital.fit(own).stream()
