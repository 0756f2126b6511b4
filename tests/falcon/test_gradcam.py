from __future__ import annotations

import pytest
import torch
from torch import nn

import encoscope
from encoscope import Encoder
from encoscope.falcon.crops import compute_masks
from encoscope.falcon.gradcam import GradCam
from encoscope.units import parse_unit


@pytest.fixture(scope="module")
def zoo() -> Encoder:
    return encoscope.load("zoo:resnet-caltech101", device="cpu")


@pytest.fixture(scope="module")
def untrained() -> Encoder:
    return encoscope.load("zoo:resnet-caltech101", untrained=True, device="cpu")


def pixels_of(encoder: Encoder, image_paths) -> torch.Tensor:
    return encoder.prepare([image_paths[name] for name in ("chelsea", "coffee")]).pixels


def of_captum(encoder: Encoder, layer: str, pixels: torch.Tensor, value) -> torch.Tensor:
    """Captum's GradCAM of ``value(layer's output, network's output)``, relu'd, at the layer's resolution."""
    from captum.attr import LayerGradCam

    kept = {}

    def forward(x):
        handle = encoder.module.get_submodule(layer).register_forward_hook(lambda m, a, o: kept.update(maps=o))
        try:
            return value(kept, encoder.module(x))
        finally:
            handle.remove()

    cam = LayerGradCam(forward, encoder.module.get_submodule(layer))
    return cam.attribute(pixels.clone(), relu_attributions=True)[:, 0].detach()


@pytest.mark.parametrize("which", ["zoo", "untrained"])
def test_closed_form_and_gradient_are_captums_up_to_scale(which, request, image_paths):
    encoder: Encoder = request.getfixturevalue(which)
    pixels = pixels_of(encoder, image_paths)
    features = encoder.features(pixels)
    feature = int(features.min(0).values.argmax())  # on in both photos
    number = int(encoder.logits(pixels).min(0).values.argmax())
    cases = {
        f"features:{feature}": ("layer4", lambda kept, out: kept["maps"].mean((2, 3))[:, feature]),
        f"class:{number}": ("layer4", lambda kept, out: out[:, number]),
        "layer3:5,9": ("layer3", lambda kept, out: kept["maps"].mean((2, 3))[:, [5, 9]].sum(1)),
    }
    for text, (layer, value) in cases.items():
        unit = parse_unit(text, encoder)
        wanted = of_captum(encoder, layer, pixels, value)
        closed, graded = GradCam(encoder), GradCam(encoder, "gradient")
        assert closed.target(unit).method == "closed form" and graded.target(unit).method == "gradient"
        assert encoder.layer(closed.target(unit).layer).grid == encoder.layer(layer).grid
        for cam in (closed, graded):
            for image, (found,) in enumerate(cam(pixels, [[unit], [unit]])):
                scale = wanted[image].max() / found.max() if found.max() > 0 else 1
                torch.testing.assert_close(found * scale, wanted[image], rtol=1e-3, atol=1e-6)
        assert wanted.max() > 0


def test_many_units_of_many_images_are_each_image_alone(zoo, image_paths):
    pixels = pixels_of(zoo, image_paths)
    asked = [["features:3", "class:1", "layer2:7"], ["class:9"]]
    units = [[parse_unit(text, zoo) for text in row] for row in asked]
    for method in (None, "gradient"):
        cam = GradCam(zoo, method)
        together = cam(pixels, units)
        for image, row in enumerate(units):
            for place, unit in enumerate(row):
                (alone,) = cam(pixels[image : image + 1], [[unit]])[0]
                torch.testing.assert_close(together[image][place], alone, rtol=1e-4, atol=1e-7)
    assert cam(pixels, [[], []]) == [[], []]


def transformer(**kwargs) -> Encoder:
    import timm

    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, img_size=48, depth=3, embed_dim=24, num_heads=2, num_classes=5, **kwargs)
    return Encoder(network, size=48)


