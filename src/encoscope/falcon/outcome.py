"""What can become of a unit that is described, with the method and the note that results state."""

from __future__ import annotations

from enum import Enum


class DescriptionOutcome(Enum):
    """What became of a unit.

    The first four say which images were selected; one of the two that have images is also the outcome of a unit whose
    concepts FALCON finds. The last two are outcomes of units for which it finds none.
    """

    EXPLAINED = "explained"
    """FALCON finds concepts, from images above alpha."""
    TOP_K = "top_k"
    """FALCON finds concepts, from the strongest images, because too few are above alpha."""
    TOO_FEW_IMAGES = "too_few_images"
    """Too few images are above alpha, and the strongest are not to be used."""
    NEVER_ACTIVATES = "never_activates"
    """The unit has the same value on all images."""
    NOTHING_LEFT = "nothing_left"
    """The counterfactuals share every word."""
    DISSECTED = "dissected"
    """FALCON finds no concept, and CLIP-Dissect's soft-WPMI gave the label."""

    @property
    def method(self) -> str:
        """What results call the method behind the description."""
        return _METHODS.get(self, "none")

    def note(self, *, alpha: float, min_images: int, n_used: int, n_probed: int) -> str:
        """Say why a description is not plain FALCON.

        Args:
            alpha: The threshold that images have to pass.
            min_images: The images that have to pass it.
            n_used: The images that were used.
            n_probed: The images of the probe that descriptions are made from.

        Returns:
            One clause; empty for ``EXPLAINED`` and ``DISSECTED``, which need no reason of their own.

        Example:
            >>> DescriptionOutcome.TOO_FEW_IMAGES.note(alpha=0.25, min_images=1, n_used=0, n_probed=90)
            'no image passes alpha (0.25)'
        """
        few = "no image passes" if min_images == 1 else f"fewer than {min_images} images pass"
        return _NOTES[self].format(few=few, alpha=alpha, n_used=n_used, n_probed=n_probed)


_METHODS = {
    DescriptionOutcome.EXPLAINED: "falcon",
    DescriptionOutcome.TOP_K: "falcon, top-k",
    DescriptionOutcome.DISSECTED: "dissect",
}

_NOTES = {
    DescriptionOutcome.EXPLAINED: "",
    DescriptionOutcome.TOP_K: "{few} alpha ({alpha:.3g}): the {n_used} strongest are used instead",
    DescriptionOutcome.TOO_FEW_IMAGES: "{few} alpha ({alpha:.3g})",
    DescriptionOutcome.NEVER_ACTIVATES: "it never activates: it has the same value on all {n_probed} images",
    DescriptionOutcome.NOTHING_LEFT: "the counterfactuals share every word of its captions",
    DescriptionOutcome.DISSECTED: "",
}
