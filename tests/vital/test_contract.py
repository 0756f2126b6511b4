"""Vital and Circuit keep scikit-learn's contract, and all that knows VITAL's settings agrees with them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

import encoscope
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.results import ResultList
from encoscope.vital import Circuit, ClassCircuit, Visualization, Vital, VitalSettings, circuit, visualize
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.settings import METHOD_SETTINGS, NOT_OF_CIRCUITS, CircuitSettings


@pytest.fixture(scope="module")
def encoder():
    return encoscope.load("timm:resnet10t@untrained")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four small images of noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


def test_a_clone_keeps_the_encoder_and_nothing_fitted(encoder, folder) -> None:
    vital = Vital(encoder, ["class:1"], steps=1, size=(32, 32), progress=False).fit(folder)
    copy = clone(vital)
    assert copy.encoder is encoder
    assert copy.units == ["class:1"] and not hasattr(copy, "targets_")
    with pytest.raises(UsageError, match="call fit first"):
        copy.synthesize()
    assert copy.set_params(steps=2).steps == 2
    assert "steps=1" in repr(vital) and "matching" not in repr(vital)
    assert "targets_" in vital._repr_mimebundle_()["text/html"]


def test_every_setting_is_an_explicit_argument() -> None:
    named = set(VitalSettings.infos())
    assert named <= set(inspect.signature(Vital).parameters)
    every = {name for kind in METHOD_SETTINGS.values() for name in kind.infos()}
    assert every <= set(inspect.signature(visualize).parameters)
    own = {*CircuitSettings.infos(), *named} - {*NOT_OF_CIRCUITS}
    assert own <= set(inspect.signature(circuit).parameters) and own <= set(inspect.signature(Circuit).parameters)


def test_a_typo_names_the_nearest(encoder, folder) -> None:
    with pytest.raises(UsageError, match=r"visualize has no setting 'step' .nearest: steps"):
        visualize(encoder, "class:1", folder, step=3)  # pyright: ignore
    with pytest.raises(UsageError, match=r"circuit has no setting 'n_channel' .nearest: n_channels"):
        circuit(encoder, "class:1", folder, n_channel=3)
    with pytest.raises(UsageError, match="matching goes with method vital, not with fourier"):
        visualize(encoder, "class:1", method="fourier", matching="moments")
    with pytest.raises(UsageError, match="a control is made from the same images: give references"):
        visualize(encoder, "class:1", control="untrained")


def test_one_unit_gives_one_result_and_a_list_a_list(encoder, folder) -> None:
    settings = {"steps": 1, "size": (32, 32), "progress": False}
    single = visualize(encoder, "class:1", folder, **settings)
    several = visualize("timm:resnet10t@untrained", ["class:1"], folder, **settings)
    assert isinstance(single, Visualization) and isinstance(several, ResultList)
    np.testing.assert_array_equal(single.image, several[0].image)
    (other,) = visualize(encoder, ["class:1"], method="fourier", **settings)
    assert other.method == "fourier" and other.settings["views"] == "wander"
    both = visualize(encoder, ["class:1", "class:2"], method="plugin", preset="paper", **settings)
    assert [each.unit for each in both] == ["class:1", "class:2"]


def test_the_preset_paper_is_pixels_against_absolute_losses(encoder, folder) -> None:
    settings = {"steps": 1, "size": (32, 32), "progress": False}
    first = visualize(encoder, "class:1", folder, preset="paper", **settings)
    second = visualize(encoder, "class:1", folder, parametrization="pixels", scale="absolute", **settings)
    np.testing.assert_array_equal(first.image, second.image)
    default = visualize(encoder, "class:1", folder, **settings).settings
    assert (default["parametrization"], default["scale"], default["lr"]) == ("pyramid", "references", 0.1)
    assert (first.settings["parametrization"], first.settings["scale"], first.settings["lr"]) == (
        "pixels",
        "absolute",
        1,
    )


def test_the_record_holds_all_that_changes_the_result(encoder, folder) -> None:
    settings = visualize(encoder, "class:1", folder, steps=1, size=(32, 32), progress=False).settings
    assert set(VitalSettings.infos()) - {"random_state"} <= set(settings)
    assert {"method", "recipe", "precision"} <= set(settings)
    assert settings["patch_size"] == 64 and settings["relevance"] == "none" and settings["jitter"] == 4
    together = visualize(encoder, ["class:1", "class:2"], method="deepinversion", steps=1, size=(32, 32))
    assert together[0].settings["batch"] == ["class:1", "class:2"]


def test_a_visualization_comes_back_with_its_control(encoder, folder, tmp_path) -> None:
    result = visualize(encoder, "class:1", folder, steps=2, size=(32, 32), control="untrained", progress=False)
    back = Visualization.load(result.save(tmp_path / "saved"))
    (control,), (loaded,) = result.controls, back.controls
    for one, other in ((result, back), (control, loaded)):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.transparency, other.transparency)
        np.testing.assert_array_equal(one.losses["loss"], other.losses["loss"])
        assert (one.name, one.model, one.control, one.steps, one.notes) == (
            *(other.name, other.model, other.control),
            *(other.steps, other.notes),
        )
    assert back.to_dict()["settings"] == result.to_dict()["settings"]
    assert result._repr_png_().startswith(b"\x89PNG") and "class:1" in result._repr_html_()
    with pytest.raises(MissingError):
        Visualization.load(tmp_path / "nothing")
    (tmp_path / "saved" / "class-1.arrays.npz").write_bytes(b"?")
    with pytest.raises(EncoscopeError, match="is damaged"):
        Visualization.load(tmp_path / "saved")


def test_a_circuit_comes_back(encoder, folder, tmp_path) -> None:
    settings = {"steps": 1, "size": (32, 32), "n_references": 2, "patch_size": 32, "progress": False}
    result = circuit(encoder, "class:1", folder, n_channels=2, ranking="gradient-input", **settings)
    assert [each.unit for each in result.channels] == [each.unit for each in result.visualizations[1:]]
    back = ClassCircuit.load(result.save(tmp_path / "saved"))
    assert back.channels == result.channels and back.ranking == "gradient-input" and back.n_images == 2
    np.testing.assert_array_equal(back.visualizations[2].image, result.visualizations[2].image)
    estimator = Circuit(encoder, "class:1", n_channels=2, ranking="gradient-input", **settings).fit(folder)
    assert tuple(estimator.channels_) == result.channels
    with pytest.raises(UsageError, match="ranking is one of lrp"):
        circuit(encoder, "class:1", folder, ranking="lpr")


def test_other_statistics_of_the_same_references_are_another_run(encoder, tmp_path) -> None:
    layer = encoder.layer("layer4")
    rng = np.random.default_rng(0)

    def prototype(seed: int, **changes) -> Prototype:
        values = torch.from_numpy(np.random.default_rng(seed).random((layer.channels, 4), np.float32))
        return Prototype({"layer4": values.sort(1).values}, 2, ("a", "b"), **changes)

    def run(statistics: Prototype) -> np.ndarray:
        settings = {"preset": "paper", "layers": ["layer4"], "weights": [1.0], "cache_dir": tmp_path, "progress": False}
        return visualize(encoder, "class:1", {"class:1": statistics}, steps=2, size=(32, 32), **settings).image

    first, second = prototype(0), prototype(1)
    images = [run(statistics) for statistics in (first, second, first)]
    np.testing.assert_array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])
    weights = torch.from_numpy(rng.random(layer.channels, np.float32))
    different = [
        first,
        second,
        Prototype({"layer3": first.values["layer4"]}, 2, ("a", "b")),
        Prototype({"layer4": first.values["layer4"].double()}, 2, ("a", "b")),
        Prototype({"layer4": first.values["layer4"].bfloat16()}, 2, ("a", "b")),
        Prototype({"layer4": first.values["layer4"].reshape(-1, 2)}, 2, ("a", "b")),
        prototype(0, channel_weights={"layer4": weights}),
        prototype(0, shrinkage={"layer4": 0.5}),
        prototype(0, shrinkage={"layer4": 0.25}),
    ]
    assert len({statistics.digest for statistics in different}) == len(different)
    assert prototype(0, notes=("a note",), activation=1.0).digest == first.digest
