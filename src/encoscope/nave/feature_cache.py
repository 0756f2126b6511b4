"""Feature maps of a set of images on disk, so that clustering them jointly costs one pass through the encoder."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from encoscope._version import __version__
from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.images import Geometry, LoadedImage
from encoscope.nave.composite import Composite
from encoscope.nave.features import Maps, encode_images, split_chunks
from encoscope.nave.settings import NaveSettings, record_upsampler
from encoscope.store import Store, StoreRow
from encoscope.store.passes import WHOLE, Shard

_DTYPES = {"fp16": np.float16, "fp32": np.float32}
_GEOMETRY = ("original", "resized", "offset", "valid", "canvas")


class FeatureCache:
    """The maps of a stream of images in a store; images that an interrupted run left there are not encoded again.

    Each map is divided by its largest value before it is stored: composite features do not change by it, and half
    precision needs it.

    Args:
        encoder: The encoder.
        settings: The settings, from ``NaveSettings.of``.
        precision: "fp16" or "fp32".
        fresh: Throw away what an interrupted run left.
        cache_dir: The user's own cache folder; None is the usual one.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: NaveSettings,
        precision: str,
        *,
        fresh: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        manifest = {
            "kind": "nave-maps",
            "version": __version__,
            **identify_encoder(encoder),
            "layers": list(settings.layers),
            "size": settings.size,
            "stored": precision,
        }
        if settings.upsampler is not None:
            manifest["upsampler"] = record_upsampler(settings.upsampler)
        self.store = Store.keyed(
            "nave",
            manifest,
            cache_dir=choose_cache_dir(encoder, cache_dir),
            fresh=fresh,
            about={"trial": record_trial(encoder, settings.layers)},
            accepts=lambda kept: is_same_network(encoder, kept.get("trial"), settings.layers, "maps"),
        )
        self._encoder, self._settings, self._dtype = encoder, settings, _DTYPES[precision]
        self._rows: dict[int, list[int]] = {}  # of each shard, the rows that belong to the images of this run

    def fill(self, images: Iterable[LoadedImage], batch: int) -> Iterator[LoadedImage]:
        """Encode a stream and store its maps.

        Args:
            images: The images.
            batch: Images at a time.

        Yields:
            Each image when its maps are stored.
        """
        stored: dict[str, deque[tuple[int, int]]] = defaultdict(deque)
        for shard in self.store.shards:
            for row, entry in enumerate(self.store.shard_rows(shard)):
                stored[entry.id].append((shard, row))
        used: dict[int, list[int]] = defaultdict(list)
        for chunk in split_chunks(images, batch):
            new = []
            for image in chunk:
                if stored[image.id]:
                    shard, row = stored[image.id].popleft()
                    used[shard].append(row)
                else:
                    new.append(image)
            for maps in encode_images(self._encoder, new, self._settings):
                shard = self._append(maps, [new[position] for position in maps.positions])
                used[shard] = list(range(len(maps.positions)))
            self._rows = dict(used)
            yield from chunk

    def _append(self, maps: Maps, images: list[LoadedImage]) -> int:
        geometries = [[getattr(geometry, name) for name in _GEOMETRY] for geometry in maps.geometries]
        arrays = {"geometry": np.array(geometries)}  # [images, 5, 2]
        for name, layer in zip(self._settings.layers, maps.layers, strict=True):
            largest = layer.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(layer.dtype).tiny)
            arrays[name] = (layer / largest).cpu().numpy().astype(self._dtype)
        return self.store.append([StoreRow(image.id, image.path, None) for image in images], arrays)

    def features(self, part: Shard = WHOLE) -> Iterator[tuple[Composite, list[str]]]:
        """Make one pass: the composite features of the images, with the images' ids.

        Args:
            part: The share of the images.

        Yields:
            The features and ids of a batch of images.
        """
        for shard, rows in part.select(sorted(self._rows.items())):
            entries = self.store.shard_rows(shard)
            geometries = self.store.read("geometry", shard)[rows].tolist()
            geometries = tuple(Geometry(*(tuple(pair) for pair in geometry)) for geometry in geometries)
            layers = [
                torch.from_numpy(self.store.read(name, shard)[rows]).to(self._encoder.device, torch.float32)
                for name in self._settings.layers
            ]
            yield Maps(rows, geometries, layers).features(self._settings), [entries[row].id for row in rows]
