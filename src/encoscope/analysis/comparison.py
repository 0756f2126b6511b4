"""What a comparison of two encoders gives: printed, drawn, saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.counting import count_noun
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError
from encoscope.evaluation.charts import render_figure
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.plots import read_sheet
from encoscope.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "comparison"
ALIKE = 0.5
"""Features count as matched when their correlation is above this."""


@dataclass(frozen=True)
class Agreement:
    """How alike two encoders segment images: adjusted Rand index, mean over images.

    Attributes:
        clusters: K of the segmentations.
        agreement: Of the two encoders.
        ceiling: Of the first encoder with itself on the mirrored image, mirrored back; hardly more can be expected.
        floor: Of the first encoder with its own untrained copy, what the images alone make any network agree on; None
            where no copy can be made, and where the second encoder is this copy.
    """

    clusters: int
    agreement: Interval
    ceiling: Interval
    floor: Interval | None


@concise_repr
@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """What ``compare`` gives: two encoders on the same images. ``print`` shows its values.

    Attributes:
        names: The encoders' sources.
        digests: Theirs.
        images: How many images were compared.
        agreements: Of segmentations, one for each number of clusters.
        layers: The names of the layers that are compared, of each encoder.
        cka: ``[first, second]``, linear CKA (unbiased) between spatial means of layers.
        matches: ``[pairs, 2]``, pooled features matched one to one, the most correlated first.
        correlations: ``[pairs]``, theirs.
        chance: ``[pairs]``, the same with each of the second encoder's images replaced by another one at random.
        ranked: Each image's path with its mean adjusted Rand index over the granularities, the lowest first.
        sheet: The images that differ most.
        random_state: The seed.
        skipped: What could not be read.
        preprocessing: How images were brought to each encoder's input.
        records: What else was decided about each encoder, see `Encoder.record`.
        settings: The settings, as they are recorded.
        classes: The number of images of each class; empty without labels.
        warnings: What was said of the encoders.
    """

    names: tuple[str, str]
    digests: tuple[str, str]
    images: int
    agreements: tuple[Agreement, ...]
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    cka: Float[np.ndarray, "first second"]
    matches: Int[np.ndarray, "pairs 2"]
    correlations: Float[np.ndarray, " pairs"]
    chance: Float[np.ndarray, " pairs"]
    ranked: tuple[tuple[str | None, float], ...]
    sheet: Image.Image
    random_state: int = RANDOM_STATE
    skipped: tuple[SkippedImage, ...] = ()
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    records: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default_factory=lambda: ({}, {}))
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.names[0]} and {self.names[1]} on {count_noun(self.images, 'image')}", ""]
        rows: list[tuple[Any, ...]] = [("K", "agreement (ARI)", "first, mirrored", "first, untrained")]
        rows += [(row.clusters, row.agreement, row.ceiling, row.floor or "-") for row in self.agreements]
        for row in rows:
            lines += ["  ".join([str(row[0]).rjust(2), *(str(cell).ljust(20) for cell in row[1:])]).rstrip()]
        alike, chance = self._count_alike()
        lines += [
            "",
            f"features matched with r > {ALIKE}: {alike} of {len(self.matches)} ({chance} with other images at random)",
            f"last layers' CKA: {self.cka[-1, -1]:.3f}",
        ]
        return "\n".join([*lines, *self.notes])

    @property
    def notes(self) -> tuple[str, ...]:
        """What keeps the figures from being trusted, each in a sentence."""
        alike, chance = self._count_alike()
        if 2 * chance <= alike:
            return ()
        return (
            f"{count_noun(self.images, 'image')} are too few to match features: "
            f"{chance} pairs have r > {ALIKE} by chance, {alike} in truth",
        )

    def _count_alike(self) -> tuple[int, int]:
        """How many features are matched, and how many with other images."""
        return int((self.correlations > ALIKE).sum()), int((self.chance > ALIKE).sum())

    def to_dict(self, document: str | os.PathLike[str] | None = None) -> results.Document:
        """Give the result document.

        Args:
            document: Its file, to which paths in it are relative; by default they stay as they are.

        Returns:
            The document.
        """

        def name(path: str | None) -> str | None:
            return path if path is None or document is None else results.relative(path, document)

        entry = {
            "agreement": [
                {
                    "clusters": row.clusters,
                    "agreement": row.agreement.as_dict(),
                    "mirrored": row.ceiling.as_dict(),
                    "untrained": None if row.floor is None else row.floor.as_dict(),
                }
                for row in self.agreements
            ],
            "cka": {
                "layers": [list(names) for names in self.layers],
                "values": [[None if np.isnan(value) else float(value) for value in row] for row in self.cka],
            },
            "features": [
                {"first": int(a), "second": int(b), "correlation": float(r)}
                for (a, b), r in zip(self.matches, self.correlations, strict=True)
            ],
            "chance_correlations": self.chance,
            "images": [{"path": name(path), "agreement": score} for path, score in self.ranked],
        }
        return results.envelope(
            KIND,
            [entry],
            model={
                "sources": list(self.names),
                "digests": list(self.digests),
                "preprocessing": list(self.preprocessing),
            }
            | ({"records": [dict(record) for record in self.records]} if any(self.records) else {})
            | ({"warnings": list(self.warnings)} if self.warnings else {}),
            settings=dict(self.settings)
            | {"images": self.images, "classes": dict(self.classes), "notes": list(self.notes)},
            seed=self.random_state,
            skipped=[{"path": name(item.path), "reason": item.reason} for item in self.skipped],
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, ``cka.png`` and ``differences.png`` into a folder.

        Args:
            path: The folder; it is made if it is absent.

        Returns:
            The folder.
        """
        folder = Path(path)
        for name, image in (("cka", render_figure(self.plot())), ("differences", self.sheet)):
            with results.atomic_write(folder / f"{name}.png") as temporary:
                image.save(temporary)
        results.write(folder / "result.json", self.to_dict(folder / "result.json"))
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read back what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The comparison.

        Raises:
            MissingError: When nothing is there, or a file is missing.
            EncoscopeError: When it is another kind of result, or damaged.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        entry, model = document["results"][0], document["model"]
        features, values = entry["features"], entry["cka"]["values"]
        settings = dict(document["settings"])
        settings.pop("notes", None)
        return cls(
            names=(model["sources"][0], model["sources"][1]),
            digests=(model["digests"][0], model["digests"][1]),
            images=settings.pop("images"),
            classes=settings.pop("classes", {}),
            settings=settings,
            warnings=tuple(model.get("warnings", ())),
            agreements=tuple(_read_agreement(row) for row in entry["agreement"]),
            layers=(tuple(entry["cka"]["layers"][0]), tuple(entry["cka"]["layers"][1])),
            cka=np.array([[np.nan if value is None else value for value in row] for row in values], np.float64),
            matches=np.array([(item["first"], item["second"]) for item in features], np.int64).reshape(-1, 2),
            correlations=np.array([item["correlation"] for item in features], np.float64),
            chance=np.array(entry["chance_correlations"], np.float64),
            ranked=tuple(
                (None if item["path"] is None else results.resolve_path(item["path"], file), item["agreement"])
                for item in entry["images"]
            ),
            sheet=read_sheet(file.with_name("differences.png")),
            random_state=document["seed"],
            preprocessing=tuple(model.get("preprocessing", ())),
            records=(dict(model.get("records", ({}, {}))[0]), dict(model.get("records", ({}, {}))[1])),
            skipped=tuple(
                SkippedImage(results.resolve_path(item["path"], file), item["reason"]) for item in document["skipped"]
            ),
        )

    def plot(self) -> Figure:
        """Plot CKA of the first encoder's layers (rows) with the second's, as a matplotlib figure."""
        from matplotlib.figure import Figure

        rows, columns = self.cka.shape
        figure = Figure(figsize=(2.6 + 0.55 * columns, 2.0 + 0.45 * rows), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(self.cka, vmin=0, vmax=1, cmap="viridis")
        axes.set_yticks(range(rows), self.layers[0])
        axes.set_xticks(range(columns), self.layers[1], rotation=45, ha="right")
        axes.set_ylabel(self.names[0])
        axes.set_xlabel(self.names[1])
        for (row, column), value in np.ndenumerate(self.cka):
            text = "" if np.isnan(value) else f"{value:.2f}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if value < 0.6 else "black"
            )
        figure.colorbar(shown, ax=axes, label="linear CKA")
        return figure


def _read_agreement(row: Mapping[str, Any]) -> Agreement:
    agreement, mirrored, untrained = (
        None if row[name] is None else Interval.from_dict(row[name]) for name in ("agreement", "mirrored", "untrained")
    )
    if agreement is None or mirrored is None:
        raise EncoscopeError("a comparison without the agreement of its encoders is damaged: make it again")
    return Agreement(row["clusters"], agreement, mirrored, untrained)
