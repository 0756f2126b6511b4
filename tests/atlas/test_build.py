"""Atlases built from a real (small, untrained) network and photos, read back, resumed, compared, on the CLI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope import Encoder, atlas, segment
from encoscope.atlas import trees
from encoscope.atlas.build import build_atlas, plan_build
from encoscope.atlas.build.activations import correlate_units, make_crop
from encoscope.atlas.build.descriptions import compute_clarity_control
from encoscope.atlas.build.plan import BuildPlan, choose_units, describe_source
from encoscope.atlas.build.visualizations import add_visualizations
from encoscope.atlas.matching import compare_atlases
from encoscope.atlas.settings import AtlasSettings
from encoscope.errors import UsageError
from encoscope.images import Geometry, read_image
from encoscope.probing import probe
from encoscope.units import parse_unit

CLASSES = ("cat", "cup", "temple")
OPTIONS = {"features": 6, "describe": False, "visualize": "none", "cells": 8, "crops": 4}

IMPORTS = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
"""What a process of its own imports: this checkout's package, not the one that is installed."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


def network(seed: int = 3) -> Encoder:
    torch.manual_seed(seed)
    body = nn.Sequential()
    for number, (before, after) in enumerate(((3, 8), (8, 12), (12, 16))):
        body.add_module(f"stage{number}", nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()))
    whole = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    return Encoder(whole, size=48, classes=CLASSES, source=f"py:tiny{seed}")


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory, image_paths: dict[str, Path]) -> Path:
    """Twelve crops of three images in folders named by what they show, and a file that is no image."""
    root = tmp_path_factory.mktemp("data") / "images"
    for label, name in zip(CLASSES, ("chelsea", "coffee", "china"), strict=True):
        (root / label).mkdir(parents=True)
        with Image.open(image_paths[name]) as image:
            small = image.convert("RGB").resize((120, 90))
        for number in range(4):
            small.crop((number * 10, number * 5, number * 10 + 80, number * 5 + 64)).save(
                root / label / f"{number}.png"
            )
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCOSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield build_atlas(
            network(), str(image_folder), tmp_path_factory.mktemp("built") / "site", **OPTIONS, progress=False
        )


def test_records_say_what_the_verbs_say(site: Path, image_folder: Path) -> None:
    encoder, found = network(), atlas.open(site)
    assert len(found.images) == 12 and found.classes == CLASSES and len(found.features) == 6
    assert found.manifest["skipped"] == [{"path": "broken.jpg", "reason": found.manifest["skipped"][0]["reason"]}]
    assert str(image_folder.parent) not in (site / "manifest.json").read_text()  # no paths of this machine
    unit = parse_unit(found.features[0], encoder)
    assert unit.layer is not None
    values = probe(encoder, str(image_folder), unit.layer)
    column = values.values[:, unit.index].astype(float)
    record = found.feature(unit.text)
    best = np.argsort(-column, kind="stable")[:4]
    assert [crop.image for crop in record.activating] == [values.ids[row] for row in best]
    expected = (column[best] - column.mean()) / column.std()
    assert [crop.value.value for crop in record.activating] == pytest.approx(expected.tolist(), rel=1e-3)
    assert record.histogram is not None and sum(record.histogram.counts) == 12
    units, images, kept = found.read_activations()
    np.testing.assert_allclose(kept[units.index(unit.text)], column[[values.ids.index(i) for i in images]], rtol=2e-3)
    image = found.image(values.ids[0])
    assert image.name == "cat/0.png" and image.label == "cat"
    logits = encoder.logits(str(image_folder / "cat" / "0.png"))[0].softmax(0)
    assert image.predictions[0].target == f"class:{CLASSES[int(logits.argmax())]}"
    assert image.predictions[0].measure.value == pytest.approx(float(logits.max()), abs=1e-3)


def test_segmentations_are_naves_and_nested(site: Path, image_folder: Path) -> None:
    encoder, found = network(), atlas.open(site)
    ids = [info.id for info in found.segmentations]
    layers = found.manifest["layers"]
    assert len(ids) == 2 * (len(layers) + 1) and ids[0] == "+".join(layers) and ids[-1] == f"{layers[-1]} joint"
    (image,) = [one for one in found.images if found.image(one).name == "cat/0.png"]
    part = next(part for part in found.image(image).segmentations if part.segmentation == layers[-1])
    labels = part.labels.to_array()
    for clusters in (2, 5, 20):
        theirs = segment(
            encoder,
            str(image_folder / "cat" / "0.png"),
            n_clusters=clusters,
            layers=layers[-1],
            grouping="ward",
            weighting="equal",
            resolution=8,
        )  # at the size of segment's default, so that both show the same of the same image
        ours = trees.cut_tree(part.merges, 20, clusters)[labels]
        assert len({*zip(ours.ravel().tolist(), theirs.grid_labels.ravel().tolist(), strict=True)}) == clusters  # pyright: ignore
    joint = found.segmentations[-1]
    shares = np.zeros(joint.leaves)
    for image in found.images:
        mine = next(part for part in found.image(image).segmentations if part.segmentation == joint.id)
        assert mine.merges == () and mine.labels.to_array().max() < joint.leaves
        shares += np.bincount(mine.labels.to_array().ravel(), minlength=joint.leaves)
    assert shares.tolist() == list(joint.sizes)


