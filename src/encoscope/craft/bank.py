"""A class's concepts: directions in a layer, how much each matters, and patches that show it; kept on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope import results
from encoscope.concise_repr import concise_repr
from encoscope.craft.factorization import compute_shares
from encoscope.encoder import Encoder, gives_kept_outputs
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.file_kind import require_ordinary_file
from encoscope.images import SkippedImage
from encoscope.probing import Patch
from encoscope.results import ModelRecord
from encoscope.units import Unit, direction_unit

KIND = "concepts"
FILE = "result.json"


@concise_repr
@dataclass(frozen=True, eq=False)
class ConceptBank:
    """The concepts of a class, the most important first.

    Attributes:
        unit: The class, as the user wrote it.
        layer: The layer whose channels the directions are in.
        directions: ``[concepts, channels]``, non-negative, of unit length.
        importances: ``[concepts]``, total Sobol indices of the class's logit, the mean over the images; about 0 to 1.
        crops: For each concept the patches that hold most of it, one of an image, with the amount as score.
        error: What the factorization leaves out, as a share of the activations' norm.
        images: The ids of the images that it was made from.
        model: The encoder, with the layer.
        settings: The settings that made it.
        seed: The seed.
        notes: What a reader has to know.
        skipped: The images that could not be read.
    """

    unit: str
    layer: str
    directions: Float[np.ndarray, "concepts channels"]
    importances: Float[np.ndarray, " concepts"]
    crops: tuple[tuple[Patch, ...], ...]
    error: float
    images: tuple[str, ...]
    model: ModelRecord
    settings: Mapping[str, Any]
    seed: int
    notes: tuple[str, ...] = ()
    skipped: tuple[SkippedImage, ...] = field(default=())

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self.directions)

    def file(self, index: int) -> str:
        """Name the file of a direction in the bank's folder.

        Args:
            index: The concept, from 0.

        Returns:
            The name.
        """
        return f"concept-{index + 1}.npy"

    def as_unit(self, index: int) -> Unit:
        """Give a concept as something to visualize or describe: its direction, under the name of its file.

        Args:
            index: The concept, from 0.

        Returns:
            The unit.
        """
        return direction_unit(self.layer, self.directions[index], f"{self.layer}@{self.file(index)}")

    def shares(self, activations: Float[np.ndarray, "vectors channels"]) -> Float[np.ndarray, "vectors concepts"]:
        """Compute how much of each concept is in activations, by non-negative least squares.

        Args:
            activations: ``[vectors, channels]`` of the layer.

        Returns:
            ``[vectors, concepts]``.
        """
        return compute_shares(activations, self.directions)

    def check(self, encoder: Encoder) -> None:
        """Refuse another model than the one the bank was made with.

        Args:
            encoder: The encoder.

        Raises:
            UsageError: When it is another model.
        """
        if self.model.digest != encoder.digest:
            raise UsageError(
                f"these concepts were made with another model ({self.model.source}, digest "
                f"{self.model.digest[:12]}; {encoder.source} has {encoder.digest[:12]}): make them again"
            )
        kept = self.model.record.get("trial")
        if kept is not None and not gives_kept_outputs(encoder, kept, [self.layer]):
            raise UsageError(
                f"these concepts were made with a network of the same weights that gives other outputs than "
                f"{encoder.source}: make them again"
            )

    def entries(self) -> list[dict[str, Any]]:
        """An entry of a result document for each concept."""
        return [
            {
                "concept": index + 1,
                "unit": f"{self.layer}@{self.file(index)}",
                "importance": float(self.importances[index]),
                "crops": [asdict(patch) for patch in self.crops[index]],
            }
            for index in range(len(self))
        ]

    def make_document(
        self, extras: Sequence[Mapping[str, Any]] | None = None, path: str | os.PathLike[str] | None = None
    ) -> results.Document:
        """Make the result document.

        Args:
            extras: More for each concept's entry.
            path: The document's file, to which paths in it are relative; None leaves them as they are.

        Returns:
            The document.
        """

        def name(file: str) -> str:
            return file if path is None else results.relative(file, path)

        more = extras if extras is not None else [{} for _ in range(len(self))]
        entries = [entry | dict(extra) for entry, extra in zip(self.entries(), more, strict=True)]
        for entry in entries:
            for crop in entry["crops"]:
                crop["path"] = name(crop["path"])
        return results.envelope(
            KIND,
            entries,
            model=self.model.as_dict(),
            settings=dict(self.settings)
            | {"unit": self.unit, "layer": self.layer, "error": self.error}
            | {"images": list(self.images), "notes": list(self.notes)},
            seed=self.seed,
            skipped=[{"path": name(item.path), "reason": item.reason} for item in self.skipped],
        )

    def save(self, path: str | os.PathLike[str], extras: Sequence[Mapping[str, Any]] | None = None) -> Path:
        """Write ``result.json`` and a .npy file for each direction, which ``layer@FILE.npy`` then names as a unit.

        The document comes last: a folder without one holds no bank.

        Args:
            path: The folder; it is made if it is not there.
            extras: More for each concept's entry.

        Returns:
            The folder.
        """
        folder = Path(path)
        for index, direction in enumerate(self.directions):
            with results.atomic_write(folder / self.file(index)) as temporary:
                np.save(temporary, direction.astype(np.float32), allow_pickle=False)
        results.write(folder / FILE, self.make_document(extras, folder / FILE))
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ConceptBank:
        """Read a bank back.

        Args:
            folder: The folder.

        Returns:
            The bank.

        Raises:
            MissingError: When there is none.
            EncoscopeError: When it is damaged.
        """
        file = Path(folder) / FILE
        document = results.read(file, KIND)
        settings = dict(document["settings"])
        directions, crops = [], []
        for entry in document["results"]:
            where = Path(folder) / entry["unit"].rpartition("@")[2]
            require_ordinary_file(where)
            try:
                directions.append(np.load(where, allow_pickle=False))
            except FileNotFoundError:
                raise MissingError(f"{file} names {where.name}, which is not there: make the concepts again") from None
            except (OSError, ValueError) as error:
                raise EncoscopeError(f"{where} is damaged: make the concepts again") from error
            crops.append(tuple(_patch(crop, file) for crop in entry["crops"]))
        own = {name: settings.pop(name) for name in ("unit", "layer", "error", "images", "notes")}
        return cls(
            unit=own["unit"],
            layer=own["layer"],
            directions=np.stack(directions),
            importances=np.array([entry["importance"] for entry in document["results"]]),
            crops=tuple(crops),
            error=own["error"],
            images=tuple(own["images"]),
            model=ModelRecord.from_dict(document["model"]),
            settings=settings,
            seed=document["seed"],
            notes=tuple(own["notes"]),
            skipped=tuple(
                SkippedImage(results.resolve_path(item["path"], file), item["reason"]) for item in document["skipped"]
            ),
        )


def _patch(entry: Mapping[str, Any], document: Path) -> Patch:
    (x0, y0, x1, y1), (top, left) = entry["box"], entry["corner"]
    path = results.resolve_path(entry["path"], document)
    return Patch(
        entry["id"], path, (x0, y0, x1, y1), entry["score"], (top, left), entry["side"], entry.get("geometry", "whole")
    )
