"""Segment Anything (Kirillov et al., 2023), run through transformers with given weights: all it finds in a photo."""

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

_TOGETHER = 64  # prompts that the network answers at a time
_VALUES = 2**27  # of masks in the photo's own pixels held at a time: fewer prompts at a time for large photos
_ANSWERS = 3  # masks for one prompt


@dataclass(frozen=True, eq=False)
class Sam:
    """A network and its image processor, as transformers has them. digest: sha256 (hex) of weights and processor."""

    network: nn.Module
    processor: Any
    digest: str


def sam(
    encoder: Encoder | None,
    photo: LoadedImage,
    *,
    weights: str,
    points: int = 32,
    predicted_iou: float = 0.88,
    stability: float = 0.95,
    overlap: float = 0.7,
    device: str = "cpu",
) -> DiscoveredObjects:
    """Segment Anything's masks of a photo, the one of the highest predicted IoU first; the encoder plays no part.

    Three masks for each point of a regular grid over the photo, of which those are kept whose IoU, as the network
    predicts it, and whose stability (IoU of the masks at thresholds one above and one below) are high enough; of masks
    whose boxes nearly coincide the best remains (the paper's appendix B; no crops, no filling of holes). Masks may
    overlap and leave pixels over: where a partition is needed, smaller masks lie on larger ones, and what no mask
    covers is one segment, the background.

    weights: a folder that transformers' ``save_pretrained`` wrote, or a name on the hub. points: on a side of the grid.
    predicted_iou, stability: masks must lie above; 0 keeps all. overlap: IoU of boxes from which the weaker mask goes.
    device: where the network runs, as torch calls it.

    Raises as ``opened``, and UsageError for settings out of range.
    """
    _check(points, predicted_iou=predicted_iou, stability=stability, overlap=overlap)
    model = load_sam(weights, device)
    with quiet_libraries():
        found, scores, boxes = _answers(model, to_rgb(photo), points, predicted_iou, stability)
    masks = [decode_mask(found[index]) for index in suppress_overlapping(boxes, scores, overlap)]
    return objects_from_masks(masks, [compute_outer_box(mask) for mask in masks], (photo.height, photo.width))


@lru_cache(maxsize=1)
def load_sam(weights: str, device: str = "cpu") -> Sam:
    """The model of a folder or of a name on the hub, kept until another is asked for.

    Raises:
        UsageError: no weights named, or those of another kind of network.
        MissingError: transformers is not installed, or files that cannot be had here.
        EncoscopeError: weights that are damaged or incomplete.
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
        raise MissingError(f"sam: no config.json in {weights}: it should be a folder that save_pretrained wrote")
    with hugging_face_access():
        kind = _had(transformers.AutoConfig, weights, "configuration").model_type
        if kind != "sam":
            raise UsageError(f"sam: {weights} holds a network of type {kind!r}, not Segment Anything ('sam')")
        processor = _had(transformers.SamProcessor, weights, "image processor").image_processor
        network = load_pretrained(transformers.SamModel, weights, f"sam:{weights}")
    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    known = hashlib.sha256(f"{compute_digest(network, Preprocess())}{settings}".encode()).hexdigest()
    return Sam(network.eval().requires_grad_(False).to(device), processor, known)


def suppress_overlapping(
    boxes: Float[Tensor, "masks 4"], scores: Float[Tensor, " masks"], overlap: float
) -> Int64[np.ndarray, " kept"]:
    """Which masks remain, best first: none whose box has an IoU above ``overlap`` with that of a better one.

    boxes: of inclusive extremes, so one pixel has an area. Non-maximum suppression written out, for torchvision's own
    is compiled and does not load beside every torch.
    """
    from torchvision.ops import box_iou

    order = torch.argsort(scores, descending=True, stable=True)
    ends = boxes[order] + torch.tensor([0, 0, 1, 1])
    close = (box_iou(ends, ends) > overlap).numpy()
    gone, kept = np.zeros(len(order), dtype=bool), []
    for place in range(len(order)):
        if not gone[place]:
            kept.append(place)
            gone |= close[place]
    return order.numpy()[np.array(kept, dtype=np.int64)]


def decode_mask(runs: Mapping[str, Any]) -> Bool[np.ndarray, "height width"]:
    """The mask of COCO's run lengths: down the columns, in turn outside and inside."""
    height, width = runs["size"]
    inside = np.arange(len(runs["counts"])) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs["counts"]).reshape(width, height).T)


@torch.no_grad()
def _answers(
    model: Sam, pixels: np.ndarray, points: int, predicted_iou: float, stability: float
) -> tuple[list[Mapping[str, Any]], Float[Tensor, " masks"], Float[Tensor, "masks 4"]]:
    """Run lengths, predicted IoU and box (inclusive extremes) of every mask that passes, but empty ones."""
    processor, network, shape = model.processor, model.network, pixels.shape[:2]
    device = next(network.parameters()).device
    frames, prompts, images, labels = processor.generate_crop_boxes(
        Image.fromarray(pixels), processor.size["longest_edge"], points_per_crop=points
    )
    inputs = processor(images=images, return_tensors="pt")
    sizes = {name: inputs[name] for name in ("original_sizes", "reshaped_input_sizes")}
    seen = network.get_image_embeddings(inputs["pixel_values"].to(device))  # pyright: ignore[reportCallIssue]
    together = max(1, min(_TOGETHER, _VALUES // (_ANSWERS * shape[0] * shape[1])))
    found, scores, boxes = [], [], []
    for start in range(0, prompts.shape[1], together):
        now = slice(start, start + together)
        answer = network(
            input_points=prompts[:, now].to(device), input_labels=labels[:, now].to(device), image_embeddings=seen
        )
        masks = processor.post_process_masks(answer.pred_masks, **sizes, binarize=False)[0]
        runs, score, box = processor.filter_masks(
            masks, answer.iou_scores[0], shape, frames[0], predicted_iou, stability
        )
        held = [index for index, one in enumerate(runs) if len(one["counts"]) > 1]  # a single run is all outside
        found += [runs[index] for index in held]
        scores.append(score[held].float().cpu())
        boxes.append(box[held].float().cpu())
    return found, torch.cat(scores), torch.cat(boxes)


def _check(points: int, **shares: float) -> None:
    if points < 1:
        raise UsageError(f"points is how many lie on a side of the grid, at least 1, not {points}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UsageError(f"{name} lies in [0, 1], not {value}")


def _had(kind: Any, weights: str, what: str) -> Any:
    try:
        return kind.from_pretrained(weights)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        if Path(weights).is_dir():
            raise MissingError(f"sam: {weights} lacks its {what}: give all that save_pretrained wrote") from error
        raise MissingError(
            f"sam: {weights} is no folder, and no name of the hub that can be had here: give a folder in transformers' "
            "format (config.json, model.safetensors, processor_config.json)"
        ) from error
