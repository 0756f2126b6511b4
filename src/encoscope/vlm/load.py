"""Load an image-text model by the name of its source."""

from __future__ import annotations

from typing import Any

from encoscope.defaults import DEVICE, RANDOM_STATE
from encoscope.devices import find_device
from encoscope.errors import UsageError
from encoscope.vlm.base import VLM
from encoscope.vlm.openclip import load_open_clip
from encoscope.zoo import registry

FORMS = (
    "zoo:clip-caltech101, openclip:ARCHITECTURE/TAG_OR_FILE, openclip:local-dir:FOLDER, openclip:hf-hub:REPO, "
    "hf:OWNER/NAME, hf:FOLDER"
)
"""The forms of a source string, for messages."""


def load(source: str, *, untrained: bool = False, device: str = DEVICE, random_state: int = RANDOM_STATE) -> VLM:
    """Load an image-text model.

    Args:
        source: ``zoo:NAME`` for a model that ships with the package; ``openclip:`` and open_clip's name of it
            (``ARCHITECTURE/TAG``, ``ARCHITECTURE/FILE``, ``local-dir:FOLDER``, ``hf-hub:REPO``); or ``hf:`` and
            transformers' name of a CLIP or SigLIP model, or a folder of ``save_pretrained``. It may end in
            "@untrained".
        untrained: Use the same architecture with random weights, as a control.
        device: Where the network runs: "cpu", "cuda", "cuda:1", ...; "auto" is the GPU if there is one.
        random_state: Seed of the random weights.

    Returns:
        The model.

    Raises:
        UsageError: For a source of no known form, and for an unknown name.
        MissingError: For weights that are not available, and for a library that is not installed.
        EncoscopeError: For weights that are damaged or do not fit.
    """
    name = source
    if name.endswith("@untrained"):
        name, untrained = name.removesuffix("@untrained"), True
    target = find_device(device)
    options: dict[str, Any] = {
        "source": source,
        "device": target,
        "untrained": untrained,
        "random_state": random_state,
    }
    if name.startswith("zoo:"):
        entry = registry.find_entry(name)
        if entry.library != "open_clip":
            raise UsageError(f"{name} is not an image-text model; zoo:clip-caltech101 is one")
        # open_clip reads the file itself, so the file's digest is checked before
        folder = registry.verify_weights(entry).parent
        return load_open_clip(f"local-dir:{folder}", **options)
    if name.startswith("openclip:"):
        name = name.removeprefix("openclip:")
        if not name:
            raise UsageError("openclip: needs a name after it, such as openclip:ViT-B-32/laion2b_s34b_b79k")
        return load_open_clip(name, **options)
    if name.startswith("hf:"):
        from encoscope.vlm.transformers import load_transformers

        name = name.removeprefix("hf:")
        if not name:
            raise UsageError("hf: needs a name after it, such as hf:openai/clip-vit-base-patch32")
        return load_transformers(name, **options)
    raise UsageError(f"{source!r} names no image-text model; use one of {FORMS}")
