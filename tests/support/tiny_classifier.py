"""A classifier of a few layers as a module that ``py:`` finds, and labelled photos of noise, for command lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODEL = "py:tiny_classifier_of_the_tests:network"
_MODULE = """
import torch
from torch import nn
from encoscope import Encoder

CLASSES = {classes!r}

def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
                  for a, b in ((3, 8), (8, 12), (12, 16))]
        module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(CLASSES)))
    return Encoder(module, size=32, classes=CLASSES)
"""


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch, classes: Sequence[str], labels: Sequence[str]) -> Path:
    """Work in a folder with the module, ``photos`` with three of each label, and a cache of its own."""
    (folder / "tiny_classifier_of_the_tests.py").write_text(_MODULE.format(classes=list(classes)))
    rng = np.random.default_rng(0)
    for name in labels:
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    monkeypatch.delitem(sys.modules, "tiny_classifier_of_the_tests", raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(folder / "cache"))
    return folder
