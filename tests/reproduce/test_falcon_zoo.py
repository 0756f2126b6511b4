from __future__ import annotations

import pytest

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest
from encoscope.falcon import Concept, Description, DescriptionOutcome
from encoscope.falcon.captions.build import embed_captions
from encoscope.images import list_images
from encoscope.reproduce.falcon import zoo
from encoscope.reproduce.falcon.label_hits import (
    collect_words,
    compare_contrast,
    compute_curve,
    interpolate_precision,
    measure_hits,
)
from encoscope.zoo.attributes import load_class_words
from support import described_network as world


def said(*words: str, phrases: tuple[str, ...] = ()) -> Description:
    concepts, of_phrases = (tuple(Concept(word, 1.0) for word in part) for part in (words, phrases))
    return Description("class:0", concepts, of_phrases, (), DescriptionOutcome.EXPLAINED, 5)


def table(*folders: str):
    by_folder = {entry.folder: entry for entry in load_class_words()}
    return [by_folder[folder] for folder in folders]


def test_right_words_are_those_of_names_and_attributes():
    (leopard,) = table("Leopards")
    found = collect_words(leopard)
    assert {"leopard", "cat", "whisker", "fur", "spotted", "golden", "savanna", "hunting"} <= found
    assert "wing" not in found and "the" not in found


def test_hits_and_their_controls():
    entries = table("Leopards", "airplanes", "panda")
    found = [said("leopard", "spotted", "wing"), said("tail", "leopard", "spotted"), said("dog")]
    measured = measure_hits(found, entries)
    own = [2 / 3, 1 / 3, 0.0]  # an airplane has a tail, and so has a leopard
    assert measured.precision.value == pytest.approx(sum(own) / 3)
    others = [((1 / 3) + 0) / 2, (3 / 3 + 0) / 2, 0.0]
    assert measured.permuted == pytest.approx(sum(others) / 3, abs=0.12)
    assert measured.lift.value == pytest.approx(measured.precision.value - measured.permuted)
    assert measured.any_right == pytest.approx(2 / 3)
    assert measured.named == pytest.approx(1 / 2)  # the panda's name is in no caption: it does not count
    assert len(measured.constant_words) == 3 and measured.constant > 0


def test_a_name_of_several_words_is_all_of_them_or_a_phrase():
    entries = table("ceiling_fan", "ceiling_fan", "ceiling_fan")
    found = [said("fan", "wall"), said("fan", "ceiling"), said("wall", phrases=("ceiling fan",))]
    assert measure_hits(found, entries).named == pytest.approx(2 / 3)


def test_precision_is_read_at_equal_recall():
    entries = table("Leopards")
    points = compute_curve([said("leopard", "wing", "spotted")], entries, 3)
    count = len(collect_words(entries[0]))
    assert points == [
        (pytest.approx(1 / count), 1.0),
        (pytest.approx(1 / count), 0.5),
        (pytest.approx(2 / count), pytest.approx(2 / 3)),
    ]
    assert interpolate_precision(points, 0.9) is None
    gain = compare_contrast([(0.1, 1.0), (0.2, 0.9), (0.3, 0.8)], [(0.1, 0.8), (0.2, 0.7), (0.4, 0.5)])
    assert gain == {"recall": 0.3, "contrast": pytest.approx(0.8), "no_contrast": pytest.approx(0.6)}


def test_the_whole_evaluation_on_a_small_world(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    entries = table("Leopards", "airplanes", "panda")
    monkeypatch.setattr(zoo, "load_class_words", lambda: entries)
    experiment = zoo.ZooExperiment(
        encoder=world.encoder(),
        vlm=world.Reader(),
        captions=embed_captions(world.CAPTIONS, world.Reader(), tmp_path / "store"),
        fit_images=list_images(world.write_images(tmp_path / "made", 60)),
        heldout_images=list_images(world.write_images(tmp_path / "test", 45, seed=5)),
    )
    report = zoo.evaluate(experiment, more_than=3)
    assert [row["preset"] for row in report.rows] == list(zoo.PRESETS) and report.rows[0]["name in top 3"] == 0
    assert [row["described as"] for row in report.further["features"]] == list(zoo.HIDDEN)
    aucs = {row["predictive AUC of"]: row["mean over features"] for row in report.further["AUC"]}
    assert aucs["falcon"].value > aucs["control: permuted"].value
    assert report.settings["fit"] == 60 and sum(row["kind"] == "group" for row in report.further["groups"]) <= 4
    assert {row["unit"] for row in report.further["examples"]} >= {"Leopards", "features:0"}
    page = report.save(tmp_path / "out", "encoscope reproduce falcon-zoo").read_text()
    assert "| paper |" in page and "## Features" in page and "Contrast at equal concept recall" in page


def test_wrong_usage_is_told():
    with pytest.raises(UsageError, match="takes one --dataset"):
        zoo.run(EvaluationRequest())
    with pytest.raises(UsageError, match="without a split"):
        zoo.run(EvaluationRequest((), ("caltech101:ROOT#train",)))
    with pytest.raises(UsageError, match=r"no setting 'feature' .nearest: features"):
        zoo.run(EvaluationRequest((), ("caltech101:ROOT",), options={"feature": 3}))
