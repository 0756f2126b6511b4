"""Image-text models of open_clip, which the zoo's are, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from encoscope._torchvision import ensure_torchvision
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.images import Preprocess
from encoscope.images.openclip import find_settings, needs_quick_gelu, read_settings
from encoscope.vlm.base import TwoTowers


class OpenClip(TwoTowers):
    """An open_clip model with its tokenizer; see `VLM`.

    Args:
        model: The network, from ``open_clip.create_model``. It is set to evaluation mode and needs no gradients from
            then on.
        tokenizer: Its tokenizer, from ``open_clip.get_tokenizer``.
        preprocess: How images are brought to its input.
        source: What it was loaded from.
        device: Where the network runs.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocess,
        *,
        source: str = "python",
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokenizer = tokenizer
        super().__init__(model, preprocess, source=source, device=device)

    def _describe_tokenizer(self) -> str:
        squash = self.preprocess.resize == "squash"
        return f"{type(self.tokenizer).__name__}:{getattr(self.tokenizer, 'context_length', None)}:{squash}"

    def _encode_images(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def _encode_texts(self, texts: list[str]) -> Tensor:
        return self.model.encode_text(self.tokenizer(texts).to(self.device))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's progress messages, which go to the root logger; errors are still logged."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def load_open_clip(
    name: str,
    *,
    source: str,
    device: torch.device | str = "cpu",
    untrained: bool = False,
    random_state: int = RANDOM_STATE,
) -> OpenClip:
    """Load an open_clip model.

    Args:
        name: ``ARCHITECTURE/TAG``, ``ARCHITECTURE/FILE``, ``local-dir:FOLDER`` (with ``open_clip_config.json`` and
            weights) or ``hf-hub:REPO``.
        source: What messages and results call the model.
        device: Where the network runs.
        untrained: Use random weights; the tag is not needed then.
        random_state: Seed of the random weights.

    Returns:
        The model.

    Raises:
        UsageError: For an unknown architecture or tag, and if both tag and file are missing.
        MissingError: For weights that are not available, and if open_clip is not installed.
        EncoscopeError: For weights that are damaged or do not fit.
    """
    ensure_torchvision()
    try:
        import open_clip
    except ImportError:
        raise MissingError("open_clip is not installed; pip install 'encoscope[clip]'") from None
    located = name.startswith(("local-dir:", "hf-hub:"))
    architecture, _, weights = (name, "", "") if located else name.partition("/")
    if not located:
        _check_name(open_clip, architecture, weights, untrained)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state)
            model = open_clip.create_model(
                architecture,
                pretrained=None if untrained else weights or None,
                load_weights=not untrained,
                require_pretrained=not untrained,
                force_quick_gelu=not located and needs_quick_gelu(architecture, weights),
            )
            tokenizer = open_clip.get_tokenizer(architecture)
    except FileNotFoundError as error:
        raise MissingError(f"{source}: {error}") from error
    except (OSError, RuntimeError, ValueError, UnpicklingError, SafetensorError) as error:
        detail = " ".join(str(error).split())[:300]
        raise EncoscopeError(f"{source} cannot be loaded: {detail or type(error).__name__}") from error
    visual: Any = model.visual
    settings = visual.preprocess_cfg
    if untrained and not located:
        settings = find_settings(architecture, weights, settings)
    preprocess = read_settings(settings)
    return OpenClip(model, tokenizer, preprocess, source=source, device=device)


def _check_name(open_clip: Any, architecture: str, weights: str, untrained: bool) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        raise UsageError(f"open_clip has no model {architecture!r}{suggest_nearest(architecture, known)}")
    if not weights and not untrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UsageError(
            f"which weights of {architecture}? use {architecture}/TAG or {architecture}/FILE; tags: {tags}"
        )
