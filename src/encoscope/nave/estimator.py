"""Nave: one set of clusters for many images, fitted once and used on new ones."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from encoscope import results
from encoscope.encoder import Encoder, as_encoder, gives_kept_outputs, record_trial
from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.estimator import Estimator
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.nave.codebook import Codebook
from encoscope.nave.composite import Composite
from encoscope.nave.feature_cache import FeatureCache
from encoscope.nave.feature_colors import color_with
from encoscope.nave.features import Maps, encode_images, split_chunks
from encoscope.nave.fragments import join_fragments
from encoscope.nave.granularity import AUTO, find_elbow, find_smallest_drop
from encoscope.nave.joint import FeatureSource, JointState, lloyd_passes
from encoscope.nave.kmeans import kmeans
from encoscope.nave.sample import PixelSample
from encoscope.nave.segmentation import Segmentation, model_of
from encoscope.nave.settings import (
    BATCH_SIZE,
    JointSettings,
    Layers,
    NaveSettings,
    Resolution,
    Size,
    Upsampler,
    Weighting,
    record_upsampler,
)
from encoscope.nave.ward import WardTree
from encoscope.progress import Progress, track
from encoscope.results import ResultList
from encoscope.store import Store, content_key
from encoscope.store.passes import Shard, run_pass
from encoscope.zoo.registry import DEFAULT_MODEL

KIND = "nave"
MAX_ITER = 300
MAX_ITER_UNCACHED = 18
"""Without a cache every iteration is a pass through the encoder: with the sample's and predict's that makes twenty."""

_START_ITER = 50  # the start, found on a sample, need not be converged

_log = logging.getLogger("encoscope")


class Nave(Estimator):
    """Cluster the composite features of a set of images jointly: the same label means the same in all of them.

    K-means starts from the best of ``n_init`` k-means++ starts on a uniform sample of ``n_sample`` pixels (fewer where
    they would take more than 128 MB) and goes on over all pixels. `NaveSettings` and `JointSettings` say what each
    setting means and what its default is; None leaves the preset's own value.

    Args:
        encoder: The frozen network: an encoder, a module or a source string; the default as in ``load``.
        preset: "default", "paper" or "authors"; None is "default".
        n_clusters: K, or "auto" (the elbow of the sample's inertia over 3 to 10).
        layers: Names from ``encoder.layers``, as a list or with commas.
        grouping: "kmeans", or "ward" over micro-clusters, which gives every granularity from one fit (see ``at``).
        weighting: "paper", "equal", "variance", or one factor for each layer.
        normalization: "unit", "centered" or "none".
        resolution: "first-layer", "double", "image", or cells along the short side of the grid that is clustered.
        size: "auto", "model", "native", or the short side in pixels.
        upsampler: "py:module:function" or a function: maps and image to maps of a higher resolution.
        min_region: Connected regions of an image below this share of it join the one beside them that they resemble
            most, when images are labelled.
        n_init: Starts of k-means on the sample.
        tolerance: Of single images; a joint fit goes by ``tol``.
        max_iter: Passes over all pixels at most; by default 300, and 18 without a feature cache.
        tol: K-means stops when its centers move by less than this share of the features' variance.
        n_sample: Pixels of the sample.
        feature_cache: "fp16" or "fp32" keeps the maps on disk while fitting: one pass through the encoder, and an
            interrupted fit is resumed. "none" runs the encoder again in each pass.
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        cache_dir: The folder for what is kept while fitting; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Attributes:
        layers_: The layers that were read.
        codebook_: The clusters, with all that ``predict`` needs.
        centroids_: ``[K, channels of all layers]``, the mean composite vector of each cluster.
        counts_: ``[K]``, the pixels of each cluster. Cluster 0 is the largest.
        inertia_: The sum of squared distances of the pixels to the mean of their cluster.
        n_iter_: Passes over all pixels.
        n_images_: The images that were read.
        skipped_: What could not be read, and why.

    Example:
        >>> nave = encoscope.Nave("zoo:resnet-caltech101", n_clusters=10).fit("photos/")  # doctest: +SKIP
        >>> segmentations = nave.predict(["new.jpg"])  # doctest: +SKIP

    Source: NAVE, Algorithm 1, with all images' pixels clustered together.
    """

    def __init__(
        self,
        encoder: Encoder | nn.Module | str = DEFAULT_MODEL,
        *,
        preset: str | None = None,
        n_clusters: int | str | None = None,
        layers: Layers | None = None,
        grouping: str | None = None,
        weighting: Weighting | None = None,
        normalization: str | None = None,
        resolution: Resolution | None = None,
        size: Size | None = None,
        upsampler: Upsampler | None = None,
        min_region: float | None = None,
        n_init: int | None = None,
        tolerance: str | None = None,
        max_iter: int | None = None,
        tol: float | None = None,
        n_sample: int | None = None,
        feature_cache: str | None = None,
        random_state: int = NaveSettings.random_state,
        batch_size: int = BATCH_SIZE,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.n_clusters = n_clusters
        self.layers = layers
        self.grouping = grouping
        self.weighting = weighting
        self.normalization = normalization
        self.resolution = resolution
        self.size = size
        self.upsampler = upsampler
        self.min_region = min_region
        self.n_init = n_init
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.tol = tol
        self.n_sample = n_sample
        self.feature_cache = feature_cache
        self.random_state = random_state
        self.batch_size = batch_size
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Any, y: None = None, *, fresh: bool = False) -> Nave:
        """Find the clusters of a set of images, holding one batch at a time.

        Args:
            X: A folder, a dataset string, a list of images, a torch Dataset, or a stream of images. What cannot be
                read is left out with a warning, and listed in ``skipped_``.
            y: Not used; it is there as in all of scikit-learn's estimators.
            fresh: Start over instead of resuming an interrupted fit.

        Returns:
            Itself, fitted.

        Raises:
            UsageError: For settings that cannot be, and for a one-shot iterator without a feature cache.
            ImageError: When no image can be read.
        """
        joint = self._joint_settings()
        self._check_settings()  # wrong ones fail before the network is loaded
        self.encoder_ = as_encoder(self.encoder)
        settings = self._settings()
        seen = _Seen()
        if joint.feature_cache == "none":
            if hasattr(X, "__next__"):
                raise UsageError("a one-shot iterator cannot be read again: give a list, or a cache to read it once")
            self._fit(lambda shard: self._encode_images(X, settings, seen, shard), settings, joint, seen, None)
        else:
            cache = FeatureCache(self.encoder_, settings, joint.feature_cache, fresh=fresh, cache_dir=self.cache_dir)
            with cache.store:
                stored = cache.fill(seen.note(self._read_images(X)), self.batch_size)
                for _ in track(stored, _length(X), "encoding", self.progress):
                    pass
                self._fit(cache.features, settings, joint, seen, cache.store)
                cache.store.remove()
        return self

    def fit_predict(self, X: Any, y: None = None) -> ResultList[Segmentation]:
        """Find the clusters of a set of images, and label the same images with them.

        Args:
            X: As for ``fit``; not a one-shot iterator, as it is read twice.
            y: Not used.

        Returns:
            A segmentation of each image, in their order.

        Raises:
            UsageError: As for ``fit``, and for a one-shot iterator.
            ImageError: For an image that cannot be read.
        """
        if hasattr(X, "__next__"):
            raise UsageError("a one-shot iterator cannot be read again: give a list")
        return self.fit(X).predict(X)

    def _fit(
        self, source: FeatureSource, settings: NaveSettings, joint: JointSettings, seen: _Seen, store: Store | None
    ) -> None:
        sample = run_pass(source, PixelSample(joint.n_sample, random_state=settings.random_state))
        if not len(sample):
            raise ImageError("no image could be read, so there is nothing to cluster")
        pixels = sample.finalize(self.encoder_.device)
        if isinstance(settings.n_clusters, int) and settings.n_clusters > pixels.pixels:
            raise UsageError(f"{settings.n_clusters} clusters of {pixels.pixels} cells: ask for fewer")
        self.n_images_, self.skipped_ = seen.count, seen.skipped
        self.layers_ = settings.layers
        if settings.grouping == "ward" and isinstance(settings.n_clusters, int):
            self.codebook_ = Codebook.of_ward(source, pixels, settings.n_clusters, settings.random_state)
            self.n_iter_ = 1
        else:
            state = self._lloyd(source, pixels, settings, joint, seen, store)
            self.codebook_ = Codebook.of_kmeans(state)
            self.n_iter_ = state.iteration

    def _lloyd(
        self,
        source: FeatureSource,
        sample: Composite,
        settings: NaveSettings,
        joint: JointSettings,
        seen: _Seen,
        store: Store | None,
    ) -> JointState:
        """K-means over all pixels; its state is kept in the store after every pass, from which it is resumed."""
        max_iter = joint.max_iter or (MAX_ITER_UNCACHED if store is None else MAX_ITER)
        manifest = {
            **settings.as_key(),
            "tol": joint.tol,
            "max_iter": max_iter,
            "images": seen.digest,
        }
        name = f"lloyd-{content_key(manifest)}"
        saved = None if store is None else store.state(name)
        if saved is None:
            state = JointState.initial(self._find_start(sample, settings, joint.tol))
        else:
            state = JointState.from_arrays(saved)
        passes = lloyd_passes(source, state, max_iter=max_iter, tol=joint.tol)
        for state in track(passes, None, "clustering", self.progress):
            if store is not None:
                store.save_state(name, state.arrays())
        if not state.converged:
            _log.warning("k-means had not converged after %d passes: give a larger max_iter", state.iteration)
        return state

    def _find_start(self, sample: Composite, settings: NaveSettings, tol: float) -> Float[torch.Tensor, "k dim"]:
        """The best k-means of the sample; for "auto", at the elbow of its inertia."""
        numbers = AUTO if isinstance(settings.n_clusters, str) else [settings.n_clusters]
        seed = settings.random_state
        fit_sample = partial(kmeans, sample, n_init=settings.n_init, max_iter=_START_ITER, tol=tol, random_state=seed)
        fits = {k: fit_sample(k) for k in numbers if isinstance(k, int) and k <= sample.pixels}
        find = find_smallest_drop if settings.n_clusters == "smallest-drop" else find_elbow
        k = find(list(fits), [float(fit.inertia[0]) for fit in fits.values()])
        if k not in fits:
            fits[k] = fit_sample(k)
        return fits[k].centroids[0].cpu()

    def predict(self, X: Any) -> ResultList[Segmentation]:
        """Label images, seen or new, with the fitted clusters.

        Args:
            X: What ``fit`` takes.

        Returns:
            A segmentation of each image, in their order.

        Raises:
            UsageError: When nothing was fitted.
            ImageError: For an image that cannot be read.
        """
        self._check_fitted()
        segmentations: ResultList[Segmentation] = ResultList()
        for result in self.predict_stream(self._read_images(X)):
            if isinstance(result, SkippedImage):
                raise ImageError(result.reason)
            segmentations.append(result[1])
        return segmentations

    def predict_stream(
        self, items: Iterable[LoadedImage | SkippedImage], clusters: Sequence[int] | None = None
    ) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
        """Label a stream of images of any length, in its order.

        Args:
            items: Images, and images that could not be read.
            clusters: Several granularities (``grouping="ward"`` only).

        Yields:
            An image with its segmentation; several granularities give as many pairs for an image, one after the other.
            What could not be read comes back as it is.
        """
        settings = self._settings()
        books = [self.codebook_] if clusters is None else [self.codebook_.at(k) for k in clusters]
        for chunk in split_chunks(items, self.batch_size):
            readable = [position for position, item in enumerate(chunk) if isinstance(item, LoadedImage)]
            group = [item for item in chunk if isinstance(item, LoadedImage)]
            segmentations: dict[int, list[Segmentation]] = {position: [] for position in readable}
            for maps in encode_images(self.encoder_, group, settings):
                features = maps.features(settings)
                for book in books:
                    labelled = self._label(maps, features, [group[member] for member in maps.positions], settings, book)
                    for member, segmentation in zip(maps.positions, labelled, strict=True):
                        segmentations[readable[member]].append(segmentation)
            for position, item in enumerate(chunk):
                if isinstance(item, SkippedImage):
                    yield item
                else:
                    yield from ((item, segmentation) for segmentation in segmentations[position])

    def _label(
        self, maps: Maps, features: Composite, group: Sequence[LoadedImage], settings: NaveSettings, book: Codebook
    ) -> list[Segmentation]:
        grid = maps.grid(settings.resolution)
        if features.dim != book.micro_centroids.shape[1]:
            raise UsageError(f"features of {features.dim} channels, but the fit had {book.micro_centroids.shape[1]}")
        labels, inertia = book.assign(features)
        cells = labels.cpu().numpy().astype(np.uint8).reshape(-1, *features.grid)
        if settings.min_region:
            alone = [features.select(torch.tensor([index], device=features.device)) for index in range(len(cells))]
            joined = zip(cells, alone, strict=True)
            cells = np.stack([join_fragments(labels, each, settings.min_region) for labels, each in joined])
        model = model_of(self.encoder_, settings.layers)
        return [
            Segmentation(
                labels=geometry.to_original(cells[index], grid),
                grid_labels=cells[index],
                n_clusters=book.n_clusters,
                inertia=float(inertia[index]),
                geometry=geometry,
                grid=grid,
                settings=settings.as_dict() | {"joint": True, "n_clusters": book.n_clusters},
                seed=settings.random_state,
                path=image.path,
                _image=image,
                _model=model,
                _color=partial(color_with, self.encoder_, image, settings),
            )
            for index, (image, geometry) in enumerate(zip(group, maps.geometries, strict=True))
        ]

    def at(self, n_clusters: int) -> Nave:
        """Give the same fit at another granularity (``grouping="ward"`` only).

        Args:
            n_clusters: K.

        Returns:
            A fitted Nave; its labels nest in those of fewer clusters.
        """
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
        channels = [self.encoder_.layer(name).channels for name in self.layers_]
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
        """Write the fit into a folder, ``result.json`` and ``arrays.npz``.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        self._check_fitted()
        folder, book = Path(path), self.codebook_
        arrays = {
            "words": book.micro_centroids,
            "counts": book.counts,
            "clusters": book.clusters,
            "within": np.array(book.within),
        }
        if book.tree is not None:
            arrays |= {"merges": book.tree.merges, "costs": book.tree.costs}
        with results.atomic_write(folder / "arrays.npz") as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        entry = {"arrays": "arrays.npz", "inertia": self.inertia_, "iterations": self.n_iter_, "images": self.n_images_}
        entry["trial"] = record_trial(self.encoder_, self.layers_)
        settings = self._settings()
        document = results.envelope(
            KIND,
            [entry],
            model=results.record_model(self.encoder_, self.layers_).as_dict(),
            settings=settings.as_dict() | {"n_clusters": book.n_clusters},
            seed=settings.random_state,
            skipped=self.skipped_,
        )
        results.write(folder / "result.json", document)
        return folder

    @classmethod
    @results.explain_damage
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | nn.Module | str,
        *,
        upsampler: Upsampler | None = None,
    ) -> Nave:
        """Read a fit back, for the encoder it was made with.

        Args:
            path: The folder that ``save`` wrote.
            encoder: The encoder.
            upsampler: The fit's upsampler, where it cannot be imported by its name.

        Returns:
            The fitted Nave.

        Raises:
            MissingError: When there is no fit.
            UsageError: When the fit's upsampler cannot be imported.
            EncoscopeError: When the encoder's weights or preprocessing, or its upsampler, differ from those of the fit,
                or the files are damaged.
        """
        encoder = as_encoder(encoder)
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        if document["model"]["digest"] != encoder.digest:
            raise EncoscopeError(
                f"{path} was fitted on {document['model']['source']} with other weights or preprocessing than "
                f"{encoder.source}: fit again, or load that encoder"
            )
        settings, entry = document["settings"], document["results"][0]
        kept = entry.get("trial")
        if kept is not None and not gives_kept_outputs(encoder, kept, document["model"]["layers"]):
            raise EncoscopeError(
                f"{path} was fitted on {document['model']['source']}, which gives other outputs than {encoder.source}: "
                "fit again, or load that encoder"
            )
        recorded = settings.get("upsampler") or {}
        upsampler = upsampler or recorded.get("name")
        if (record_upsampler(upsampler) or {}).get("digest") != recorded.get("digest"):
            raise EncoscopeError(
                f"{path} was fitted with {recorded.get('name', 'no upsampler')}, and what was given computes something "
                "else: fit again, or give that upsampler"
            )
        names = [name for name in NaveSettings.infos() if name in settings and name != "upsampler"]
        nave = cls(
            encoder,
            layers=document["model"]["layers"],
            upsampler=upsampler,
            random_state=document["seed"],
            **{name: settings[name] for name in names},
        )
        try:
            arrays = results.read_arrays(results.resolve(entry["arrays"], file))
        except results.DAMAGED as error:
            raise EncoscopeError(f"{path} is not whole: {entry['arrays']} cannot be read") from error
        tree = WardTree(arrays["merges"], arrays["costs"]) if "merges" in arrays else None
        nave.encoder_ = encoder
        nave.codebook_ = Codebook(arrays["words"], arrays["counts"], arrays["clusters"], float(arrays["within"]), tree)
        nave.layers_ = tuple(document["model"]["layers"])
        nave.n_iter_, nave.n_images_ = entry["iterations"], entry["images"]
        nave.skipped_ = [SkippedImage(**item) for item in document["skipped"]]
        return nave

    def _check_settings(self) -> None:
        names = [name for name in NaveSettings.infos() if name not in ("preset", "layers")]
        settings = NaveSettings.without_layers(self.preset, **{name: getattr(self, name) for name in names})
        if self.batch_size < 1:
            raise UsageError(f"batch_size is a number from 1 on, not {self.batch_size}")
        if settings.grouping in ("pca", "attn") or isinstance(settings.n_clusters, tuple):
            raise UsageError('a joint fit takes grouping="kmeans" or "ward" and one number of clusters; see Nave.at')

    def _settings(self) -> NaveSettings:
        names = [name for name in NaveSettings.infos() if name != "preset"]
        return NaveSettings.of(self.encoder_, self.preset, **{name: getattr(self, name) for name in names})

    def _joint_settings(self) -> JointSettings:
        names = [name for name in JointSettings.infos() if name != "preset"]
        return JointSettings.from_preset(self.preset, **{name: getattr(self, name) for name in names})

    def _read_images(self, images: Any) -> Iterator[LoadedImage | SkippedImage]:
        return read_images(images, channels=self.encoder_.preprocess.image_channels)

    def _encode_images(
        self, images: Any, settings: NaveSettings, seen: _Seen, shard: Shard
    ) -> Iterator[tuple[Composite, list[str]]]:
        """A pass through the encoder. Every shard reads all images, so that batches do not depend on their number."""
        seen.clear()
        stream = track(seen.note(self._read_images(images)), _length(images), "encoding", self.progress)
        for chunk in shard.select(split_chunks(stream, self.batch_size)):
            for maps in encode_images(self.encoder_, chunk, settings):
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
