"""open_clip's models, the zoo's own among them."""

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

    model, tokenizer: as ``open_clip.create_model`` and ``open_clip.get_tokenizer`` give them. squash: the whole image
    is brought to the model's size, its aspect lost, instead of the middle square. The model is set to evaluate.
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

    def _reading(self) -> str:
        return f"{type(self.tokenizer).__name__}:{getattr(self.tokenizer, 'context_length', None)}:{self.squash}"

    def _encode_images(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    def _encode_texts(self, texts: list[str]) -> Tensor:
        return self.model.encode_text(self.tokenizer(texts).to(self.device))


def read_preprocess_settings(settings: Mapping[str, Any]) -> tuple[Preprocess, bool]:
    """open_clip's preprocessing settings as ours, and whether images are squashed.

    Raises:
        UsageError: a way of resizing that this library does not have.
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
    """open_clip writes its progress to the root logger; only errors are of interest here."""
    root = logging.getLogger()
    kept = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(kept)


def load_open_clip(
    name: str, *, source: str, device: torch.device | str = "cpu", untrained: bool = False, random_state: int = 0
) -> OpenClip:
    """Load an open_clip model.

    name: ``ARCHITECTURE/TAG_OR_FILE``, ``local-dir:FOLDER`` (``open_clip_config.json`` and weights) or ``hf-hub:REPO``.
    untrained: seeded initial weights instead; then the tag is not needed.

    Raises:
        UsageError: no such architecture or tag, or neither tag nor file.
        MissingError: open_clip is not installed, or weights that cannot be had here.
    """
    ensure_torchvision()
    try:
        import open_clip
    except ImportError:
        raise MissingError("open_clip is not installed; pip install 'encoscope[clip]'") from None
    schema = name.startswith(("local-dir:", "hf-hub:"))
    architecture, _, weights = (name, "", "") if schema else name.partition("/")
    if not schema:
        _check(open_clip, architecture, weights, untrained)
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


def _check(open_clip: Any, architecture: str, weights: str, untrained: bool) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        raise UsageError(f"open_clip has no model {architecture!r}{suggest_nearest(architecture, known)}")
    if not weights and not untrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UsageError(
            f"which weights of {architecture}? give {architecture}/TAG or {architecture}/FILE; tags: {tags}"
        )
