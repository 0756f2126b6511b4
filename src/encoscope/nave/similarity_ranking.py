"""The images that are most like what was pointed at, as a pass over shards."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from encoscope.images import SkippedImage
from encoscope.nave.similarity_maps import Match, SimilarityMap


class SimilarityRanking:
    """The most similar places of a shard's images: ``partial_fit``, ``merge``, ``finalize``.

    Args:
        n_maps: Of so many of the most similar images the maps are kept.
    """

    def __init__(self, n_maps: int) -> None:
        self._n_maps = n_maps
        self._maps: list[tuple[float, str, SimilarityMap]] = []
        self._matches: list[tuple[float, str, Match]] = []
        self._skipped: list[SkippedImage] = []

    def partial_fit(
        self, match: Match | SkippedImage, image: str, draw: Callable[[], SimilarityMap] | None
    ) -> SimilarityRanking:
        """Add an image.

        Args:
            match: Its most similar place, or why it was left out.
            image: Its id.
            draw: Makes its map; called if it is among the most similar so far.

        Returns:
            Itself.
        """
        if isinstance(match, SkippedImage):
            self._skipped.append(match)
            return self
        key = (-match.similarity, image)
        self._matches.append((*key, match))
        if draw is not None and self._n_maps and (len(self._maps) < self._n_maps or key < self._maps[-1][:2]):
            insort(self._maps, (*key, draw()), key=lambda entry: entry[:2])
            del self._maps[self._n_maps :]
        return self

    def merge(self, other: SimilarityRanking) -> SimilarityRanking:
        """Add another shard's images.

        Args:
            other: Its places.

        Returns:
            Itself.
        """
        self._matches += other._matches
        self._skipped += other._skipped
        self._maps = sorted([*self._maps, *other._maps], key=lambda entry: entry[:2])[: self._n_maps]
        return self

    def finalize(self) -> tuple[tuple[SimilarityMap, ...], tuple[Match, ...], tuple[SkippedImage, ...]]:
        """Give the maps, the places, and the images that were left out.

        Returns:
            The most similar first, ties by id.
        """
        matches = sorted(self._matches, key=lambda entry: entry[:2])
        return tuple(each for *_, each in self._maps), tuple(each for *_, each in matches), tuple(self._skipped)
