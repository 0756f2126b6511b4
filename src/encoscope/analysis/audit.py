"""Does an encoder fixate on a mark, or on where images come from?

With a mark at hand: what happens to features, answers and segments when it is put on images, beside a control of the
same size cut from another image. Without one: which joint clusters and which features go with labels or other metadata
(site, scanner, class) more than shuffled ones do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

from encoscope.analysis.watermarks import Watermark, choose_position, make_watermark, paste_watermark
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, read_image
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.nave import Nave, segment
from encoscope.plots import draw_contact_sheet, draw_overlay, to_rgb
from encoscope.progress import Progress, track_steps

CLUSTERS = 10
SHARE = 0.125
PERMUTATIONS = 1000
_BATCH = 16


@dataclass(frozen=True)
class CueResponse:
    """What a mark does to an encoder; every figure beside the same for a control patch of another image.

    consistency: mean cosine between the changes that the mark makes to different images' pooled features: near 1 when
    it is one and the same change whatever the image, near 0 when it only disturbs. size: length of the change over
    length of the features. answers: share of images whose predicted class it changes, None without a head; toward: the
    class whose probability rises most, with the mean rise. follows: Jensen-Shannon divergence (bits) between the joint
    clusters' labels under the patch and at the same place without it.
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


@dataclass(frozen=True)
class Association:
    """How a cluster or a feature goes with labels: eta squared (share of its variance between labels, 0 to 1).

    p: share of permutations of the labels in which the strongest of all clusters (or features) is as strong as this
    one, so that one may look at as many as there are. highest: the label for which it is highest.
    """

    kind: str
    index: int
    eta_squared: float
    p: float
    highest: str


def measure_response(
    encoder: Encoder,
    photos: Sequence[LoadedImage],
    kind: str,
    *,
    share: float = SHARE,
    n_clusters: int = CLUSTERS,
    random_state: int = 0,
    progress: Progress = None,
) -> CueResponse:
    """Put a mark at a random place on each photo and see what changes; UsageError for fewer than four photos.

    kind: of mark, or an image file, see ``marks.mark``. share: its side over the photo's short side. The control is a
    patch of another photo of the same size and opacity at the same place: what any change there does.
    """
    if len(photos) < 4:
        raise UsageError(f"an audit needs at least 4 images, not {len(photos)}")
    if not 0 < share < 1:
        raise UsageError(f"a mark's share of the short side lies between 0 and 1, not {share}")
    clean = [to_rgb(photo) for photo in photos]
    marks = [make_watermark(kind, max(2, round(share * min(image.shape[:2])))) for image in clean]
    with track_steps(4, "audit", progress) as count:
        marked, masks = paste_watermarks(clean, marks, random_state)
        others = [_window(clean, index, marks[index], random_state) for index in range(len(clean))]
        control, _ = paste_watermarks(clean, others, random_state)
        seen = _seen(encoder, clean)
        count(1)
        with_mark, with_control = _seen(encoder, marked), _seen(encoder, control)
        count(1)
        changes = [with_mark[0] - seen[0], with_control[0] - seen[0]]
        cosines = [compute_consistency(change) for change in changes]
        lengths = [(change.norm(dim=1) / seen[0].norm(dim=1).clamp_min(1e-12)).numpy() for change in changes]
        answers, toward = [None, None], None
        if seen[1] is not None and with_mark[1] is not None and with_control[1] is not None:
            before = seen[1].argmax(1)
            answers = [
                bootstrap((after.argmax(1) != before).double().numpy()) for after in (with_mark[1], with_control[1])
            ]
            rise = (with_mark[1] - with_control[1]).mean(0)
            top = int(rise.argmax())
            toward = (encoder.classes[top] if encoder.classes else str(top), float(rise[top]))
        nave = fit_joint_clusters(encoder, [*marked[::2], *clean[1::2]], n_clusters, random_state)
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
    """For each image the mean cosine of its change with those of all others; a change of nothing counts 0."""
    units = functional.normalize(changes.double(), dim=1)
    sums = units.sum(0)
    own = units.square().sum(1)
    return ((units @ sums - own) / (len(units) - 1)).numpy()


