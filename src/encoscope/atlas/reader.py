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
    ImageFile,
    ImageRecord,
    Record,
    SegmentationInfo,
)
from encoscope.errors import EncoscopeError, MissingError, UsageError, explain_calls, suggest_nearest
from encoscope.results import DAMAGED

if TYPE_CHECKING:
    import pyarrow

AnyRecord = TypeVar("AnyRecord", bound=Record)


class Atlas:
    """A site as ``encoscope.atlas.open`` gives it, also one that is still being built.

    It reads a shard when a record in it is needed, and keeps the last 16.

    Args:
        path: The site's folder.
        manifest: Its manifest, as it stands in the folder.

    Example:
        ::

            atlas = encoscope.atlas.open("SITE")
            feature = atlas.feature("layer4:485")
            feature.description.concepts[0].text, feature.heldout_auc.value
    """

    def __init__(self, path: Path, manifest: results.Document) -> None:
        self.path = path
        self.manifest = manifest
        self._shard = lru_cache(maxsize=16)(self._read)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.manifest["counts"].items() if count)
        return f"Atlas({self.path}: {counts})"

    @property
    def summary(self) -> str:
        """Its title and how much it holds, in one line."""
        counts = self.manifest["counts"]
        held = f"{counts['features']} features, {counts['images']} images, {counts['classes']} classes"
        return f"{self.manifest['title']}: {held}"

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
        """How its images were segmented."""
        return tuple(from_plain(SegmentationInfo, item) for item in self.manifest["segmentations"])

    def feature(self, unit: str) -> FeatureRecord:
        """One feature.

        Args:
            unit: As the atlas writes it, ``layer4:485``.

        Returns:
            Its record.

        Raises:
            UsageError: It is not in the atlas; the nearest ones are named.
        """
        return self._record(FeatureRecord, "features", unit)

    def image(self, id: str) -> ImageRecord:
        """One image.

        Args:
            id: The image's id, or the beginning of it.

        Returns:
            Its record.

        Raises:
            UsageError: It is not in the atlas.
        """
        matches = [known for known in self.images if known.startswith(id)] if id else []
        return self._record(ImageRecord, "images", matches[0] if len(matches) == 1 else id)

    def class_record(self, name: str | int) -> ClassRecord:
        """One class.

        Args:
            name: The class's name, or its index in the network's output.

        Returns:
            Its record.

        Raises:
            UsageError: It is not in the atlas; the nearest ones are named.
        """
        if isinstance(name, str) and name not in self._names:
            raise UsageError(f"the atlas has no class {name!r}{suggest_nearest(name, self._names)}")
        return self._record(ClassRecord, "classes", str(self._names[name] if isinstance(name, str) else name))

    def comparison(self, name: str) -> ComparisonRecord:
        """The comparison with another atlas.

        Args:
            name: What the other atlas is called here.

        Returns:
            Its record.

        Raises:
            UsageError: There is no such comparison.
        """
        return self._record(ComparisonRecord, "comparisons", name)

    def read_table(self) -> pyarrow.Table:
        """All features with their descriptions, measures and strongest images, a row each.

        Raises:
            EncoscopeError: The table cannot be read.
        """
        from pyarrow import parquet

        try:
            return parquet.read_table(self.path / layout.TABLE)
        except (OSError, ValueError) as error:
            raise EncoscopeError(f"{self.path / layout.TABLE} cannot be read: {error}") from error

    def read_activations(self) -> tuple[tuple[str, ...], tuple[str, ...], Float32[np.ndarray, "units images"]]:
        """Units, image ids, and every unit's value on every image.

        Raises:
            MissingError: The site does not hold them.
            EncoscopeError: They are damaged.
        """
        try:
            with np.load(self.path / layout.ACTIVATIONS, allow_pickle=False) as stored:
                values = stored["values"].astype(np.float32) * stored["scale"].astype(np.float32)[:, None]
                return tuple(stored["units"].tolist()), tuple(stored["images"].tolist()), values
        except FileNotFoundError as error:
            raise MissingError(f"{self.path} holds no activations: build it with probing") from error
        except DAMAGED as error:
            raise EncoscopeError(f"{self.path / layout.ACTIVATIONS} is damaged: {error}") from error

    def image_path(self, file: ImageFile) -> Path:
        """Where an image file of the site is.

        Args:
            file: As a record holds it.

        Returns:
            The file's path.
        """
        return self.path / layout.IMAGES / file.name

    def load_image(self, file: ImageFile) -> Image.Image:
        """Load an image file of the site.

        Args:
            file: As a record holds it.

        Returns:
            The image, RGB or RGBA.
        """
        with Image.open(self.image_path(file)) as image:
            image.load()
            return image

    def _record(self, kind: type[AnyRecord], name: str, key: str) -> AnyRecord:
        positions = self._table(name)
        if key not in positions:
            raise UsageError(f"the atlas has no {key!r} among its {name}{suggest_nearest(key, positions)}")
        size = layout.SHARD[name]
        shard = self._shard(layout.name_shard(name, positions[key] // size))
        return from_plain(kind, shard[positions[key] % size])

    def _table(self, kind: str) -> dict[str, int]:
        return self._tables[kind]

    @cached_property
    def _tables(self) -> dict[str, dict[str, int]]:
        """The position of every record, by kind and key (the first column of its table)."""
        tables: dict[str, dict[str, int]] = {}
        for kind, count in self.manifest["tables"].items():
            rows = [row for number in range(count) for row in self._shard(layout.name_table(kind, number))["rows"]]
            tables[kind] = {str(row[0]): position for position, row in enumerate(rows)}
        return tables

    @cached_property
    def _names(self) -> dict[str, int]:
        rows = [
            row
            for number in range(self.manifest["tables"]["classes"])
            for row in self._shard(layout.name_table("classes", number))["rows"]
        ]
        return {row[1]: row[0] for row in rows}

    def _read(self, name: str) -> Any:
        return layout.read_shard(self.path, name)


@explain_calls
def open_atlas(path: str | os.PathLike[str]) -> Atlas:
    """Open a site for reading; also called ``encoscope.atlas.open``.

    Args:
        path: The site's folder.

    Returns:
        The atlas.

    Raises:
        MissingError: There is none at ``path``.
        EncoscopeError: It has a newer format.

    Example:
        ::

            atlas = encoscope.atlas.open("SITE")
            atlas.read_table()  # features.parquet
    """
    site = Path(path)
    return Atlas(site, results.read(site / layout.MANIFEST, layout.KIND))
