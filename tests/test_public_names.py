"""What is public at the top is there and documented."""

from __future__ import annotations

import inspect

import pytest

import encoscope
from encoscope.nave import JointSettings, NaveSettings
from encoscope.settings import Settings


@pytest.mark.parametrize("name", encoscope.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(encoscope, name)
    if name != "__version__":
        assert inspect.getdoc(value), name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmment'"):
        encoscope.segmment  # noqa: B018  # pyright: ignore


@pytest.mark.parametrize("settings", [NaveSettings, JointSettings])
def test_flags_and_functions_have_the_same_defaults(settings: type[Settings]) -> None:
    from encoscope.cli.segment import JointFlags, NaveFlags

    flags = {NaveSettings: NaveFlags, JointSettings: JointFlags}[settings]
    assert flags().changes() == {}  # nothing set on the command line: the preset's own values
    signature = inspect.signature(encoscope.segment if settings is NaveSettings else encoscope.Nave)
    for name in settings.infos():
        if name != "random_state":
            assert signature.parameters[name].default is None, name
    assert settings.from_preset() == settings()
