"""Augmentations of a whole batch as tensor operations, each drawn from an explicit generator."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


LUMA = (0.299, 0.587, 0.114)


def _to_normal(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    mean = torch.tensor(MEAN).view(3, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1)
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def normalize(pixels: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Turn bytes into floats, by ImageNet's mean and standard deviation.

    Args:
        pixels: Images, 0 to 255.

    Returns:
        The images, channels last in memory.
    """
    return _to_normal(pixels.float().div_(255))


def jitter_color(
    pixels: UInt8[Tensor, "batch 3 height width"], strength: float, generator: Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Change brightness, contrast and saturation of each image, turn a tenth of them gray, and normalize them.

    The three changes make one affine map of colors per image, so that the batch is one matrix product.

    Args:
        pixels: Images, 0 to 255.
        strength: Each change is by a factor in 1 - strength to 1 + strength.
        generator: Draws the factors.

    Returns:
        The images, normalized as by `normalize`.
    """
    count, height, width = len(pixels), *pixels.shape[2:]
    brightness, contrast, saturation = 1 + strength * (2 * torch.rand(3, count, generator=generator) - 1)
    saturation = torch.where(torch.rand(count, generator=generator) < 0.1, 0.0, saturation)
    flat = pixels.flatten(2).float().div_(255)
    luma = torch.tensor(LUMA)
    blend = saturation.view(-1, 1, 1) * torch.eye(3) + (1 - saturation.view(-1, 1, 1)) * luma
    blend = blend * (brightness * contrast).view(-1, 1, 1)
    middle = (flat.mean(2) @ luma) * brightness * (1 - contrast)
    images = torch.baddbmm(middle.view(-1, 1, 1), blend, flat).clamp_(0, 1)
    return _to_normal(images.view(count, 3, height, width))


def erase_rectangles(
    images: Float[Tensor, "batch 3 height width"], share: float, generator: Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Fill one rectangle (2 to 20 % of the area) with noise in some of the images.

    Args:
        images: Normalized images; they are changed in place.
        share: The probability that an image is changed.
        generator: Draws images, rectangles and noise.

    Returns:
        The images.
    """
    height, width = images.shape[2:]
    for image in images:
        chance, area, aspect, top, left = torch.rand(5, generator=generator).tolist()
        if chance >= share:
            continue
        area, aspect = (0.02 + 0.18 * area) * height * width, math.exp((aspect - 0.5) * 2 * math.log(3))
        rows, columns = min(height, round(math.sqrt(area / aspect))), min(width, round(math.sqrt(area * aspect)))
        top, left = int(top * (height - rows + 1)), int(left * (width - columns + 1))
        image[:, top : top + rows, left : left + columns] = torch.randn(3, rows, columns, generator=generator)
    return images


def mix_images(
    images: Float[Tensor, "batch 3 height width"], targets: Float[Tensor, "batch classes"], generator: Generator
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch classes"]]:
    """Blend each image of a batch with another one: by turns mixup (Beta(1/2, 1/2)) and cutmix (uniform share).

    Args:
        images: The images.
        targets: Their targets, rows that sum to 1.
        generator: Draws the kind of blend, the other images and the share.

    Returns:
        The blended images and their targets, blended in the same proportion.
    """
    other = torch.randperm(len(images), generator=generator)
    kind, share, row, column = torch.rand(4, generator=generator).tolist()
    if kind < 0.5:
        share = math.sin(math.pi / 2 * share) ** 2  # the arcsine law is Beta(1/2, 1/2)
        images = share * images + (1 - share) * images[other]
    else:
        height, width = images.shape[2:]
        rows, columns = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
        top, left = int(row * (height - rows + 1)), int(column * (width - columns + 1))
        images = images.clone()
        images[:, :, top : top + rows, left : left + columns] = images[other][
            :, :, top : top + rows, left : left + columns
        ]
        share = 1 - rows * columns / (height * width)
    return images, share * targets + (1 - share) * targets[other]
