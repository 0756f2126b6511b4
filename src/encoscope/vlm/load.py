"""An image-text model by its name."""

from __future__ import annotations

import torch

from encoscope.errors import UsageError
from encoscope.vlm.base import VLM
from encoscope.vlm.openclip import load_open_clip
from encoscope.zoo import registry

FORMS = (
    "zoo:clip-caltech101, openclip:ARCHITECTURE/TAG_OR_FILE, openclip:local-dir:FOLDER, openclip:hf-hub:REPO, "
    "hf:OWNER/NAME, hf:FOLDER"
)


def load(source: str, *, untrained: bool = False, device: str = "auto", random_state: int = 0) -> VLM:
    """Load an image-text model.

    source: ``zoo:NAME`` (ships with the package), or ``openclip:`` and what open_clip calls it: ``ARCHITECTURE/TAG`` or
        ``ARCHITECTURE/FILE``, ``local-dir:FOLDER``, ``hf-hub:REPO``; or ``hf:`` and transformers' name of a CLIP or
        SigLIP model, or a folder of ``save_pretrained``. ``@untrained`` at the end is as ``untrained``.
    untrained: the same architecture with seeded initial weights, as a control.
    device: "auto" takes a GPU if there is one.

    Raises:
        UsageError: a source of no known form, or a name nobody knows.
        MissingError: weights or a library that are not there.
        EncoscopeError: weights that are damaged or do not fit.
    """
    given = source
    if source.endswith("@untrained"):
        source, untrained = source.removesuffix("@untrained"), True
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if source.startswith("zoo:"):
        found = registry.entry(source)
        if found.library != "open_clip":
            raise UsageError(f"{source} is no image-text model; zoo:clip-caltech101 is")
        # the folder is given to open_clip, which reads the file itself: check the digest before
        folder = registry.verify(found).parent
        return load_open_clip(
            f"local-dir:{folder}", source=given, device=place, untrained=untrained, random_state=random_state
        )
    if source.startswith("openclip:"):
        name = source.removeprefix("openclip:")
        if not name:
            raise UsageError("openclip: needs a name after it, as openclip:ViT-B-32/laion2b_s34b_b79k")
        return load_open_clip(name, source=given, device=place, untrained=untrained, random_state=random_state)
    if source.startswith("hf:"):
        from encoscope.vlm.transformers import load_transformers

        name = source.removeprefix("hf:")
        if not name:
            raise UsageError("hf: needs a name after it, as hf:openai/clip-vit-base-patch32")
        return load_transformers(name, source=given, device=place, untrained=untrained, random_state=random_state)
    raise UsageError(f"{given!r} names no image-text model; use one of {FORMS}")
