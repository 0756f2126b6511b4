from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from encoscope.cli.describe import write_line
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon import Description, Descriptions, Falcon, describe
from encoscope.falcon.captions.build import embed_captions
from encoscope.falcon.crops import to_original_box
from encoscope.falcon.embedding import ImageEmbedder
from encoscope.falcon.gradcam import GradCam
from encoscope.falcon.heldout import find_strong_images
from encoscope.images import Geometry, read_image
from encoscope.probing import Probe, probe
from encoscope.units import parse_unit
from oracles import falcon as oracle
from support import described_network as world

SETTINGS = {"alpha_stds": 0.3, "beta": 0.03, "spurious_threshold": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world.write_images(tmp_path_factory.mktemp("photos"), 150)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return embed_captions(world.CAPTIONS, world.Reader(), tmp_path_factory.mktemp("captions") / "store")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(shared, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(shared))


@pytest.fixture(scope="module")
def fitted(folder, store, shared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCOSCOPE_CACHE", str(shared))
        models = {"vlm": world.Reader(), "captions": store}
        falcon = Falcon(world.encoder(), control=("permuted", "captions"), **models, **SETTINGS)
        return falcon.fit(folder), falcon.describe("all")


def test_features_of_colours_are_described_by_them(fitted):
    _, found = fitted
    assert isinstance(found, Descriptions) and len(found) == 6
    for place, colour in enumerate(world.NAMES):
        description = found[place]
        assert description.unit == f"features:{place}" and description.method == "falcon"
        assert description.words[0] == colour
        assert {"square", "thing", "patch"}.isdisjoint(description.words)  # the counterfactuals have those too
        assert {"square", "thing", "patch"} <= {concept.word for concept in description.spurious}
        assert {example.path.split("/")[-2] for example in description.high} == {colour}
        assert all(example.path.split("/")[-2] != colour for example in description.low) and description.low
        assert description.clarity > 0.95 and description.interpretable
        assert description.heldout.auc.value > 0.9 and description.heldout.controls["permuted"].value < 0.8
        assert description.heldout.controls["captions"].value < 1
        controls = description.heldout.controls
        assert controls["permuted"].draws == 4 and controls["captions"].draws == 20
        assert description.heldout.auc.value > controls["permuted"].high
        # of twelve captions on four colors, random ones often name the right color: the verdict says so
        better = description.heldout.auc.value > controls["captions"].high
        assert description.verdict == ("beats its control" if better else "no better than chance")
        assert description.entry()["verdict"] == description.verdict
        assert description.high[0].captions[0][0].split()[1] == colour


def test_a_feature_that_never_fires_is_told(fitted):
    _, found = fitted
    dead = found[4]
    assert dead.method == "none" and dead.concepts == () and dead.heldout is None and dead.high == ()
    assert dead.note == f"it never activates: it has the same value on all {found[0].settings['images']['fit']} images"
    assert found.summary["units"] == 6 and found.summary["labelled"] >= 4 / 6
    assert found.summary["constant"]["auc"] < found.summary["auc"]["mean"]
    assert "never activates" in str(dead)


def test_the_test_is_its_formula_written_out(fitted):
    """Cosines with the description, less each image's mean cosine with all captions, image by image."""
    falcon, found = fitted
    space = falcon.find_space(parse_unit("features:1", falcon.encoder_))
    reader, description = world.Reader(), found[1]
    captions = reader.embed_texts(list(falcon.captions_)).numpy()
    vectors = {concept.word: falcon.context_.texts([concept.word])[0] for concept in description.concepts}
    total = sum(max(concept.score, 0) for concept in description.concepts)
    scores = []
    for path in space.heldout.paths:
        image = reader.embed_images([path]).numpy()[0]
        own = sum(
            max(concept.score, 0) / total * float(image @ vectors[concept.word]) for concept in description.concepts
        )
        scores.append(own - float(np.mean([image @ caption for caption in captions])))
    strong = find_strong_images(space.heldout.h[:, 1], space.thresholds.alpha)
    pairs = [(a > b) + (a == b) / 2 for a in np.array(scores)[strong] for b in np.array(scores)[~strong]]
    assert description.heldout.auc.value == pytest.approx(
        np.mean(pairs), abs=0.01
    )  # vectors are kept in half precision


def test_a_description_that_says_nothing_is_called_so(fitted):
    _, found = fitted
    dead = found[4]
    assert dead.verdict == "no words" and dead.entry()["verdict"] == "no words"
    assert found.summary["verdicts"]["no words"] >= 1 and sum(found.summary["verdicts"].values()) == 6


def test_without_enough_images_the_reason_is_given(folder, store):
    arguments = {"probe": folder, "captions": store, "vlm": world.Reader()}
    for holdout, reason in ((0.0, "no images are held out"), (0.03, "held-out images are too few to test it: 10 are")):
        bare = describe(world.encoder(), "features:0", holdout=holdout, **arguments)
        assert bare.heldout is None and bare.verdict == "too few images"
        assert reason in bare.untested and reason in write_line(bare) and bare.entry()["untested"] == bare.untested


def test_the_test_images_are_not_those_it_was_made_from(fitted):
    falcon, _ = fitted
    space = falcon.find_space(parse_unit("features:0", falcon.encoder))
    assert not set(space.fit.ids) & set(space.heldout.ids)
    assert len(space.fit.ids) + len(space.heldout.ids) == 150 and 15 < len(space.heldout.ids) < 45


def test_concepts_are_those_of_the_method_written_out(fitted, folder):
    """Images, crops, captions, word scores and contrast, image by image and word by word."""
    falcon, found = fitted
    encoder, reader = falcon.encoder, world.Reader()
    space = falcon.find_space(parse_unit("features:0", encoder))
    h, paths = space.fit.h, space.fit.paths
    order = sorted(range(len(paths)), key=lambda row: space.fit.ids[row])
    for feature in (0, 2):
        literal = oracle.describe(
            h,
            [paths[row] for row in range(len(paths))],
            feature,
            alpha_stds=0.3,
            beta=0.03,
            by_id=order,
            cam=partial(oracle_cam, encoder, feature=feature),
            embed=lambda pixels: reader.embed_images([pixels])[0].numpy(),
            captions=world.CAPTIONS,
            vectors=reader.embed_texts(world.CAPTIONS).numpy().astype(np.float16).astype(np.float32),
            size=(16, 16),
        )
        assert found[feature].images == len(literal["high"])
        assert [example.path for example in found[feature].high] == literal["high"][:8]
        assert [example.path for example in found[feature].low] == literal["low"][:8]
        kept = {word: score for word, score in literal["words"].items() if word not in found_spurious(found[feature])}
        got = {concept.word: concept.score for concept in found[feature].concepts}
        assert got.keys() == set(list(kept)[:8])
        for word, score in got.items():
            assert score == pytest.approx(kept[word], abs=2e-3)
        assert found[feature].clarity == pytest.approx(oracle.clarity(literal["vectors"]), abs=1e-4)
        for example, box in zip(found[feature].high, literal["boxes"], strict=False):
            assert list(example.box) == box


def found_spurious(description: Description) -> set[str]:
    return {concept.word for concept in description.spurious}


def oracle_cam(encoder, path, *, feature):
    """The feature's GradCAM of one photo, by a backward pass, on the network's canvas, with the way back."""
    prepared = encoder.prepare(path)
    ((cam,),) = GradCam(encoder, "gradient")(prepared.pixels, [[parse_unit(f"features:{feature}", encoder)]])
    return cam, prepared.geometries[0]


def test_a_unit_alone_is_the_same_as_among_others(fitted, folder, store, tmp_path):
    _, together = fitted
    alone = describe(
        world.encoder(),
        "features:2",
        probe=folder,
        captions=store,
        vlm=world.Reader(),
        cache_dir=tmp_path,
        control=("permuted", "captions"),
        **SETTINGS,
    )
    assert isinstance(alone, Description)
    assert json.dumps(alone.entry(), default=np.ndarray.tolist) == json.dumps(
        together[2].entry(), default=np.ndarray.tolist
    )


def test_nothing_is_embedded_twice_and_images_once(folder, store, tmp_path, monkeypatch):
    reads: list[str] = []
    plain = ImageEmbedder._load

    def counted(self, work, paths):
        reads.append(work.image)
        return plain(self, work, paths)

    monkeypatch.setattr(ImageEmbedder, "_load", counted)
    first, second = world.Reader(), world.Reader()
    before = describe(world.encoder(), "all", probe=folder, captions=store, vlm=first, cache_dir=tmp_path, **SETTINGS)
    assert len(reads) == len(set(reads)) and first.images > 150
    after = describe(world.encoder(), "all", probe=folder, captions=store, vlm=second, cache_dir=tmp_path, **SETTINGS)
    assert second.images == 0 and len(reads) == len(set(reads))
    assert [item.entry()["concepts"] for item in after] == [item.entry()["concepts"] for item in before]


def test_every_kind_of_unit_has_a_description(fitted, tmp_path):
    falcon, _ = fitted
    np.save(tmp_path / "d.npy", np.array([0, 0, 3.0, 0, 0, 0], np.float32))
    found = falcon.describe(["class:blue", "see:2", "features:0,5", f"features@{tmp_path / 'd.npy'}"])
    assert [item.unit for item in found][:3] == ["class:blue", "see:2", "features:0,5"]
    assert found[0].words[0] == found[3].words[0] == "blue" and found[2].words[0] == "red"
    assert [item.words for item in falcon.describe("class:all")] == [
        falcon.describe(f"class:{i}").words for i in range(3)
    ]


def test_without_contrast_the_common_words_stay(folder, store):
    found = describe(
        world.encoder(), "features:0", probe=folder, captions=store, vlm=world.Reader(), contrast=False, **SETTINGS
    )
    assert {"red", "square"} <= set(found.words) and found.spurious == ()


def test_the_authors_preset_uses_softmax_and_exact_sets(folder, store):
    found = describe(
        world.encoder(), "features:1", probe=folder, captions=store, vlm=world.Reader(), preset="authors", **SETTINGS
    )
    assert found.words[0] == "green" and found.settings["score"] == "softmax"
    assert found.settings["mode"] == "exact" and 0 <= found.concepts[0].score <= 1


def test_an_empty_set_is_said_and_the_strongest_stand_in(folder, store):
    arguments = {"probe": folder, "captions": store, "vlm": world.Reader()}
    found = describe(world.encoder(), "features:0", alpha=2.0, beta=0.03, **arguments)
    assert found.method == "falcon, top-k" and found.words[0] == "red" and found.images == 10
    assert "fewer than 5 images pass alpha (2): the 10 strongest are used instead" in found.note
    assert not found.explained
    none = describe(world.encoder(), "features:0", alpha=2.0, top_k_if_empty=0, fallback="none", **arguments)
    assert none.method == "none" and "fewer than 5 images pass alpha" in none.note
    few = describe(world.encoder(), "features:0", preset="paper", alpha=2.0, beta=0.03, **arguments)
    assert "no image passes alpha (2)" in few.note


def test_groups_are_found_and_described(fitted):
    falcon, _ = fitted
    groups = falcon.find_groups(more_than=5)
    assert groups and all(group.clarity is not None and len(group.images) > 5 for group in groups)
    for together in ({0, 5}, {2, 5}):  # red and blue squares turn the last feature on as well
        assert any(together <= set(group.members) for group in groups)
    best = falcon.describe(groups[0].unit)
    assert best.words[0] in world.NAMES
    exact = falcon.find_groups(mode="exact", more_than=5, embed=False)
    assert all(group.clarity is None for group in exact)


def test_a_saved_description_is_whole(fitted, tmp_path):
    _, found = fitted
    folder = found.save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert document["format"] == "encoscope.description/1" and len(document["descriptions"]) == 6
    entry = document["descriptions"][0]
    wanted = ["unit", "concepts", "phrases", "spurious", "method", "interpretability", "heldout", "high", "low"]
    assert all(name in entry for name in wanted)
    assert set(entry["heldout"]) >= {"auc", "interval"} and entry["concepts"][0]["word"] == "red"
    with Image.open(folder / entry["high"][0]["crop"]) as crop:
        assert crop.format == "WEBP" and np.asarray(crop)[..., 0].mean() > 150
    assert (folder / entry["high"][0]["path"]).resolve().is_file()
    with Image.open(folder / entry["sheet"]) as sheet:
        assert sheet.size[0] > 300
    table = parquet.read_table(folder / "descriptions.parquet").to_pydict()
    assert table["unit"][1] == "features:1" and table["concepts"][1][0] == "green"
    assert table["auc"][4] is None and table["note"][4].startswith("it never activates")
    one = found[0].save(tmp_path / "one")
    assert sorted(path.name for path in one.iterdir()) == ["features-0", "result.json"]
    sheet, silent = found[0].draw_sheet(), replace(found[0], concepts=()).draw_sheet()
    rows = np.flatnonzero((sheet != silent).any(axis=(1, 2)))
    assert len(rows) > 0 and rows.max() < 90  # the words and their test are in the title
    assert found[0].plot().axes[0].get_images()[0].get_array().shape == sheet.shape


def test_boxes_come_back_to_the_original_pixels():
    way = Geometry(original=(40, 80), resized=(20, 40), offset=(0, 10), valid=(20, 20), canvas=(20, 20))
    assert to_original_box((0, 0, 19, 19), way) == (20, 0, 59, 39)
    assert to_original_box((5, 5, 5, 5), way) == (30, 10, 31, 11)


def test_what_does_not_fit_is_refused(folder, store, tmp_path):
    encoder = world.encoder()
    common = {"captions": store, "vlm": world.Reader()}
    with pytest.raises(EncoscopeError, match="were embedded with stub:colors"):
        describe(encoder, "features:0", probe=folder, captions=store, vlm=world.Reader("beef" * 16))
    with pytest.raises(UsageError, match="this probe is of layer 'see', not 'features'"):
        describe(encoder, "features:0", probe=probe(encoder, folder, "see"), **common)
    few = tmp_path / "few"
    world.write_images(few, 6)
    with pytest.raises(EncoscopeError, match=r"made from at least 10 images, and the probe has 6"):
        describe(encoder, "features:0", probe=few, **common)
    with pytest.raises(UsageError, match="every image of the holdout is in the probe"):
        describe(encoder, "features:0", probe=folder, holdout=folder, **common)
    with pytest.raises(UsageError, match="control is permuted or captions, not 'labels'"):
        describe(encoder, "features:0", probe=folder, control="labels", **common)
    with pytest.raises(MissingError, match="no caption store at"):
        describe(encoder, "features:0", probe=folder, captions=tmp_path / "nothing", vlm=world.Reader())
    values = Probe.from_arrays(np.random.default_rng(0).random((30, 6)).astype(np.float32))
    with pytest.raises(EncoscopeError, match="made without files"):
        describe(encoder, "features:0", probe=values, **common)
    with pytest.raises(UsageError, match="call fit first"):
        Falcon(encoder).describe("all")


def test_a_photo_that_changed_since_is_refused(tmp_path, store):
    folder = world.write_images(tmp_path / "photos", 40)
    encoder = world.encoder()
    found = probe(encoder, folder)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(found.paths[found.find_top(0, 1)[0]])
    with pytest.raises(EncoscopeError, match="has changed since it was probed"):
        cache = tmp_path / "cache"
        describe(encoder, "all", probe=found, captions=store, vlm=world.Reader(), cache_dir=cache, **SETTINGS)


def test_a_holdout_of_its_own_is_used_whole(folder, store, tmp_path):
    other = world.write_images(tmp_path / "other", 45, seed=7)
    found = describe(
        world.encoder(), "features:1", probe=folder, holdout=other, captions=store, vlm=world.Reader(), **SETTINGS
    )
    assert found.heldout.strong + found.heldout.ordinary == 45 and found.settings["images"] == {
        "fit": 150,
        "heldout": 45,
        "classes": 3,
        "fewest": 50,
    }
    bare = describe(
        world.encoder(), "features:1", probe=folder, holdout=0, captions=store, vlm=world.Reader(), **SETTINGS
    )
    assert bare.heldout is None and bare.settings["images"] == {"fit": 150, "heldout": 0, "classes": 3, "fewest": 50}


def test_files_that_are_gone_leave_grey_pictures(fitted, tmp_path):
    _, found = fitted
    example = found[0].high[0]
    gone = type(example)(str(tmp_path / "gone.png"), example.id, 1.0, box=example.box)
    assert (gone.pixels == 128).all() and Path(example.path).is_file() and read_image(example.path).id == example.id
