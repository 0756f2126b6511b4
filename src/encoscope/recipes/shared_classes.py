"""Which classes of Caltech-101 are classes of ImageNet: a frozen table, made by what the classes mean.

A pair is equal where the WordNet synset of the ImageNet class is what Caltech-101's photos show: no more and no less.
The names decide nothing: Caltech-101's rooster is ImageNet's "cock"; its hedgehog is not ImageNet's "porcupine,
hedgehog", which is a rodent; and most of its leopards are cheetahs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from encoscope.images import LabelledImages
from encoscope.images.caltech101 import read_caltech101

EQUAL: Mapping[str, str] = {
    "accordion": "n02672831",
    "ant": "n02219486",
    "barrel": "n02795169",
    "beaver": "n02363005",
    "binocular": "n02841315",
    "cannon": "n02950826",
    "cellphone": "n02992529",
    "cougar_body": "n02125311",
    "crayfish": "n01985128",
    "dalmatian": "n02110341",
    "dragonfly": "n02268443",
    "electric_guitar": "n03272010",
    "ewer": "n03950228",
    "flamingo": "n02007558",
    "grand_piano": "n03452741",
    "laptop": "n03642806",
    "llama": "n02437616",
    "nautilus": "n01968897",
    "panda": "n02510455",
    "pizza": "n07873807",
    "platypus": "n01873310",
    "revolver": "n04086273",
    "rooster": "n01514668",
    "saxophone": "n04141076",
    "schooner": "n04147183",
    "scorpion": "n01770393",
    "soccer_ball": "n04254680",
    "starfish": "n02317335",
    "strawberry": "n07745940",
    "tick": "n01776313",
    "trilobite": "n01768244",
    "umbrella": "n04507155",
}
"""The folder of Caltech-101 and the WordNet number of the ImageNet class that means the same."""

NEAR: Mapping[str, str] = {
    "Leopards": "n02128385 leopard: most of the photos show n02130308 cheetahs",
    "Motorbikes": "n03785016 moped and n03791053 motor scooter are smaller",
    "airplanes": "n02690373 airliner leaves out small and military airplanes",
    "camera": "n04069434 reflex camera is one of several kinds",
    "car_side": "several classes are kinds of cars",
    "ceiling_fan": "n03271574 electric fan is any fan, mostly one that stands",
    "cougar_face": "n02125311 cougar is the whole animal, and has the photos of cougar_body",
    "crocodile": "n01697457 African crocodile is one species",
    "cup": "n07930864 cup is a punch, in WordNet",
    "elephant": "n02504013 Indian and n02504458 African elephant are two classes",
    "flamingo_head": "n02007558 flamingo is the whole bird, and has the photos of flamingo",
    "hawksbill": "n01664065 loggerhead is another turtle",
    "hedgehog": "n02346627 porcupine, hedgehog is a rodent with quills",
    "kangaroo": "n01877812 wallaby is a smaller kangaroo",
    "ketch": "n04612504 yawl has its second mast elsewhere",
    "lamp": "n04380533 table lamp is one of several kinds",
    "lobster": "n01983481 American lobster is one species",
    "stop_sign": "n06794110 street sign is any sign",
    "watch": "n03197337 digital watch has no hands",
    "wild_cat": "n02123159 tiger cat and others are tame",
}
"""Folders of Caltech-101 that are near an ImageNet class and are left out, and what the difference is."""


def read_shared_classes(root: str | Path, split: str = "train") -> LabelledImages:
    """List the photos of Caltech-101 whose class is a class of ImageNet.

    Args:
        root: The folder of Caltech-101, as for ``read_caltech101``.
        split: "train" or "test".

    Returns:
        The photos of the folders in ``EQUAL``; the classes are ImageNet's, by WordNet number.
    """
    images = read_caltech101(root, split)
    numbers = tuple(sorted(EQUAL.values()))
    kept = [
        (path, numbers.index(EQUAL[images.classes[label]]))
        for path, label in zip(images.paths, images.labels, strict=True)
        if images.classes[label] in EQUAL
    ]
    return LabelledImages(tuple(path for path, _ in kept), tuple(label for _, label in kept), numbers)
