"""Reading a site from Python: what the pages show, as records and tables."""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float32
from PIL import Image

from encoscope import results
from encoscope.atlas import layout
from encoscope.atlas.codec import from_plain
from encoscope.atlas.records import (
    ClassRecord,
    ComparisonRecord,
    FeatureRecord,
    ImageRecord,
    Picture,
    Record,
    SegmentationInfo,
)
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest

if TYPE_CHECKING:
    import pyarrow

AnyRecord = TypeVar("AnyRecord", bound=Record)


class Atlas:
    """A site as ``open`` gives it; it reads a shard when something in it is asked for. A partial site is one, too."""

    def __init__(self, path: Path, manifest: results.Document) -> None:
        self.path = path
        self.manifest = manifest
        self._shard = lru_cache(maxsize=16)(self._read)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.manifest["counts"].items() if count)
        return f"Atlas({self.path}: {counts})"

    @property
    def features(self) -> tuple[str, ...]:
        """The units of its features, in their order."""
        return tuple(self._table("features"))

    @property
    def images(self) -> tuple[str, ...]:
        """The ids of its images, in their order."""
        return tuple(self._table("images"))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, in their order."""
        return tuple(self._names)

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The names of the atlases it is compared with."""
        return tuple(self._table("comparisons"))

    @cached_property
    def segmentations(self) -> tuple[SegmentationInfo, ...]:
        """How its images were parted."""
        return tuple(from_plain(SegmentationInfo, item) for item in self.manifest["segmentations"])

    def feature(self, unit: str) -> FeatureRecord:
        """One feature; UsageError names the nearest when it is not in the atlas."""
        return self._record(FeatureRecord, "features", unit)

    def image(self, id: str) -> ImageRecord:
        """One image by its id, or the start of it."""
        whole = [known for known in self.images if known.startswith(id)] if id else []
        return self._record(ImageRecord, "images", whole[0] if len(whole) == 1 else id)

    def klass(self, name: str | int) -> ClassRecord:
        """One class by its name or index."""
        if isinstance(name, str) and name not in self._names:
            raise UsageError(f"the atlas has no class {name!r}{suggest_nearest(name, self._names)}")
        return self._record(ClassRecord, "classes", str(self._names[name] if isinstance(name, str) else name))

    def comparison(self, name: str) -> ComparisonRecord:
        """The comparison with another atlas, by that one's name."""
        return self._record(ComparisonRecord, "comparisons", name)

    def table(self) -> pyarrow.Table:
        """All features with their words, measures and strongest images, a row each."""
        from pyarrow import parquet

        try:
            return parquet.read_table(self.path / layout.TABLE)
        except (OSError, ValueError) as error:
            raise EncoscopeError(f"{self.path / layout.TABLE} cannot be read: {error}") from error

    def activations(self) -> tuple[tuple[str, ...], tuple[str, ...], Float32[np.ndarray, "units images"]]:
        """Units, image ids, and every unit's value on every image. MissingError when the site does not hold them."""
        try:
            with np.load(self.path / layout.ACTIVATIONS, allow_pickle=False) as stored:
                values = stored["values"].astype(np.float32) * stored["scale"].astype(np.float32)[:, None]
                return tuple(stored["units"].tolist()), tuple(stored["images"].tolist()), values
        except FileNotFoundError as error:
            raise MissingError(f"{self.path} holds no activations: build it with probing") from error
        except (OSError, ValueError, KeyError) as error:
            raise EncoscopeError(f"{self.path / layout.ACTIVATIONS} is damaged: {error}") from error

    def picture_path(self, picture: Picture) -> Path:
        """The file of a picture."""
        return self.path / layout.IMAGES / picture.name

    def picture(self, picture: Picture) -> Image.Image:
        """A picture, loaded."""
        with Image.open(self.picture_path(picture)) as image:
            image.load()
            return image

    def _record(self, kind: type[AnyRecord], name: str, key: str) -> AnyRecord:
        places = self._table(name)
        if key not in places:
            raise UsageError(f"the atlas has no {key!r} among its {name}{suggest_nearest(key, places)}")
        size = layout.SHARD[name]
        shard = self._shard(layout.shard_name(name, places[key] // size))
        return from_plain(kind, shard[places[key] % size])

    def _table(self, kind: str) -> dict[str, int]:
        return self._tables[kind]

    @cached_property
    def _tables(self) -> dict[str, dict[str, int]]:
        """The place of every record, by kind and key (the first column of its table)."""
        found: dict[str, dict[str, int]] = {}
        for kind, count in self.manifest["tables"].items():
            rows = [row for number in range(count) for row in self._shard(layout.table_name(kind, number))["rows"]]
            found[kind] = {str(row[0]): place for place, row in enumerate(rows)}
        return found

    @cached_property
    def _names(self) -> dict[str, int]:
        rows = [
            row
            for number in range(self.manifest["tables"]["classes"])
            for row in self._shard(layout.table_name("classes", number))["rows"]
        ]
        return {row[1]: row[0] for row in rows}

    def _read(self, name: str) -> Any:
        return layout.read_shard(self.path, name)


def open_atlas(path: str | os.PathLike[str]) -> Atlas:
    """Open a site for reading.

    Raises MissingError when there is none at ``path``, EncoscopeError when it is of a newer format.
    """
    site = Path(path)
    return Atlas(site, results.read(site / layout.MANIFEST, layout.KIND))
