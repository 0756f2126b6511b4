"""What ``as_encoder`` takes, and what it refuses."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError


def test_an_encoder_comes_back_as_it_is() -> None:
    encoder = Encoder(nn.Conv2d(3, 4, 3), size=32)
    assert as_encoder(encoder) is encoder


def test_a_module_gets_the_constructors_preprocessing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    encoder = as_encoder(module)
    assert encoder.module is module
    assert encoder.preprocess == Encoder(module).preprocess
    assert encoder.source == "python"


def test_a_source_string_is_loaded_with_the_given_arguments() -> None:
    encoder = as_encoder("timm:resnet10t", untrained=True, random_state=3, device="cpu")
    assert encoder.source == "timm:resnet10t@untrained"
    same = as_encoder("timm:resnet10t@untrained", random_state=3)
    for name, value in encoder.module.state_dict().items():
        assert torch.equal(value, same.module.state_dict()[name])


@pytest.mark.parametrize(("model", "name"), [(None, "NoneType"), (3, "int"), (nn.Module, "type"), (b"timm:x", "bytes")])
def test_other_types_are_named(model: Any, name: str) -> None:
    unchecked = inspect.unwrap(as_encoder)  # without the type checks that only the tests' import hook adds
    with pytest.raises(UsageError, match=f"not {name}$"):
        unchecked(model)


def test_loading_arguments_are_for_source_strings() -> None:
    with pytest.raises(UsageError, match=r"random_state.*Conv2d"):
        as_encoder(nn.Conv2d(3, 4, 3), random_state=1)
