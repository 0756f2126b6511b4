"""ImageNet as a dataset string: WordNet numbers in folders or names, splits, and roots that are something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from encoscope.classes import match_labels
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.images import is_dataset, open_dataset
from encoscope.images.imagenet import name_imagenet_classes
from support.heads import heads

TENCH, CRANE, CRANE_MACHINE, PIANO = "n01440764", "n02012849", "n03126707", "n03452741"
OTHER = "n00007846"  # person: in ImageNet, not in ImageNet-1k


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / file)
    return root


def read(text: str) -> list[tuple[str, str]]:
    """Each file's name and class, in the order of the listing."""
    images = open_dataset(text)
    return [(path.name, images.classes[label]) for path, label in zip(images.paths, images.labels, strict=True)]


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        pytest.param(
            [f"{PIANO}/b.JPEG", f"{TENCH}/a.jpg", f"{TENCH}/deep/c.png"],
            "",
            [("a.jpg", "tench"), ("c.png", "tench"), ("b.JPEG", "grand piano")],
            id="folders",
        ),
        pytest.param(
            [f"train/{CRANE}/a.jpg", f"val/{CRANE_MACHINE}/b.jpg"], "", [("a.jpg", "crane (bird)")], id="train first"
        ),
        pytest.param(
            [f"train/{CRANE}/a.jpg", f"val/{CRANE_MACHINE}/b.jpg"], "#val", [("b.jpg", "crane (machine)")], id="val"
        ),
        pytest.param([f"val.X/{TENCH}/a.jpg"], "#val.X", [("a.jpg", "tench")], id="a split of another name"),
        pytest.param(
            [f"{TENCH}_tench.JPEG", f"ILSVRC2012_val_00000293_{PIANO}.JPEG", f"{TENCH}_10026_{TENCH}.JPEG"],
            "",
            [
                (f"ILSVRC2012_val_00000293_{PIANO}.JPEG", "grand piano"),
                (f"{TENCH}_10026_{TENCH}.JPEG", "tench"),
                (f"{TENCH}_tench.JPEG", "tench"),
            ],
            id="flat",
        ),
        pytest.param([f"val/{TENCH}_1.JPEG"], "#val", [(f"{TENCH}_1.JPEG", "tench")], id="a flat split"),
        pytest.param([f"{OTHER}/a.jpg", f"{TENCH}/b.jpg"], "", [("a.jpg", OTHER), ("b.jpg", "tench")], id="not of 1k"),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], split: str, expected: list[tuple[str, str]]) -> None:
    make(tmp_path, *files)
    assert is_dataset(f"imagenet:{tmp_path}{split}")
    assert read(f"imagenet:{tmp_path}{split}") == expected


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (["dogs/a.jpg"], "", r"a\.jpg is no image of ImageNet: the folder 'dogs' is not a WordNet number"),
        (["a.jpg"], "", r"a\.jpg is no image of ImageNet: neither its name nor a folder .* has a WordNet number"),
        (["val/ILSVRC2012_val_00000001.JPEG"], "#val", "neither its name nor a folder"),
        ([f"{TENCH}/a.jpg", "extra/b.jpg"], "", "the folder 'extra' is not a WordNet number"),
        ([f"val/{TENCH}/a.jpg"], "", "imagenet:ROOT#SPLIT the one above it"),
        ([f"{TENCH}_{PIANO}.jpg"], "", f"several WordNet numbers in its name: {TENCH}, {PIANO}"),
        (["n99999999/a.jpg"], "", "it has no class with the WordNet number n99999999"),
        ([f"x{TENCH}5.jpg"], "", "neither its name nor a folder"),
        ([f"train/{TENCH}/a.jpg"], "#trian", "has no folder 'trian'.*nearest: train.*which has train"),
    ],
)
def test_other_roots_are_refused(tmp_path: Path, files: list[str], split: str, message: str) -> None:
    make(tmp_path, *files)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(f"imagenet:{tmp_path}{split}")
    assert "\n" not in str(caught.value)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such folder"):
        open_dataset(f"imagenet:{tmp_path / 'nothing'}#train")
    (tmp_path / "train").mkdir()
    with pytest.raises(MissingError, match="no images below"):
        open_dataset(f"imagenet:{tmp_path}#train")


def named_as_torchvision() -> Encoder:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return heads(1000, list(_IMAGENET_CATEGORIES))


def named_with_synonyms() -> Encoder:
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return heads(1000, [info.index_to_description(index) for index in range(1000)])


@pytest.mark.parametrize(
    "make_encoder",
    [
        lambda: heads(1000, list(name_imagenet_classes().values())),
        lambda: heads(1000, list(name_imagenet_classes())),
        named_as_torchvision,
        named_with_synonyms,
        lambda: heads(1000),
    ],
    ids=["the zoo's names", "numbers", "torchvision's names", "all synonyms", "no names"],
)
def test_every_class_is_found_in_networks_of_imagenet(make_encoder) -> None:
    """WordNet's numbers ascend in ImageNet's order of classes, which all networks of ImageNet-1k share."""
    names = list(name_imagenet_classes().values())
    matches = match_labels(make_encoder(), names)
    assert [matches[name].index for name in names] == list(range(1000))


def test_names_say_nothing_to_other_networks_without_names() -> None:
    assert match_labels(heads(3), ["tench", "goldfish"])["tench"].index is None
    assert match_labels(heads(1000), ["tench", "my own class"])["tench"].index is None  # one is none of ImageNet's


def test_the_data_at_hand(data_root: Path) -> None:
    samples = open_dataset(f"imagenet:{data_root / 'imagenet-samples'}")
    assert (len(samples), samples.classes) == (1000, tuple(name_imagenet_classes().values()))
    assert samples.classes[samples.labels[0]] == "tench"
    for split, count in (("train", 240), ("test", 60)):
        images = open_dataset(f"imagenet:{data_root / 'imagenette'}#{split}")
        assert set(Counter(images.labels).values()) == {count}
        assert images.classes[:3] == ("tench", "English springer", "cassette player")
