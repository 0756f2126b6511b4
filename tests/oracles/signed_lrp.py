"""LRP through signed layers, literally: contribution by contribution, for one vector or one row of tokens."""

from __future__ import annotations

import torch


def linear_rule(a, weight, output, relevance):
    """Each output's relevance by the contributions w a of the output's sign. a: [in]; weight: [out, in]."""
    result = torch.zeros_like(a)
    for j in range(len(output)):
        contributions = weight[j] * a
        own = contributions.clamp(min=0) if output[j] > 0 else contributions.clamp(max=0)
        if own.sum() != 0:
            result += own / own.sum() * relevance[j]
    return result


def tokens_rule(a, weight, output, relevance):
    """The same for each token. a: [tokens, in]."""
    return torch.stack([linear_rule(*row) for row in zip(a, [weight] * len(a), output, relevance, strict=True)])


def attention_rule(value, mixture, output, relevance):
    """Channel by channel, the tokens that are mixed share by weight times value. mixture: [tokens, tokens]."""
    channels = zip(value.T, output.T, relevance.T, strict=True)
    return torch.stack([linear_rule(v, mixture, o, r) for v, o, r in channels], 1)


def sum_rule(first, second, relevance):
    """The residual split by magnitude."""
    share = first.abs() / (first.abs() + second.abs())
    return relevance * share, relevance * (1 - share)


def transformer_block(block, x, relevance):
    """Back through a pre-norm block of timm with one head: norms and GELU hand relevance on."""
    attention, mlp = block.attn, block.mlp
    width = x.shape[1]
    normal = block.norm1(x)
    q, k, v = attention.qkv(normal).split(width, 1)
    mixture = (q @ k.T / width**0.5).softmax(1)
    mixed = mixture @ v
    branch = attention.proj(mixed)
    middle = x + branch
    normal2 = block.norm2(middle)
    hidden = mlp.fc1(normal2)
    raised = torch.nn.functional.gelu(hidden)
    branch2 = mlp.fc2(raised)

    skip, into = sum_rule(middle, branch2, relevance)
    into = tokens_rule(raised, mlp.fc2.weight, branch2, into)
    into = tokens_rule(normal2, mlp.fc1.weight, hidden, into)
    skip, into = sum_rule(x, branch, skip + into)
    into = tokens_rule(mixed, attention.proj.weight, branch, into)
    into = attention_rule(v, mixture, mixed, into)
    return skip + tokens_rule(normal, attention.qkv.weight[2 * width :], v, into)
