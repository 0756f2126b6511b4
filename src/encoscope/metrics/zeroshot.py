"""Zero-shot classification with an image-text model (Radford et al., 2021, section 3.1.4)."""

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
    """The 80 prompts of CLIP's ImageNet evaluation, ``{}`` standing for the class."""
    text = (resources.files("encoscope.metrics") / "clip-imagenet-templates.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def build_zero_shot_weights(
    embed_texts: Callable[[Sequence[str]], Float[Tensor, "texts width"]],
    classes: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> Float[Tensor, "classes width"]:
    """A unit vector per class: its prompts' embeddings, each of unit length, averaged and brought to unit length.

    embed_texts: of an image-text model, such as ``vlm.embed_texts``; called once a class. classes: as they stand in a
    sentence; underscores become spaces. prompts: with ``{}`` for the class; the 80 of ``templates`` if left out.

    Raises:
        UsageError: no classes or prompts, or a prompt without ``{}``.
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
    """The share of images whose class is among the k most similar ones, for each k of ``top``.

    images: embeddings of any length. labels: the rows of ``weights`` that are right. Of equally similar classes the one
    of lower index comes first. With k classes or fewer, top-k is 1.

    Raises:
        UsageError: no images, labels that do not fit, or a k below 1.
    """
    hits = rank_classes(images, weights, labels)
    if min(top, default=1) < 1:
        raise UsageError(f"top holds numbers of classes, at least 1, not {min(top)}")
    return {k: float((hits < k).double().mean()) for k in top}


def rank_classes(
    images: Float[Tensor, "images width"],
    weights: Float[Tensor, "classes width"],
    labels: Sequence[int] | Int[Tensor, " images"],
) -> Int[Tensor, " images"]:
    """The place, from 0, of each image's own class among the classes by similarity. UsageError as above."""
    wanted = torch.as_tensor(labels, dtype=torch.int64, device="cpu")
    if not len(images) or len(wanted) != len(images):
        raise UsageError(f"{len(wanted)} labels for {len(images)} images")
    if int(wanted.min()) < 0 or int(wanted.max()) >= len(weights):
        raise UsageError(f"labels lie in 0 to {len(weights) - 1}, one for each row of the weights")
    scores = (images.detach().cpu().double() @ weights.detach().cpu().double().T).float()
    own = scores.gather(1, wanted[:, None])
    before = torch.arange(len(weights))[None] < wanted[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(1)
