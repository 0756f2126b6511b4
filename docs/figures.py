"""Make the pictures of the README and the docs: ``make pictures``.

Those of segments come from images inside the wheels. Those of units need Caltech-101: they are made when
``ENCOSCOPE_DATA`` points to the folder above it, in about half an hour on two cores, and go on when interrupted.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
from PIL import Image

import encoscope
from encoscope import plots
from encoscope.images import LoadedImage, read_image
from encoscope.nave import Segmentation
from encoscope.nave.controls import color_control, untrained_control
from encoscope.nave.stability import compute_agreement
from encoscope.recipes.shared_classes import read_shared_classes
from encoscope.vital import circuit

FOLDER = Path(__file__).parent / "images"
MODEL = "zoo:resnet-caltech101"
LEAD = "zoo:tf_efficientnet_lite0"
"""The network of the README's first pictures, which are made with the default settings."""

STEPS = 500
SETTINGS = {"n_clusters": 5, "weighting": "equal", "size": 192}
FILES = {
    "chelsea": ("skimage", "data/chelsea.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
}


def main() -> None:
    """Write every picture anew."""
    FOLDER.mkdir(exist_ok=True)
    encoder, untrained = encoscope.load(MODEL), encoscope.load(MODEL, untrained=True, random_state=1)
    images = {name: read_image(path(*where)) for name, where in FILES.items()}
    overview(images)
    layers(encoder, images["china"])
    weighting(encoder, untrained, images)
    granularity(encoder, images["astronaut"])
    similar(images)
    if "ENCOSCOPE_DATA" in os.environ:
        references = f"caltech101:{os.environ['ENCOSCOPE_DATA']}/caltech101#train"
        classes(Path(os.environ["ENCOSCOPE_DATA"], "caltech101"))
        inside(encoder, references)
        concepts(references)
        words(encoder, references)


def path(package: str, file: str) -> Path:
    """A file inside an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], file)


def parts(encoder: encoscope.Encoder, image: LoadedImage, **settings: object) -> Segmentation:
    """One segmentation of one image."""
    return encoscope.segment(encoder, image, **(SETTINGS | settings))


def overview(images: dict[str, LoadedImage]) -> None:
    """Photo, result, and both controls."""
    encoder, untrained = encoscope.load(LEAD), encoscope.load(LEAD, untrained=True, random_state=1)
    panels, captions = [], []
    for image in images.values():
        seg = encoscope.segment(encoder, image)
        panels += [image, plots.draw_overlay(image, seg.labels)]
        captions += ["image", "trained"]
        for name, other in {
            "random weights": untrained_control(untrained, image, seg),
            "color + position": color_control(image, seg),
        }.items():
            panels.append(plots.draw_overlay(image, other.labels))
            captions.append(f"{name}, ARI {compute_agreement(seg.labels, other.labels):.2f}")
    save("overview.jpg", panels, captions, 4)


def layers(encoder: encoscope.Encoder, image: LoadedImage) -> None:
    """Each stage by itself, and the default."""
    panels, captions = [image], ["image"]
    for chosen in ("layer1", "layer2", "layer3", "layer4", "layer2,layer3,layer4"):
        panels.append(plots.draw_overlay(image, parts(encoder, image, layers=chosen).labels))
        captions.append(chosen.replace(",", ", "))
    save("layers.jpg", panels, captions, 3)


def weighting(encoder: encoscope.Encoder, untrained: encoscope.Encoder, images: dict[str, LoadedImage]) -> None:
    """The two weightings, trained and not."""
    panels, captions = [], []
    for name in ("astronaut", "china"):
        for who, network in (("trained", encoder), ("random weights", untrained)):
            for how in ("paper", "equal"):
                panels.append(plots.draw_overlay(images[name], parts(network, images[name], weighting=how).labels))
                captions.append(f"{who}, {how}")
    save("weighting.jpg", panels, captions, 4)


def granularity(encoder: encoscope.Encoder, image: LoadedImage) -> None:
    """Nested parts."""
    seg = parts(encoder, image)
    numbers = (2, 3, 5, 8, 12, 20)
    save(
        "granularity.jpg",
        [plots.draw_overlay(image, seg.at(k).labels) for k in numbers],
        [f"K = {k}" for k in numbers],
        3,
    )


def similar(images: dict[str, LoadedImage]) -> None:
    """A place's like in its image, trained and not."""
    encoder = encoscope.load("zoo:tf_efficientnet_lite0")
    settings = {"layers": "blocks.4.2,blocks.5.3", "weighting": "equal", "size": 448, "control": "untrained"}
    panels, captions = [], []
    for name, at in (("chelsea", (170, 110)), ("china", (200, 185))):
        maps = encoscope.similar(encoder, images[name], at=at, **settings)
        assert maps.control is not None
        panels += [images[name], maps.overlays()[0], maps.control.overlays()[0]]
        typical = f"random places {maps.typical:.2f}"
        captions += ["image", f"trained, {typical}", f"random weights, random places {maps.control.typical:.2f}"]
    save("similar.jpg", panels, captions, 3)


def classes(root: Path) -> None:
    """Classes as the network sees them, below a photo of each, and the same from random weights."""
    encoder = encoscope.load(LEAD)
    names = ("flamingo", "grand_piano", "dalmatian")
    photos = read_shared_classes(root)
    units = [f"class:{name.replace('_', ' ')}" for name in names]
    made = encoscope.visualize(encoder, units, photos, control="untrained")
    panels = [next(path for path in photos.paths if path.parent.name == name) for name in names]
    panels = [read_image(photo) for photo in panels]
    panels += [visualization.picture for visualization in made]
    panels += [visualization.controls[0].picture for visualization in made]
    captions = ["a photo"] * len(names) + [each.caption for each in made]
    save("classes.jpg", panels, captions + ["random weights, same photos"] * len(names), len(names))


def inside(encoder: encoscope.Encoder, references: str) -> None:
    """A circuit: a class, and the channels it depends on; beside it two facets of the strongest one."""
    result = circuit(encoder, "class:soccer_ball", references, steps=STEPS)
    result.plot().savefig(FOLDER / "circuit.jpg", dpi=90)
    facets = encoscope.visualize(encoder, result.channels[0].unit, references, n_facets=3, steps=STEPS)
    save("facets.jpg", [facet.picture for facet in facets], [facet.name for facet in facets], 3)


def concepts(references: str) -> None:
    """What a class is made up of: concepts with their patches, as the command shows them."""
    found = encoscope.concepts(MODEL, "class:sunflower", references, steps=STEPS, relevance="none")
    found.sheet().convert("RGB").save(FOLDER / "concepts.jpg", quality=82, optimize=True)


def words(encoder: encoscope.Encoder, references: str) -> None:
    """What a class neuron stands for, with its images."""
    description = encoscope.describe(encoder, "class:Leopards", probe=references)
    Image.fromarray(description.draw_sheet(cell=150)).save(FOLDER / "description.jpg", quality=85, optimize=True)


def save(name: str, panels: list, captions: list[str], columns: int) -> None:
    """A contact sheet as a small file."""
    sheet: np.ndarray = plots.draw_contact_sheet(panels, captions, columns, cell=300)
    Image.fromarray(sheet).save(FOLDER / name, quality=82, optimize=True)


if __name__ == "__main__":
    main()
