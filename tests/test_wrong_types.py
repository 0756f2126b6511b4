"""Arguments of a type that cannot be: one line that says what is expected. In a process without the types' checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import torch
from torch import nn
import encoscope
from encoscope.errors import EncoscopeError

net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
encoder = encoscope.Encoder(net, size=32)
network = lambda **options: encoscope.Encoder(net, **options)
image = torch.zeros(3, 40, 40)
for line in sys.stdin.read().splitlines():
    try:
        eval(line)
        print("passed")
    except EncoscopeError as error:
        print(f"{type(error).__name__}: {error}")
    except BaseException as error:
        print(f"raw {type(error).__name__}: {error}")
"""

WRONG = {
    'encoscope.Encoder("timm:resnet18")': "UsageError: Encoder takes a torch.nn.Module, not str",
    "encoscope.Encoder(net.state_dict())": "UsageError: Encoder takes a torch.nn.Module, not OrderedDict",
    "encoscope.Encoder(nn.Conv2d)": "UsageError: Encoder takes a torch.nn.Module, not type",
    'network(size="224")': "UsageError: the input size is a number of pixels, or (height, width), not '224'",
    "network(size=(1, 2, 3))": "UsageError: the input size is a number of pixels, or (height, width), not (1, 2, 3)",
    "network(size=0)": "UsageError: input size is from 1 to",
    'network(mean="0.5")': "UsageError: mean is a number, or one for each channel, not '0.5'",
    "network(std=[None])": "UsageError: std is a number, or one for each channel, not [None]",
    'network(bands="4,3,2")': "UsageError: bands are numbers from 1 on, such as (4, 3, 2), not '4,3,2'",
    "network(bands=())": "UsageError: bands are numbers from 1 on",
    "encoscope.segment(None, image)": "UsageError: a model is an encoscope.Encoder",
    "encoscope.segment(encoder, 5)": "ImageError: int ",
    "encoscope.segment(encoder, None)": "ImageError: NoneType ",
    "encoscope.visualize(encoder, None, image)": "UsageError: a unit is a text such as layer4:485",
    "encoscope.visualize(encoder, 3, image)": "UsageError: a unit is a text such as layer4:485",
    "encoscope.visualize(encoder, [None], image)": "UsageError: a unit is a text such as layer4:485",
    "encoscope.circuit(encoder, 3, image)": "UsageError: a unit is a text such as layer4:485",
    "encoscope.probe(encoder, 5)": "UsageError: a dataset is a string, a folder or a list of files, not int",
    "encoscope.load(5)": "UsageError: a source is a text such as 'timm:resnet50', not 5",
    "encoscope.load('python@untrained')": "UsageError: unknown model 'python@untrained'",
    "encoscope.segment(encoder, image, layers=3)": "UsageError: layers are names",
}


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ENCOSCOPE_CACHE": str(tmp_path_factory.mktemp("c")),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        input="\n".join(WRONG),
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
        check=True,
    )
    return dict(zip(WRONG, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("call", WRONG)
def test_a_value_of_a_wrong_type_is_explained_in_one_line(call: str, messages: dict[str, str]) -> None:
    assert messages[call].startswith(WRONG[call]) and not messages[call].startswith(("raw", "passed")), messages[call]


def test_what_is_no_name_of_a_network_gets_no_suggestion(messages: dict[str, str]) -> None:
    message = messages["encoscope.load('python@untrained')"]
    assert "timm:python" not in message and message.endswith("has no source string: pass the encoder itself")
