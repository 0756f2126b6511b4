"""Measurements of shards add up to those of the whole dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoscope.errors import ImageError
from encoscope.evaluation.runner import MeasuredImages
from encoscope.images import SkippedImage
from encoscope.store.passes import Shard, merge_partials, run_pass


def test_shards_merge_to_the_whole() -> None:
    values = [SkippedImage("3", "damaged") if index == 3 else {"miou": index / 10} for index in range(11)]

    def source(shard: Shard):
        return ((index, Path(f"{index}.png"), value) for index, value in shard.select(enumerate(values)))

    whole = run_pass(source, MeasuredImages()).finalize()
    assert len(whole) == 10 and whole.skipped[0].reason == "damaged" and whole.paths[3] == Path("4.png")
    for count in (2, 3, 7):
        parts = [run_pass(source, MeasuredImages(), Shard(index, count)) for index in reversed(range(count))]
        merged = merge_partials(parts).finalize()
        assert (merged.rows, merged.paths, merged.skipped) == (whole.rows, whole.paths, whole.skipped)
    with pytest.raises(ImageError, match="damaged"):
        MeasuredImages().partial_fit(0, Path("3"), SkippedImage("3", "damaged")).finalize()
