"""Give a network random weights, by the initialization of its own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

from encoscope.encoder.sources.base import fixed_seed
from encoscope.encoder.state_names import condense_names, format_names
from encoscope.errors import UsageError

UntrainedMaker: TypeAlias = Callable[[], Any]
"""A function without arguments that returns a network with random weights: a module or an Encoder."""

_TRAINED_BUFFERS = ("weight", "bias", "running_mean", "running_var")  # of frozen batch norms, which have no parameters


def reset_weights(module: nn.Module, random_state: int) -> None:
    """Draw all weights of a network anew, by the ``reset_parameters`` of its modules.

    Inner modules come first, as when a network is built, so that what contains them has the last word.

    Args:
        module: The network; it is changed.
        random_state: The seed.

    Raises:
        UsageError: For weights that no module's ``reset_parameters`` draws anew, by name, and for a network without
            weights.
    """
    before = {name: (value, value._version) for name, value in _list_weights(module)}
    if not before:
        raise UsageError("the network has no weights, so there is nothing to draw anew")
    with fixed_seed(random_state):
        for _, child in reversed(list(module.named_modules())):
            reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
            if callable(reset):
                reset()
    weights = dict(_list_weights(module))
    kept = [
        name
        for name, (value, version) in before.items()
        if weights.get(name) is value and value._version == version and value.numel()
    ]
    if kept:
        names = format_names(condense_names(kept, weights.keys() - set(kept)))
        owner = module.get_submodule(kept[0].rpartition(".")[0])
        raise UsageError(
            f"no reset_parameters draws {names} anew ({type(owner).__name__} has none): "
            "give untrained=, a function that returns the network with random weights"
        )


def _list_weights(module: nn.Module) -> list[tuple[str, Any]]:
    buffers = [
        (name, value)
        for name, value in module.named_buffers()
        if name.rpartition(".")[2] in _TRAINED_BUFFERS and value.is_floating_point()
    ]
    return [*module.named_parameters(), *buffers]
