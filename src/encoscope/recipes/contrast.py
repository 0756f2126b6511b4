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


def multi_positive_loss(logits: Float[Tensor, "images texts"], same: Bool[Tensor, "images texts"]) -> Float[Tensor, ""]:
    """Cross entropy in both directions where several texts fit an image and several images a text.

    same: which pairs belong together; the target of a row (and of a column) is uniform over its pairs.
    """
    pairs = same.float()
    by_image = -(pairs / pairs.sum(1, keepdim=True) * functional.log_softmax(logits, 1)).sum(1).mean()
    by_text = -(pairs / pairs.sum(0, keepdim=True) * functional.log_softmax(logits, 0)).sum(0).mean()
    return (by_image + by_text) / 2


def make_contrastive_loss(
    tokens: Int64[Tensor, "classes captions length"], per_image: int
) -> Callable[[nn.Module, TrainingStep], Tensor]:
    """A loss that draws ``per_image`` captions of its class for each image; a class shares its captions."""

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
    """A unit vector per class: the mean over the prompts of its plain name."""
    rows = []
    for entry in words:
        vectors = functional.normalize(
            encode([prompt.format(add_article(entry.name)) for prompt in PROMPTS]).float(), dim=1
        )
        rows.append(functional.normalize(vectors.mean(0), dim=0).cpu().numpy())
    return np.stack(rows)


def compute_name_accuracies(
    images: Float[np.ndarray, "photos width"],
    labels: Int64[np.ndarray, " photos"],
    names: Float[np.ndarray, "classes width"],
    classes: Sequence[str],
) -> tuple[dict[str, float], Float[np.ndarray, " classes"]]:
    """Shares of photos whose nearest class name is their own, and one share per class (NaN where there is no photo).

    known: photos of classes whose names were seen, among those names, and its mean per class. zero_shot: photos of the
    held-out classes among the ten held-out names (chance 0.1). zero_shot_all: the same photos among all names.
    Per class: among the known names for known classes, among the held-out names for the others.
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
