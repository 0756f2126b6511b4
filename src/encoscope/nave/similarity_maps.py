"""How much images are like some places of one image: what ``similar`` gives, saved, loaded and drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from encoscope import plots, results
from encoscope.concise_repr import concise_repr
from encoscope.counting import count_noun
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import Geometry, SkippedImage
from encoscope.nave.targets import QueryTargets
from encoscope.results import Document, ModelRecord, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "similarity"
CONTROL = "control"
_COLUMNS = 4


@dataclass(frozen=True)
class Match:
    """The place of an image that is most similar to what was pointed at.

    Attributes:
        path: The image's file, where there is one.
        x: Its column in the original image.
        y: Its row in the original image.
        similarity: Its score.
        chance: The median, over random places of other images than this one, of the largest score that they have here.
        exceeded_by: The share of those random places that reach at least ``similarity`` here.
    """

    path: str | None
    x: int
    y: int
    similarity: float
    chance: float
    exceeded_by: float


@concise_repr
@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """How much every cell of an image is like what was pointed at.

    Attributes:
        path: The file, where there is one.
        values: ``[rows, columns]``, the score of every cell, without padding: the largest cosine with a place that was
            asked for, minus the largest with one that was not.
        region: ``[rows, columns]``, the cells above the threshold that are connected to a place that was asked for, in
            another image to its most similar place.
        threshold: What cells of the region exceed.
        preview: ``[height, width, 3]``, the image, with a long side of at most 640 pixels.
        geometry: How the image came into the network.
        grid: (rows, columns) of the grid, padding included.
        best_match: The most similar place; None for the asked image, which holds the places themselves.
    """

    path: str | None
    values: Float32[np.ndarray, "rows columns"]
    region: Bool[np.ndarray, "rows columns"]
    threshold: float
    preview: UInt8[np.ndarray, "height width 3"]
    geometry: Geometry
    grid: tuple[int, int]
    best_match: Match | None

    def values_on_pixels(self) -> Float32[np.ndarray, "height width"]:
        """The scores on the pixels of the original image, bilinearly between the centers of cells."""
        return _interpolate(self.values, self.geometry, self.grid)

    def region_on_pixels(self) -> Bool[np.ndarray, "height width"]:
        """The region on the pixels of the original image: where its scores, so interpolated, exceed the threshold."""
        return self._draw_region(self.geometry)

    def overlay(
        self, low: float, high: float, targets: QueryTargets | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the scores over the preview, with the region's outline and the points.

        Args:
            low: The score that gets no color.
            high: The score that gets full color.
            targets: The places that were pointed at, in the asked image; None marks the most similar place.

        Returns:
            The drawing, of the preview's size.
        """
        height, width = self.preview.shape[:2]
        geometry = replace(self.geometry, original=(height, width))
        relative = (_interpolate(self.values, geometry, self.grid) - low) / max(high - low, 1e-9)
        drawn = plots.draw_heat(self.preview, relative.clip(0, 1), self._draw_region(geometry).astype(np.uint8))
        scale = (width / self.geometry.original[1], height / self.geometry.original[0])
        rings = [] if self.best_match is None else [(self.best_match.x, self.best_match.y)]
        rings, crosses = (rings, []) if targets is None else (list(targets.at), list(targets.not_at))
        boxes = [] if targets is None or targets.box is None else [targets.box]
        return plots.draw_marks(drawn, rings, crosses, boxes, scale=scale)

    def _draw_region(self, geometry: Geometry) -> Bool[np.ndarray, "height width"]:
        threshold = np.float32(self.threshold)
        inside = np.where(self.region, self.values, np.minimum(self.values, threshold))
        return _interpolate(inside, geometry, self.grid) > threshold


