from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from encoscope import vlm
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images.openclip import read_settings

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}


def write(folder, **preprocess):
    document = {"model_cfg": MODEL, "preprocess_cfg": {**PREPROCESS, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return f"openclip:local-dir:{folder}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a config of our own and weights, as open_clip wants it."""
    folder = tmp_path_factory.mktemp("clip")
    source = write(folder)
    model = vlm.load(source, untrained=True, random_state=3)
    assert isinstance(model, vlm.OpenClip)
    save_file(model.model.state_dict(), folder / "open_clip_model.safetensors")
    return folder, source, model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=shape, dtype=np.uint8) for shape in [(40, 60, 3), (64, 33, 3), (32, 32, 3)]]


def test_a_saved_model_gives_its_vectors_again(saved, images):
    _, source, before = saved
    model = vlm.load(source)
    assert isinstance(model, vlm.VLM) and model.width == 16 and model.source == source
    assert torch.equal(model.embed_images(images), before.embed_images(images))
    assert torch.equal(model.embed_texts(["a red crab"]), before.embed_texts(["a red crab"]))
    assert model.digest == before.digest


def test_vectors_are_unit_rows_one_at_a_time_or_together(saved, images):
    _, _, model = saved
    together = model.embed_images(images)
    assert torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-5)
    alone = torch.cat([model.embed_images([image]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    texts = ["a panda", "a long text " * 20, ""]
    assert torch.allclose(model.embed_texts(texts).norm(dim=1), torch.ones(3), atol=1e-5)
    assert model.embed_texts([]).shape == model.embed_images([]).shape == (0, 16)


def test_images_are_prepared_as_open_clip_does_it(saved, images):
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    _, _, model = saved
    settings = dict(model.model.visual.preprocess_cfg)
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        theirs = torch.nn.functional.normalize(model.model.encode_image(pixels), dim=1)
    assert torch.allclose(model.embed_images(images), theirs, atol=2e-2)
    assert (model.embed_images(images) * theirs).sum(1).min() > 0.999


def test_squashed_models_see_the_whole_image(tmp_path):
    model = vlm.load(write(tmp_path, resize_mode="squash"), untrained=True)
    edges = np.full((32, 96, 3), 128, dtype=np.uint8)
    edges[:, :16], edges[:, -16:] = 255, 0
    plain = np.full((32, 96, 3), 128, dtype=np.uint8)
    assert not torch.allclose(*model.embed_images([edges, plain]).unbind(), atol=1e-3)
    cropping = vlm.load(write(tmp_path), untrained=True)
    assert torch.allclose(*cropping.embed_images([edges, plain]).unbind(), atol=1e-6)


def test_untrained_weights_follow_from_the_seed(saved):
    _, source, _ = saved
    state = torch.random.get_rng_state()
    digests = [vlm.load(f"{source}@untrained", random_state=seed).digest for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "source,error,message",
    [
        ("ViT-B-32", UsageError, "names no image-text model"),
        ("openclip:", UsageError, "needs a name"),
        ("openclip:ViT-B-23/openai", UsageError, r"no model 'ViT-B-23'.*nearest: ViT-B-32"),
        ("openclip:RN50", UsageError, "which weights of RN50.*yfcc15m"),
        ("openclip:local-dir:/nowhere", MissingError, "/nowhere"),
        ("zoo:clip-caltech11", UsageError, "nearest: .*clip-caltech101"),
        ("zoo:resnet-caltech101", (UsageError, MissingError), "is not an image-text model|not in this installation"),
    ],
)
def test_wrong_sources_are_told_in_a_line(source, error, message):
    with pytest.raises(error, match=message) as raised:
        vlm.load(source)
    assert "\n" not in str(raised.value)


def test_a_folder_without_weights_and_broken_weights_are_refused(tmp_path):
    source = write(tmp_path)
    with pytest.raises(EncoscopeError, match="cannot be loaded"):
        vlm.load(source)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoscopeError, match="cannot be loaded"):
        vlm.load(source)


def test_unknown_ways_of_resizing_are_refused():
    with pytest.raises(UsageError, match="'shortest_longest'"):
        read_settings({"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "shortest_longest"})
