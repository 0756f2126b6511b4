"""Segment the images that come inside scikit-image's and scikit-learn's wheels, and write pages: ``make demo``.

Each image is shown segmented by the trained encoder, by the same network with random weights, and as its
colors alone part it: what all three agree on says nothing about the training.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import encoscope
from encoscope import plots, results
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import LoadedImage, read_image
from encoscope.nave.controls import color_control, untrained_control
from encoscope.nave.stability import compute_agreement

ZOO = "zoo:resnet-caltech101"
STAND_IN = "timm:resnet10t"
IMAGES = {
    "chelsea": ("skimage", "data", "chelsea.png"),
    "astronaut": ("skimage", "data", "astronaut.png"),
    "coffee": ("skimage", "data", "coffee.png"),
    "china": ("sklearn", "datasets", "images", "china.jpg"),
    "flower": ("sklearn", "datasets", "images", "flower.jpg"),
}
SETTINGS = {"n_clusters": 5, "weighting": "equal", "size": 192}
GRANULARITIES = (2, 3, 5, 8, 12, 20)
ATLAS = {"features": 4, "classes": 2, "layers": ("layer4",), "steps": 100, "cells": 16}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Encoscope: what {source} treats alike</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }}
  .row {{ display: grid; gap: 1rem; margin: 1rem 0 2rem; }}
  .row {{ grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }}
  .row.small {{ grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }}
  figure {{ margin: 0; }}
  img {{ width: 100%; height: auto; display: block; border-radius: 4px; }}
  figcaption {{ font-size: .9rem; opacity: .85; }}
  code {{ background: color-mix(in srgb, currentColor 10%, transparent); padding: .1em .3em; border-radius: 3px; }}
</style>
<h1>What <code>{source}</code> treats alike</h1>
<p>{intro}</p>
{rows}
<h2>One image, several granularities</h2>
<p>Cuts of one tree: every region lies inside one of the picture before it.</p>
<div class="row small">{cuts}</div>
<p>NAVE (Boubekki, Fadel and Mair) clusters the activations of a frozen network. It explains the encoder and is no
semantic segmenter: colors mark cells that the network represents alike, in each image by itself.</p>
</html>
"""
TRAINED = (
    "A small network that comes with encoscope, trained on 101 kinds of objects; none of these images was among them. "
    "Beside it are its controls: the same network with random weights, and the image's colors and positions alone. "
    "ARI is the agreement with the trained network, 1 for the same parts and about 0 for chance."
)
UNTRAINED = (
    "This installation holds no trained network, so the weights are random: what you see is what an untrained "
    "architecture already parts. Give your own with <code>encoscope segment --model</code>."
)


def main() -> int:
    """Write the pictures and the page into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    folder: Path = parser.parse_args().folder
    try:
        encoder, trained = encoscope.load(ZOO), True
    except MissingError:
        encoder, trained = encoscope.load(STAND_IN, untrained=True), False
    untrained = encoscope.load(encoder.source.partition("@")[0], untrained=True, random_state=1)
    images = {name: read_image(path) for name, path in find_images().items()}
    rows = [row(folder, name, image, encoder, untrained if trained else None) for name, image in images.items()]
    first = next(iter(images))
    cuts = encoscope.segment(encoder, images[first], **{**SETTINGS, "n_clusters": GRANULARITIES})
    shown = [
        figure(
            folder, f"{first}.k{cut.n_clusters}", plots.draw_overlay(images[first], cut.labels), f"K = {cut.n_clusters}"
        )
        for cut in cuts
    ]
    page = PAGE.format(
        source=html.escape(encoder.source),
        intro=TRAINED if trained else UNTRAINED,
        rows="\n".join(rows),
        cuts="".join(shown),
    )
    with results.atomic_write(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    kind = "trained" if trained else "UNTRAINED, since this installation ships no trained network"
    sys.stdout.write(f"{len(images)} images, {encoder.source} ({kind})\nopen {folder / 'index.html'}\n")
    if trained:
        site = tiny_atlas(folder, encoder, images)
        sys.stdout.write(f"an atlas of 4 features and 2 classes\nopen {site / 'index.html'}\n")
        sys.stdout.write(f"or, to part images of your own: encoscope atlas serve {site}\n")
    return 0


def tiny_atlas(folder: Path, encoder: encoscope.Encoder, images: dict[str, LoadedImage]) -> Path:
    """Pages on four features and two classes, over overlapping parts of the images: five would be too few to say much.

    A picture takes a fifth of the usual steps, to keep it short.
    """
    from encoscope.atlas.build import build_atlas

    for name, image in images.items():
        side = min(image.height, image.width) // 2
        tops, lefts = (np.linspace(0, length - side, 4).astype(int) for length in (image.height, image.width))
        for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            file = folder / "parts" / f"{name}-{number:02d}.jpg"
            with results.atomic_write(file) as temporary:
                Image.fromarray(image.pixels[top : top + side, left : left + side]).save(temporary, quality=92)
    return build_atlas(encoder, folder / "parts", folder / "atlas", **ATLAS, title="Encoscope's demo")


def find_images() -> dict[str, Path]:
    """Where the wheels keep the images; those of a package that is not installed are left out."""
    paths = {}
    for name, (package, *parts) in IMAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            paths[name] = Path(spec.submodule_search_locations[0], *parts)
    if not paths:
        raise MissingError("neither scikit-image nor scikit-learn is installed: their wheels hold the images")
    return paths


def row(
    folder: Path, name: str, image: LoadedImage, encoder: encoscope.Encoder, untrained: encoscope.Encoder | None
) -> str:
    """An image, its segmentation, and the controls beside them."""
    seg = encoscope.segment(encoder, image, **SETTINGS)
    figures = [
        figure(folder, name, image.pixels, name),
        figure(folder, f"{name}.overlay", plots.draw_overlay(image, seg.labels), f"K = {seg.n_clusters}"),
    ]
    others = {"color and position alone": color_control(image, seg)}
    if untrained is not None:
        others = {"random weights": untrained_control(untrained, image, seg, **SETTINGS)} | others
    for kind, other in others.items():
        caption = f"control: {kind} (ARI {compute_agreement(seg.labels, other.labels):.2f})"
        figures.append(figure(folder, f"{name}.{kind.split()[0]}", plots.draw_overlay(image, other.labels), caption))
    return f'<div class="row">{"".join(figures)}</div>'


def figure(folder: Path, name: str, pixels: np.ndarray, caption: str) -> str:
    """Write a picture, and give the HTML that shows it."""
    file = folder / f"{name}.png"
    with results.atomic_write(file) as temporary:
        Image.fromarray(pixels).save(temporary)
    text = html.escape(caption)
    return f'<figure><img src="{file.name}" alt="{text}"><figcaption>{text}</figcaption></figure>'


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except EncoscopeError as error:
        sys.stderr.write(f"demo: {error}\n")
        raise SystemExit(error.exit_code) from None
