from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import encoscope
from encoscope import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon import Concept, Description, DescriptionOutcome, explain_failure, fit_transfer
from encoscope.probing import Probe
from support import described_network as world


def test_contributions_add_up_to_the_logit(image_paths):
    encoder = encoscope.load("zoo:resnet-caltech101", device="cpu")
    found = explain_failure(encoder, image_paths["chelsea"], label="okapi", n_features=encoder.width)
    logits = encoder.logits(image_paths["chelsea"])[0]
    assert found.predicted == encoder.classes[int(logits.argmax())] and found.actual == "okapi"
    assert sum(item.contribution for item in found.features) + found.bias == pytest.approx(found.logit, abs=1e-3)
    assert found.logit == pytest.approx(float(logits.max()), abs=1e-3)
    parts = [item.contribution for item in found.features]
    assert parts == sorted(parts, reverse=True)
    best = found.features[0]
    assert best.contribution == pytest.approx(best.value * best.weight, rel=1e-5)
    h = encoder.features(image_paths["chelsea"])[0]
    weight = encoder.head.weight.detach()
    against = h * (weight[encoder.classes.index("okapi")] - weight[int(logits.argmax())])
    assert found.against[0].feature == int(against.argmax())


def test_a_prediction_that_cannot_be_told_is_refused(image_paths):
    headless = Encoder(world.ColorNetwork().see, size=32)
    with pytest.raises(UsageError, match="has no linear head"):
        explain_failure(headless, image_paths["china"])
    with pytest.raises(UsageError, match="there is no class 9"):
        explain_failure(world.encoder(), image_paths["china"], label=9)
    assert explain_failure(world.encoder(), image_paths["china"], label=0, n_features=1).actual == "red"


def probes(images: int = 400, noise: float = 0.1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, 6)).astype(np.float32) + 2
    y = x @ rng.normal(size=(6, 4)).astype(np.float32) + noise * rng.normal(size=(images, 4)).astype(np.float32) - 1
    y[:, 3] = 5
    ids = [f"{i:05d}" for i in range(images)]
    order = rng.permutation(images)
    return Probe.from_arrays(x, ids=ids), Probe.from_arrays(y[order], ids=[ids[i] for i in order]), x, y, order


def test_the_map_is_scikit_learns_ridge_and_its_r2_that_of_images_left_out():
    source, target, x, y, _ = probes()
    found = fit_transfer(source, target, penalties=(0.1,))
    from encoscope.images import split_images

    test = split_images(source.ids, 0.2, source.labels)
    assert (found.fitted, found.tested) == ((~test).sum(), test.sum())
    centred = x[~test] - x[~test].mean(0)
    ridge = Ridge(alpha=0.1 * float(np.square(centred).sum()) / 6).fit(x[~test], y[~test])
    np.testing.assert_allclose(found(x[test]), ridge.predict(x[test]), atol=1e-3)
    wanted = [r2_score(y[test][:, i], ridge.predict(x[test])[:, i]) for i in range(3)]
    np.testing.assert_allclose(found.r2[:3], wanted, atol=1e-4)
    assert np.isnan(found.r2[3]) and 0.9 < found.explained <= 1
    best = fit_transfer(source, target)
    assert best.penalty < 0.1 and best.explained > found.explained


def test_concepts_are_carried_by_their_share_in_the_map():
    source, target, _, _, _ = probes()
    found = fit_transfer(source, target)
    words = {
        i: Description(f"features:{i}", (Concept(f"word{i}", 1.0),), (), (), DescriptionOutcome.EXPLAINED, 5)
        for i in range(6)
    }
    carried = found.carry(words, 1, n_concepts=6)
    shares = np.maximum(found.weights[:, 1] * found.spread, 0)
    assert carried[0].word == f"word{int(shares.argmax())}"
    assert sum(concept.score for concept in carried) == pytest.approx(1)
    with pytest.raises(UsageError, match="no target feature 4"):
        found.carry(words, 4)


def test_probes_without_common_images_are_refused():
    source, target, *_ = probes()
    other = Probe.from_arrays(np.asarray(target.values), ids=[f"x{i}" for i in range(400)])
    with pytest.raises(EncoscopeError, match="0 images in common"):
        fit_transfer(source, other)
