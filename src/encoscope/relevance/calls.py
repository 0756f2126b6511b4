"""A call of a torch function, as the rules of LRP see it: its arguments, and what is known of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from encoscope.errors import EncoscopeError

RelevanceRule: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
"""Takes the relevance of an operation's output to the relevance of each of its inputs."""


@dataclass(frozen=True)
class TorchCall:
    """A call of a torch function.

    Attributes:
        name: The function's name.
        function: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Get an argument, passed by position or by name.

        Args:
            position: Its position.
            name: Its name.
            default: Its value if it was not passed.

        Returns:
            Its value.
        """
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def replace(self, tensors: Mapping[int, Tensor]) -> Any:
        """Call the function with other tensors.

        Args:
            tensors: What to put in the place of a tensor, by the id of that tensor.

        Returns:
            What the function gives.
        """
        args, kwargs = _replace((self.args, dict(self.kwargs)), tensors)
        return self.function(*args, **kwargs)


@dataclass(frozen=True)
class ValueFacts:
    """What the structure of a network says of a value, whatever the image.

    Attributes:
        computed: It is computed from the image; parameters, masks and positions are not.
        hidden: It is computed from the image by a layer with weights.
        nonnegative: It cannot be below 0.
        bounded: It is a weight of attention or a gate, or computed as one is: between two bounds.
        untraced: It is computed outside of torch's functions, so that it is not known from what.
    """

    computed: bool = False
    hidden: bool = False
    nonnegative: bool = False
    bounded: bool = False
    untraced: bool = False


class SavedTensor:
    """A tensor without its graph, which can be read again unless it was changed in place.

    Args:
        tensor: The tensor.
        name: The operation that it belongs to, for messages.
    """

    def __init__(self, tensor: Tensor, name: str) -> None:
        self._tensor, self._version, self._name = tensor.detach(), tensor._version, name

    def __call__(self) -> Tensor:
        """The tensor; EncoscopeError if it was overwritten."""
        if self._tensor._version != self._version:
            raise EncoscopeError(
                f"the network changes the input of {self._name} in place afterwards, so LRP cannot use it: "
                "use method='gradient-input'"
            )
        return self._tensor


def copy_containers(value: Any) -> Any:
    """Copy the lists and mappings of an argument, which a network may change after the call.

    Args:
        value: The argument.

    Returns:
        The same tensors and other values, in containers of their own.
    """
    return _replace(value, {})


def find_tensors(value: Any) -> Iterator[Tensor]:
    """Find the tensors in an argument or a result.

    Args:
        value: A tensor, or tuples, lists and mappings that may hold tensors.

    Yields:
        The tensors, in order.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from find_tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from find_tensors(item)


def _replace(value: Any, tensors: Mapping[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return tensors.get(id(value), value)
    if isinstance(value, dict):
        return {key: _replace(item, tensors) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_replace(item, tensors) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
