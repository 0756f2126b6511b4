"""Nave keeps scikit-learn's contract, and all that knows NAVE's settings agrees with them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.base import clone

import encoscope
from encoscope.errors import UsageError
from encoscope.nave import JointSettings, Nave, NaveSettings, segment
from encoscope.results import ResultList


@pytest.fixture(scope="module")
def encoder():
    return encoscope.load("timm:resnet10t@untrained")


def test_a_clone_keeps_the_encoder_and_nothing_fitted(encoder, image_paths) -> None:
    nave = Nave(encoder, n_clusters=3, layers=["layer3"], size=48, progress=False)
    nave.fit([image_paths["chelsea"]])
    copy = clone(nave)
    assert copy.encoder is encoder
    assert copy.layers == ["layer3"] and copy.layers is not nave.layers
    assert not hasattr(copy, "codebook_")
    with pytest.raises(UsageError, match="call fit first"):
        copy.predict([image_paths["chelsea"]])
    assert copy.set_params(n_clusters=2).n_clusters == 2
    assert "n_clusters=3" in repr(nave) and "grouping" not in repr(nave)
    assert "n_iter_" in nave._repr_mimebundle_()["text/html"]


def test_fit_predict_is_fit_and_then_predict(encoder, image_paths) -> None:
    paths = [image_paths["chelsea"], image_paths["coffee"]]
    together = Nave(encoder, n_clusters=3, size=48, progress=False).fit_predict(paths)
    nave = Nave(encoder, n_clusters=3, size=48, progress=False).fit(paths)
    assert isinstance(together, ResultList)
    for first, second in zip(together, nave.predict(paths), strict=True):
        np.testing.assert_array_equal(first.labels, second.labels)


def test_every_setting_is_an_explicit_argument() -> None:
    named = list(NaveSettings.infos())
    assert set(named) <= set(inspect.signature(segment).parameters)
    assert {*named, *JointSettings.infos()} <= set(inspect.signature(Nave).parameters)


def test_a_typo_names_the_nearest(encoder, image_paths) -> None:
    with pytest.raises(UsageError, match=r"segment has no setting 'n_cluster' .nearest: n_clusters"):
        segment(encoder, image_paths["chelsea"], n_cluster=3)  # pyright: ignore


def test_modules_and_sources_are_encoders_too(encoder, image_paths) -> None:
    expected = segment(encoder, image_paths["coffee"], n_clusters=3, size=64).labels
    by_source = segment("timm:resnet10t@untrained", image_paths["coffee"], n_clusters=3, size=64)
    np.testing.assert_array_equal(by_source.labels, expected)
    assert by_source.settings["preset"] == "default"
    module = segment(encoder.module, image_paths["coffee"], n_clusters=3, size=64)
    assert module.labels.shape == expected.shape


def test_a_result_shows_itself_in_a_notebook(encoder, image_paths) -> None:
    segmentation = segment(encoder, image_paths["coffee"], n_clusters=3, size=64)
    assert segmentation._repr_png_().startswith(b"\x89PNG")
    page = segmentation._repr_html_()
    assert "3 clusters" in page and "data:image/png;base64," in page
    document = segmentation.to_dict()
    assert document["format"] == "encoscope.segmentation/1" and document["images"][0]["clusters"] == 3
    (entry,) = segment(encoder, [image_paths["coffee"]], n_clusters=3, size=64)
    np.testing.assert_array_equal(entry.labels, segmentation.labels)


def test_controls_and_stability_by_one_call(encoder, image_paths) -> None:
    options = {"n_clusters": 3, "size": 64}
    controls = encoscope.controls(encoder, image_paths["coffee"], **options)
    assert list(controls) == ["untrained", "color"]
    segmentation = segment(encoder, image_paths["coffee"], **options)
    for control in controls.values():
        assert control.labels.shape == segmentation.labels.shape and control.n_clusters == 3
        assert (control.labels != segmentation.labels).any()
    with pytest.raises(UsageError, match="a control is untrained or color, not 'grey'"):
        encoscope.controls(encoder, image_paths["coffee"], ["grey"], **options)
    stability = encoscope.stability(encoder, image_paths["coffee"], runs=2, **options)
    assert len(stability.starts) == 1 and len(stability.crops) == 4