def test_features_of_a_region_are_those_that_stand_out_in_it(site: Path, image_folder: Path) -> None:
    encoder, found = network(), atlas.open(site)
    layer = found.manifest["layers"][-1]
    image = next(found.image(one) for one in found.images if found.image(one).name == "cup/1.png")
    part = next(part for part in image.segmentations if part.segmentation == layer)
    labels = part.labels.to_array()
    loaded = read_image(image_folder / "cup" / "1.png")
    batch = encoder.prepare(loaded, geometry="whole")
    maps = encoder.activations(batch.pixels, layer)[layer].maps
    rows = round(labels.shape[0] * batch.geometries[0].canvas[0] / batch.geometries[0].valid[0])
    columns = round(labels.shape[1] * batch.geometries[0].canvas[1] / batch.geometries[0].valid[1])
    large = nn.functional.interpolate(maps, (rows, columns), mode="bilinear")[
        0, :, : labels.shape[0], : labels.shape[1]
    ]
    below = trees.list_members(part.merges, 20)
    for top in part.tops[::7]:
        inside = torch.from_numpy(np.isin(labels, below[top.node]))
        for link in top.features:
            record, channel = found.feature(link.target), int(link.target.split(":")[1])
            assert record.histogram is not None
            score = (float(large[channel][inside].mean()) - record.histogram.mean) / record.histogram.std
            assert link.measure.value == pytest.approx(score, rel=0.02, abs=0.005)  # mean and std are rounded


def test_classes_circuits_and_failures(site: Path, image_folder: Path) -> None:
    encoder, found = network(), atlas.open(site)
    means = {layer: probe(encoder, str(image_folder), layer).values for layer in found.manifest["layers"]}
    thumbnails = [found.image(image).thumbnail for image in found.images]
    for index, name in enumerate(CLASSES):
        record = found.class_record(name)
        rows = [read_image(image_folder / name / f"{number}.png") for number in range(4)]
        wrong = [int(answer) for answer in encoder.logits(rows).argmax(1) if answer != index]
        assert record.accuracy is not None and record.accuracy.value == 1 - len(wrong) / 4
        assert record.accuracy.control == pytest.approx(1 / 3)
        assert sorted(CLASSES.index(failure.predicted) for failure in record.failures) == sorted(wrong)
        for layer in record.circuit:
            weights = [link.measure.value for link in layer.channels]
            assert weights == sorted(weights, reverse=True) and sum(weights) <= 100.1
            for link in layer.channels:  # shown by the images on which it is strongest
                values = means[layer.layer][:, int(link.target.rpartition(":")[2])]
                best = np.argsort(-values, kind="stable")[:4]
                assert link.examples == tuple(thumbnails[row] for row in best)
    (pooled,) = [unit for unit in found.features if found.feature(unit).layer == found.manifest["layers"][-1]][:1]
    link = found.feature(pooled).classes[0]
    assert encoder.head is not None
    weight = float(encoder.head.weight.detach()[CLASSES.index(link.target[6:]), int(pooled.split(":")[1])])
    assert link.measure.value == pytest.approx(weight * found.feature(pooled).histogram.std, rel=1e-2)  # pyright: ignore
    assert link.measure.unit == "logits for one standard deviation of it"


def test_resuming_computes_nothing_again(site: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in (site / "data").glob("*.js")}
    monkeypatch.setattr(BuildPlan, "file_of", lambda self, image: pytest.fail("an image was opened again"))
    monkeypatch.setattr(
        "encoscope.atlas.build.classes.compute_channel_relevance", lambda *_, **__: pytest.fail("again")
    )
    build_atlas(network(), str(image_folder), site, **OPTIONS, progress=False)
    assert {file.name: file.read_bytes() for file in (site / "data").glob("*.js")} == before
    with pytest.raises(UsageError, match="another model, other images or other settings"):
        build_atlas(network(4), str(image_folder), site, **OPTIONS, progress=False)


