"""The site's format: what is written is read back, stopped writing leaves a valid site and resumes, cuts nest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope import atlas
from encoscope.atlas import layout, trees, writer
from encoscope.atlas.codec import from_plain, merge_records, to_plain
from encoscope.atlas.outlines import trace_outline
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.nave.ward import ward_tree
from support import atlas_records as synthetic

IMPORTS = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
"""What a process of its own imports: this checkout's package, not the one that is installed."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_site(tmp_path_factory.mktemp("atlas") / "site")


def test_every_record_comes_back_as_it_was(site: Path) -> None:
    found = atlas.open(site)
    assert found.features == tuple(synthetic.unit(number) for number in range(12))
    assert found.classes == synthetic.CLASSES and len(found.images) == 12 and found.comparisons == ("another",)
    record = found.feature("layer1:5")
    assert from_plain(atlas.FeatureRecord, json.loads(json.dumps(to_plain(record)))) == record
    assert record.description is not None and record.description.concepts[0].text == synthetic.WORDS[35 % 20]
    assert record.heldout_auc is not None and record.heldout_auc.control == 0.52 and len(record.activating) == 8
    image = found.image(synthetic.image_id(3)[:12])
    np.testing.assert_array_equal(image.segmentations[0].labels.to_array(), synthetic.labels(3))
    assert image.segmentations[0].merges == synthetic.chain(20, 3)
    assert found.class_record("sunflower").index == found.class_record(2).index == 2
    assert found.comparison("another").pairs[0].other.unit == "stages.3:0"
    assert found.segmentations[1].scope == "joint"


def test_the_table_and_the_activations_are_for_other_programs(site: Path) -> None:
    found = atlas.open(site)
    table = found.read_table().to_pydict()
    assert table["unit"][2] == "layer1:2" and table["heldout_auc_control"][2] == 0.52
    assert table["concepts"][2][0] == found.feature("layer1:2").description.concepts[0].text  # pyright: ignore
    units, images, values = found.read_activations()
    assert units == found.features and set(images) == set(found.images)
    np.testing.assert_allclose(values, np.random.default_rng(0).random((12, 12)), atol=1e-3)


def test_pictures_are_named_by_their_content_and_shared(site: Path, tmp_path: Path) -> None:
    found = atlas.open(site)
    shown = found.feature("layer1:0").visualizations[0]
    assert found.load_image(shown.picture).size == (96, 96)
    assert shown.transparent is not None and found.load_image(shown.transparent).mode == "RGBA"
    with synthetic.writer(tmp_path / "s") as made:
        first = made.save_image(synthetic.pixels(1))
        assert made.save_image(synthetic.pixels(1)) == first and made.save_image(synthetic.pixels(2)) != first
        assert made.save_image(Image.new("L", (400, 100)), side=40) == made.save_image(Image.new("L", (40, 10)))


def test_shards_are_one_call_of_ascii_text(site: Path) -> None:
    for file in (site / "data").iterdir():
        text = file.read_bytes().decode("ascii")
        assert text.startswith(f'encoscope.shard("{file.stem}",') and text.endswith(");\n")
    document = json.loads((site / "manifest.json").read_text())
    assert document["format"] == "encoscope.atlas/1" and document["counts"]["features"] == 12
    assert layout.read_shard(site, "manifest") == document


