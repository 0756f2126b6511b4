from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from torch import nn

from encoscope.encoder import Encoder
from encoscope.experiments import panoptic_miou
from encoscope.images.panoptic import Panoptic


@pytest.fixture
def halves(tmp_path):
    """A photo whose left half is red and right half blue, labelled so, with an unlabelled row."""
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, :16, 0], pixels[:, 16:, 2] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    labels = np.where(np.arange(32)[None] < 16, 1, 184) * np.ones((32, 1), dtype=np.int64)
    labels[0] = -1
    return Panoptic(tmp_path / "1.png", labels, {1: "person", 184: "tree"})


def test_a_network_that_sees_colour_parts_the_halves(halves):
    colour = nn.Sequential(nn.AvgPool2d(4))
    encoder = Encoder(colour, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert panoptic_miou.scores(encoder, [halves], [2]) == {2: [1.0]}


def test_the_command_prints_both_and_their_difference(halves, tmp_path, monkeypatch, capsys):
    calls = iter([{3: [0.5, 0.7]}, {3: [0.25, 0.45]}])
    monkeypatch.setattr(panoptic_miou, "load", lambda *args, **kwargs: None)
    monkeypatch.setattr(panoptic_miou, "scores", lambda *args, **kwargs: next(calls))
    monkeypatch.setattr(panoptic_miou, "panoptic", lambda *args: iter([halves, halves]))
    assert panoptic_miou.main([str(tmp_path), "x.json", "--clusters", "3", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["trained"]["value"] == 0.6 and row["untrained"]["value"] == 0.35
    assert row["difference"]["low"] == pytest.approx(0.25) == row["difference"]["high"]


def test_missing_annotations_are_a_line_and_a_code(tmp_path, capsys):
    assert panoptic_miou.main([str(tmp_path), str(tmp_path / "none.json")]) == 3
    assert "give COCO's panoptic JSON" in capsys.readouterr().err
