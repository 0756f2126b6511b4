"""Make an encoder of whatever a function was called with."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from encoscope.encoder.encoder import Encoder
from encoscope.encoder.load import load
from encoscope.errors import UsageError

_log = logging.getLogger("encoscope")


class ModelString(str):
    """A source string with the options that it is loaded with.

    A function that takes a model loads it when it needs the network, so what else is wrong is refused before.

    Args:
        source: The source string.
        **loading: Keyword arguments of ``load``.
    """

    source: str
    loading: dict[str, Any]

    def __new__(cls, source: str, **loading: Any) -> ModelString:  # noqa: D102 - the class says it
        self = super().__new__(cls, source)
        self.source = source  # the default model stays what it is
        self.loading = loading
        return self


def as_encoder(model: Encoder | nn.Module | str, **loading: Any) -> Encoder:
    """Turn an encoder, a network or a source string into an encoder.

    Args:
        model: an ``Encoder``, which comes back as it is; a ``torch.nn.Module``, which becomes ``Encoder(model)`` with
            the constructor's default preprocessing (224 x 224 pixels, ImageNet's mean and standard deviation), which
            is said in a warning; or a
            source string such as ``"timm:resnet18"``, which is given to ``load``.
        **loading: keyword arguments of ``load`` (``untrained``, ``checkpoint``, ``device``, ``random_state``,
            ``trust``, ``precision``, ``mean``, ``std``, ``input_size``, ``interpolation``, ``bands``). They are for
            source strings only.

    Returns:
        The encoder.

    Raises:
        UsageError: for a model of any other type, and for loading arguments beside an encoder or a network.
        MissingError: for the weights of a source string that are not available.

    Example:
        >>> from torch import nn
        >>> as_encoder(nn.Conv2d(3, 8, 3)).source
        'python'
    """
    if isinstance(model, ModelString):
        return load(model.source, **{**model.loading, **loading})
    if isinstance(model, str):
        return load(model, **loading)
    if not isinstance(model, (Encoder, nn.Module)):
        raise UsageError(
            f"a model is an encoscope.Encoder, a torch.nn.Module or a source string such as 'timm:resnet18', "
            f"not {type(model).__name__}"
        )
    if loading:
        raise UsageError(f"{', '.join(loading)}: for source strings only; this model is a {type(model).__name__}")
    if isinstance(model, Encoder):
        return model
    encoder = Encoder(model)
    for note in encoder.preprocess_notes:
        _log.warning("%s", note)
    return encoder
