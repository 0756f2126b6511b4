"""transformers' CLIP and SigLIP behind the protocol: tiny ones, saved as transformers saves them."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoscope import vlm
from encoscope._torchvision import ensure_torchvision
from encoscope.errors import EncoscopeError, MissingError, UsageError

ensure_torchvision()
transformers = pytest.importorskip("transformers")

VISION = {"image_size": 32, "patch_size": 16}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
WORDS = ["a", "dog", "cat", "photo", "of", "the", "red"]
CLIP_PROCESSOR = {
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.25, 0.25, 0.25],
    "resample": 2,
}


def tokenizer() -> Any:
    """Whole words, the way of CLIP's tokenizer: lower case, a start and an end."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {word: index for index, word in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    merges: list[str] = []
    for word in WORDS:
        left = word[0]
        for place in range(1, len(word)):
            right = word[place] + ("</w>" if place == len(word) - 1 else "")
            merges.append((left, right))
            left += right
            vocabulary.setdefault(left, len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):  # the end has the largest number
        vocabulary[special] = len(vocabulary)
    return transformers.CLIPTokenizer(vocabulary, list(dict.fromkeys(merges)), model_max_length=12)


def save(folder: Path, kind: str = "CLIP", processor: dict[str, Any] | None = None) -> str:
    words = tokenizer()
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {**SMALL, **ends, "vocab_size": len(words), "max_position_embeddings": 12, "projection_size": 16}
    shared = {"projection_dim": 8} if kind == "CLIP" else {}
    config = getattr(transformers, f"{kind}Config")(vision_config={**VISION, **SMALL}, text_config=text, **shared)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config)
    for parameter in model.parameters():  # their own initial values are too alike to tell images apart
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, vlm.VLM]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, vlm.load(save(folder, processor=CLIP_PROCESSOR))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((32, 48, 3), (70, 40, 3), (33, 33, 3))]


def test_vectors_are_transformers_own(clip, images) -> None:
    folder, model = clip
    assert isinstance(model, vlm.VLM) and model.width == 8 and model.source == f"hf:{folder}"
    texts = ["a photo of the dog", "red cat", ""]
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = theirs.get_text_features(**words(texts, padding=True, return_tensors="pt")).pooler_output
    assert torch.allclose(model.embed_texts(texts), torch.nn.functional.normalize(expected, dim=1), atol=1e-5)
    apart = torch.cat([model.embed_texts([text]) for text in texts])
    assert torch.allclose(apart, model.embed_texts(texts), atol=1e-5)
    long = model.embed_texts(["the red dog " * 20, ""])
    assert torch.allclose(long.norm(dim=1), torch.ones(2), atol=1e-5)
    assert model.embed_texts([]).shape == model.embed_images([]).shape == (0, 8)

    pixels = model.preprocess
    assert (pixels.size, pixels.mean, pixels.interpolation) == ((32, 32), (0.5, 0.4, 0.3), "bilinear")
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        seen = processor(images=images, return_tensors="pt")
        expected = theirs.get_image_features(**seen).pooler_output
    similar = (model.embed_images(images) * torch.nn.functional.normalize(expected, dim=1)).sum(1)
    assert similar.min() > 0.999


def test_the_digest_knows_weights_and_words(clip, tmp_path) -> None:
    folder, model = clip
    again = vlm.load(f"hf:{folder}")
    again.embed_texts(["a dog"])
    assert again.digest == model.digest
    untrained = [vlm.load(f"hf:{folder}@untrained", random_state=seed).digest for seed in (1, 1, 2)]
    assert untrained[0] == untrained[1] != untrained[2] and model.digest not in untrained
    save(tmp_path, processor=CLIP_PROCESSOR)
    file = tmp_path / "tokenizer.json"
    words = json.loads(file.read_text())
    one, two = (words["model"]["vocab"][word] for word in ("dog</w>", "cat</w>"))
    words["model"]["vocab"] |= {"dog</w>": two, "cat</w>": one}
    file.write_text(json.dumps(words))
    assert vlm.load(f"hf:{tmp_path}").digest != model.digest


def test_siglip_sees_the_whole_image_squashed(tmp_path, images) -> None:
    processor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    model = vlm.load(save(tmp_path, "Siglip", processor))
    assert model.preprocess.resize == "squash" and model.width == 16
    edges = np.full((32, 96, 3), 128, dtype=np.uint8)
    edges[:, :16], edges[:, -16:] = 255, 0
    plain = np.full((32, 96, 3), 128, dtype=np.uint8)
    assert not torch.allclose(*model.embed_images([edges, plain]).unbind(), atol=1e-3)
    assert torch.allclose(model.embed_texts(["a dog", "cat"]).norm(dim=1), torch.ones(2), atol=1e-5)


def test_what_is_not_there_is_told_in_a_line(clip, tmp_path, monkeypatch) -> None:
    def refused(source: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message) as raised:
            vlm.load(source)
        assert "\n" not in str(raised.value)

    refused("hf:", UsageError, "needs a name after it")
    refused(f"hf:{tmp_path}", MissingError, r"holds no config.json")
    monkeypatch.setattr("encoscope._offline.is_reachable", lambda _: False)
    transformers.ViTModel(transformers.ViTConfig(**VISION, **SMALL)).save_pretrained(tmp_path / "vit")
    refused(f"hf:{tmp_path / 'vit'}", UsageError, "is not an image-text model but vit")
    save(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"not weights")
    refused(f"hf:{tmp_path / 'damaged'}", EncoscopeError, "cannot be loaded")
    (tmp_path / "damaged" / "model.safetensors").unlink()
    refused(f"hf:{tmp_path / 'damaged'}", MissingError, r"the weights of hf:.* are not available")
    for file in (tmp_path / "damaged").glob("tokenizer*"):
        file.unlink()
    refused(f"hf:{tmp_path / 'damaged'}", MissingError, r"the tokenizer of hf:.* has 2 tokens")

    importing = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    refused(f"hf:{clip[0]}", MissingError, r"needs transformers, .*: pip install 'encoscope\[hf\]'")
