"""What a watermark does to an encoder: to its features, answers and segments, beside a control patch.

The control is a patch of another image, of the same size and opacity at the same position: what any change there does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from encoscope.analysis.audit_store import AuditStore
from encoscope.analysis.joint_clusters import LazySequence, fit_joint_clusters, observe_images, predict_labels
from encoscope.analysis.marked_images import MarkedImages
from encoscope.analysis.settings import AuditSettings
from encoscope.analysis.watermarks import KINDS, make_watermark
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.nave import Nave, segment
from encoscope.plots import draw_contact_sheet, draw_overlay
from encoscope.progress import Progress, nest_progress, track_steps
from encoscope.store.files import hash_file


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
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
    kept: AuditStore | None = None,
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
        kept: Where values are kept while it runs, so that it can be resumed; by default a temporary folder.

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
    marked, inner = MarkedImages(images, kind, share, random_state), nest_progress(progress)
    step = {"watermark": describe_watermark(kind), "share": share, "seed": random_state}
    with ExitStack() as stack:
        kept = kept if kept is not None else stack.enter_context(AuditStore())
        count = stack.enter_context(track_steps(3, "audit", progress, shorter="--limit N"))
        seen = kept.measure(step, images, partial(_observe_block, encoder, marked), "features", inner)
        count(1)
        mixed = LazySequence(len(images), partial(_mix, marked, len(images)))
        nave = fit_joint_clusters(encoder, mixed, n_clusters, random_state, progress=inner)
        count(1)
        step = {**step, "n_clusters": n_clusters}
        under = kept.measure(step, images, partial(_count_labels, nave, marked, n_clusters), "clusters", inner)
        count(1)
    features, probabilities = (
        None if name not in seen else torch.from_numpy(seen[name]) for name in ("features", "probabilities")
    )
    assert features is not None  # every network has them
    clean = features[:, 0]
    changes = [features[:, variant] - clean for variant in (1, 2)]
    cosines = [compute_consistency(change) for change in changes]
    lengths = [(change.norm(dim=1) / clean.norm(dim=1).clamp_min(1e-12)).numpy() for change in changes]
    answers, toward = [None, None], None
    if probabilities is not None:
        before, after = probabilities[:, 0].argmax(1), (probabilities[:, 1], probabilities[:, 2])
        answers = [bootstrap((each.argmax(1) != before).double().numpy()) for each in after]
        rise = (after[0] - after[1]).mean(0)
        top = int(rise.argmax())
        toward = (encoder.classes[top] if encoder.classes else str(top), float(rise[top]))
    shares = under["shares"]
    follows = [measure_following(shares[:, variant], shares[:, 0]) for variant in (1, 2)]
    return CueResponse(
        images=len(images),
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


def compute_label_shares(
    nave: Nave, image: Any, mask: Bool[np.ndarray, "_height _width"], n_clusters: int
) -> Float[np.ndarray, " labels"]:
    """Compute the share of each label at a position.

    Args:
        nave: Joint clusters.
        image: The image.
        mask: The position.
        n_clusters: How many clusters there are.

    Returns:
        The shares, which add up to 1; zeros for an empty mask.
    """
    return np.bincount(predict_labels(nave, image)[mask], minlength=n_clusters) / max(1, mask.sum())


def measure_following(
    changed: Float[np.ndarray, "images labels"], clean: Float[np.ndarray, "images labels"]
) -> Interval:
    """Measure how much the labels at a position say about whether the images were changed there.

    Args:
        changed: The share of each label at the position, of the changed images.
        clean: The same of the images as they were.

    Returns:
        The Jensen-Shannon divergence of the labels (bits, 0 to 1), with its bootstrap interval over images.
    """

    def statistic(drawn: np.ndarray) -> float:
        rows = drawn.astype(int)
        return compute_divergence(changed[rows].sum(0), clean[rows].sum(0))

    return bootstrap(np.arange(len(clean), dtype=np.float64), statistic, resamples=500)


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
    random_state: int = RANDOM_STATE,
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
    marked = MarkedImages(images, kind, share, random_state)
    cells, captions = [], []
    for index in range(len(images)):
        pair = marked.clean(index), marked.add_watermark(index)[0]
        for pixels, caption in zip(pair, ("without", f"with {kind}"), strict=True):
            segmentation = segment(encoder, pixels, n_clusters=n_clusters, random_state=random_state)
            cells += [pixels, draw_overlay(pixels, segmentation.labels)]
            captions += [caption, f"{caption}, K = {n_clusters}"]
    return Image.fromarray(draw_contact_sheet(cells, captions, columns=4))


def describe_watermark(kind: str) -> str:
    """Say what a watermark is, so that two of one name but another content differ.

    Args:
        kind: Of watermark, or an image file; see ``make_watermark``.

    Returns:
        The kind, or the sha256 of the file.

    Raises:
        MissingError: neither a kind nor a file.
        EncoscopeError: a file that is no image.
    """
    make_watermark(kind, 8)  # which says what is wrong with it
    return kind if kind in KINDS else hash_file(Path(kind).expanduser())


def _mix(marked: MarkedImages, total: int, index: int) -> UInt8[np.ndarray, "_height _width 3"]:
    """The images to cluster: every second one with the watermark, then the others without."""
    half = (total + 1) // 2
    return marked.add_watermark(2 * index)[0] if index < half else marked.clean(2 * (index - half) + 1)


def _observe_block(encoder: Encoder, marked: MarkedImages, block: range) -> dict[str, np.ndarray]:
    """Features, and probabilities if there are any, without watermark, with it, and with the control: [images, 3, .]"""
    variants = (marked.clean, lambda index: marked.add_watermark(index)[0], marked.add_control)
    seen = [observe_images(encoder, [variant(index) for index in block], progress=False) for variant in variants]
    arrays = {"features": np.stack([features.numpy() for features, _ in seen], 1)}
    if encoder.outputs is not None:
        arrays["probabilities"] = np.stack([each.numpy() for _, each in seen if each is not None], 1)
    return arrays


def _count_labels(nave: Nave, marked: MarkedImages, n_clusters: int, block: range) -> dict[str, np.ndarray]:
    """Shares of the labels at the watermark's position, without watermark, with it, and with the control."""
    shares = []
    for index in block:
        changed, mask = marked.add_watermark(index)
        shares.append(
            [
                compute_label_shares(nave, pixels, mask, n_clusters)
                for pixels in (marked.clean(index), changed, marked.add_control(index))
            ]
        )
    return {"shares": np.array(shares)}
