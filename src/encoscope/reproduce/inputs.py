"""What the experiments of all papers take in: encoders, labelled images, and the images that a figure shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from encoscope.classes import count_matches, match_labels
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import LabelledImages, LoadedImage, list_images, read_images


def load_model(request: EvaluationRequest, model: str) -> Encoder:
    """Load a model as the request says.

    Args:
        request: its ``load`` are further arguments of ``encoscope.load``; its seed draws untrained weights.
        model: a model string, such as ``zoo:resnet-caltech101``.

    Returns:
        The encoder.
    """
    return load(model, **{**request.load, "random_state": request.seed})


def load_encoders(request: EvaluationRequest, stand_ins: Sequence[str], paper: Sequence[str]) -> list[Encoder]:
    """Load the networks that the request names, the paper's own for "paper", or the stand-ins.

    Args:
        request: its ``models``; empty for the stand-ins, ``("paper",)`` for the paper's own.
        stand_ins: model strings of the networks that run in place of the paper's.
        paper: model strings of the paper's networks; empty where there are no public weights.

    Returns:
        One encoder for each model, in order.

    Raises:
        UsageError: if "paper" is requested and the paper's network has no public weights.
    """
    if request.models == ("paper",) and not paper:
        raise UsageError("the paper's network has no public weights: give --model MODEL, such as timm:resnet18@FILE")
    models = paper if request.models == ("paper",) else request.models or stand_ins
    return [load_model(request, model) for model in models]


def choose_heldout_dataset(datasets: Sequence[str]) -> str | None:
    """Choose the dataset of the images that results are tested on or compared with.

    Args:
        datasets: dataset strings, as requested; at least one.

    Returns:
        The second dataset, or the test split of the first where that ends in ``#train``; None where there is neither.

    Example:
        >>> choose_heldout_dataset(["caltech101:ROOT#train"])
        'caltech101:ROOT#test'
    """
    if len(datasets) > 1:
        return datasets[1]
    return f"{datasets[0].removesuffix('#train')}#test" if datasets[0].endswith("#train") else None


def select_network_classes(encoder: Encoder, images: str | LabelledImages, dataset: str) -> LabelledImages:
    """Select the images whose label is one of the network's classes, and label them with these.

    Args:
        encoder: a classifier.
        images: images with labels, or the dataset that they are in; the names of their classes are matched with those
            of the network.
        dataset: what the images are called in an error message.

    Returns:
        The images with indices of the network's classes; classes without a name are called by their number.

    Raises:
        UsageError: if the encoder is no classifier, the images have no labels, or no label is one of its classes.
    """
    if encoder.outputs is None:
        raise UsageError(f"this experiment needs a network with classes: {encoder.explain_missing_logits()}")
    listing = list_images(images)
    if not listing.classes:
        raise UsageError(f"{dataset!r} has no labels: name labelled images, such as caltech101:ROOT#train")
    matches = match_labels(encoder, listing.classes)
    indices = {label: match.index for label, match in matches.items() if match.index is not None}
    selection = [
        (path, indices[label])
        for path, label in zip(listing.paths, listing.labels, strict=True)
        if label is not None and label in indices
    ]
    if not selection:
        raise UsageError(
            f"no label of {dataset!r} is a class of {encoder.source}: give images of its classes, in folders of their "
            "names (for ImageNet, of their WordNet numbers)"
        )
    names = encoder.classes or tuple(map(str, range(encoder.outputs)))
    return LabelledImages(tuple(path for path, _ in selection), tuple(label for _, label in selection), names)


def describe_matching(encoder: Encoder, images: str | LabelledImages, dataset: str) -> str:
    """Say how the labels of images were matched with a network's classes, as ``select_network_classes`` does.

    Args:
        encoder: a classifier.
        images: images with labels, or the dataset that they are in.
        dataset: what the images are called.

    Returns:
        A line for the notes of a report.
    """
    counted = count_matches(match_labels(encoder, list_images(images).classes).values())
    return f"Labels of {dataset} matched with classes of {encoder.source}: {counted}."


def select_first_images(
    images: LabelledImages, classes: Collection[int] | None = None, limit: int | None = None
) -> LabelledImages:
    """Select at most ``limit`` images of each class, the first ones in the order of the list.

    Args:
        images: images with labels.
        classes: indices of the classes to keep; None keeps all.
        limit: number of images of a class, at most; None keeps all.

    Returns:
        The selected images, in their order, with the same classes.
    """
    counts: dict[int, int] = {}
    paths: list[Path] = []
    labels: list[int] = []
    for path, label in zip(images.paths, images.labels, strict=True):
        counts[label] = counts.get(label, 0) + 1
        if (classes is None or label in classes) and (limit is None or counts[label] <= limit):
            paths.append(path)
            labels.append(label)
    return LabelledImages(tuple(paths), tuple(labels), images.classes)


def read_spread_images(paths: Sequence[Path], count: int) -> list[LoadedImage]:
    """Read images that are evenly spread over a list; files that cannot be read are left out.

    Args:
        paths: image files.
        count: number of images, at most.

    Returns:
        The images, in the order of the list.
    """
    number = min(count, len(paths))
    chosen = [paths[index * len(paths) // number] for index in range(number)]
    return [image for image in read_images(chosen) if isinstance(image, LoadedImage)]
