"""Image-text models of open_clip, which the zoo's are, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from encoscope._torchvision import ensure_torchvision
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.images import Preprocess
from encoscope.vlm.base import TwoTowers


class OpenClip(TwoTowers):
    """An open_clip model with its tokenizer; see `VLM`.

    Args:
        model: The network, from ``open_clip.create_model``. It is set to evaluation mode and needs no gradients from
            then on.
        tokenizer: Its tokenizer, from ``open_clip.get_tokenizer``.
        preprocess: How images are brought to its input.
        source: What it was loaded from.
        squash: Squash the whole image to the model's size instead of cropping its centre square.
        device: Where the network runs.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocess,
        *,
        source: str = "python",
        squash: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokenizer = tokenizer
        super().__init__(model, preprocess, source=source, squash=squash, device=device)

    def _describe_tokenizer(self) -> str:
        return f"{type(self.tokenizer).__name__}:{getattr(self.tokenizer, 'context_length', None)}:{self.squash}"

    def _encode_images(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def _encode_texts(self, texts: list[str]) -> Tensor:
        return self.model.encode_text(self.tokenizer(texts).to(self.device))


def read_preprocess_settings(settings: Mapping[str, Any]) -> tuple[Preprocess, bool]:
    """Translate open_clip's preprocessing settings.

    Args:
        settings: open_clip's settings of a model: size, mean, std, interpolation and resize_mode.

    Returns:
        The preprocessing, and whether images are squashed.

    Raises:
        UsageError: For a resize_mode that this library does not have.
    """
    size = settings["size"]
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode = settings.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise UsageError(f"open_clip's resize_mode {mode!r} is not supported; 'shortest' and 'squash' are")
    preprocess = Preprocess(
        size=sides,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings.get("interpolation") or "bicubic",
    )
    return preprocess, mode == "squash"


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
    name: str, *, source: str, device: torch.device | str = "cpu", untrained: bool = False, random_state: int = 0
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
            )
            tokenizer = open_clip.get_tokenizer(architecture)
    except FileNotFoundError as error:
        raise MissingError(f"{source}: {error}") from error
    except (OSError, RuntimeError, ValueError, UnpicklingError, SafetensorError) as error:
        detail = " ".join(str(error).split())[:300]
        raise EncoscopeError(f"{source} cannot be loaded: {detail or type(error).__name__}") from error
    visual: Any = model.visual
    preprocess, squash = read_preprocess_settings(visual.preprocess_cfg)
    return OpenClip(model, tokenizer, preprocess, source=source, squash=squash, device=device)


def _check_name(open_clip: Any, architecture: str, weights: str, untrained: bool) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        raise UsageError(f"open_clip has no model {architecture!r}{suggest_nearest(architecture, known)}")
    if not weights and not untrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UsageError(
            f"which weights of {architecture}? use {architecture}/TAG or {architecture}/FILE; tags: {tags}"
        )
