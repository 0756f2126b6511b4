"""transformers' image-text models: CLIP, SigLIP and others that have features of images and of texts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoscope._offline import hugging_face_access, load_pretrained
from encoscope._torchvision import ensure_torchvision
from encoscope.errors import MissingError, UsageError
from encoscope.images import Preprocess
from encoscope.images.processors import load_processor, read_preprocess
from encoscope.vlm.base import TwoTowers


class Transformers(TwoTowers):
    """A model with ``get_image_features`` and ``get_text_features``, and its tokenizer; see `VLM`.

    Texts are padded to the length the model was trained with, as SigLIP needs; CLIP's vectors do not depend on it.
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
        self.length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)
        super().__init__(model, preprocess, source=source, squash=squash, device=device)

    def _reading(self) -> str:
        words = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        kind = f"{type(self.tokenizer).__name__}:{self.length}:{self.squash}"
        return f"transformers:{kind}:{hashlib.sha256(words).hexdigest()}"

    def _encode_images(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def _encode_texts(self, texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        tokens = self.tokenizer(texts, **options).to(self.device)
        return self.model.get_text_features(**tokens).pooler_output


def load_transformers(
    name: str, *, source: str, device: torch.device | str = "cpu", untrained: bool = False, random_state: int = 0
) -> Transformers:
    """Load a model by its name on the hub, or from a folder that ``save_pretrained`` wrote (model and tokenizer).

    Raises:
        UsageError: a network without texts.
        MissingError: transformers is not installed, or files that cannot be had here.
        EncoscopeError: weights that are damaged.
    """
    ensure_torchvision()
    try:
        import transformers
    except ImportError:
        raise MissingError(
            f"{source} needs transformers, which is not installed: pip install 'encoscope[hf]'"
        ) from None
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise MissingError(f"{source}: the folder holds no config.json; it should be one that save_pretrained wrote")
    with hugging_face_access():
        config = _had(transformers.AutoConfig, name, f"the configuration of {source}")
        if not hasattr(config, "text_config") or not hasattr(config, "vision_config"):
            raise UsageError(f"{source} is no image-text model but {config.model_type}; CLIP and SigLIP are")
        tokenizer = _had(transformers.AutoTokenizer, name, f"the tokenizer of {source}")
        known, wanted = len(tokenizer), config.text_config.vocab_size
        if not wanted / 2 <= known <= wanted:  # without its files, a tokenizer of no words at all is made
            raise MissingError(
                f"the tokenizer of {source} knows {known} tokens, the model {wanted}: are its files there, and its own?"
            )
        processor = load_processor(name, transformers)
        model = _model(transformers, config, name, source, untrained, random_state)
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UsageError(f"{source} ({config.model_type}) gives no vectors of images and texts; CLIP and SigLIP do")
    # an exact size and no crop: the processor gives up the aspect
    squash = "height" in (processor.get("size") or {}) and not processor.get("do_center_crop")
    preprocess = read_preprocess(processor, config.vision_config)
    return Transformers(model, tokenizer, preprocess, source=source, squash=squash, device=device)


def _model(transformers: Any, config: Any, name: str, source: str, untrained: bool, random_state: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        if untrained:
            return transformers.AutoModel.from_config(config)
        return load_pretrained(transformers.AutoModel, name, source)


def _had(kind: Any, name: str, what: str) -> Any:
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise MissingError(
            f"{what} cannot be had ({detail}): give a folder that save_pretrained wrote, with the tokenizer's files"
        ) from error
