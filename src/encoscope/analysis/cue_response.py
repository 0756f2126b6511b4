"""What a watermark does to an encoder: to its features, answers and segments, beside a control patch.

The control is a patch of another image, of the same size and opacity at the same position: what any change there does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from encoscope.analysis.joint_clusters import fit_joint_clusters, observe_images, predict_labels
from encoscope.analysis.settings import AuditSettings
from encoscope.analysis.watermarks import Watermark, choose_position, make_watermark, paste_watermark
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.nave import Nave, segment
from encoscope.plots import draw_contact_sheet, draw_overlay, to_rgb
from encoscope.progress import Progress, nest_progress, track_steps


@dataclass(frozen=True)
class CueResponse:
    """What a watermark does to an encoder; every value beside the same for a control patch of another image.

    Attributes:
        images: How many images it was measured on.
        consistency: Mean cosine between the changes that the watermark makes to different images' pooled features: near
            1 when it is one and the same change whatever the image, near 0 when it only disturbs.
        consistency_control: The same for the control patch.
        consistency_excess: The difference of both.
        size: Length of the change over length of the features.
        size_control: The same for the control patch.
        answers: Share of images whose predicted class it changes; None without a classification head.
        answers_control: The same for the control patch.
        toward: The class whose probability rises most, with the mean rise; None without a classification head.
        follows: Jensen-Shannon divergence (bits, 0 to 1) between the joint clusters' labels under the patch and at the
            same position without it.
        follows_control: The same for the control patch.
    """

    images: int
    consistency: Interval
    consistency_control: Interval
    consistency_excess: Interval
    size: Interval
    size_control: Interval
    answers: Interval | None
    answers_control: Interval | None
    toward: tuple[str, float] | None
    follows: Interval
    follows_control: Interval

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> CueResponse:
        """Read what ``dataclasses.asdict`` gave.

        Args:
            plain: The response in a result document.

        Returns:
            The response.
        """
        values = {field.name: plain[field.name] for field in fields(cls)}
        intervals = {name: Interval.from_dict(value) for name, value in values.items() if isinstance(value, Mapping)}
        toward = values["toward"]
        return cls(**{**values, **intervals, "toward": None if toward is None else tuple(toward)})


def measure_response(
    encoder: Encoder,
    images: Sequence[LoadedImage],
    kind: str,
    *,
    share: float = AuditSettings.share,
    n_clusters: int = AuditSettings.n_clusters,
    random_state: int = 0,
    progress: Progress = None,
) -> CueResponse:
    """Put a watermark at a random position on each image and measure what changes.

    Args:
        encoder: The network.
        images: At least four.
        kind: Of watermark, or an image file; see ``make_watermark``.
        share: The side of the watermark over the image's short side, between 0 and 1.
        n_clusters: Joint clusters, which may follow the watermark.
        random_state: The seed of positions and clusters.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The response, beside that to the control.

    Raises:
        UsageError: fewer than four images, an impossible share.
        MissingError: no such watermark.
    """
    if len(images) < 4:
        raise UsageError(f"an audit needs at least 4 images, not {len(images)}")
    if not 0 < share < 1:
        raise UsageError(f"a watermark's share of the short side lies between 0 and 1, not {share}")
    clean = [to_rgb(image) for image in images]
    watermarks = [make_watermark(kind, max(2, round(share * min(pixels.shape[:2])))) for pixels in clean]
    with track_steps(4, "audit", progress, shorter="--limit N") as count:
        marked, masks = paste_watermarks(clean, watermarks, random_state)
        patches = [_cut_control(clean, index, watermarks[index], random_state) for index in range(len(clean))]
        control, _ = paste_watermarks(clean, patches, random_state)
        inner = nest_progress(progress)
        features, probabilities = observe_images(encoder, clean, progress=inner)
        count(1)
        observed = [observe_images(encoder, changed, progress=inner) for changed in (marked, control)]
        count(1)
        changes = [changed - features for changed, _ in observed]
        cosines = [compute_consistency(change) for change in changes]
        lengths = [(change.norm(dim=1) / features.norm(dim=1).clamp_min(1e-12)).numpy() for change in changes]
        answers, toward = [None, None], None
        with_mark, with_control = (changed for _, changed in observed)
        if probabilities is not None and with_mark is not None and with_control is not None:
            before = probabilities.argmax(1)
            answers = [bootstrap((after.argmax(1) != before).double().numpy()) for after in (with_mark, with_control)]
            rise = (with_mark - with_control).mean(0)
            top = int(rise.argmax())
            toward = (encoder.classes[top] if encoder.classes else str(top), float(rise[top]))
        nave = fit_joint_clusters(encoder, [*marked[::2], *clean[1::2]], n_clusters, random_state, progress=inner)
        count(1)
        follows = [measure_following(nave, clean, changed, masks, n_clusters) for changed in (marked, control)]
        count(1)
    return CueResponse(
        images=len(clean),
        consistency=bootstrap(cosines[0]),
        consistency_control=bootstrap(cosines[1]),
        consistency_excess=bootstrap_difference(cosines[0], cosines[1]),
        size=bootstrap(lengths[0]),
        size_control=bootstrap(lengths[1]),
        answers=answers[0],
        answers_control=answers[1],
        toward=toward,
        follows=follows[0],
        follows_control=follows[1],
    )


def compute_consistency(changes: Float[Tensor, "images features"]) -> Float[np.ndarray, " images"]:
    """Compute for each image the mean cosine of its change with those of all others.

    Args:
        changes: ``[images, features]``

    Returns:
        ``[images]``; a change of length 0 counts 0.
    """
    units = functional.normalize(changes.double(), dim=1)
    sums = units.sum(0)
    own = units.square().sum(1)
    return ((units @ sums - own) / (len(units) - 1)).numpy()


def measure_following(
    nave: Nave,
    clean: Sequence[Any],
    changed: Sequence[Any],
    masks: Sequence[Bool[np.ndarray, "_height _width"]],
    n_clusters: int,
) -> Interval:
    """Measure how much the labels under the masks say about whether the images were changed there.

    Args:
        nave: Joint clusters.
        clean: The images as they were.
        changed: The same images, changed.
        masks: Where each of them was changed.
        n_clusters: How many clusters there are.

    Returns:
        The Jensen-Shannon divergence of the labels (bits, 0 to 1), with its bootstrap interval over images.
    """
    first, second = (
        np.stack(
            [
                np.bincount(predict_labels(nave, image)[mask], minlength=n_clusters) / max(1, mask.sum())
                for image, mask in zip(images, masks, strict=True)
            ]
        )
        for images in (changed, clean)
    )

    def statistic(drawn: np.ndarray) -> float:
        rows = drawn.astype(int)
        return compute_divergence(first[rows].sum(0), second[rows].sum(0))

    return bootstrap(np.arange(len(masks), dtype=np.float64), statistic, resamples=500)


def compute_divergence(first: Float[np.ndarray, " labels"], second: Float[np.ndarray, " labels"]) -> float:
    """Compute the Jensen-Shannon divergence of two histograms.

    Args:
        first: ``[labels]``
        second: ``[labels]``

    Returns:
        Bits: 0 for the same shares, 1 for none in common.

    Example:
        >>> compute_divergence(np.array([2.0, 0.0]), np.array([0.0, 5.0]))
        1.0
    """
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(sum(0.5 * np.sum(part[part > 0] * np.log2(part[part > 0] / middle[part > 0])) for part in (p, q)))


def draw_watermark_sheet(
    encoder: Encoder,
    images: Sequence[LoadedImage],
    kind: str,
    *,
    share: float = AuditSettings.share,
    n_clusters: int = 5,
    random_state: int = 0,
) -> Image.Image:
    """Draw images without and with the watermark, each beside its segmentation.

    Args:
        encoder: The network.
        images: The images.
        kind: Of watermark, or an image file.
        share: The side of the watermark over the image's short side.
        n_clusters: K of the segmentations.
        random_state: The seed of positions and segmentations.

    Returns:
        The sheet.
    """
    clean = [to_rgb(image) for image in images]
    watermarks = [make_watermark(kind, max(2, round(share * min(pixels.shape[:2])))) for pixels in clean]
    marked, _ = paste_watermarks(clean, watermarks, random_state)
    cells, captions = [], []
    for pair in zip(clean, marked, strict=True):
        for pixels, caption in zip(pair, ("without", f"with {kind}"), strict=True):
            segmentation = segment(encoder, pixels, n_clusters=n_clusters, random_state=random_state)
            cells += [pixels, draw_overlay(pixels, segmentation.labels)]
            captions += [caption, f"{caption}, K = {n_clusters}"]
    return Image.fromarray(draw_contact_sheet(cells, captions, columns=4))


def paste_watermarks(
    images: Sequence[UInt8[np.ndarray, "_height _width 3"]], watermarks: Sequence[Watermark], random_state: int
) -> tuple[list[UInt8[np.ndarray, "_height _width 3"]], list[Bool[np.ndarray, "_height _width"]]]:
    """Paste a watermark on each image, at the image's own random position.

    Args:
        images: The images.
        watermarks: One for each of them.
        random_state: The seed of the positions.

    Returns:
        (changed images, masks of where each was changed)
    """
    changed, masks = [], []
    for index, (image, watermark) in enumerate(zip(images, watermarks, strict=True)):
        top, left = choose_position((image.shape[0], image.shape[1]), watermark, (random_state, index))
        result, mask = paste_watermark(image, watermark, top, left)
        changed.append(result)
        masks.append(mask)
    return changed, masks


def _cut_control(
    images: Sequence[UInt8[np.ndarray, "_height _width 3"]], index: int, watermark: Watermark, random_state: int
) -> Watermark:
    """A patch of the next image that is large enough, of the size and opacity of a watermark."""
    rows, columns = watermark.alpha.shape
    order = [*range(index + 1, len(images)), *range(index + 1)]
    image = next(
        images[other] for other in order if images[other].shape[0] >= rows and images[other].shape[1] >= columns
    )
    top, left = choose_position((image.shape[0], image.shape[1]), watermark, (random_state, index, 1))
    return Watermark("control", image[top : top + rows, left : left + columns].copy(), watermark.alpha)
