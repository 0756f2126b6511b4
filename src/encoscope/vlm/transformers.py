"""Image-text models of transformers: CLIP, SigLIP and others that embed images and texts."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoscope._offline import hugging_face_access, load_pretrained
from encoscope._torchvision import ensure_torchvision
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import MissingError, UsageError
from encoscope.images import Preprocess
from encoscope.images.processors import assume_preprocess, load_processor, read_preprocess
from encoscope.images.trial import describe_assumption
from encoscope.vlm.base import TwoTowers

_log = logging.getLogger("encoscope")


class Transformers(TwoTowers):
    """A model with ``get_image_features`` and ``get_text_features``, and its tokenizer; see `VLM`.

    Texts are padded to the length that the model was trained with: SigLIP needs this, and CLIP's vectors do not depend
    on it.

    Args:
        model: The network. It is set to evaluation mode and needs no gradients from then on.
        tokenizer: The tokenizer that belongs to it.
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
        self.length = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)
        super().__init__(model, preprocess, source=source, device=device)

    def _describe_tokenizer(self) -> str:
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        kind = f"{type(self.tokenizer).__name__}:{self.length}:{self.preprocess.resize == 'squash'}"
        return f"transformers:{kind}:{hashlib.sha256(vocabulary).hexdigest()}"

    def _encode_images(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def _encode_texts(self, texts: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        tokens = self.tokenizer(texts, **options).to(self.device)
        return self.model.get_text_features(**tokens).pooler_output


def load_transformers(
    name: str,
    *,
    source: str,
    device: torch.device | str = "cpu",
    untrained: bool = False,
    random_state: int = RANDOM_STATE,
) -> Transformers:
    """Load an image-text model of transformers.

    Args:
        name: Its name on the hub, or a folder that ``save_pretrained`` wrote (model and tokenizer).
        source: What messages and results call the model.
        device: Where the network runs.
        untrained: Use random weights.
        random_state: Seed of the random weights.

    Returns:
        The model.

    Raises:
        UsageError: For a network that does not embed texts.
        MissingError: For files that are not available, and if transformers is not installed.
        EncoscopeError: For weights that are damaged.
    """
    ensure_torchvision()
    try:
        import transformers
    except ImportError:
        raise MissingError(
            f"{source} needs transformers, which is not installed: pip install 'encoscope[hf]'"
        ) from None
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise MissingError(
            f"{source}: the folder holds no config.json; it has to be a folder that save_pretrained wrote"
        )
    with hugging_face_access():
        config = _load_part(transformers.AutoConfig, name, f"the configuration of {source}")
        if not hasattr(config, "text_config") or not hasattr(config, "vision_config"):
            raise UsageError(f"{source} is not an image-text model but {config.model_type}; CLIP and SigLIP are")
        tokenizer = _load_part(transformers.AutoTokenizer, name, f"the tokenizer of {source}")
        n_tokens, vocabulary = len(tokenizer), config.text_config.vocab_size
        if not vocabulary / 2 <= n_tokens <= vocabulary:  # without its files a tokenizer has no words
            raise MissingError(
                f"the tokenizer of {source} has {n_tokens} tokens, the model {vocabulary}: "
                f"check that the folder holds the model's own tokenizer"
            )
        processor = load_processor(name, config)
        model = _load_model(transformers, config, name, source, untrained, random_state)
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UsageError(f"{source} ({config.model_type}) does not embed images and texts; CLIP and SigLIP do")
    if processor is None:
        preprocess, whose = assume_preprocess(config.vision_config, config)
        _log.warning("%s", describe_assumption(source, whose, preprocess))
    else:
        preprocess = read_preprocess(processor, config.vision_config)
    return Transformers(model, tokenizer, preprocess, source=source, device=device)


def _load_model(transformers: Any, config: Any, name: str, source: str, untrained: bool, random_state: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        if untrained:
            return transformers.AutoModel.from_config(config)
        return load_pretrained(transformers.AutoModel, name, source)


def _load_part(kind: Any, name: str, what: str) -> Any:
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise MissingError(
            f"{what} is not available ({detail}): use a folder that save_pretrained wrote, with the tokenizer's files"
        ) from error
