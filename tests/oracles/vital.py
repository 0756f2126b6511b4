"""VITAL, literally: sort, argsort and gather over all references in each step, norms and Adam written out."""

from __future__ import annotations

import math

import torch


def activations(network, layers, pixels):
    """Each layer's output as [B, C, D], by hooks; token sequences with the class token first."""
    kept = {}

    def keep(name):
        def hook(module, args, output):
            kept[name] = output.transpose(1, 2) if output.ndim == 3 else output.flatten(2)

        return hook

    modules = dict(network.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    network(pixels)
    for handle in handles:
        handle.remove()
    return kept


def matched(z, references):
    """z^r of section 3.2.1 for one image: z [C, D], references [N, C, D]."""
    pi = torch.argsort(z, dim=1)
    pi_bar = torch.argsort(pi, dim=1)
    prototype = torch.stack([torch.gather(r, 1, torch.argsort(r, dim=1)) for r in references]).mean(0)
    return torch.gather(prototype, 1, pi_bar)


def total_variation(x):
    d1, d2 = x[:, :, :-1] - x[:, :, 1:], x[:, :-1, :] - x[:, 1:, :]
    d3, d4 = x[:, 1:, :-1] - x[:, :-1, 1:], x[:, :-1, :-1] - x[:, 1:, 1:]
    return sum(torch.sqrt((d * d).sum()) for d in (d1, d2, d3, d4))


def visualize(
    network, references, layers, weights, a_tv, a_l2, start, rolls, low, high, *, steps, warmup, relevance=None
):
    """Algorithm 1: the image [C, H, W] after ``steps``, and the mean absolute gradient of the loss.

    references: normalised [N, C, H, W]. rolls: a (rows, columns) shift a step. relevance: pixels -> {layer: [B, C, D]}.
    """
    x = start.clone()
    m, v, attended = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    with torch.no_grad():
        real = activations(network, layers, references)
        if relevance is not None:
            scores = relevance(references)
            real = {name: real[name] * scores[name] for name in layers}
    for i in range(steps):
        x.requires_grad_(True)
        jittered = torch.roll(x, rolls[i], (1, 2))
        made = activations(network, layers, jittered[None])
        if relevance is not None:
            scores = relevance(jittered[None].detach())
            made = {name: made[name] * scores[name] for name in layers}
        matching = torch.zeros(())
        for name, weight in zip(layers, weights, strict=True):
            z = made[name][0]
            matching = matching + weight * ((z - matched(z.detach(), real[name])) ** 2).mean()
        auxiliary = a_tv * total_variation(jittered) + a_l2 * torch.sqrt((jittered * jittered).sum())
        (gradient,) = torch.autograd.grad(matching + auxiliary, x)
        attended += gradient.abs()
        rate = (i + 1) / warmup if i < warmup else 0.5 * (1 + math.cos(math.pi * (i - warmup) / (steps - warmup)))
        x = x.detach()
        m = 0.5 * m + 0.5 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        x = x - rate * (m / (1 - 0.5 ** (i + 1))) / (torch.sqrt(v / (1 - 0.9 ** (i + 1))) + 1e-8)
        x = torch.maximum(torch.minimum(x, high), low)
    return x, attended / steps
