"""Falcon keeps scikit-learn's contract, and all that knows FALCON's settings agrees with them."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
from sklearn.base import clone

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon import (
    CaptionStore,
    Description,
    Descriptions,
    Falcon,
    FalconSettings,
    build_captions,
    describe,
    explain_failure,
    groups,
)
from encoscope.falcon.captions.build import embed_captions
from support import described_network as world

SETTINGS = {"alpha_stds": 0.3, "beta": 0.03, "spurious_threshold": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world.write_images(tmp_path_factory.mktemp("images"), 90)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return embed_captions(world.CAPTIONS, world.Reader(), tmp_path_factory.mktemp("captions") / "store")


@pytest.fixture(scope="module")
def models(store, tmp_path_factory):
    return {"captions": store, "vlm": world.Reader(), "cache_dir": tmp_path_factory.mktemp("cache")}


def test_a_clone_keeps_the_encoder_and_nothing_fitted(folder, models):
    encoder = world.encoder()
    falcon = Falcon(encoder, **models, **SETTINGS).fit(folder)
    falcon.describe("features:0")
    copy = clone(falcon)
    assert copy.encoder is encoder and copy.vlm is falcon.vlm and copy.alpha_stds == 0.3
    assert not hasattr(copy, "spaces_")
    with pytest.raises(UsageError, match="call fit first"):
        copy.describe("features:0")
    assert copy.set_params(beta=0.1).get_params()["beta"] == 0.1
    assert "alpha_stds=0.3" in repr(falcon) and "n_concepts" not in repr(falcon)


def test_every_setting_is_an_explicit_argument():
    named = set(FalconSettings.infos())
    for function in (describe, Falcon, explain_failure):
        assert named <= set(inspect.signature(function).parameters)
    assert {"preset", "mode", "alpha_stds", "more_than", "largest"} <= set(inspect.signature(groups).parameters)


def test_the_default_preset_is_the_papers_but_for_the_images_behind_a_unit():
    default, paper = FalconSettings.from_preset(), FalconSettings.from_preset("paper", min_images=5)
    assert default.as_key() == paper.as_key() and default != FalconSettings.from_preset("authors")
    numbers = [FalconSettings.from_preset(name).min_images for name in ("default", "paper", "authors")]
    assert numbers == [5, 1, 11]


def test_a_typo_names_the_nearest(folder):
    for function in (describe, groups, explain_failure):
        with pytest.raises(UsageError, match=r"has no setting 'alpha_std' .nearest: alpha"):
            function(world.encoder(), "features:0", probe=folder, alpha_std=3)  # pyright: ignore


def test_settings_import_nothing_heavy():
    import subprocess

    code = "import sys, encoscope.falcon.settings; print({'torch', 'numpy', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_batch_size_changes_nothing(folder, models, tmp_path):
    expected = describe(world.encoder(), "features:1", probe=folder, **models, **SETTINGS)
    options = {**models, "cache_dir": tmp_path}
    small = describe(world.encoder(), "features:1", probe=folder, batch_size=3, **options, **SETTINGS)
    assert small.words == expected.words
    np.testing.assert_allclose([c.score for c in small.concepts], [c.score for c in expected.concepts], atol=1e-5)
    with pytest.raises(UsageError, match="batch_size"):
        describe(world.encoder(), "features:1", probe=folder, batch_size=0, **models)


def test_descriptions_load_again_from_their_folder(folder, models, tmp_path):
    described = describe(
        world.encoder(), ["features:0", "features:4", "see:2"], probe=folder, control="permuted", **models, **SETTINGS
    )
    assert isinstance(described, Descriptions)
    loaded = Descriptions.load(described.save(tmp_path / "several"))
    assert loaded.summary == described.summary and len(loaded) == 3
    for before, after in zip(described, loaded, strict=True):
        assert (after.unit, after.concepts, after.phrases, after.spurious) == (
            before.unit,
            before.concepts,
            before.phrases,
            before.spurious,
        )
        assert (after.outcome, after.note, after.heldout, after.clarity, after.seed) == (
            before.outcome,
            before.note,
            before.heldout,
            before.clarity,
            before.seed,
        )
        assert [example.id for example in after.high] == [example.id for example in before.high]
        np.testing.assert_array_equal(after.draw_sheet(), before.draw_sheet())
        for first, second in zip(before.high, after.high, strict=True):
            assert first.cam is not None and second.cam is not None
            np.testing.assert_array_equal(first.cam, second.cam)
            assert first.box == second.box and first.captions == second.captions
    with pytest.raises(EncoscopeError, match=r"3 descriptions: read it with Descriptions\.load"):
        Description.load(tmp_path / "several")
    single = Description.load(described[0].save(tmp_path / "single"))
    assert single.words == described[0].words and single.model == described[0].model
    assert single.to_dict()["descriptions"][0]["concepts"] == described[0].to_dict()["descriptions"][0]["concepts"]
    with pytest.raises(MissingError):
        Description.load(tmp_path / "nothing")


def test_a_result_shows_itself_in_a_notebook(folder, models):
    description = describe(world.encoder(), "features:0", probe=folder, **models, **SETTINGS)
    assert description._repr_png_().startswith(b"\x89PNG")
    page = description._repr_html_()
    assert "features:0: red" in page and "data:image/png;base64," in page


def test_groups_and_failures_are_functions_too(folder, models):
    falcon = Falcon(world.encoder(), holdout=0, alpha_stds=0.3, **models).fit(folder)
    expected = [(group.unit, group.images, group.clarity) for group in falcon.find_groups(more_than=5)]
    found = groups(world.encoder(), probe=folder, more_than=5, alpha_stds=0.3, **models)
    assert [(group.unit, group.images, group.clarity) for group in found] == expected and expected
    image = sorted((folder / "red").iterdir())[0]
    bare = explain_failure(world.encoder(), image, label="blue", n_features=2)
    failure = explain_failure(world.encoder(), image, probe=folder, label="blue", n_features=2, **models, **SETTINGS)
    assert bare.as_dict() == failure.as_dict() and bare.features[0].description is None
    assert failure.features[0].description is not None and "red" in failure.features[0].description.words
    assert failure.to_dict()["prediction"]["predicted"] == "red"


def test_captions_are_built_by_one_function(store, tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(world.CAPTIONS))
    built = build_captions(file, world.Reader(), tmp_path / "store")
    assert isinstance(built, CaptionStore) and list(built) == list(store) and built.digest == store.digest
    with pytest.raises(MissingError, match="no such file or folder"):
        build_captions(tmp_path / "nothing.txt", world.Reader(), tmp_path / "other")
    with pytest.raises(MissingError, match="holds no shards"):
        build_captions(tmp_path, world.Reader(), tmp_path / "other")
    with pytest.raises(UsageError, match="vectors of images go with a folder"):
        build_captions(file, world.Reader(), tmp_path / "other", kind="image")