@concise_repr
@dataclass(frozen=True, eq=False)
class SimilarityMaps(Result):
    """How much images are like some places of one image, the most similar first.

    Attributes:
        targets: What was pointed at.
        query: The map of the image that it was pointed at in.
        maps: The maps of the most similar of the other images.
        ranking: The most similar place of each of the other images, the most similar image first.
        typical: The median score that random places have in the asked image.
        threshold: What cells of a region exceed.
        settings: The settings that made it.
        seed: The seed.
        model: The encoder.
        skipped: Images that were left out.
        control: The same by an untrained copy of the encoder, where it was asked for.
    """

    targets: QueryTargets
    query: SimilarityMap
    maps: tuple[SimilarityMap, ...]
    ranking: tuple[Match, ...]
    typical: float
    threshold: float
    settings: dict[str, Any]
    seed: int
    model: ModelRecord
    skipped: tuple[SkippedImage, ...] = ()
    control: SimilarityMaps | None = None

    def overlays(self) -> list[UInt8[np.ndarray, "height width 3"]]:
        """The drawings: of the asked image, then of the others that kept their maps."""
        high = float(self.query.values.max())
        first = self.query.overlay(self.typical, high, self.targets)
        return [first, *(item.overlay(self.typical, high) for item in self.maps)]

    def captions(self) -> list[str]:
        """A line for each drawing."""
        name = Path(self.query.path).name if self.query.path else "image"
        return [
            f"{name}: {self.targets}",
            *(_caption(item.best_match) for item in self.maps if item.best_match is not None),
        ]

    def sheet(self) -> UInt8[np.ndarray, "height width 3"]:
        """All drawings on one sheet; below them those of the control, where there is one."""
        drawn = [_draw_rows(self, "")]
        if self.control is not None:
            drawn.append(_draw_rows(self.control, "Control: random weights. "))
        width = max(image.shape[1] for image in drawn)
        return np.concatenate(
            [np.pad(i, ((0, 0), (0, width - i.shape[1]), (0, 0)), constant_values=255) for i in drawn]
        )

    def plot(self) -> Figure:
        """A matplotlib figure of the sheet."""
        from matplotlib.figure import Figure

        sheet = self.sheet()
        figure = Figure(figsize=(10, 10 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
        axes = figure.subplots()
        axes.imshow(sheet)
        axes.set_axis_off()
        return figure

    def to_dict(self) -> Document:
        """Give the result document, without the maps."""
        return self._document(None)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, ``arrays.npz``, ``sheet.png``, previews and overlays into a folder.

        Args:
            path: The folder; it is made if it is not there. A control goes into its folder "control".

        Returns:
            The folder.
        """
        folder = Path(path)
        arrays = {}
        for number, (item, overlay) in enumerate(zip((self.query, *self.maps), self.overlays(), strict=True)):
            arrays |= {f"values{number}": item.values, f"region{number}": item.region}
            for name, pixels in ((f"overlay{number}.png", overlay), (f"image{number}.png", item.preview)):
                with results.atomic_write(folder / name) as temporary:
                    Image.fromarray(pixels).save(temporary)
        with results.atomic_write(folder / "arrays.npz") as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        with results.atomic_write(folder / "sheet.png") as temporary:
            Image.fromarray(self.sheet()).save(temporary)
        if self.control is not None:
            self.control.save(folder / CONTROL)
        results.write(folder / "result.json", self._document(folder / "result.json"))
        return folder

    def _document(self, file: Path | None) -> Document:
        """The document; paths are relative to its file, where there is one, and files beside it are named."""
        entries = []
        for number, item in enumerate((self.query, *self.maps)):
            height, width = item.geometry.original
            entry = {"path": item.path, "width": width, "height": height, "region": float(item.region.mean())}
            entry |= {"best_match": None if item.best_match is None else _entry(item.best_match)}
            if file is not None:
                geometry = {name: list(value) for name, value in vars(item.geometry).items()}
                entry |= {"overlay": f"overlay{number}.png", "image": f"image{number}.png"}
                entry |= {"geometry": geometry, "grid": list(item.grid)}
            entries.append(entry)
        document = results.envelope(
            KIND, entries, model=self.model.as_dict(), settings=self.settings, seed=self.seed, skipped=self.skipped
        )
        document |= {"targets": self.targets.as_dict(), "typical": self.typical, "threshold": self.threshold}
        document["ranking"] = [{"path": best_match.path, **_entry(best_match)} for best_match in self.ranking]
        if self.control is not None:
            document[CONTROL] = CONTROL if file is not None else self.control.to_dict()
        if file is not None:
            for entry in (*document["results"], *document["ranking"], *document["skipped"]):
                entry["path"] = None if entry["path"] is None else results.relative(entry["path"], file)
        return document

    def __str__(self) -> str:
        return f"{self.captions()[0]}: {count_noun(len(self.ranking), 'other image')}"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimilarityMaps:
        """Read what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The maps.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result, or not whole.
        """
        folder = Path(path)
        file = folder / "result.json"
        document = results.read(file, KIND)
        try:
            arrays = results.read_arrays(folder / "arrays.npz")
        except FileNotFoundError as error:
            raise MissingError(f"{error.filename} is missing: the result is not whole") from error
        except results.DAMAGED as error:
            raise EncoscopeError(f"{folder / 'arrays.npz'} is damaged: the result is not whole") from error
        maps = []
        for number, entry in enumerate(document["results"]):
            name = _resolve(entry["path"], file)
            maps.append(
                SimilarityMap(
                    path=name,
                    values=arrays[f"values{number}"],
                    region=arrays[f"region{number}"],
                    threshold=document["threshold"],
                    preview=np.asarray(plots.read_sheet(folder / entry["image"])),
                    geometry=Geometry(**{key: tuple(value) for key, value in entry["geometry"].items()}),
                    grid=tuple(entry["grid"]),
                    best_match=None if entry["best_match"] is None else Match(name, **entry["best_match"]),
                )
            )
        ranking = [Match(**{**entry, "path": _resolve(entry["path"], file)}) for entry in document["ranking"]]
        skipped = [SkippedImage(_resolve(item["path"], file) or "", item["reason"]) for item in document["skipped"]]
        return cls(
            targets=QueryTargets.from_dict(document["targets"]),
            query=maps[0],
            maps=tuple(maps[1:]),
            ranking=tuple(ranking),
            typical=document["typical"],
            threshold=document["threshold"],
            settings=document["settings"],
            seed=document["seed"],
            model=ModelRecord.from_dict(document["model"]),
            skipped=tuple(skipped),
            control=cls.load(folder / CONTROL) if CONTROL in document else None,
        )


def _interpolate(
    values: Float32[np.ndarray, "rows columns"], geometry: Geometry, grid: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    return geometry.interpolate(values[..., None].astype(np.float64), grid)[..., 0].astype(np.float32)


def _entry(best_match: Match) -> dict[str, Any]:
    return {name: value for name, value in vars(best_match).items() if name != "path"}


def _resolve(name: str | None, file: Path) -> str | None:
    return None if name is None else results.resolve_path(name, file)


def _caption(best_match: Match) -> str:
    name = Path(best_match.path).name if best_match.path else "image"
    return (
        f"{name}: {best_match.similarity:.2f} (random {best_match.chance:.2f}, {best_match.exceeded_by:.0%} reach it)"
    )


def _draw_rows(maps: SimilarityMaps, title: str) -> UInt8[np.ndarray, "height width 3"]:
    text = f"{title}No color: {maps.typical:.2f}, as random places. Outline: above {maps.threshold:.2f}."
    drawn, captions = maps.overlays(), maps.captions()
    return plots.draw_contact_sheet(drawn, captions, _COLUMNS, cell=320, title=[text] if len(drawn) > 2 else [])
