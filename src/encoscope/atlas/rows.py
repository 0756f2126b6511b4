"""Records as rows: of the Parquet table, and of the overview tables that the pages search, sort and filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoscope import results
from encoscope.atlas.records import ClassRecord, ComparisonRecord, FeatureRecord, ImageRecord, Measure, Record

Row = dict[str, Any]

_TEXTS, _NUMBERS = "list<string>", "list<double>"
_PARQUET = {
    "unit": "string",
    "layer": "string",
    "method": "string",
    "verdict": "string",
    "concepts": _TEXTS,
    "concept_scores": _NUMBERS,
    "phrases": _TEXTS,
    "spurious": _TEXTS,
    "heldout_auc": "double",
    "heldout_auc_low": "double",
    "heldout_auc_high": "double",
    "heldout_auc_control": "double",
    "clarity": "double",
    "clarity_control": "double",
    "sparsity": "double",
    "mean": "double",
    "std": "double",
    "picture": "string",
    "activating_images": _TEXTS,
    "activating_values": _NUMBERS,
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "features": (
        *("unit", "layer", "method", "verdict", "concepts", "phrases", "heldout_auc", "heldout_auc_control"),
        *("clarity", "clarity_control", "sparsity", "sparsity_control", "picture", "crops"),
    ),
    "images": ("id", "name", "label", "thumbnail", "predicted", "shares"),
    "classes": ("index", "name", "picture", "accuracy", "accuracy_control", "failures", "images"),
    "comparisons": ("name", "model", "images", "pairs"),
}
"""The columns of the overview tables, in the order in which their rows list them."""


def make_row(record: Record) -> Row:
    """All that any table tells about a record.

    Args:
        record: A record of any kind.

    Returns:
        Its values by the names of columns.
    """
    if isinstance(record, FeatureRecord):
        return _feature_row(record)
    if isinstance(record, ImageRecord):
        return _image_row(record)
    if isinstance(record, ClassRecord):
        return _class_row(record)
    return _comparison_row(record)


def select_columns(kind: str, row: Row) -> list[Any]:
    """A row as the overview table of its kind lists it.

    Args:
        kind: "features", "images", "classes" or "comparisons".
        row: What ``make_row`` gave.

    Returns:
        The values of the table's columns, numbers in four digits.
    """
    return [_shorten(row.get(column)) for column in COLUMNS[kind]]


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write the table of features; columns that a feature has nothing for hold null.

    Args:
        path: The file.
        rows: Of all features, in order.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = {
        "string": pyarrow.string(),
        "double": pyarrow.float64(),
        _TEXTS: pyarrow.list_(pyarrow.string()),
        _NUMBERS: pyarrow.list_(pyarrow.float64()),
    }
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in _PARQUET.items()])
    columns = {name: [row.get(name) for row in rows] for name in _PARQUET}
    with results.atomic_write(path) as temporary:
        parquet.write_table(pyarrow.table(columns, schema), temporary)


def _feature_row(record: FeatureRecord) -> Row:
    description, shown, histogram = record.description, record.visualizations, record.histogram
    interval = None if record.heldout_auc is None else record.heldout_auc.interval
    return {
        "unit": record.unit,
        "layer": record.layer,
        "method": None if description is None else description.method,
        "verdict": None if description is None else description.verdict or None,
        "concepts": [] if description is None else [term.text for term in description.concepts],
        "concept_scores": [] if description is None else [term.score for term in description.concepts],
        "phrases": [] if description is None else [term.text for term in description.phrases],
        "spurious": [] if description is None else [term.text for term in description.spurious],
        **_measure_columns("heldout_auc", record.heldout_auc),
        "heldout_auc_low": None if interval is None else interval[0],
        "heldout_auc_high": None if interval is None else interval[1],
        **_measure_columns("clarity", record.clarity),
        **_measure_columns("sparsity", record.sparsity),
        "mean": None if histogram is None else histogram.mean,
        "std": None if histogram is None else histogram.std,
        "picture": next((entry.picture.name for entry in shown if entry.is_representative), None),
        "crops": [crop.picture.name for crop in record.activating[:4]],
        "activating_images": [crop.image for crop in record.activating],
        "activating_values": [crop.value.value for crop in record.activating],
    }


def _image_row(record: ImageRecord) -> Row:
    thumbnail = record.thumbnail or record.picture
    shares: dict[str, list[int]] = {}
    for segmentation in record.segmentations:
        if not segmentation.merges:  # clusters that all images share: how much of this image each takes, in thousandths
            counts = np.bincount(segmentation.labels.to_array().ravel())
            shares[segmentation.segmentation] = np.round(1000 * counts / counts.sum()).astype(int).tolist()
    return {
        "id": record.id,
        "name": record.name,
        "label": record.label,
        "thumbnail": None if thumbnail is None else [thumbnail.name, thumbnail.width, thumbnail.height],
        "predicted": record.predictions[0].target if record.predictions else None,
        "shares": shares,
    }


def _class_row(record: ClassRecord) -> Row:
    faces = [entry.picture.name for entry in record.visualizations if entry.is_representative]
    faces += [crop.picture.name for crop in record.images]
    return {
        "index": record.index,
        "name": record.name,
        "picture": faces[0] if faces else None,
        **_measure_columns("accuracy", record.accuracy),
        "failures": len(record.failures),
        "images": [crop.picture.name for crop in record.images[:3]],
    }


def _comparison_row(record: ComparisonRecord) -> Row:
    return {"name": record.name, "model": record.model, "images": record.images, "pairs": len(record.pairs)}


def _measure_columns(name: str, measure: Measure | None) -> Row:
    if measure is None:
        return {name: None, f"{name}_control": None}
    return {name: measure.value, f"{name}_control": measure.control}


def _shorten(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _shorten(item) for key, item in value.items()}
    return [_shorten(item) for item in value] if isinstance(value, list) else value
