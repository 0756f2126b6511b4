"""Segment Anything (Kirillov et al., 2023) of transformers: all masks that it finds in an image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn

from encoscope._offline import hugging_face_access, load_pretrained, quiet_libraries
from encoscope._torchvision import ensure_torchvision
from encoscope.discovery.result import DiscoveredObjects, objects_from_masks
from encoscope.encoder import Encoder
from encoscope.encoder.digest import compute_digest
from encoscope.errors import MissingError, UsageError
from encoscope.images import LoadedImage, Preprocess
from encoscope.plots import to_rgb
from encoscope.regions import compute_outer_box

_PROMPTS = 64  # that go through the network at a time
_VALUES = 2**27  # the most pixels of masks in memory: with large images fewer prompts go through the network at a time
_MASKS_PER_PROMPT = 3


@dataclass(frozen=True, eq=False)
class Sam:
    """Segment Anything with its image processor.

    Attributes:
        network: transformers' network.
        processor: transformers' image processor.
        digest: The sha256 (hex) of weights and processor.
    """

    network: nn.Module
    processor: Any
    digest: str


def sam(
    encoder: Encoder | None,
    image: LoadedImage,
    *,
    weights: str,
    points: int = 32,
    predicted_iou: float = 0.88,
    stability: float = 0.95,
    overlap: float = 0.7,
    device: str = "cpu",
) -> DiscoveredObjects:
    """Compute Segment Anything's masks of an image.

    The network gives three masks for each point of a regular grid over the image. Masks are kept if the IoU that the
    network predicts and the stability (IoU of the masks at thresholds one above and one below) are high enough; of
    masks with nearly the same box the best one is kept. There are no crops, and holes are not filled. Masks may
    overlap and leave pixels uncovered: where a partition is needed, smaller masks lie on larger ones, and pixels
    without a mask are one segment, the background.

    Args:
        encoder: Not used.
        image: The image.
        weights: A folder that transformers' ``save_pretrained`` wrote, or a name on the hub.
        points: Number of points on each side of the grid.
        predicted_iou: Masks whose predicted IoU is not above this are dropped; 0 keeps all.
        stability: Masks whose stability is not above this are dropped; 0 keeps all.
        overlap: IoU of boxes above which the mask of lower predicted IoU is dropped.
        device: Where the network runs, such as "cpu" or "cuda".

    Returns:
        One object for each mask, in the order of predicted IoU, the highest first.

    Raises:
        UsageError: For settings out of range, and as ``load_sam``.
        MissingError: As ``load_sam``.
        EncoscopeError: As ``load_sam``.

    Source: Segment Anything (Kirillov et al., 2023), appendix B.
    """
    _check_settings(points, predicted_iou=predicted_iou, stability=stability, overlap=overlap)
    model = load_sam(weights, device)
    with quiet_libraries():
        encodings, scores, boxes = _compute_masks(model, to_rgb(image), points, predicted_iou, stability)
    masks = [decode_mask(encodings[index]) for index in suppress_overlapping(boxes, scores, overlap)]
    return objects_from_masks(masks, [compute_outer_box(mask) for mask in masks], (image.height, image.width))


@lru_cache(maxsize=1)
def load_sam(weights: str, device: str = "cpu") -> Sam:
    """Load the model. The model that was loaded last is kept in memory.

    Args:
        weights: A folder that transformers' ``save_pretrained`` wrote, or a name on the hub.
        device: Where the network runs, such as "cpu" or "cuda".

    Returns:
        The model.

    Raises:
        UsageError: Without weights, and for weights of another type of network.
        MissingError: For files that are not available, and if transformers is not installed.
        EncoscopeError: For weights that are damaged or incomplete.
    """
    if not weights:
        raise UsageError(
            "sam needs weights: sam:FOLDER, a folder in transformers' format, or sam:OWNER/NAME on the hub"
        )
    ensure_torchvision()
    try:
        import transformers
    except ImportError:
        raise MissingError("sam needs transformers, which is not installed: pip install 'encoscope[hf]'") from None
    if Path(weights).is_dir() and not (Path(weights) / "config.json").is_file():
        raise MissingError(f"sam: no config.json in {weights}: it has to be a folder that save_pretrained wrote")
    with hugging_face_access():
        kind = _load_part(transformers.AutoConfig, weights, "configuration").model_type
        if kind != "sam":
            raise UsageError(f"sam: {weights} holds a network of type {kind!r}, not Segment Anything ('sam')")
        processor = _load_part(transformers.SamProcessor, weights, "image processor").image_processor
        network = load_pretrained(transformers.SamModel, weights, f"sam:{weights}")
    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    digest = hashlib.sha256(f"{compute_digest(network, Preprocess())}{settings}".encode()).hexdigest()
    return Sam(network.eval().requires_grad_(False).to(device), processor, digest)


def suppress_overlapping(
    boxes: Float[Tensor, "masks 4"], scores: Float[Tensor, " masks"], overlap: float
) -> Int64[np.ndarray, " kept"]:
    """Drop masks whose box nearly coincides with that of a better mask (non-maximum suppression).

    This is written out because torchvision's own function is compiled and does not load with every torch.

    Args:
        boxes: ``[x0, y0, x1, y1]`` of each mask, inclusive extremes, so that one pixel has an area.
        scores: The score of each mask.
        overlap: IoU of boxes above which the mask of lower score is dropped.

    Returns:
        The indices of the masks that are kept, the best first.
    """
    from torchvision.ops import box_iou

    order = torch.argsort(scores, descending=True, stable=True)
    ends = boxes[order] + torch.tensor([0, 0, 1, 1])
    close = (box_iou(ends, ends) > overlap).numpy()
    dropped, kept = np.zeros(len(order), dtype=bool), []
    for index in range(len(order)):
        if not dropped[index]:
            kept.append(index)
            dropped |= close[index]
    return order.numpy()[np.array(kept, dtype=np.int64)]


def decode_mask(runs: Mapping[str, Any]) -> Bool[np.ndarray, "height width"]:
    """Decode a mask from COCO's run lengths.

    Args:
        runs: "size", (height, width), and "counts", the lengths of the runs down the columns, which are in turn
            outside and inside the mask.

    Returns:
        The mask.

    Example:
        >>> decode_mask({"size": (2, 2), "counts": [1, 2, 1]}).tolist()
        [[False, True], [True, False]]
    """
    height, width = runs["size"]
    inside = np.arange(len(runs["counts"])) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs["counts"]).reshape(width, height).T)


@torch.no_grad()
def _compute_masks(
    model: Sam, pixels: np.ndarray, points: int, predicted_iou: float, stability: float
) -> tuple[list[Mapping[str, Any]], Float[Tensor, " masks"], Float[Tensor, "masks 4"]]:
    """Run lengths, predicted IoU and box (inclusive extremes) of every mask that is kept, without empty masks."""
    processor, network, shape = model.processor, model.network, pixels.shape[:2]
    device = next(network.parameters()).device
    frames, prompts, images, labels = processor.generate_crop_boxes(
        Image.fromarray(pixels), processor.size["longest_edge"], points_per_crop=points
    )
    inputs = processor(images=images, return_tensors="pt")
    sizes = {name: inputs[name] for name in ("original_sizes", "reshaped_input_sizes")}
    embeddings = network.get_image_embeddings(inputs["pixel_values"].to(device))  # pyright: ignore[reportCallIssue]
    step = max(1, min(_PROMPTS, _VALUES // (_MASKS_PER_PROMPT * shape[0] * shape[1])))
    encodings, scores, boxes = [], [], []
    for start in range(0, prompts.shape[1], step):
        batch = slice(start, start + step)
        output = network(
            input_points=prompts[:, batch].to(device),
            input_labels=labels[:, batch].to(device),
            image_embeddings=embeddings,
        )
        masks = processor.post_process_masks(output.pred_masks, **sizes, binarize=False)[0]
        runs, score, box = processor.filter_masks(
            masks, output.iou_scores[0], shape, frames[0], predicted_iou, stability
        )
        kept = [index for index, mask in enumerate(runs) if len(mask["counts"]) > 1]  # a single run is an empty mask
        encodings += [runs[index] for index in kept]
        scores.append(score[kept].float().cpu())
        boxes.append(box[kept].float().cpu())
    return encodings, torch.cat(scores), torch.cat(boxes)


def _check_settings(points: int, **shares: float) -> None:
    if points < 1:
        raise UsageError(f"points is a number of points on a side of the grid, at least 1, not {points}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UsageError(f"{name} has to be in [0, 1], not {value}")


def _load_part(kind: Any, weights: str, what: str) -> Any:
    try:
        return kind.from_pretrained(weights)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        if Path(weights).is_dir():
            raise MissingError(
                f"sam: {weights} lacks its {what}: use a folder with all files of save_pretrained"
            ) from error
        raise MissingError(
            f"sam: {weights} is no folder, and no available name on the hub: use a folder in transformers' format "
            "(config.json, model.safetensors, processor_config.json)"
        ) from error
