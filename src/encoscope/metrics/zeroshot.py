"""Zero-shot classification with an image-text model.

Source: CLIP (Radford et al., 2021), section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from encoscope.errors import UsageError


@cache
def load_templates() -> tuple[str, ...]:
    """Load the 80 prompts of CLIP's ImageNet evaluation, in which ``{}`` stands for the class."""
    text = (resources.files("encoscope.metrics") / "clip-imagenet-templates.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def build_zero_shot_weights(
    embed_texts: Callable[[Sequence[str]], Float[Tensor, "texts width"]],
    classes: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> Float[Tensor, "classes width"]:
    """Compute a vector for each class: the mean of its prompts' embeddings.

    Embeddings are scaled to length 1 before and after they are averaged.

    Args:
        embed_texts: Embeds texts, such as an image-text model's ``embed_texts``; called once for each class.
        classes: Class names as they stand in a sentence; underscores become spaces.
        prompts: Texts with ``{}`` for the class; the 80 of ``load_templates`` if left out.

    Returns:
        A vector of length 1 for each class.

    Raises:
        UsageError: There are no classes or prompts, or a prompt has no ``{}``.
    """
    prompts = load_templates() if prompts is None else tuple(prompts)
    if not classes or not prompts:
        raise UsageError(f"zero-shot weights need classes and prompts, not {len(classes)} and {len(prompts)}")
    bare = next((prompt for prompt in prompts if "{}" not in prompt), None)
    if bare is not None:
        raise UsageError(f"the prompt {bare!r} has no {{}} for the class")
    weights = []
    for name in classes:
        vectors = embed_texts([prompt.replace("{}", name.replace("_", " ")) for prompt in prompts])
        weights.append(normalize(normalize(vectors.float(), dim=1).mean(0), dim=0))
    return torch.stack(weights)


def zero_shot_accuracy(
    images: Float[Tensor, "images width"],
    weights: Float[Tensor, "classes width"],
    labels: Sequence[int] | Int[Tensor, " images"],
    top: Sequence[int] = (1, 5),
) -> dict[int, float]:
    """Compute the share of images whose class is among the k most similar ones.

    Args:
        images: Embeddings of images, of any length.
        weights: A vector for each class, from ``build_zero_shot_weights``.
        labels: The class of each image: a row of ``weights``.
        top: The values of k, at least 1.

    Returns:
        The share in [0, 1] for each k. It is 1 where there are no more than k classes. Of equally similar classes the
        one with the lower index comes first.

    Raises:
        UsageError: There are no images, labels do not fit, or a k is below 1.
    """
    ranks = rank_classes(images, weights, labels)
    if min(top, default=1) < 1:
        raise UsageError(f"top holds numbers of classes, at least 1, not {min(top)}")
    return {k: float((ranks < k).double().mean()) for k in top}


def rank_classes(
    images: Float[Tensor, "images width"],
    weights: Float[Tensor, "classes width"],
    labels: Sequence[int] | Int[Tensor, " images"],
) -> Int[Tensor, " images"]:
    """Compute the rank of each image's own class among all classes, ordered by similarity.

    Args:
        images: Embeddings of images, of any length.
        weights: A vector for each class.
        labels: The class of each image: a row of ``weights``.

    Returns:
        Ranks from 0, the most similar class.

    Raises:
        UsageError: There are no images, or labels do not fit.
    """
    expected = torch.as_tensor(labels, dtype=torch.int64, device="cpu")
    if not len(images) or len(expected) != len(images):
        raise UsageError(f"{len(expected)} labels for {len(images)} images")
    if int(expected.min()) < 0 or int(expected.max()) >= len(weights):
        raise UsageError(f"labels lie in 0 to {len(weights) - 1}, one for each row of the weights")
    scores = (images.detach().cpu().double() @ weights.detach().cpu().double().T).float()
    own = scores.gather(1, expected[:, None])
    before = torch.arange(len(weights))[None] < expected[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(1)
