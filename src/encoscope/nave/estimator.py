"""Nave: one set of clusters for many images, fitted once and used on new ones."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator

from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.nave.codebook import Codebook
from encoscope.nave.composite import Composite
from encoscope.nave.feature_cache import FeatureCache
from encoscope.nave.features import Maps, chunks, encode
from encoscope.nave.granularity import AUTO, elbow
from encoscope.nave.joint import JointState, Pass, lloyd_passes
from encoscope.nave.kmeans import kmeans
from encoscope.nave.sample import PIXELS, PixelSample
from encoscope.nave.segmentation import Segmentation, model_of
from encoscope.nave.settings import NaveSettings, Resolution, Size
from encoscope.nave.ward import WardTree
from encoscope.progress import Progress, track
from encoscope.store import Store, content_key

KIND = "nave"
MAX_ITER = 300
MAX_ITER_UNCACHED = 18
"""Without a cache every iteration is a pass through the encoder: with the sample's and predict's that makes twenty."""

_START_ITER = 50  # the start, found on a sample, need not be converged

_log = logging.getLogger("encoscope")


class Nave(BaseEstimator):
    """Cluster the composite features of a set of images jointly: the same part gets the same label in all of them.

    encoder: the frozen network. n_clusters: K, or "auto" (the elbow of a sample's inertia over 3 to 10).
    layers, weighting, resolution, size: as for ``segment``. grouping: "kmeans", or "ward" over micro-clusters, which
    gives every granularity from one fit (``at``).
    n_init: k-means++ starts on a uniform sample of ``sample`` pixels (fewer where they would pass 128 MB); the best
    goes on over all pixels until its centres move by less than ``tol`` times the features' variance, or ``max_iter``
    (300; 18 without a cache).
    cache: "fp16" or "fp32" spills the maps to disk, under ENCOSCOPE_CACHE or the user's cache folder, while fitting:
    one pass through the encoder, and an interrupted fit goes on where it stopped. None: a pass an iteration.
    batch: images at a time. random_state: the seed. progress: None shows bars on a terminal; True, False, a callable.

    Fitted: layers_, codebook_, centroids_ ``[K, dim]``, counts_ ``[K]`` (pixels), inertia_, n_iter_, n_images_,
    skipped_. Clusters are numbered by size, 0 the largest.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        n_clusters: int | str = 10,
        layers: Sequence[str] | str | None = None,
        grouping: str = "kmeans",
        weighting: str | Sequence[float] = "paper",
        resolution: Resolution = "first-layer",
        size: Size = "model",
        n_init: int = 4,
        max_iter: int | None = None,
        tol: float = 1e-4,
        sample: int = PIXELS,
        cache: str | None = "fp16",
        batch: int = 8,
        random_state: int = 0,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.n_clusters = n_clusters
        self.layers = layers
        self.grouping = grouping
        self.weighting = weighting
        self.resolution = resolution
        self.size = size
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.sample = sample
        self.cache = cache
        self.batch = batch
        self.random_state = random_state
        self.progress = progress

    def fit(self, images: Any, *, fresh: bool = False) -> Nave:
        """Find the clusters of a folder, a list, a Dataset or a stream of images, holding one batch at a time.

        fresh: start over instead of going on with an interrupted fit. What cannot be read is left out, with a warning,
        and listed in ``skipped_``. Raises UsageError for impossible settings and for a one-shot iterator without a
        cache, ImageError when no image can be read.
        """
        settings = self._settings()
        seen = _Seen()
        if self.cache is None:
            if hasattr(images, "__next__"):
                raise UsageError("a one-shot iterator cannot be read again: give a list, or a cache to read it once")
            self._fit(lambda: self._encoded(images, settings, seen), settings, seen, None)
        else:
            spill = FeatureCache(self.encoder, settings, self.cache, fresh=fresh)
            with spill.store:
                stored = spill.fill(seen.note(self._photos(images)), self.batch)
                for _ in track(stored, _length(images), "encoding", self.progress):
                    pass
                self._fit(spill.features, settings, seen, spill.store)
                spill.store.remove()
        return self

    def _fit(self, features: Pass, settings: NaveSettings, seen: _Seen, store: Store | None) -> None:
        sample = PixelSample(self.sample, seed=self.random_state)
        for batch, ids in features():
            sample.partial_fit(batch, ids)
        if not len(sample):
            raise ImageError("no image could be read, so there is nothing to cluster")
        pixels = sample.finalize(self.encoder.device)
        if isinstance(settings.clusters, int) and settings.clusters > pixels.pixels:
            raise UsageError(f"{settings.clusters} clusters of {pixels.pixels} cells: ask for fewer")
        self.n_images_, self.skipped_ = seen.count, seen.skipped
        self.layers_ = settings.layers
        if settings.grouping == "ward" and isinstance(settings.clusters, int):
            self.codebook_ = Codebook.of_ward(features, pixels, settings.clusters, settings.seed)
            self.n_iter_ = 1
        else:
            state = self._lloyd(features, pixels, settings, seen, store)
            self.codebook_ = Codebook.of_kmeans(state)
            self.n_iter_ = state.iteration

    def _lloyd(
        self, features: Pass, sample: Composite, settings: NaveSettings, seen: _Seen, store: Store | None
    ) -> JointState:
        """K-means over all pixels; its state is kept in the store after every pass, and gone on with."""
        max_iter = self.max_iter or (MAX_ITER_UNCACHED if store is None else MAX_ITER)
        asked = {
            **settings.as_dict(),
            "seed": settings.seed,
            "tol": self.tol,
            "max_iter": max_iter,
            "images": seen.digest,
        }
        name = f"lloyd-{content_key(asked)}"
        saved = None if store is None else store.state(name)
        start = self._start(sample, settings) if saved is None else JointState.of(saved)
        state = start if isinstance(start, JointState) else None
        passes = lloyd_passes(features, start, max_iter=max_iter, tol=self.tol)
        for state in track(passes, None, "clustering", self.progress):
            if store is not None:
                store.save_state(name, state.arrays())
        assert state is not None  # there is at least one pass
        if not state.converged:
            _log.warning("k-means had not converged after %d passes: give a larger max_iter", state.iteration)
        return state

    def _start(self, sample: Composite, settings: NaveSettings) -> Float[torch.Tensor, "k dim"]:
        """The best k-means of the sample; for "auto", at the elbow of its inertia."""
        numbers = AUTO if settings.clusters == "auto" else [settings.clusters]
        fits = {
            k: kmeans(sample, k, n_init=self.n_init, max_iter=_START_ITER, tol=self.tol, seed=settings.seed)
            for k in numbers
            if isinstance(k, int) and k <= sample.pixels
        }
        return fits[elbow(list(fits), [float(fit.inertia[0]) for fit in fits.values()])].centroids[0].cpu()

    def predict(self, images: Any) -> list[Segmentation]:
        """Label images, seen or new, with the fitted clusters. Raises ImageError for one that cannot be read."""
        found = []
        for result in self.predict_stream(read_images(images, channels=self.encoder.preprocess.channels)):
            if isinstance(result, SkippedImage):
                raise ImageError(result.reason)
            found.append(result[1])
        return found

    def predict_stream(
        self, items: Iterable[LoadedImage | SkippedImage], clusters: Sequence[int] | None = None
    ) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
        """``predict`` for a stream of any length, in its order.

        clusters: several granularities (``grouping="ward"``), as many results a photo, one after the other.
        """
        settings = self._settings()
        books = [self.codebook_] if clusters is None else [self.codebook_.at(k) for k in clusters]
        for chunk in chunks(items, self.batch):
            there = [position for position, item in enumerate(chunk) if isinstance(item, LoadedImage)]
            group = [item for item in chunk if isinstance(item, LoadedImage)]
            found: dict[int, list[Segmentation]] = {position: [] for position in there}
            for maps in encode(self.encoder, group, settings):
                features = maps.features(settings)
                for book in books:
                    labelled = self._label(maps, features, [group[member] for member in maps.positions], settings, book)
                    for member, segmentation in zip(maps.positions, labelled, strict=True):
                        found[there[member]].append(segmentation)
            for position, item in enumerate(chunk):
                if isinstance(item, SkippedImage):
                    yield item
                else:
                    yield from ((item, segmentation) for segmentation in found[position])

    def _label(
        self, maps: Maps, features: Composite, group: Sequence[LoadedImage], settings: NaveSettings, book: Codebook
    ) -> list[Segmentation]:
        grid = maps.grid(settings.resolution)
        if features.dim != book.words.shape[1]:
            raise UsageError(f"features of {features.dim} channels, but the fit had {book.words.shape[1]}")
        labels, inertia = book.assign(features)
        cells = labels.cpu().numpy().astype(np.uint8).reshape(-1, *features.grid)
        return [
            Segmentation(
                labels=way.to_original(cells[image], grid),
                grid_labels=cells[image],
                n_clusters=book.n_clusters,
                inertia=float(inertia[image]),
                geometry=way,
                grid=grid,
                settings=settings.as_dict() | {"joint": True, "clusters": book.n_clusters},
                seed=settings.seed,
                path=photo.path,
                _photo=photo,
                _model=model_of(self.encoder, settings.layers),
            )
            for image, (photo, way) in enumerate(zip(group, maps.geometries, strict=True))
        ]

    def at(self, n_clusters: int) -> Nave:
        """The same fit at another granularity (``grouping="ward"`` only): its labels nest in those of fewer."""
        other = copy.copy(self)
        other.codebook_ = self.codebook_.at(n_clusters)
        other.n_clusters = n_clusters
        return other

    @property
    def centroids_(self) -> Float[np.ndarray, "k dim"]:
        """The mean composite vector of each cluster."""
        return self.codebook_.centroids

    @property
    def centroids(self) -> dict[str, Float[np.ndarray, "k _channels"]]:
        """The part of each cluster's mean that belongs to each layer."""
        channels = [self.encoder.layer(name).channels for name in self.layers_]
        return dict(zip(self.layers_, np.split(self.centroids_, np.cumsum(channels)[:-1], axis=1), strict=True))

    @property
    def counts_(self) -> np.ndarray:
        """The pixels of each cluster."""
        return self.codebook_.sizes

    @property
    def inertia_(self) -> float:
        """The sum of squared distances of the fitted pixels to the mean of their cluster."""
        return self.codebook_.inertia

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fit into a folder, ``result.json`` and ``arrays.npz``."""
        folder, book = Path(path), self.codebook_
        arrays = {
            "words": book.words,
            "counts": book.counts,
            "clusters": book.clusters,
            "within": np.array(book.within),
        }
        if book.tree is not None:
            arrays |= {"merges": book.tree.merges, "costs": book.tree.costs}
        with results.atomic_write(folder / "arrays.npz") as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        entry = {"arrays": "arrays.npz", "inertia": self.inertia_, "iterations": self.n_iter_, "images": self.n_images_}
        settings = self._settings()
        document = results.envelope(
            KIND,
            [entry],
            model=model_of(self.encoder, self.layers_)().as_dict(),
            settings=settings.as_dict() | {"clusters": book.n_clusters},
            seed=settings.seed,
            skipped=self.skipped_,
        )
        results.write(folder / "result.json", document)
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder) -> Nave:
        """Read a fit back, for the encoder it was made with.

        Raises EncoscopeError when the encoder's weights or preprocessing differ from those of the fit.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        if document["model"]["digest"] != encoder.digest:
            raise EncoscopeError(
                f"{path} was fitted on {document['model']['source']} with other weights or preprocessing than "
                f"{encoder.source}: fit again, or load that encoder"
            )
        settings, entry = document["settings"], document["results"][0]
        options = {name: settings[name] for name in ("grouping", "weighting", "resolution", "size", "n_init")}
        nave = cls(
            encoder,
            n_clusters=settings["clusters"],
            layers=document["model"]["layers"],
            random_state=document["seed"],
            **options,
        )
        try:
            with np.load(results.resolve(entry["arrays"], file), allow_pickle=False) as stored:
                arrays = dict(stored)
        except (OSError, ValueError) as error:
            raise EncoscopeError(f"{path} is not whole: {entry['arrays']} cannot be read") from error
        tree = WardTree(arrays["merges"], arrays["costs"]) if "merges" in arrays else None
        nave.codebook_ = Codebook(arrays["words"], arrays["counts"], arrays["clusters"], float(arrays["within"]), tree)
        nave.layers_ = tuple(document["model"]["layers"])
        nave.n_iter_, nave.n_images_ = entry["iterations"], entry["images"]
        nave.skipped_ = [SkippedImage(**item) for item in document["skipped"]]
        return nave

    def _settings(self) -> NaveSettings:
        settings = NaveSettings.of(
            self.encoder,
            clusters=self.n_clusters,
            layers=self.layers,
            grouping=self.grouping,
            weighting=self.weighting,
            resolution=self.resolution,
            size=self.size,
            n_init=self.n_init,
            seed=self.random_state,
        )
        if settings.grouping == "pca" or isinstance(settings.clusters, tuple):
            raise UsageError('a joint fit takes grouping="kmeans" or "ward" and one number of clusters; see Nave.at')
        return settings

    def _photos(self, images: Any) -> Iterator[LoadedImage | SkippedImage]:
        return read_images(images, channels=self.encoder.preprocess.channels)

    def _encoded(self, images: Any, settings: NaveSettings, seen: _Seen) -> Iterator[tuple[Composite, list[str]]]:
        """A pass through the encoder."""
        seen.clear()
        stream = track(seen.note(self._photos(images)), _length(images), "encoding", self.progress)
        for chunk in chunks(stream, self.batch):
            for maps in encode(self.encoder, chunk, settings):
                yield maps.features(settings), [chunk[position].id for position in maps.positions]


class _Seen:
    """What a stream consisted of: how many photos, a digest of their ids in order, and what was left out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.count, self.skipped, self._hash = 0, list[SkippedImage](), hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def note(self, items: Iterable[LoadedImage | SkippedImage]) -> Iterator[LoadedImage]:
        """Hand the photos on, and keep account."""
        for item in items:
            if isinstance(item, SkippedImage):
                self.skipped.append(item)
                _log.warning("left out: %s", item.reason)
            else:
                self.count += 1
                self._hash.update(item.id.encode())
                yield item


def _length(images: Any) -> int | None:
    return len(images) if hasattr(images, "__len__") and not isinstance(images, str) else None
