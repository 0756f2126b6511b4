"""The network that is taken where none was named, and that this is said."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import pytest

import encoscope
from encoscope.cli import app as cli
from encoscope.encoder import as_encoder
from encoscope.encoder.convert import ModelString
from encoscope.errors import UsageError
from encoscope.zoo.registry import DEFAULT, DEFAULT_MODEL

SAID = f"no model was named: {DEFAULT} is taken"


def test_load_takes_the_networks_of_the_zoo_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "encoscope")
    encoder = encoscope.load(device="cpu")
    assert (encoder.source, encoder.outputs) == (DEFAULT, 1000)
    assert [record.getMessage() for record in caplog.records if SAID in record.getMessage()] != []
    caplog.clear()
    assert encoscope.load(DEFAULT, device="cpu").digest == encoder.digest
    assert SAID not in caplog.text  # it was named


@pytest.mark.parametrize(
    "model",
    [
        DEFAULT_MODEL,
        ModelString(DEFAULT_MODEL, untrained=True),
        copy.deepcopy(DEFAULT_MODEL),  # as scikit-learn's clone does
        pickle.loads(pickle.dumps(DEFAULT_MODEL)),
    ],
    ids=["plain", "deferred", "cloned", "pickled"],
)
def test_it_is_said_wherever_the_default_went(model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "encoscope")
    as_encoder(model)
    assert caplog.text.count(SAID) == 1


def test_weights_of_an_unnamed_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model was named: which network are the weights .*own\.pth of"):
        encoscope.load(checkpoint=tmp_path / "own.pth")


@pytest.mark.parametrize("verb", [["layers"], ["layers", "--json"], ["layers", "--untrained"]])
def test_verbs_say_it_in_one_line_on_stderr(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(verb) == 0
    printed = capsys.readouterr()
    assert printed.err.count(SAID) == 1
    assert SAID not in printed.out
    assert cli.run([*verb, DEFAULT]) == 0
    assert SAID not in capsys.readouterr().err
