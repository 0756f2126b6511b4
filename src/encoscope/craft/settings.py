"""The settings of CRAFT, checked before anything is computed. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.settings import Settings, setting


@dataclass(frozen=True)
class CraftSettings(Settings):
    """What decides the concepts of a class.

    Attributes:
        n_concepts: How many concepts.
        layer: A layer without negative activations; None takes the last stage that has none.
        n_images: Images of the class at most; of more, a random choice is taken.
        patch_size: The side of the patches in pixels, on an image whose short side is the network's; patches start
            every int(0.8 patch_size) pixels. None takes 64, or half of a smaller network's input.
        n_samples: Masks for the importances (Sobol indices), a power of two.
        n_crops: Patches shown for each concept, one of an image.
        random_state: The seed of everything random.
    """

    METHOD: ClassVar[str] = "concepts"

    n_concepts: int = setting(5, "How many concepts.", flag="concepts", low=1)
    layer: str | None = setting(None, "A layer without negative activations. Default: the last stage that has none.")
    n_images: int = setting(100, "At most so many images of the class.", flag="images", low=1)
    patch_size: int | None = setting(
        None,
        "Side of the patches. Default: 64, or half of a smaller network's input.",
        flag="patch",
        type=int,
        unit="pixels",
        low=2,
    )
    n_samples: int = setting(32, "Masks for the importances, a power of two.", flag="samples", low=2)
    n_crops: int = setting(8, "Patches shown for each concept.", flag="crops", low=1)
    random_state: int = setting(RANDOM_STATE, "The seed of everything random.", type=int, on_command_line=False)

    def check(self) -> None:
        """Check every setting.

        Raises:
            UsageError: Naming the setting, what it can be, and the value it has.
        """
        super().check()
        if self.n_samples & (self.n_samples - 1):
            raise UsageError(f"n_samples is a power of two, from 2 on, not {self.n_samples}")
