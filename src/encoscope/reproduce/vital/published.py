"""The figures of VITAL's paper, table by table, and where the weights behind them can be loaded from.

Accuracy and zero-shot figures in percent, Frechet distances as printed. Table 1 repeats rows of Table 2; its distances
are those of Table 2's column "Arch.", of the features of the network that is looked into, though the text names
ResNet-50's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Figures: TypeAlias = Mapping[str, float]

ACCURACY, OWN, RESNET, TOP1, TOP5 = (
    "accuracy",
    "FID, own features",
    "FID, ResNet50's features",
    "zero-shot top-1",
    "zero-shot top-5",
)
PERCENT = (ACCURACY, TOP1, TOP5)

REAL = "real photos"
CONTROL = "vital, untrained network"

WEIGHTS: Mapping[str, str] = {
    "ResNet50": "torchvision:resnet50",
    "ConvNeXt": "torchvision:convnext_base",
    "DenseNet121": "torchvision:densenet121",
    "ViT-L-16": "torchvision:vit_l_16",
    "ViT-L-32": "torchvision:vit_l_32",
}
"""PyTorch's own, as the paper says; which of two sets of weights of a network it does not say."""

STAND_INS: Mapping[str, str] = {"ResNet50": "zoo:resnet-caltech101", "ViT-L-16": "zoo:vit-caltech101"}
"""What runs where no model is named: the zoo's, trained on Caltech-101."""

JUDGE = "openclip:ViT-B-32/openai"
"""The paper's image-text model."""


@dataclass(frozen=True)
class VitalLine:
    """A row of the paper's Tables 1, 2 and 5.

    Attributes:
        network: the paper's name of the network.
        method: name of the method, of a control or of real images.
        setup: the setting as the paper writes it.
        paper: the paper's figures by measure; None for a row that is only ours.
        main: whether it is also in Table 1.
        quoted: whether the row is the paper's alone, as the method is not part of this library.
    """

    network: str
    method: str
    setup: str = ""
    paper: Figures | None = None
    main: bool = False
    quoted: bool = False


def _line(
    network: str, method: str, setup: str, figures: tuple[float, ...], *, main: bool = False, quoted: bool = False
) -> VitalLine:
    return VitalLine(
        network, method, setup, dict(zip((ACCURACY, RESNET, OWN, TOP1, TOP5), figures, strict=True)), main, quoted
    )


def _real(network: str, top1: float, top5: float) -> VitalLine:
    return VitalLine(network, REAL, "rightly classified", {TOP1: top1, TOP5: top5}, main=True)


def _vital(network: str, *figures: float) -> tuple[VitalLine, VitalLine]:
    return _line(network, "vital", "", figures, main=True), VitalLine(network, CONTROL, main=True)