def test_stopped_anywhere_it_comes_to_the_same(
    site: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoscope.atlas.build import segmentation

    gauge, calls = segmentation.UnitStatistics.find_tops, []
    total = len(segmentation.list_segmentations(atlas.open(site).manifest["layers"]))

    def stopping(self: segmentation.UnitStatistics, *arguments: object) -> tuple[atlas.NodeTop, ...]:
        calls.append(1)
        if len(calls) == 8 * total + 5:  # in the second chunk of images
            raise KeyboardInterrupt
        return gauge(self, *arguments)  # pyright: ignore

    monkeypatch.setattr(segmentation.UnitStatistics, "find_tops", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_atlas(network(), str(image_folder), tmp_path / "site", **OPTIONS, progress=False)
    begun = atlas.open(tmp_path / "site").manifest
    assert begun["stages"]["segment"] == {"done": 8, "total": 12}
    build_atlas(network(), str(image_folder), tmp_path / "site", **OPTIONS, progress=False)
    for file in (site / "data").glob("*.js"):
        if file.name != "manifest.js":
            assert (tmp_path / "site" / "data" / file.name).read_bytes() == file.read_bytes(), file.name


KILLED = """
import sys, time
from encoscope.atlas import writer
from encoscope.atlas.build import build_atlas, segmentation
import atlas.test_build as tests
writer._EVERY = 0.0  # what is done is written at once
segmentation._CHUNK = 2
tops = segmentation.UnitStatistics.find_tops
calls = []
def slow(self, *arguments):
    calls.append(1)
    time.sleep(0.0 if len(calls) < 40 else 0.2)  # from the third chunk on, so that there is time to kill it
    return tops(self, *arguments)
segmentation.UnitStatistics.find_tops = slow
build_atlas(tests.network(), sys.argv[1], sys.argv[2], **tests.OPTIONS, progress=False)
"""


def test_killed_by_force_it_resumes(site: Path, image_folder: Path, tmp_path: Path) -> None:
    """SIGKILL while images are segmented: the folder holds an atlas, and the next run ends with the same one."""
    (tmp_path / "run.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": IMPORTS, "JAXTYPING_DISABLE": "1"}
    process = subprocess.Popen([sys.executable, tmp_path / "run.py", image_folder, tmp_path / "site"], env=environment)
    data, deadline = tmp_path / "site" / "data", time.monotonic() + 300

    def count_segmented() -> int:
        return sum('"segmentation"' in file.read_text() for file in data.glob("images-0*.js"))

    while count_segmented() < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = atlas.open(tmp_path / "site")
    assert 4 <= count_segmented() < 12 and len(begun.features) == 6 and len(begun.images) == 12
    assert begun.feature(begun.features[0]).activating  # published before: complete as far as it goes
    build_atlas(network(), str(image_folder), tmp_path / "site", **OPTIONS, progress=False)
    for file in (site / "data").glob("*.js"):
        assert (data / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_is_chosen(image_folder: Path) -> None:
    encoder = network()
    made = plan_build(
        encoder,
        str(image_folder),
        AtlasSettings(features="all", max_images=6, layers=("0.stage1", "0.stage2")),
        progress=False,
    )
    assert len(made.ids) == 6 and {made.label_of(image) for image in made.ids} == set(CLASSES)
    assert made.pooled == "0.stage2" and made.layers == ("0.stage1", "0.stage2")
    assert len(choose_units(made)) == 12 + 16
    listed = AtlasSettings(features=("0.stage2:3", "5", "0.stage1:0"))
    made = plan_build(encoder, str(image_folder), listed, progress=False)
    assert [unit.text for unit in choose_units(made)] == ["0.stage2:3", "0.stage2:5", "0.stage1:0"]
    assert made.layers == ("0.stage1", "0.stage2")
    made = plan_build(encoder, str(image_folder), AtlasSettings(classes=1, features=4), progress=False)
    said = np.bincount(made.probes["logits"].values.argmax(1))  # all classes have as many images
    assert made.classes == (int(said.argmax()),) and len(choose_units(made)) == 4
    wanted = parse_unit("0.stage2:7", encoder)
    assert wanted in choose_units(made, [wanted])
    assert describe_source("caltech101:/somebody/data/caltech101#train") == "caltech101:caltech101#train"
    for wrong in ({"features": "none"}, {"features": 0}, {"steps": 0}):
        with pytest.raises(UsageError):
            AtlasSettings.from_preset(**wrong)
    with pytest.raises(UsageError, match=r"unknown layer 'stage9'"):
        plan_build(encoder, str(image_folder), AtlasSettings(layers=("stage9",)), progress=False)


def test_permuted_images_are_the_control_of_correlations() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 200))
    values[1] = values[0] * 2 + 1
    ties, control = correlate_units(values, random_state=0)
    assert ties[0, 1] == pytest.approx(1) and 0.1 < control < 0.2  # 1.96 / sqrt(200) = 0.139
    assert np.isfinite(correlate_units(np.ones((3, 10)), 0)[0]).all()


def test_a_crop_shows_what_is_outlined(tmp_path: Path) -> None:
    from support.atlas_records import writer

    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[40:60, 140:160] = 255  # a white square, and a map that is high just there
    heat = np.zeros((25, 50), dtype=np.float32)
    heat[10:15, 35:40] = 1
    geometry = Geometry((100, 200), (50, 100), (0, 0), (50, 100), (50, 100))
    loaded = read_image(pixels)
    with writer(tmp_path) as made:
        crop = make_crop(made, loaded.id, loaded, geometry, heat)
    (line,) = crop.outline
    x, y = np.array(line).T
    shown = np.asarray(atlas.open(tmp_path).load_image(crop.picture)).mean(2) > 128
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    found = (columns[0] / shown.shape[1], (columns[-1] + 1) / shown.shape[1], rows[0] / shown.shape[0])
    assert (x.min(), x.max(), y.min()) == pytest.approx(found, abs=0.06)


def test_two_atlases_side_by_side(site: Path, image_folder: Path, tmp_path: Path) -> None:
    mirror = network()
    with torch.no_grad():  # the same network with its last channels in another order
        last = mirror.module[0].stage2[0]
        order = torch.arange(15, -1, -1)
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    options = OPTIONS | {"features": "all", "layers": ("0.stage2",), "crops": 2}
    other = build_atlas(mirror, str(image_folder), tmp_path / "other", **options, progress=False)
    mine = build_atlas(network(), str(image_folder), tmp_path / "mine", **options, progress=False)
    found = compare_atlases(mine, other, name="mirror")
    assert found.images == 12 and len(found.pairs) == 16
    for pair in found.pairs:
        if atlas.open(mine).feature(pair.unit).histogram.std > 1e-6:  # pyright: ignore
            assert int(pair.other.unit.split(":")[1]) == 15 - int(pair.unit.split(":")[1])
            assert pair.similarity.value == pytest.approx(1, abs=1e-3) and pair.mutual
    read_back = atlas.open(mine)
    assert read_back.comparison("mirror") == found
    assert all(read_back.image_path(crop).is_file() for pair in found.pairs for crop in pair.other.crops)


def test_the_command_line(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from encoscope.cli.app import run

    (tmp_path / "tiny_of_the_atlas.py").write_text(
        "import torch\nfrom torch import nn\nfrom encoscope import Encoder\n\n"
        "def network():\n    torch.manual_seed(0)\n"
        "    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())\n"
        "    return Encoder(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)), size=32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["atlas", "build", "--model", "py:tiny_of_the_atlas:network", "--images", str(image_folder)]
    arguments += ["--out", str(tmp_path / "site"), "--features", "3", "--no-describe", "--visualize", "none"]
    assert run([*arguments, "--classes", "none", "--max-images", "6"]) in (0, 1)
    out, _ = capsys.readouterr()
    assert "3 features, 6 images, 0 classes" in out and "index.html" in out
    assert run([*arguments, "--features", "some"]) == 2
    assert run(["atlas", "serve", str(tmp_path / "nothing")]) == 3
    assert run(["atlas", "compare", str(tmp_path / "site"), str(tmp_path / "site")]) == 2  # six shared images
    assert "share 6 images" in capsys.readouterr().err
    assert json.loads((tmp_path / "site" / "manifest.json").read_text())["data"]["images"] in (5, 6)


def test_clarity_stands_beside_crops_of_different_features() -> None:
    rng = np.random.default_rng(0)
    first, second, none = rng.normal(size=(3, 5)), rng.normal(size=(2, 5)), np.zeros((0, 5))
    pairs = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one in first for other in second]
    assert compute_clarity_control([first, none, second]) == pytest.approx(np.mean(pairs))
    assert compute_clarity_control([first, none]) is None  # one feature alone has none to be unlike


def test_where_not_all_get_visualizations_those_that_classes_rest_on_do(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.atlas_records import writer

    asked: list[list[str]] = []

    class Asked(Exception):
        pass

    def fit(vital: Vital, _: object) -> None:
        asked.append([unit.text for unit in vital.units])
        raise Asked

    monkeypatch.setattr("encoscope.atlas.build.visualizations.Vital.fit", fit)
    encoder = network()
    made = plan_build(encoder, str(image_folder), AtlasSettings(classes="none", visualize=2), progress=False)
    units = [parse_unit(text, encoder) for text in ("0.stage0:1", "0.stage1:1", "0.stage2:1", "0.stage2:2")]
    for wanted in ([], [units[3], parse_unit("0.stage2:9", encoder), units[1]]):
        with pytest.raises(Asked), writer(tmp_path / "site") as made_site:
            add_visualizations(made_site, made, units, wanted)
    assert asked == [["0.stage0:1", "0.stage1:1"], ["0.stage1:1", "0.stage2:2"]]
