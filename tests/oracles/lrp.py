"""LRP for ResNets with the residual split, literally: window by window, block by block, one image at a time."""

from __future__ import annotations

import torch
from torch import nn

EPSILON = 1e-5


def window_rule(a, weight, relevance, stride, padding, groups=1):
    """R_in = a * W+^T (R / (W+ a + 1e-5)) of a convolution, one output position after the other. a: [C, H, W]."""
    plus = weight.clamp(min=0)
    size = weight.shape[2]
    padded = nn.functional.pad(a, (padding,) * 4)
    found = torch.zeros_like(padded)
    inputs, outputs = a.shape[0] // groups, weight.shape[0] // groups
    for y in range(relevance.shape[1]):
        for x in range(relevance.shape[2]):
            rows, columns = slice(y * stride, y * stride + size), slice(x * stride, x * stride + size)
            for group in range(groups):
                taken = slice(group * inputs, (group + 1) * inputs)
                made = slice(group * outputs, (group + 1) * outputs)
                patch = padded[taken, rows, columns]
                contributions = plus[made] * patch  # of each input to each output
                z = contributions.sum((1, 2, 3)) + EPSILON
                found[taken, rows, columns] += torch.einsum("ochw,o->chw", contributions, relevance[made, y, x] / z)
    return found[:, padding : padding + a.shape[1], padding : padding + a.shape[2]]


def average_rule(a, relevance, size, stride):
    """The same for average pooling; a window that the map ends in is a smaller one."""
    found = torch.zeros_like(a)
    for y in range(relevance.shape[1]):
        for x in range(relevance.shape[2]):
            window = (slice(None), slice(y * stride, y * stride + size), slice(x * stride, x * stride + size))
            patch = a[window]
            count = patch.shape[1] * patch.shape[2]
            z = patch.sum((1, 2)) / count + EPSILON
            found[window] += patch / count * (relevance[:, y, x] / z)[:, None, None]
    return found


def chain(modules, a, relevance):
    """Back through modules one after the other; gives the relevance of what goes into the first."""
    taken = []
    for module in modules:
        taken.append(a)
        a = module(a[None].clone())[0]
    for module, a in reversed(list(zip(modules, taken, strict=True))):
        if isinstance(module, nn.Conv2d):
            relevance = window_rule(a, module.weight, relevance, module.stride[0], module.padding[0], module.groups)
        elif isinstance(module, nn.AvgPool2d):
            relevance = average_rule(a, relevance, int(module.kernel_size), int(module.stride))
        elif isinstance(module, nn.MaxPool2d):
            relevance = average_rule(a, relevance, 2, 2)
        else:
            assert isinstance(module, (nn.BatchNorm2d, nn.ReLU, nn.Identity)), module
    return relevance


def block(module, x, relevance):
    """Back through a BasicBlock or Bottleneck of torchvision or timm, whose names are alike."""
    main = []
    for index in ("1", "2", "3"):
        if hasattr(module, f"conv{index}"):
            main += [getattr(module, f"conv{index}"), getattr(module, f"bn{index}"), nn.ReLU()]
    main.pop()  # the last ReLU comes after the sum
    skip = [] if module.downsample is None else list(module.downsample)
    f, s = run(main, x), run(skip, x)
    share = f.abs() / (f.abs() + s.abs())
    share[(f == 0) & (s == 0)] = 0.5
    return chain(main, x, share * relevance) + chain(skip, x, (1 - share) * relevance)


def run(modules, x):
    for module in modules:
        x = module(x[None].clone())[0]
    return x


@torch.no_grad()
def resnet(module, image, channel):
    """{layer: relevance} of conv1 and layer1 to layer4 for a channel of layer4, on one image [3, H, W]."""
    conv1 = image
    for part in module.conv1 if isinstance(module.conv1, nn.Sequential) else [module.conv1]:
        conv1 = run([part], conv1)
    stem = [module.bn1, nn.ReLU(), module.maxpool]
    inputs = []
    x = run(stem, conv1)
    for number in range(1, 5):
        for item in getattr(module, f"layer{number}"):
            inputs.append((number, item, x))
            x = run([item], x)
    relevance = torch.zeros_like(x)
    relevance[channel] = x[channel]
    found = {"layer4": relevance}
    for number, item, x in reversed(inputs):
        found.setdefault(f"layer{number}", relevance)
        relevance = block(item, x, relevance)
    found["conv1"] = chain(stem, conv1, relevance)
    return found