def test_the_pages_types_are_those_of_the_records() -> None:
    text = (Path(__file__).parents[2] / "tools" / "js" / "atlas.d.ts").read_text()
    interfaces = dict(re.findall(r"^interface (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    kinds = [getattr(atlas, name) for name in atlas.__all__]
    records = [kind for kind in kinds if is_dataclass(kind) and kind.__module__ == "encoscope.atlas.records"]
    assert len(records) > 15
    for kind in records:
        typed = dict(re.findall(r"^  (\w+)(\??): ", interfaces[kind.__name__], re.MULTILINE))
        required = {name for name, mark in typed.items() if not mark}
        assert list(typed) == [field.name for field in fields(kind)], kind
        assert required == {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}, kind


def test_text_of_any_kind_survives(tmp_path: Path) -> None:
    odd = 'a </script><b>&"\\\u2028\ud83d\ude00 \u00e9'.encode("utf-16", "surrogatepass").decode("utf-16")
    with synthetic.writer(tmp_path) as made:
        made.add(atlas.FeatureRecord("a:1", description=atlas.DescriptionRecord((atlas.Term(odd, 1.0),), "m", "s")))
    assert atlas.open(tmp_path).feature("a:1").description.concepts[0].text == odd  # pyright: ignore


def test_later_records_add_their_parts_to_earlier_ones(tmp_path: Path) -> None:
    auc = atlas.Measure(0.9, "AUC", 0.5, "permuted")
    with synthetic.writer(tmp_path) as made:
        for number in range(70):
            made.add(atlas.FeatureRecord(f"layer1:{number}", "layer1"))
    with synthetic.writer(tmp_path) as made:
        for number in range(70):
            made.add(atlas.FeatureRecord(f"layer1:{number}", heldout_auc=auc))
        assert made.get(atlas.FeatureRecord, "layer1:3") == atlas.FeatureRecord("layer1:3", "layer1", heldout_auc=auc)
        assert made.get(atlas.FeatureRecord, "layer1:99") is None
    found = atlas.open(tmp_path)
    assert len(found.features) == 70
    assert {found.feature(unit) for unit in found.features} == {
        atlas.FeatureRecord(f"layer1:{number}", "layer1", heldout_auc=auc) for number in range(70)
    }
    whole = atlas.FeatureRecord("a:1", "a", heldout_auc=auc)
    assert merge_records(whole, atlas.FeatureRecord("a:1")) == whole


KILLED = """
import sys
from pathlib import Path
from support import atlas_records as synthetic
from encoscope.atlas import writer
writer._EVERY = 0.2
made = synthetic.writer(Path(sys.argv[1]))
pictures = [made.save_image(synthetic.pixels(1, 16))]
for number in range(100000):
    made.add(synthetic.feature(number, pictures, 12, rich=False))
"""


def test_killed_while_writing_it_is_valid_and_resumes(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    site = tmp_path / "site"
    environment = os.environ | {"PYTHONPATH": IMPORTS}
    process = subprocess.Popen([sys.executable, script, site], env=environment)
    deadline = time.monotonic() + 60
    while not (site / "data" / "features-000004.js").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert atlas.open(site).manifest["counts"]["features"] == 0  # published when it began: an empty atlas
    with synthetic.writer(site) as made:
        there = sum(1 for _ in made.records(atlas.FeatureRecord))
        assert there >= 4 * 32
        made.add(atlas.FeatureRecord("new:1"))
    found = atlas.open(site)
    assert len(found.features) == there + 1 and found.features[:3] == ("layer1:0", "layer1:1", "layer1:2")


def test_another_model_or_a_second_writer_is_refused(tmp_path: Path) -> None:
    with synthetic.writer(tmp_path), pytest.raises(EncoscopeError, match="written by another process"):
        synthetic.writer(tmp_path)
    with pytest.raises(UsageError, match="another model, other images or other settings"):
        synthetic.writer(tmp_path, key="other")
    kept = tmp_path / "mine.txt"
    kept.write_text("not the atlas's")
    writer.clear_site(tmp_path)
    assert kept.exists() and not (tmp_path / "manifest.json").exists()
    synthetic.writer(tmp_path, key="other").close()


def test_a_picture_that_excites_nothing_stands_for_nothing(tmp_path: Path) -> None:
    with synthetic.writer(tmp_path) as made:
        picture = made.save_image(synthetic.pixels(1))
        for number, value in enumerate((0.0, 0.4)):
            activation = atlas.Measure(value, "its value", 2.0, "real images")
            made.add(
                atlas.FeatureRecord(
                    f"a:{number}", visualizations=(atlas.VisualizationRecord("vital", picture, None, activation),)
                )
            )
    found = atlas.open(tmp_path)
    assert found.read_table().to_pydict()["picture"] == [None, picture.name]
    assert found.feature("a:0").visualizations[0].picture == picture  # it is on the feature's own page all the same


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(UsageError, match="has no unit"):
        atlas.Measure(1.0, "")
    with pytest.raises(EncoscopeError, match="not finite"):
        atlas.Measure(float("nan"), "AUC")
    with pytest.raises(UsageError, match="has no name"):
        atlas.Measure(1.0, "AUC", 0.5)
    with pytest.raises(UsageError, match="24 counts need 25 edges"):
        atlas.Histogram((0.0,) * 24, (1,) * 24, 0.0, 1.0, "u")


def test_bad_sites_and_names_are_one_clear_line(site: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        atlas.open(tmp_path)
    with pytest.raises(UsageError, match=r"no 'layer1:55' among its features.*layer1:5"):
        atlas.open(site).feature("layer1:55")
    with pytest.raises(UsageError, match=r"no class 'sunflowers'.*sunflower"):
        atlas.open(site).class_record("sunflowers")
    document = json.loads((site / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(document | {"format": "encoscope.atlas/2"}))
    with pytest.raises(EncoscopeError, match="newer encoscope"):
        atlas.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "features-table-000.js").write_text("encoscope.shard(")
    with pytest.raises(EncoscopeError, match=r"features-table-000\.js is damaged"):
        _ = atlas.open(tmp_path).features


def test_leaves_and_merges_give_every_cut_of_the_tree() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    tree = ward_tree(np.square(points[:, None] - points[None]).sum(2))
    labels, merges = trees.truncate_tree(tree, 20)
    assert np.bincount(labels).tolist() == sorted(np.bincount(labels), reverse=True) and len(merges) == 19
    for regions in range(1, 21):
        ours = trees.cut_tree(merges, 20, regions)[labels]
        theirs = tree.cut(regions)
        assert len({*zip(ours.tolist(), theirs.tolist(), strict=True)}) == regions  # the same partition
    assert trees.list_members(merges, 20)[38] == list(range(20))
    few, none = trees.truncate_tree(ward_tree(np.array([[0.0, 1.0], [1.0, 0.0]])), 20)
    assert len(few) == 2 and none == ((0, 1),)


def test_an_outline_surrounds_the_high_part() -> None:
    cam = np.zeros((8, 8))
    cam[2:6, 3:7] = 2
    (polygon,) = trace_outline(cam, 0.5)
    x, y = np.array(polygon).T
    assert polygon[0] == polygon[-1]
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((3 / 8, 7 / 8, 2 / 8, 6 / 8), abs=0.01)
    assert trace_outline(np.zeros((4, 4))) == ()
    (edge,) = trace_outline(np.ones((4, 4)), 0.5)  # runs along the border, closed
    assert np.array(edge).min() == 0 and np.array(edge).max() == 1


def test_label_maps_are_runs() -> None:
    values = synthetic.labels(1)
    runs = atlas.LabelMap.from_array(values)
    np.testing.assert_array_equal(runs.to_array(), values)
    with pytest.raises(EncoscopeError, match="damaged"):
        atlas.LabelMap(2, 2, (0, 3)).to_array()
    with pytest.raises(UsageError, match="negative"):
        atlas.LabelMap.from_array(np.array([[-1, 0]]))
