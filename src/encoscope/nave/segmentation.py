"""What NAVE finds in one image: a label for every pixel, at any granularity, with what made it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Integer, Num, UInt8
from PIL import Image

from encoscope import plots, results
from encoscope.concise_repr import concise_repr
from encoscope.counting import count_noun
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import Geometry, LoadedImage, read_image
from encoscope.nave.granularity import Granularity
from encoscope.nave.settings import MAX_CLUSTERS
from encoscope.nave.ward import WardTree
from encoscope.regions import Region
from encoscope.regions import find_regions as connected_regions
from encoscope.results import Document, ModelRecord, Result, record_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from encoscope.encoder import Encoder

KIND = "segmentation"


@concise_repr
@dataclass(frozen=True, eq=False)
class Segmentation(Result):
    """What an encoder treats alike in one image.

    Attributes:
        labels: ``[height, width]``, the cluster of every pixel of the original image, in 0..n_clusters-1.
        grid_labels: ``[rows, columns]``, the same on the grid that was clustered, without padding.
        n_clusters: K.
        inertia: The sum of squared distances of the grid's composite vectors to their cluster's mean.
        geometry: How the image came into the network.
        grid: (rows, columns) of the grid, padding included.
        settings: The settings that made it.
        seed: The seed.
        path: The file, where there is one.
    """

    labels: UInt8[np.ndarray, "height width"]
    grid_labels: UInt8[np.ndarray, "rows columns"]
    n_clusters: int
    inertia: float
    geometry: Geometry
    grid: tuple[int, int]
    settings: dict[str, Any]
    seed: int
    path: str | None = None
    _image: LoadedImage | None = field(default=None, repr=False)
    _model: ModelRecord | Callable[[], ModelRecord] | None = field(default=None, repr=False)
    _granularity: Granularity | Callable[[], Granularity] | None = field(default=None, repr=False)
    _color: Callable[..., UInt8[np.ndarray, "height width 3"]] | None = field(default=None, repr=False)

    @property
    def height(self) -> int:
        """Rows of the original image."""
        return self.labels.shape[0]

    @property
    def width(self) -> int:
        """Columns of the original image."""
        return self.labels.shape[1]

    @cached_property
    def model(self) -> ModelRecord | None:
        """The encoder that was looked into."""
        return self._model() if callable(self._model) else self._model

    @cached_property
    def granularity(self) -> Granularity:
        """The Ward tree that ``at`` cuts; grown when first asked for. Raises EncoscopeError when it was not kept."""
        if self._granularity is None:
            raise EncoscopeError("this segmentation has one granularity: its tree was not kept")
        return self._granularity() if callable(self._granularity) else self._granularity

    def at(self, n_clusters: int) -> Segmentation:
        """Give the same image at another granularity, cut from one Ward tree: a region at k + 1 lies inside one at k.

        Its labels equal ``labels`` at their own number of clusters only for ``grouping="ward"``.

        Args:
            n_clusters: K.

        Returns:
            Another segmentation.

        Raises:
            UsageError: When there are fewer points than clusters.
        """
        tree = self.granularity
        most = min(tree.tree.points, MAX_CLUSTERS)
        if not 1 <= n_clusters <= most:
            raise UsageError(f"this image can be cut into 1 to {most} clusters, not {n_clusters}")
        cells = renumber_by_size(tree.cut(n_clusters)).astype(np.uint8).reshape(self.grid_labels.shape)
        changed = {"n_clusters": n_clusters, "grouping": "ward", "micro_clusters": tree.micro_clusters}
        changed |= {"min_region": 0.0}
        cut = self.relabelled(cells, inertia=tree.inertia(n_clusters), settings=self.settings | changed)
        return replace(cut, n_clusters=n_clusters, _granularity=tree, _model=self._model, _color=self._color)

    def relabelled(
        self, cells: UInt8[np.ndarray, "rows columns"], *, inertia: float, settings: dict[str, Any]
    ) -> Segmentation:
        """Give another labelling of the same cells of the same image, not (or not only) by this model.

        Args:
            cells: ``[rows, columns]``, the labels on the grid.
            inertia: Its inertia.
            settings: The settings that made it.

        Returns:
            Another segmentation.
        """
        return replace(
            self,
            labels=self.geometry.to_original(cells, self.grid),
            grid_labels=cells,
            inertia=inertia,
            settings=settings,
            _model=None,
            _granularity=None,
            _color=None,
        )

    def rgb(
        self, *, foreground: str | None = None, threshold: float | None = None
    ) -> UInt8[np.ndarray, "height width 3"]:
        """Color the image by the first three principal components of the features that were clustered.

        These are the colors that ``encoscope.colors`` gives for this image alone; between images they mean different
        things. The encoder runs once more.

        Args:
            foreground: "all", "high" or "low"; see `ColorSettings`.
            threshold: The foreground's threshold, in standard deviations of the first component; None is Otsu's.

        Returns:
            ``[height, width, 3]``, on the original pixels.

        Raises:
            EncoscopeError: For a segmentation that was read from disk, or that no encoder made.
            UsageError: For settings that cannot be.
        """
        if self._color is None:
            raise EncoscopeError("this segmentation has no encoder at hand: color the image with encoscope.colors")
        return self._color(foreground=foreground, threshold=threshold)

    def regions(self, *, min_area: int = 0, border: int = 0) -> list[Region]:
        """Find the connected components (4-connectivity), with both boxes.

        Args:
            min_area: Leave out regions of at most so many pixels.
            border: Leave out regions that lie within so many pixels of the image's border; see ``encoscope.regions``.

        Returns:
            The regions, the largest first.

        Source: NAVE, appendix A.
        """
        return connected_regions(self.labels, min_area=min_area, border=border)

    def overlay(self, *, alpha: float = 0.5) -> Image.Image:
        """Draw the clusters' colors and outlines on the image (on grey where the image is not at hand).

        Args:
            alpha: The opacity of the colors, 0 to 1.

        Returns:
            The picture, of the image's own size.
        """
        return Image.fromarray(plots.draw_overlay(self._pixels(), self.labels, alpha=alpha))

    def plot(self) -> Figure:
        """A matplotlib figure: the image, and the overlay with each cluster's color and share of the image."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(self._pixels())
        left.set_title(Path(self.path).name if self.path else "image")
        right.imshow(self.overlay())
        right.set_title(f"K = {self.n_clusters}")
        share = np.bincount(self.labels.ravel(), minlength=self.n_clusters) / self.labels.size
        colors = plots.palette(self.n_clusters) / 255
        if self.n_clusters <= 20:
            handles = [Patch(color=colors[k], label=f"{k}: {share[k]:.0%}") for k in range(self.n_clusters)]
            right.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        for axes in (left, right):
            axes.set_axis_off()
        return figure

    def _pixels(self) -> np.ndarray:
        if self._image is not None:
            return plots.to_rgb(self._image.pixels)
        if self.path is not None:
            try:
                pixels = plots.to_rgb(read_image(self.path, channels=None).pixels)
                if pixels.shape[:2] == self.labels.shape:
                    return pixels
            except EncoscopeError:
                pass  # the image has moved: the labels alone are still worth a picture
        return np.full((*self.labels.shape, 3), 128, dtype=np.uint8)

    def entry(self) -> dict[str, Any]:
        """This image's entry in a result document (boxes ``[x0, y0, x1, y1]``, original pixels)."""
        return {
            "path": self.path,
            "width": self.width,
            "height": self.height,
            "clusters": self.n_clusters,
            "inertia": self.inertia,
            "regions": [
                {"cluster": r.cluster, "area": r.area, "outer_box": r.outer_box, "inner_box": r.inner_box}
                for r in self.regions()
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json`` and ``arrays.npz`` (labels, tree) into a folder; ``load`` reads them back.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        folder = Path(path)
        tree = self.granularity if self._granularity is not None else None
        arrays = {"labels": self.labels, "grid_labels": self.grid_labels}
        if tree is not None:
            arrays |= {"points": tree.points, "merges": tree.tree.merges, "costs": tree.tree.costs}
        image = self.entry() | {
            "arrays": "arrays.npz",
            "grid": list(self.grid),
            "geometry": {name: list(value) for name, value in vars(self.geometry).items()},
            "within": 0.0 if tree is None else tree.within,
        }
        with results.atomic_write(folder / "arrays.npz") as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        results.write(folder / "result.json", self._document(image))
        return folder

    def to_dict(self) -> Document:
        """Give the result document: regions, boxes, settings and provenance, without the labels."""
        return self._document(self.entry())

    def _document(self, entry: dict[str, Any]) -> Document:
        model = None if self.model is None else self.model.as_dict()
        return results.envelope(KIND, [entry], model=model, settings=self.settings, seed=self.seed)

    def __str__(self) -> str:
        name = Path(self.path).name if self.path else "image"
        return f"{name}: {count_noun(self.n_clusters, 'cluster')}, {count_noun(len(self.regions()), 'region')}"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Segmentation:
        """Read what ``save`` wrote.

        Args:
            path: The folder.

        Returns:
            The segmentation.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result.
        """
        folder = Path(path)
        document = results.read(folder / "result.json", KIND)
        image = document["images"][0] if len(document["images"]) == 1 else {}
        if "arrays" not in image:
            raise EncoscopeError(f"{folder / 'result.json'} was not written by Segmentation.save")
        try:
            arrays = results.read_arrays(folder / image["arrays"])
        except FileNotFoundError as error:
            raise MissingError(f"{folder / image['arrays']} is missing: the result is not whole") from error
        tree = None
        if "merges" in arrays:
            tree = Granularity(WardTree(arrays["merges"], arrays["costs"]), arrays["points"], image["within"])
        model = document["model"]
        return cls(
            labels=arrays["labels"],
            grid_labels=arrays["grid_labels"],
            n_clusters=image["clusters"],
            inertia=image["inertia"],
            geometry=Geometry(**{name: tuple(value) for name, value in image["geometry"].items()}),
            grid=tuple(image["grid"]),
            settings=document["settings"],
            seed=document["seed"],
            path=image["path"],
            _model=None if model is None else ModelRecord.from_dict(model),
            _granularity=tree,
        )


def model_of(encoder: Encoder, layers: tuple[str, ...]) -> Callable[[], ModelRecord]:
    """Prepare the record of the encoder behind a result.

    Args:
        encoder: The encoder.
        layers: The layers that were read.

    Returns:
        A function that gives the record; the digest is computed when it is first called.
    """
    return lambda: record_model(encoder, layers)


def renumber_by_size(
    labels: Integer[np.ndarray, " n"], weights: Num[np.ndarray, " n"] | None = None
) -> Integer[np.ndarray, " n"]:
    """Renumber labels: 0 is the largest cluster; of equal ones, the first to appear comes first.

    Args:
        labels: ``[n]``.
        weights: ``[n]``, how much each counts; None for all alike.

    Returns:
        ``[n]``, the new labels.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.lexsort((first, -np.bincount(inverse, weights=weights)))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse]