COMPARISON: tuple[VitalLine, ...] = (
    _real("ResNet50", 69.11, 92.23),
    _line("ResNet50", "maco", "r: 224", (29.43, 360.74, 360.74, 12.87, 29.73), main=True),
    _line("ResNet50", "maco", "r: 1024", (2.10, 494.57, 494.57, 1.60, 5.67)),
    _line("ResNet50", "fourier", "r: 224", (21.30, 422.44, 422.44, 6.73, 18.27), main=True),
    _line("ResNet50", "fourier", "r: 1024", (3.43, 430.58, 430.58, 0.97, 3.57)),
    _line("ResNet50", "deepinversion", "bs: 64", (100.0, 35.76, 35.76, 29.90, 55.20), main=True),
    _line("ResNet50", "deepinversion", "bs: 1", (100.0, 123.77, 123.77, 4.73, 12.63)),
    _line("ResNet50", "deepinversion", "two resolutions, bs: 64", (50.47, 176.35, 176.35, 17.20, 40.43), quoted=True),
    _line("ResNet50", "deepinversion", "two resolutions, bs: 1", (100.0, 121.94, 121.94, 6.30, 16.43), quoted=True),
    _line("ResNet50", "plugin", "bs: 21", (100.0, 241.54, 241.54, 17.53, 38.93)),
    *_vital("ResNet50", 99.90, 58.79, 58.79, 66.62, 92.56),
    _real("ConvNeXt", 65.66, 89.80),
    _line("ConvNeXt", "maco", "r: 224", (66.07, 369.64, 62.55, 7.20, 19.77), main=True),
    _line("ConvNeXt", "maco", "r: 1024", (21.07, 495.69, 97.73, 1.07, 4.73)),
    _line("ConvNeXt", "fourier", "r: 224", (60.07, 453.91, 59.60, 2.77, 8.30), main=True),
    _line("ConvNeXt", "fourier", "r: 1024", (14.27, 529.33, 77.08, 0.60, 2.37)),
    _line("ConvNeXt", "plugin", "bs: 16", (100.0, 405.50, 92.37, 1.97, 6.47)),
    *_vital("ConvNeXt", 99.97, 88.63, 3.92, 63.53, 90.30),
    _real("DenseNet121", 70.64, 93.16),
    _line("DenseNet121", "maco", "r: 224", (9.20, 418.60, 1.80, 9.33, 23.20), main=True),
    _line("DenseNet121", "maco", "r: 1024", (1.60, 475.39, 1.98, 1.43, 5.03)),
    _line("DenseNet121", "fourier", "r: 224", (15.53, 409.89, 1.63, 4.87, 12.17), main=True),
    _line("DenseNet121", "fourier", "r: 1024", (1.80, 437.18, 1.88, 0.90, 3.33)),
    _line("DenseNet121", "deepinversion", "bs: 64", (100.0, 93.26, 0.20, 10.00, 25.47), main=True),
    _line("DenseNet121", "deepinversion", "two resolutions, bs: 64", (31.30, 186.16, 0.83, 7.23, 20.03), quoted=True),
    _line("DenseNet121", "plugin", "bs: 24", (100.0, 377.92, 1.23, 11.00, 24.00)),
    *_vital("DenseNet121", 99.93, 79.40, 0.27, 58.70, 86.93),
    _real("ViT-L-16", 64.78, 89.31),
    _line("ViT-L-16", "maco", "r: 224", (44.33, 371.54, 946.96, 3.93, 10.57), main=True),
    _line("ViT-L-16", "fourier", "r: 224", (25.30, 447.56, 990.51, 1.67, 5.13), main=True),
    _line("ViT-L-16", "plugin", "bs: 2", (100.0, 274.28, 537.32, 15.70, 32.73)),
    *_vital("ViT-L-16", 99.80, 128.02, 126.29, 68.17, 92.80),
    _real("ViT-L-32", 65.83, 90.03),
    _line("ViT-L-32", "maco", "r: 224", (24.87, 280.77, 2318.90, 17.53, 37.23), main=True),
    _line("ViT-L-32", "fourier", "r: 224", (17.03, 331.86, 1983.09, 10.30, 28.10), main=True),
    _line("ViT-L-32", "plugin", "bs: 5", (100.0, 270.20, 293.02, 38.47, 67.40)),
    *_vital("ViT-L-32", 89.60, 174.31, 147.33, 55.97, 85.47),
)
"""Table 2; its rows marked ``main`` are Table 1, without the distances of ResNet50's features."""

INNER: Mapping[str, Figures] = {
    "fourier": {"AUC": 0.3073, "MAD": -0.8120},
    "maco": {"AUC": 0.2561, "MAD": -0.9678},
    "vital": {"AUC": 0.5556, "MAD": 0.1587},
}
"""Table 3: ResNet50, 90 channels, 3 seeds."""

CLASSES = ("tiger", "Maltese dog")
PREDICTIONS: Mapping[str, tuple[str, str]] = {
    REAL: ("tiger .8625, tiger cat .1363", "Maltese dog .9757, Lhasa .0149"),
    "maco": ("tiger .5752, apiary .1616", "silky terrier .4127, coral reef .2002"),
    "deepinversion": ("tiger .9984, tiger cat .0013", "Maltese dog .9989, Lhasa .0004"),
    "vital": ("tiger .8609, tiger cat .1382", "Maltese dog .9797, Lhasa .0112"),
}
"""Table 4: ResNet50's two likeliest classes, of two classes' visualizations."""

REFERENCES: Mapping[int, Figures] = {
    5: {ACCURACY: 99.47, OWN: 40.30, TOP1: 57.60, TOP5: 85.87},
    10: {ACCURACY: 99.83, OWN: 48.94, TOP1: 62.37, TOP5: 89.40},
    20: {ACCURACY: 99.87, OWN: 54.45, TOP1: 62.90, TOP5: 90.20},
    50: {ACCURACY: 99.90, OWN: 58.79, TOP1: 66.62, TOP5: 92.56},
    100: {ACCURACY: 99.77, OWN: 59.28, TOP1: 65.67, TOP5: 90.50},
}
"""Table 5: ResNet50, by the number of references."""
