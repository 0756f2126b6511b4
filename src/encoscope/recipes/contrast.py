"""Contrastive training of images against captions, and accuracy by class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from encoscope.recipes.training import TrainingStep
from encoscope.zoo.attributes import HELD_OUT, ClassWords
from encoscope.zoo.captions import add_article

PROMPTS = ("a photo of {}", "a picture of {}", "a close view of {}", "{}")


def multi_positive_loss(
    logits: Float[Tensor, "images texts"], matches: Bool[Tensor, "images texts"]
) -> Float[Tensor, ""]:
    """Compute the contrastive loss where several texts fit an image and several images a text.

    Args:
        logits: The scaled similarities.
        matches: Which pairs belong together; the target of a row (and of a column) is uniform over its pairs.

    Returns:
        The mean of the cross entropies of images over texts and of texts over images.
    """
    pairs = matches.float()
    by_image = -(pairs / pairs.sum(1, keepdim=True) * functional.log_softmax(logits, 1)).sum(1).mean()
    by_text = -(pairs / pairs.sum(0, keepdim=True) * functional.log_softmax(logits, 0)).sum(0).mean()
    return (by_image + by_text) / 2


def make_contrastive_loss(
    tokens: Int64[Tensor, "classes captions length"], per_image: int
) -> Callable[[nn.Module, TrainingStep], Tensor]:
    """Make a loss that draws captions of its class for each image; the images of a class share their captions.

    Args:
        tokens: The tokens of all captions of each class.
        per_image: The number of captions drawn for each image.

    Returns:
        The loss of a model on a step.
    """

    def loss(model: Any, step: TrainingStep) -> Float[Tensor, ""]:
        drawn = torch.randint(tokens.shape[1], (per_image * len(step.labels),), generator=step.generator)
        classes = step.labels.repeat(per_image)
        texts = tokens.to(classes.device)[classes, drawn.to(classes.device)]
        image = model.encode_image(step.images, normalize=True).float()
        text = model.encode_text(texts, normalize=True).float()
        scale = model.logit_scale.exp().clamp(max=100)
        return multi_positive_loss(scale * image @ text.T, step.labels[:, None] == classes[None])

    return loss


@torch.inference_mode()
def embed_names(
    encode: Callable[[list[str]], Float[Tensor, "texts width"]], words: Sequence[ClassWords]
) -> Float[np.ndarray, "classes width"]:
    """Embed the plain name of each class: the mean over `PROMPTS`.

    Args:
        encode: Embeds texts.
        words: The classes.

    Returns:
        A unit vector for each class.
    """
    rows = []
    for entry in words:
        vectors = functional.normalize(
            encode([prompt.format(add_article(entry.name)) for prompt in PROMPTS]).float(), dim=1
        )
        rows.append(functional.normalize(vectors.mean(0), dim=0).cpu().numpy())
    return np.stack(rows)


def compute_name_accuracies(
    images: Float[np.ndarray, "images width"],
    labels: Int64[np.ndarray, " images"],
    names: Float[np.ndarray, "classes width"],
    classes: Sequence[str],
) -> tuple[dict[str, float], Float[np.ndarray, " classes"]]:
    """Compute how often the class name nearest to an image is its own.

    Args:
        images: The embedding of each image.
        labels: The true class of each image.
        names: The embedding of each class's name.
        classes: The folder of each class.

    Returns:
        The shares, and the share of each class (NaN where it has no image), among the known names for known classes and
        among the held-out names for held-out classes. The shares are: "known", of images of known classes, among known
        names, and "known_mean_per_class"; "zero_shot", of images of held-out classes, among the held-out names (chance
        0.1); "zero_shot_all", of the same images among all names.
    """
    held = np.array([name in HELD_OUT for name in classes])
    scores, new = images @ names.T, held[labels]
    among = np.where(held[None] == new[:, None], scores, -np.inf)
    right = among.argmax(1) == labels
    each = np.array([right[labels == k].mean() if (labels == k).any() else np.nan for k in range(len(classes))])
    return {
        "known": float(right[~new].mean()),
        "known_mean_per_class": float(np.nanmean(each[~held])),
        "zero_shot": float(right[new].mean()),
        "zero_shot_all": float((scores.argmax(1) == labels)[new].mean()),
    }, each
