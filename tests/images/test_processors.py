"""Pixels equal to those of transformers' own image processors, for every family and for every setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from encoscope.errors import UsageError
from encoscope.images import Preprocess, make_batch, read_image
from encoscope.images.processors import assume_preprocess, read_preprocess
from encoscope.vital.synthesis.parametrization import denormalize, normalize, pixel_bounds

transformers = pytest.importorskip("transformers")

SHAPES = [(256, 342), (342, 256), (97, 301), (301, 97), (75, 75), (64, 65)]  # (height, width)
SIDE = {"height": 64, "width": 64}

# class, its settings, and the side that the model's configuration gives
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {}),
    "vit-small": ("ViT", {"size": SIDE}),
    "vit-not-normalized": ("ViT", {"size": SIDE, "do_normalize": False}),
    "vit-not-rescaled": ("ViT", {"size": SIDE, "do_rescale": False}),
    "vit-neither": ("ViT", {"size": SIDE, "do_rescale": False, "do_normalize": False}),
    "vit-to-two": ("ViT", {"size": SIDE, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
    "vit-oblong": ("ViT", {"size": {"height": 48, "width": 80}}),
    "vit-short": ("ViT", {"size": {"shortest_edge": 64}}),
    "vit-long": ("ViT", {"size": {"max_height": 64, "max_width": 80}}),
    "vit-padded": (
        "ViT",
        {"size": {"max_height": 64, "max_width": 64}, "do_pad": True, "pad_size": {"height": 72, "width": 80}},
    ),
    "vit-as-it-is": ("ViT", {"do_resize": False}),
    "vit-crop-of-the-original": ("ViT", {"do_resize": False, "do_center_crop": True, "crop_size": SIDE}),
    "vit-crop-larger": ("ViT", {"size": SIDE, "do_center_crop": True, "crop_size": {"height": 71, "width": 90}}),
    "vit-nearest": ("ViT", {"size": SIDE, "resample": 0}),
    "vit-lanczos": ("ViT", {"size": SIDE, "resample": 1}),
    "vit-box": ("ViT", {"size": SIDE, "resample": 4}),
    "vit-hamming": ("ViT", {"size": SIDE, "resample": 5}),
    "deit": ("DeiT", {}),
    "beit": ("Beit", {}),
    "beit-cropped": ("Beit", {"size": {"height": 72, "width": 72}, "do_center_crop": True, "crop_size": SIDE}),
    "clip": ("CLIP", {}),
    "clip-odd-crop": ("CLIP", {"size": {"shortest_edge": 75}, "crop_size": {"height": 64, "width": 64}}),
    "clip-larger": ("CLIP", {"size": {"shortest_edge": 255}, "crop_size": {"height": 224, "width": 224}}),
    "siglip": ("Siglip", {}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
    "focalnet": ("Bit", {"size": {"shortest_edge": 73}, "crop_size": SIDE}),
    "convnext-squashed": ("ConvNext", {}),
    "convnext-cropped": ("ConvNext", {"size": {"shortest_edge": 224}}),
    "convnext-crop_pct": ("ConvNext", {"size": {"shortest_edge": 99}, "crop_pct": 0.95}),
    "mobilevit": ("MobileViT", {}),
    "mobilevit-rgb": ("MobileViT", {"do_flip_channel_order": False, "size": {"shortest_edge": 72}, "crop_size": SIDE}),
    "mobilenet_v1": ("MobileNetV1", {}),
    "mobilenet_v2": ("MobileNetV2", {"size": {"shortest_edge": 74}, "crop_size": SIDE}),
    "efficientnet": ("EfficientNet", {}),
    "efficientnet-imagenet": (
        "EfficientNet",
        {"size": SIDE, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    ),
    "efficientnet-without-top": ("EfficientNet", {"size": SIDE, "include_top": False}),
    "efficientnet-offset": ("EfficientNet", {"size": SIDE, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
    "efficientnet-top-alone": ("EfficientNet", {"size": SIDE, "do_normalize": False}),
    "levit": ("Levit", {}),
    "levit-small": ("Levit", {"size": {"shortest_edge": 60}, "crop_size": {"height": 60, "width": 60}}),
    "poolformer": ("PoolFormer", {}),
    "poolformer-square": ("PoolFormer", {"size": SIDE, "crop_pct": 0.95, "crop_size": SIDE}),
    "poolformer-without-share": ("PoolFormer", {"size": SIDE, "do_center_crop": False}),
    "segformer": ("Segformer", {"size": {"height": 96, "width": 96}}),
    "pvt": ("Pvt", {}),
    "flava": ("Flava", {"size": SIDE, "crop_size": SIDE}),
    "chinese-clip": ("ChineseCLIP", {"size": {"shortest_edge": 66}, "crop_size": SIDE}),
    "blip": ("Blip", {"size": SIDE}),
    "dpt": ("DPT", {"size": SIDE}),
}


class Config:
    """What the settings of a processor are read beside."""

    num_channels = 3
    image_size = 64


def make_noise(shape: tuple[int, int], channels: int = 3) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, channels), dtype=np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_the_processors_own(family: str) -> None:
    kind, settings = FAMILIES[family]
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    preprocess = read_preprocess(processor, Config())
    for shape in SHAPES:
        expected = processor(images=Image.fromarray(make_noise(shape)), return_tensors="np")["pixel_values"][0]
        ours = make_batch([read_image(make_noise(shape))], preprocess).pixels[0].numpy()
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_an_image_network_of_one_channel() -> None:
    class Grey(Config):
        num_channels = 1

    processor = transformers.ViTImageProcessorPil(size=SIDE, image_mean=[0.5], image_std=[0.25])
    preprocess = read_preprocess(processor, Grey())
    expected = processor(images=Image.fromarray(make_noise((50, 90), 1)[:, :, 0]), return_tensors="np")["pixel_values"][
        0
    ]
    np.testing.assert_allclose(
        make_batch([read_image(make_noise((50, 90), 1))], preprocess).pixels[0], expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        ("Siglip2", {}, "Siglip2ImageProcessor makes an input of 256 x 768"),
        ("Vilt", {}, "ViltImageProcessor makes an input of"),
        ("Detr", {}, "DetrImageProcessor has settings that are not supported: size"),
        ("Owlv2", {}, "Owlv2ImageProcessor has settings that are not supported .pixels would be off"),
        ("VideoMAE", {}, "VideoMAEImageProcessor makes an input of 1 x 3"),
        ("ImageGPT", {}, "ImageGPTImageProcessor failed on a trial image"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(kind: str, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        read_preprocess(getattr(transformers, f"{kind}ImageProcessorPil")(**settings), Config())
    assert "--mean" in str(caught.value) or "size" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_with_another_meaning_is_refused() -> None:
    """A processor of one's own that keeps the names of the settings, and does something else with them."""

    class Mirrored(transformers.ViTImageProcessorPil):
        def resize(self, image: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
            return super().resize(image[:, :, ::-1], *args, **kwargs)

    with pytest.raises(UsageError, match=r"Mirrored has settings that are not supported .pixels would be off by"):
        read_preprocess(Mirrored(size=SIDE), Config())


@pytest.mark.parametrize("kind", ["ViT", "Bit", "CLIP", "Pvt", "Siglip", "MobileNetV2", "Levit"])
def test_the_backends_differ_by_what_the_docs_say(kind: str) -> None:
    """torchvision's backend rounds resized bytes otherwise: one level of 255 in a hundredth of a reduced photo."""
    processors = [
        getattr(transformers, f"{kind}ImageProcessor{backend}")(do_normalize=False) for backend in ("Pil", "")
    ]
    for picture in (data.coffee(), data.chelsea()):
        first, second = (
            processor(images=Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
            for processor in processors
        )
        levels = np.abs(np.asarray(first) - np.asarray(second)) * 255
        assert levels.max() <= 1.001
        assert (levels > 0.5).mean() < 0.01


def test_a_processor_with_torchvision_alone() -> None:
    """DINOv3's resizes floats; it has no backend that computes with Pillow."""
    processor = transformers.DINOv3ViTImageProcessor()
    preprocess = read_preprocess(processor, Config())
    assert preprocess.resize_floats
    for shape in SHAPES:
        expected = processor(images=Image.fromarray(make_noise(shape)), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(
            make_batch([read_image(make_noise(shape))], preprocess).pixels[0], expected, atol=2e-4
        )


def test_the_type_says_what_is_assumed_without_a_processor() -> None:
    preprocess, whose = assume_preprocess(transformers.ViTConfig(image_size=96))
    assert (preprocess.size, preprocess.mean, preprocess.resize) == ((96, 96), (0.5, 0.5, 0.5), "squash")
    assert whose == "ViTImageProcessor's defaults"
    preprocess, whose = assume_preprocess(transformers.MobileNetV2Config(image_size=112))
    assert (preprocess.size, preprocess.resize_to) == ((112, 112), (128, 128))
    clip = transformers.CLIPConfig()
    assert assume_preprocess(clip.vision_config, clip)[1] == "CLIPImageProcessor's defaults"


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(rescale=1 / 127.5, mean=(1.0,), std=(1.0,)),
        Preprocess(rescale=1.0, mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0)),
        Preprocess(std_twice=True),
        Preprocess(rescale=1 / 127.5, rescale_offset=1.0, mean=(0.1,), std=(0.5,)),
        Preprocess(mean=(0.0,), std=(1.0,), channel_order="bgr"),
    ],
)
def test_pictures_that_are_made_pass_through_the_same_arithmetic(preprocess: Preprocess) -> None:
    pixels = make_noise((224, 224))
    unit = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    batch = make_batch([read_image(pixels)], preprocess).pixels
    torch.testing.assert_close(normalize(unit, preprocess), batch, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denormalize(batch, preprocess), unit, rtol=0, atol=1e-5)
    black, white = pixel_bounds(preprocess)
    assert (black <= batch[0].amin((1, 2), keepdim=True) + 1e-4).all()
    assert (white >= batch[0].amax((1, 2), keepdim=True) - 1e-4).all()


def test_records_and_digests_keep_their_form() -> None:
    assert list(Preprocess().as_dict()) == ["size", "mean", "std", "interpolation", "crop", "channels"]
    assert Preprocess(resize="squash", channel_order="bgr").as_dict().keys() - Preprocess().as_dict().keys() == {
        "resize",
        "channel_order",
    }