def fit_joint_clusters(encoder: Encoder, images: Sequence[Any], n_clusters: int, random_state: int) -> Nave:
    """One set of clusters over images: joint NAVE, last two stages or blocks."""
    photos = [image if isinstance(image, LoadedImage) else read_image(image) for image in images]
    return Nave(
        encoder,
        n_clusters=n_clusters,
        layers=encoder.depths[-2:],
        feature_cache="none",
        random_state=random_state,
        progress=False,
    ).fit(photos)


def measure_following(
    nave: Nave,
    clean: Sequence[Any],
    changed: Sequence[Any],
    masks: Sequence[Bool[np.ndarray, "height width"]],
    n_clusters: int,
) -> Interval:
    """How much the labels under the masks say about whether the images were changed there; bootstrap over images."""
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
    """The Jensen-Shannon divergence of two histograms in bits: 0 for the same shares, 1 for none in common."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(sum(0.5 * np.sum(part[part > 0] * np.log2(part[part > 0] / middle[part > 0])) for part in (p, q)))


def predict_labels(nave: Nave, image: Any) -> Int[np.ndarray, "height width"]:
    """One image's joint n_clusters, at its own size."""
    (found,) = nave.predict([image if isinstance(image, LoadedImage) else read_image(image)])
    return found.labels.astype(np.int64)


def rank_associations(
    encoder: Encoder,
    photos: Sequence[LoadedImage],
    labels: Sequence[str],
    *,
    n_clusters: int = CLUSTERS,
    random_state: int = 0,
    permutations: int = PERMUTATIONS,
) -> tuple[list[Association], Nave]:
    """Joint clusters (by the share of each image they cover) and pooled features, strongest association first.

    labels: of the photos, in their order; at least two different ones. The fitted clusters come second.
    """
    if len(set(labels)) < 2:
        raise UsageError(f"association needs at least two different labels, not {len(set(labels))}")
    nave = fit_joint_clusters(encoder, photos, n_clusters, random_state)
    shares = np.stack([np.bincount(predict_labels(nave, photo).ravel(), minlength=n_clusters) for photo in photos])
    shares = shares / shares.sum(1, keepdims=True)
    features = _seen(encoder, photos)[0].double().numpy()
    names = sorted(set(labels))
    codes = np.array([names.index(label) for label in labels])
    found = []
    for kind, values in (("cluster", shares), ("feature", features)):
        eta, p = permute_labels(values, codes, permutations, random_state)
        means = np.stack([values[codes == code].mean(0) for code in range(len(names))])
        found += [
            Association(kind, index, float(eta[index]), float(p[index]), names[int(means[:, index].argmax())])
            for index in range(values.shape[1])
        ]
    return sorted(found, key=lambda item: (item.p, -item.eta_squared, item.kind, item.index)), nave