def test_transformers_pooled_from_the_class_token_use_the_block_before(image_paths):
    encoder = transformer()
    cam = GradCam(encoder)
    for text in ("features:3", "class:2", "blocks.2@cls:4"):
        assert cam.target(parse_unit(text, encoder)).layer == "blocks.1"
    pixels = pixels_of(encoder, image_paths)
    (first,), (second,) = cam(pixels, [[parse_unit("class:2", encoder)], [parse_unit("features:3", encoder)]])
    assert first.shape == (3, 3) and first.max() > 0 and second.max() > 0

    # GradCAM written out: mean gradient over the patch tokens of the block before the last, times the tokens
    kept = {}
    handle = encoder.module.blocks[1].register_forward_hook(lambda m, a, o: kept.update(x=o))
    output = encoder.module(pixels)
    handle.remove()
    (gradient,) = torch.autograd.grad(output[0, 2], kept["x"])
    wanted = (kept["x"][0, 1:] @ gradient[0, 1:].mean(0)).relu().reshape(3, 3)
    torch.testing.assert_close(first, wanted.detach(), rtol=1e-4, atol=1e-7)


def test_transformers_pooled_from_their_patches_use_the_last_block(image_paths):
    encoder = transformer(class_token=False, global_pool="avg")
    cam = GradCam(encoder)
    assert cam.target(parse_unit("features:3", encoder)).layer == "blocks.2"
    assert cam.target(parse_unit("blocks.0:3", encoder)).method == "closed form"


def test_a_class_token_inside_the_network_takes_a_block_before_its_own(image_paths):
    encoder = transformer()
    cam = GradCam(encoder)
    for unit, layer in (("blocks.1@cls:2", "blocks.0"), ("blocks.2@cls:2", "blocks.1")):
        assert cam.target(parse_unit(unit, encoder)).layer == layer
    ((maps,),) = cam(pixels_of(encoder, image_paths)[:1], [[parse_unit("blocks.1@cls:2", encoder)]])
    assert maps.shape == (3, 3) and maps.max() > 0


def test_nothing_is_left_behind(zoo, image_paths):
    pixels = pixels_of(zoo, image_paths)
    flags = [parameter.requires_grad for parameter in zoo.module.parameters()]
    for method in (None, "gradient"):
        GradCam(zoo, method)(pixels, [[parse_unit("class:3", zoo)], [parse_unit("layer4:1", zoo)]])
    for module in zoo.module.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
    assert [parameter.requires_grad for parameter in zoo.module.parameters()] == flags
    assert all(parameter.grad is None for parameter in zoo.module.parameters())


def test_masks_keep_the_upper_part_of_the_range():
    ramp = torch.linspace(1, 2, 5).repeat(5, 1)
    found = compute_masks([ramp, torch.zeros(5, 5), torch.ones(5, 5)], (5, 5), 0.6)
    assert found[0].tolist() == [[False, False, False, True, True]] * 5
    assert not found[1:].any()
    assert compute_masks([ramp], (10, 10))[0].sum() == 40
    assert compute_masks([], (4, 4)).shape == (0, 4, 4)
    mixed = compute_masks([ramp, torch.eye(2)], (10, 10))  # units of layers of other sizes
    assert torch.equal(mixed[0], compute_masks([ramp], (10, 10))[0]) and 0 < mixed[1].sum() < 100


def test_spaces_are_named_as_probes_name_them():
    encoder = transformer()
    texts = {"features:1": "features", "class:1": "logits", "blocks.1:2": "blocks.1", "blocks.1@cls:2": "blocks.1@cls"}
    assert {text: parse_unit(text, encoder).space for text in texts} == texts


def test_a_head_that_is_no_mean_goes_by_gradients(image_paths):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 6, 8, 8), nn.LayerNorm(6), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.norm(self.conv(x).mean((2, 3))))

    torch.manual_seed(1)
    encoder = Encoder(Normed(), size=32)
    target = GradCam(encoder).target(parse_unit("features:2", encoder))
    assert (target.layer, target.method) == ("conv", "gradient")
