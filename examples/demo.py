"""What the ImageNet network that ships with encoscope sees in five photos, as a page: ``make demo``.

The photos come inside scikit-image's and scikit-learn's wheels. Each is shown in segments and in the colors of the
features, by the network and by the same network with random weights: what both show says nothing about the training.
Below them a class of the network is visualized. ``--atlas`` also builds a tiny site of a small network's features.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import encoscope
from encoscope import plots, results
from encoscope.encoder import untrained_copy
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import LoadedImage, read_image
from encoscope.nave.stability import compute_agreement

IMAGES = {
    "chelsea": ("skimage", "data", "chelsea.png"),
    "astronaut": ("skimage", "data", "astronaut.png"),
    "coffee": ("skimage", "data", "coffee.png"),
    "china": ("sklearn", "datasets", "images", "china.jpg"),
    "flower": ("sklearn", "datasets", "images", "flower.jpg"),
}
CLUSTERS = 5
UNIT, STEPS = "class:grand piano", 300
ATLAS_MODEL = "zoo:resnet-caltech101"
ATLAS: Mapping[str, Any] = {"features": 4, "classes": 2, "layers": ("layer4",), "steps": 100, "cells": 16}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Encoscope: what {source} sees</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; }}
  .row {{ display: grid; gap: 1rem; margin: 1rem 0 2rem; grid-template-columns: repeat(5, minmax(0, 1fr)); }}
  figure {{ margin: 0; }}
  img {{ width: 100%; height: auto; display: block; border-radius: 4px; }}
  figcaption {{ font-size: .9rem; opacity: .85; }}
  code {{ background: color-mix(in srgb, currentColor 10%, transparent); padding: .1em .3em; border-radius: 3px; }}
  @media (max-width: 50rem) {{ .row {{ grid-template-columns: repeat(2, minmax(0, 1fr)); }} }}
</style>
<h1>What <code>{source}</code> sees</h1>
<p>An EfficientNet-Lite0 of Google, trained on ImageNet, which ships with encoscope and is taken where no model is
named. Beside each picture stands its control, the same network with random weights. ARI is the agreement of the two
segmentations: 1 for the same segments, about 0 for chance.</p>
<p>Segments mark cells that the network represents alike, in each photo by itself. Colors are the first three principal
components of the features, the same for all five photos: like colors, like features.</p>
<p><code>encoscope segment photo.jpg --control untrained</code><br>
<code>encoscope colors photos/ --control untrained</code></p>
{rows}
<h2>What a class looks like</h2>
<p>VITAL makes an image whose activations are distributed as in real photos. {about}
<code>--references IMAGES --control untrained</code> shows beside it what comes from the photos alone.</p>
<p><code>encoscope visualize "{unit}" --steps {steps}</code></p>
<div class="row">{visualization}</div>
<p>Encoscope explains the network and is no semantic segmenter: a segment is what the network treats alike, whatever the
photo shows.</p>
</html>
"""


def main() -> int:
    """Write the pictures and the page into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--atlas", action="store_true", help="also build a tiny atlas, of a small network")
    chosen = parser.parse_args()
    folder: Path = chosen.folder
    start = time.monotonic()
    images = {name: read_image(path) for name, path in find_images().items()}
    encoder = encoscope.load()
    rows = make_rows(folder, images, encoder, untrained_copy(encoder, random_state=1))
    visualization = encoscope.visualize(encoder, UNIT, steps=STEPS)
    page = PAGE.format(
        source=html.escape(encoder.source),
        clusters=CLUSTERS,
        rows="\n".join(rows),
        unit=UNIT,
        steps=STEPS,
        about=html.escape(f"Here {visualization.notes[0]}; their statistics ship with the network."),
        visualization=write_figure(folder, "class", np.asarray(visualization.picture), visualization.caption),
    )
    with results.atomic_write(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    seconds = time.monotonic() - start
    say(f"{len(images)} photos and a class by {encoder.source}, in {seconds:.0f} seconds\nopen {folder / 'index.html'}")
    if chosen.atlas:
        site = make_atlas(folder, images)
        say(f"an atlas of 4 features and 2 classes of {ATLAS_MODEL}\nopen {site / 'index.html'}")
        say(f"or, to segment images of your own: encoscope atlas serve {site}")
    return 0


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def find_images() -> dict[str, Path]:
    """Where the wheels keep the photos; those of a package that is not installed are left out."""
    paths = {}
    for name, (package, *parts) in IMAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            paths[name] = Path(spec.submodule_search_locations[0], *parts)
    if not paths:
        raise MissingError("neither scikit-image nor scikit-learn is installed: their wheels hold the photos")
    return paths


def make_rows(
    folder: Path, images: Mapping[str, LoadedImage], encoder: encoscope.Encoder, untrained: encoscope.Encoder
) -> list[str]:
    """The HTML of a row for each photo: the photo, its segments and its colors, each beside the control."""
    models = {"trained": encoder, "untrained": untrained}
    colors = {kind: encoscope.colors(model, list(images.values())) for kind, model in models.items()}
    rows = []
    for index, (name, image) in enumerate(images.items()):
        segments = {kind: encoscope.segment(model, image, n_clusters=CLUSTERS) for kind, model in models.items()}
        agreement = compute_agreement(segments["trained"].labels, segments["untrained"].labels)
        captions = {
            "trained": f"segments, K = {CLUSTERS}",
            "untrained": f"control: random weights (ARI {agreement:.2f})",
        }
        figures = [write_figure(folder, name, image.pixels, name)]
        for kind, segmentation in segments.items():
            overlay = plots.draw_overlay(image, segmentation.labels)
            figures.append(write_figure(folder, f"{name}.segments.{kind}", overlay, captions[kind]))
        for kind, colored in colors.items():
            caption = "colors" if kind == "trained" else "control: random weights"
            figures.append(write_figure(folder, f"{name}.colors.{kind}", colored[index].rgb, caption))
        rows.append(f'<div class="row">{"".join(figures)}</div>')
    return rows


def write_figure(folder: Path, name: str, pixels: np.ndarray, caption: str) -> str:
    """Write a picture, and give the HTML that shows it."""
    file = folder / f"{name}.png"
    with results.atomic_write(file) as temporary:
        Image.fromarray(pixels).save(temporary)
    text = html.escape(caption)
    return f'<figure><img src="{file.name}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def make_atlas(folder: Path, images: Mapping[str, LoadedImage]) -> Path:
    """Pages on four features and two classes, over overlapping parts of the images: five would be too few to say much.

    A visualization takes a fifth of the usual steps, to keep it short.
    """
    from encoscope.atlas.build import build_atlas

    for name, image in images.items():
        side = min(image.height, image.width) // 2
        tops, lefts = (np.linspace(0, length - side, 4).astype(int) for length in (image.height, image.width))
        for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            file = folder / "parts" / f"{name}-{number:02d}.jpg"
            with results.atomic_write(file) as temporary:
                Image.fromarray(image.pixels[top : top + side, left : left + side]).save(temporary, quality=92)
    return build_atlas(ATLAS_MODEL, folder / "parts", folder / "atlas", **ATLAS, title="Encoscope's demo")


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except EncoscopeError as error:
        sys.stderr.write(f"demo: {error}\n")
        raise SystemExit(error.exit_code) from None
