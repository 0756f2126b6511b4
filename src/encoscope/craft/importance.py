"""How much each concept matters to a class: total Sobol indices over concept masks (CRAFT, section 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.craft.factorization import check_non_negative, compute_shares
from encoscope.craft.sobol import compute_linear_indices, compute_total_indices, draw_designs
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, Observation, substitute_maps


def compute_importances(
    encoder: Encoder,
    pixels: Float[Tensor, "batch channels height width"],
    layer: str,
    directions: Float[np.ndarray, "concepts layerchannels"],
    index: int,
    *,
    samples: int = 32,
    random_state: int = RANDOM_STATE,
    batch: int = 32,
) -> Float[np.ndarray, "batch concepts"]:
    """Compute the total Sobol index of every concept, for each image, on a class's logit.

    The layer's activations become concepts, A ~ U W; a mask scales each concept between 0 and 1 all over the image; the
    rest of the network answers for (U masked) W. Where only average pooling and the linear head follow the layer, the
    logit is linear in the masks and the indices are exact; elsewhere they are estimated from masks that run through the
    network with the layer's output replaced.

    Args:
        encoder: The encoder.
        pixels: A normalized batch.
        layer: The layer.
        directions: ``[concepts, channels]``.
        index: The class.
        samples: Masks, a power of two; as many again are drawn for each concept.
        random_state: The seed of the masks.
        batch: Masked images at a time; it does not change the result.

    Returns:
        ``[images, concepts]``.

    Raises:
        UsageError: For negative activations.

    Source: CRAFT, section 3.3.
    """
    seen = encoder.observe(pixels, [layer], features=True, logits=True)
    maps = seen.activations[layer].maps
    check_non_negative(maps.cpu().numpy(), layer)
    count, channels, rows, columns = maps.shape
    vectors = maps.permute(0, 2, 3, 1).reshape(-1, channels).cpu().numpy()
    shares = compute_shares(vectors, directions).reshape(count, rows, columns, -1)
    head = _head_alone(encoder, seen, maps)
    if head is not None:
        slopes = shares.mean((1, 2)) * (directions @ head.weight[index].detach().double().cpu().numpy())
        return compute_linear_indices(slopes)
    base, changed = draw_designs(len(directions), samples, random_state)
    masks = np.concatenate([base, changed.reshape(-1, len(directions))])
    values = np.empty((count, len(masks)))
    for image in range(count):
        for start in range(0, len(masks), batch):
            part = masks[start : start + batch]
            masked = np.einsum("khwc,cd->kdhw", shares[image][None] * part[:, None, None, :], directions)
            repeated = pixels[image : image + 1].expand(len(part), -1, -1, -1)
            logits = substitute_maps(encoder, repeated, layer, torch.from_numpy(masked).float())
            values[image, start : start + len(part)] = logits[:, index].double().cpu().numpy()
    return compute_total_indices(
        values[:, : len(base)], values[:, len(base) :].reshape(count, len(directions), len(base))
    )


def _head_alone(encoder: Encoder, seen: Observation, maps: Tensor) -> nn.Linear | None:
    """The linear head if it takes the layer's spatial means and nothing else happens on the way; else None."""
    head, pooled = encoder.head, maps.mean((2, 3))
    if head is None or seen.features is None or seen.logits is None or pooled.shape != seen.features.shape:
        return None
    with torch.no_grad():
        answer = head(pooled.to(head.weight.dtype)).float()
    return head if _alike(pooled, seen.features) and _alike(answer, seen.logits) else None


def _alike(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-3 * b.abs().max())
