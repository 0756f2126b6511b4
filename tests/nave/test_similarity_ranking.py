"""Rankings of shards add up to that of all images."""

from __future__ import annotations

from typing import Any

import numpy as np

from encoscope.nave.similarity_maps import Match, SimilarityMap
from encoscope.nave.similarity_ranking import SimilarityRanking
from encoscope.store.passes import Shard, merge_partials, run_pass


def test_shards_merge_to_the_whole() -> None:
    similarities = np.random.default_rng(0).integers(0, 9, 40) / 10  # ties
    maps = [object.__new__(SimilarityMap) for _ in range(40)]
    drawn: list[int] = []

    def source(shard: Shard) -> Any:
        for index in shard.select(range(40)):
            match = Match(f"{index}.png", 0, 0, float(similarities[index]), 0.0, 0.0)

            def draw(index: int = index) -> Any:
                drawn.append(index)
                return maps[index]

            yield match, f"{index:02}", draw

    expected = sorted(range(40), key=lambda index: (-similarities[index], index))
    whole = run_pass(source, SimilarityRanking(5)).finalize()
    assert [maps.index(each) for each in whole[0]] == expected[:5]
    assert [match.path for match in whole[1]] == [f"{i}.png" for i in expected]
    assert len(drawn) < 40  # maps of images that are not among the best are not drawn
    for count in (2, 3, 7):
        parts = [run_pass(source, SimilarityRanking(5), Shard(index, count)) for index in reversed(range(count))]
        assert merge_partials(parts).finalize() == whole