def permute_labels(
    values: Float[np.ndarray, "images columns"], codes: Int[np.ndarray, " images"], permutations: int, random_state: int
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Eta squared of each column, and its p-value against the largest of all columns under permuted labels.

    (1 + how often) / (1 + permutations): Westfall and Young's single-step maxT, which holds the chance of any false
    alarm at p, however many columns there are and however they go together.
    """
    one_hot = np.eye(codes.max() + 1)[codes]
    counts = one_hot.sum(0)
    centred = values - values.mean(0)
    total = np.square(centred).sum(0)
    varies = total > 1e-12 * max(float(total.max(initial=0)), 1e-300)

    def eta(rows: np.ndarray) -> np.ndarray:
        between = (np.square(one_hot[rows].T @ centred) / counts[:, None]).sum(0)
        return np.where(varies, between / np.where(varies, total, 1), 0)

    rng = np.random.default_rng(random_state)
    observed = eta(np.arange(len(codes)))
    strongest = np.array([eta(rng.permutation(len(codes))).max() for _ in range(permutations)])
    above = (strongest[:, None] >= observed[None]).sum(0)
    return observed, (1 + above) / (1 + permutations)


def draw_watermark_sheet(
    encoder: Encoder,
    photos: Sequence[LoadedImage],
    kind: str,
    *,
    share: float = SHARE,
    n_clusters: int = 5,
    random_state: int = 0,
) -> Image.Image:
    """Photos without and with the mark, each beside how the encoder parts it."""
    clean = [to_rgb(photo) for photo in photos]
    marks = [make_watermark(kind, max(2, round(share * min(image.shape[:2])))) for image in clean]
    marked, _ = paste_watermarks(clean, marks, random_state)
    pictures, captions = [], []
    for pair in zip(clean, marked, strict=True):
        for image, how in zip(pair, ("without", f"with {kind}"), strict=True):
            found = segment(encoder, image, n_clusters=n_clusters, random_state=random_state)
            pictures += [image, draw_overlay(image, found.labels)]
            captions += [how, f"{how}, K = {n_clusters}"]
    return Image.fromarray(draw_contact_sheet(pictures, captions, columns=4))


def draw_association_sheet(
    nave: Nave, photos: Sequence[LoadedImage], labels: Sequence[str], ranked: Sequence[Association], *, shown: int = 5
) -> Image.Image:
    """The three clusters that go with the labels most, each on the photos that it covers most; the rest is dimmed."""
    parts = [predict_labels(nave, photo) for photo in photos]
    pictures, captions = [], []
    for item in [item for item in ranked if item.kind == "cluster"][:3]:
        covers = [float((part == item.index).mean()) for part in parts]
        for index in np.argsort(covers, kind="stable")[::-1][:shown]:
            picture = to_rgb(photos[index])
            inside = (parts[index] == item.index)[:, :, None]
            pictures.append(np.where(inside, picture, picture // 4))
            captions.append(f"cluster {item.index}, p = {item.p:.3f}: {labels[index]}")
    return Image.fromarray(draw_contact_sheet(pictures, captions, columns=shown))


def paste_watermarks(
    images: Sequence[Any], marks: Sequence[Watermark], random_state: int
) -> tuple[list[Any], list[Any]]:
    """Each image with its mark at its own random place, and the masks."""
    changed, masks = [], []
    for index, (image, one) in enumerate(zip(images, marks, strict=True)):
        top, left = choose_position((image.shape[0], image.shape[1]), one, (random_state, index))
        result, mask = paste_watermark(image, one, top, left)
        changed.append(result)
        masks.append(mask)
    return changed, masks


def _window(images: Sequence[Any], index: int, mark: Watermark, random_state: int) -> Watermark:
    """A patch of the next image that is large enough, of the size and opacity of a mark."""
    rows, columns = mark.alpha.shape
    order = [*range(index + 1, len(images)), *range(index + 1)]
    image = next(
        images[other] for other in order if images[other].shape[0] >= rows and images[other].shape[1] >= columns
    )
    top, left = choose_position((image.shape[0], image.shape[1]), mark, (random_state, index, 1))
    return Watermark("control", image[top : top + rows, left : left + columns].copy(), mark.alpha)


def _seen(encoder: Encoder, images: Iterable[Any]) -> tuple[Tensor, Tensor | None]:
    """Pooled features and, where there is a head, class probabilities."""
    items = list(images)
    features, probabilities = [], []
    for start in range(0, len(items), _BATCH):
        seen = encoder.observe(items[start : start + _BATCH], features=True, logits=encoder.outputs is not None)
        assert seen.features is not None  # asked for
        features.append(seen.features.cpu())
        if seen.logits is not None:
            probabilities.append(seen.logits.softmax(1).cpu())
    return torch.cat(features), torch.cat(probabilities) if probabilities else None
