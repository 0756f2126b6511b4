"""VITAL's steps against the floor, one forward pass and input gradient of the frozen network, and against Algorithm 1.

ResNet-50 and the ImageNet network that ships with the package, 224 px, batch 1, 50 references (noise: what is timed
does not depend on what they show). The other side is ``tests/oracles/vital.py``, which sorts and gathers over all
references in each step. Peak memory is what fitting statistics needs in a fresh process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import encoscope
from benchmarks.measure import in_process, interleaved, report_peak
from encoscope.units import Unit, parse_unit
from encoscope.vital import Vital
from encoscope.vital.features import FeatureReader
from encoscope.vital.references.prototypes import compute_prototype
from encoscope.vital.references.references import take_all_references
from encoscope.vital.synthesis.loop import _Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import vital as oracle

REFERENCES = 50
LAYERS = ["conv1", "layer1", "layer2", "layer3", "layer4"]


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    return [*steps(), lite(), zoo(), memory()]


def resnet50() -> encoscope.Encoder:
    """The network, frozen."""
    encoder = encoscope.load("torchvision:resnet50@untrained")
    encoder.module.eval().requires_grad_(False)
    return encoder


def noise(count: int, side: int) -> list[np.ndarray]:
    """Images in memory."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def floor(encoder: encoscope.Encoder) -> Callable[[], Any]:
    """One forward pass and the gradient at the image."""
    image = torch.randn(1, 3, *encoder.preprocess.size, requires_grad=True)

    def once() -> None:
        torch.autograd.grad(encoder.module(image).sum(), image)

    return once


def step(encoder: encoscope.Encoder, unit: str, references: int, **settings: Any) -> Callable[[], Any]:
    """One step of a run in its midst."""
    parsed = parse_unit(unit, encoder)
    images = take_all_references(noise(references, encoder.preprocess.size[0]), parsed)
    vital = Vital(encoder, unit, steps=10_000, cache=False, **settings).fit({unit: images})
    plan = vital.plan(vital.targets_)
    return _Run(plan.stages, plan.objective, [unit], 0, None, 0).step


def literal(encoder: encoscope.Encoder) -> Callable[[], Any]:
    """One step of Algorithm 1, sorting all references again."""
    pixels = encoder.prepare(noise(REFERENCES, 224)).pixels
    with torch.no_grad():
        real = oracle.activations(encoder.module, LAYERS, pixels)
    image = torch.randn(3, 224, 224, requires_grad=True)

    def once() -> None:
        made = oracle.activations(encoder.module, LAYERS, image[None])
        losses = [((made[name][0] - oracle.matched(made[name][0].detach(), real[name])) ** 2).mean() for name in LAYERS]
        torch.autograd.grad(torch.stack(losses).sum(), image)

    return once


def steps() -> list[dict[str, Any]]:
    """Class step and channel step against the floor, and the class step against Algorithm 1."""
    encoder = resnet50()
    ways = {
        "floor": floor(encoder),
        "class step": step(encoder, "class:0", REFERENCES),
        "channel step": step(encoder, "layer4:0", 4, relevance="lrp"),
    }
    seconds = interleaved(ways, 7)
    slow = interleaved({"Algorithm 1": literal(encoder), "class step": ways["class step"]}, 3)
    return [
        _row(
            "a class step, ResNet-50 at 224 / forward and input gradient", "at most 1.2", seconds, "class step", "floor"
        ),
        _row("a channel step with LRP / forward and input gradient", "at most 2.5", seconds, "channel step", "floor"),
        _row("Algorithm 1 with 50 references / a class step", "at least 15", slow, "Algorithm 1", "class step"),
    ]


def lite() -> dict[str, Any]:
    """A class step of EfficientNet-Lite0, with the default settings, against the floor."""
    encoder = encoscope.load("zoo:tf_efficientnet_lite0")
    encoder.module.eval().requires_grad_(False)
    ways = {"floor": floor(encoder), "class step": step(encoder, "class:0", 8)}
    what = "a class step, EfficientNet-Lite0 at 224 / forward and input gradient"
    return _row(what, "at most 1.2", interleaved(ways, 25), "class step", "floor")


def zoo() -> dict[str, Any]:
    """A class of the zoo's network: 500 steps, from the time of one; and the floor beside it."""
    encoder = encoscope.load("zoo:resnet-caltech101")
    encoder.module.eval()
    seconds = interleaved({"step": step(encoder, "class:0", 8), "floor": floor(encoder)}, 25)
    return {
        "what": "500 steps of a zoo class at 128, seconds",
        "ratio": 500 * seconds["step"],
        "target": "under 60",
        "seconds": seconds,
    }


def memory() -> dict[str, Any]:
    """Fitting statistics of 50 and of 500 references, in batches of 8."""
    megabytes = {str(count): in_process("benchmarks.visualize", str(count)) for count in (50, 500)}
    return {
        "what": "peak memory of statistics, ResNet-50, 500 references / 50",
        "ratio": megabytes["500"] / megabytes["50"],
        "target": "flat: at most 1.2",
        "megabytes": megabytes,
    }


def _row(what: str, target: str, seconds: dict[str, float], over: str, under: str) -> dict[str, Any]:
    shown = {name: seconds[name] for name in (over, under)}
    return {"what": what, "ratio": seconds[over] / seconds[under], "target": target, "seconds": shown}


def main(count: int) -> None:
    """Report the memory of fitting, in a process of its own; the images themselves are there before."""
    encoder = resnet50()
    unit: Unit = parse_unit("class:0", encoder)
    images = take_all_references(noise(count, 224), unit)
    encoder.activations(encoder.prepare(noise(1, 224)).pixels, LAYERS)
    report_peak(
        lambda: compute_prototype(FeatureReader(encoder, LAYERS), images, unit, batch=8, cache=False, progress=False)
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
