"""Load the weights of a checkpoint file into a network, whatever the file's format, and log what does not fit."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from encoscope.counting import count_noun
from encoscope.encoder.adapters import has_adapter, locate_adapter, merge_adapter
from encoscope.encoder.sources.base import SourceRequest
from encoscope.encoder.state_names import condense_names, format_names, matches_pattern
from encoscope.encoder.weights_file import StateDict, check_tensors, find_state_dicts, read_weights_file
from encoscope.encoder.weights_match import MIN_MATCHED_SHARE, StateCandidate, StateConverter, find_best_candidate
from encoscope.errors import EncoscopeError

_log = logging.getLogger("encoscope")

_PART = re.compile(r"-\d{5}-of-(\d{5})\.")
# Names in checkpoints of self-supervised training, whose head is a projection and not a classifier.
_PROJECTIONS = (
    "teacher",
    "student",
    "encoder_q",
    "encoder_k",
    "momentum",
    "projector",
    "projection",
    "online",
    "target_",
)


@runtime_checkable
class NetworkBuilder(Protocol):
    """A function that builds a network with random weights."""

    def __call__(self, classes: int | None = None, channels: int | None = None) -> nn.Module:
        """Build the network.

        Args:
            classes: Number of outputs of its classifier; None is the network's own, 0 removes the classifier.
            channels: Number of input channels; None is the network's own.

        Returns:
            The network.
        """
        ...


def load_checkpoint(
    request: SourceRequest, build_network: NetworkBuilder, converter: StateConverter | None = None
) -> nn.Module:
    """Build a network and load the weights of a request's file into it.

    The entry of the file ("state_dict", "teacher", ...) and the prefix of its names ("module.", "backbone.",
    "encoder_q.", ...) are those that match the network best. An adapter of the library peft in the file is merged into
    the weights. If the file has another number of classes or of input channels, the network is built with that number;
    if it has no classifier, the network loses its own. No other weight stays random unless the request allows it, and
    no tensor that belongs inside the network is left unused.

    Args:
        request: Names the file, and the tensors that it may lack or have too many. Its ``record`` gets what was
            decided: "entry", "merged_adapter", "removed", "missing" and "unused", each where there is any.
        build_network: Builds the network.
        converter: Converts the names and shapes that a family of networks was published with to the network's own;
            None if no conversion is known.

    Returns:
        The network with the file's weights.

    Raises:
        MissingError: If the file does not exist.
        EncoscopeError: If the file cannot be read without running code, or does not fit the network.
    """
    if request.checkpoint is None:
        raise ValueError("the request names no checkpoint")
    path = locate_adapter(request.checkpoint)[0]
    part = _PART.search(path.name)
    if part is not None and int(part[1]) > 1:
        raise EncoscopeError(
            f"checkpoint {path} is one of {int(part[1])} files of weights: name their index (.index.json) or folder"
        )
    module = build_network()
    states = dict(find_state_dicts(read_weights_file(path)))
    adapted = [label for label, state in states.items() if has_adapter(state)]
    states |= {label: merge_adapter(states[label], path) for label in adapted}
    chosen = find_best_candidate(list(states.items()), module, converter)
    if chosen is None or not chosen.state:
        raise EncoscopeError(f"checkpoint {path} holds no weights that match this network")
    if chosen.label:
        _log.info("checkpoint %s: weights taken from %s", path.name, chosen.label)
        request.record["entry"] = chosen.label
    if any(chosen.label.startswith(label) for label in adapted):
        _log.info("checkpoint %s: its adapter was merged into the weights", path.name)
        request.record["merged_adapter"] = True
    own = module.state_dict().keys()
    check_tensors({name: tensor for name, tensor in chosen.state.items() if name in own}, path)
    module = _rebuild(module, chosen, build_network, request, path)
    _load_state(module, chosen, request, path)
    return module


def _rebuild(
    module: nn.Module, chosen: StateCandidate, build_network: NetworkBuilder, request: SourceRequest, path: Path
) -> nn.Module:
    """Build the network for the file's number of classes and channels; without a head if the file has none."""
    mismatched = _find_mismatched_shapes(module, chosen.state)
    channels = _find_channels(module, mismatched)
    head = _find_head(module)
    weight = chosen.state.get(f"{head}.weight")
    projection = any(word in name for word in _PROJECTIONS for name in (chosen.label, *chosen.others))
    classes = weight.shape[0] if weight is not None and f"{head}.weight" in mismatched and not projection else None
    if channels is not None or classes is not None:
        module = build_network(classes=classes, channels=channels)
    if head is None:
        return module
    if weight is None and matches_pattern(f"{head}.weight", request.allow_missing):
        return module
    if weight is None or projection or f"{head}.weight" in _find_mismatched_shapes(module, chosen.state):
        for parameter in ("weight", "bias"):
            chosen.state.pop(f"{head}.{parameter}", None)
        removed = _drop_heads(module, chosen.state)
        reason = "has no classifier for this network" if weight is None else "has another head"
        _log.warning(
            "checkpoint %s %s: the network's %s is removed, so there are features but no classes",
            path.name,
            reason,
            ", ".join(removed),
        )
        request.record["removed"] = removed
    elif classes is not None:
        _log.info("checkpoint %s: its own head of %d classes is used (%s)", path.name, classes, head)
    return module


def _find_channels(module: nn.Module, mismatched: Mapping[str, tuple[int, ...]]) -> int | None:
    """The file's number of input channels, if only that differs between its first convolution and the network's."""
    first = next(((name, tuple(value.shape)) for name, value in module.state_dict().items() if value.ndim == 4), None)
    if first is None or first[0] not in mismatched:
        return None
    (outputs, _, *kernel), shape = first[1], mismatched[first[0]]
    return shape[1] if len(shape) == 4 and (shape[0], *shape[2:]) == (outputs, *kernel) else None


def _find_mismatched_shapes(module: nn.Module, state: StateDict) -> dict[str, tuple[int, ...]]:
    """The file's shapes that differ from the network's, in the network's order."""
    own = module.state_dict().items()
    return {name: tuple(state[name].shape) for name, value in own if name in state and state[name].shape != value.shape}


def _find_weighted_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    named = module.named_modules()
    return [(name, child) for name, child in named if name and next(child.parameters(recurse=False), None) is not None]


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _find_head(module: nn.Module) -> str | None:
    """The last linear layer (or 1x1 convolution) if no weights come after it: the place of a classifier."""
    weighted = _find_weighted_modules(module)
    if not weighted or not _is_head(weighted[-1][1]) or _is_repeated(weighted[-1][0], module):
        return None
    return weighted[-1][0]


def _is_repeated(name: str, module: nn.Module) -> bool:
    """Whether a layer has its like in another of several blocks (``blocks.11.mlp.fc2``), and so is no classifier."""
    parts, names = name.split("."), {key for key, _ in module.named_modules()}
    for index, part in enumerate(parts[:-1]):
        if (
            part.isdigit()
            and int(part)
            and ".".join([*parts[:index], str(int(part) - 1), *parts[index + 1 :]]) in names
        ):
            return True
    return False


def _drop_heads(module: nn.Module, state: StateDict) -> list[str]:
    """Replace the last linear layers of the network by identities, as far as the checkpoint has no weights for them."""
    removed = []
    for name, child in reversed(_find_weighted_modules(module)):
        if not _is_head(child) or f"{name}.weight" in state or _is_repeated(name, module):
            break
        module.set_submodule(name, nn.Identity())
        removed.append(name)
    if hasattr(module, "num_classes"):
        setattr(module, "num_classes", 0)  # noqa: B010
    return removed


def _load_state(module: nn.Module, chosen: StateCandidate, request: SourceRequest, path: Path) -> None:
    own = module.state_dict()
    for name, shape in _find_mismatched_shapes(module, chosen.state).items():
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: {name} is {_format_shape(shape)} in the "
            f"file, {_format_shape(own[name].shape)} in the network"
        )
    known = own.keys() & chosen.state.keys()
    missing = _find_missing(own, known)
    allowed = [name for name in missing if matches_pattern(name, request.allow_missing)]
    if len(known) + len(allowed) < MIN_MATCHED_SHARE * len(own):
        raise EncoscopeError(
            f"checkpoint {path} does not fit this network: only {len(known)} of its {len(own)} tensors are in the file"
            f" (the file has {format_names(list(chosen.state), 4)}; the network has {format_names(list(own), 4)})"
        )
    if missing:
        request.record["missing"] = check_missing(
            f"checkpoint {path}", missing, [name for name in own if own[name].is_floating_point()], request
        )
    unused = [name for name in chosen.state if name not in known]
    inside = [name for name in _find_inside(unused, own) if not matches_pattern(name, request.allow_unused)]
    if inside:
        patterns = condense_names(inside, known)
        raise EncoscopeError(
            f"checkpoint {path} is of another network: it has {count_noun(len(inside), 'tensor')} inside modules that "
            f"this network has without them: {format_names(patterns)}; if they can be left out, allow it with "
            f"--allow-unused {patterns[0]!r} (allow_unused={patterns[:1]})"
        )
    module.load_state_dict({name: chosen.state[name] for name in known}, strict=False)
    unused += chosen.others
    if unused:
        patterns = request.record["unused"] = condense_names(unused, known)
        _log.warning(
            "checkpoint %s: %s not used: %s",
            path.name,
            count_noun(len(unused), "tensor in it is", "tensors in it are"),
            format_names(patterns),
        )


def check_missing(where: str, missing: Sequence[str], own: Collection[str], request: SourceRequest) -> list[str]:
    """Check that the tensors which weights do not hold, and which so stay random, are allowed to.

    Args:
        where: What messages call the weights.
        missing: Names of the tensors, at least one.
        own: The names of all the network's tensors.
        request: Has the patterns that are allowed.

    Returns:
        The names in few patterns.

    Raises:
        EncoscopeError: If a tensor is not allowed to stay random, with the pattern that would allow it.
    """
    lost = [name for name in missing if not matches_pattern(name, request.allow_missing)]
    if lost:
        patterns = condense_names(lost, own)
        raise EncoscopeError(
            f"{where} lacks {count_noun(len(lost), 'tensor')} of the network, which would stay random: "
            f"{format_names(patterns)}; if that is meant, allow it with --allow-missing {patterns[0]!r} "
            f"(allow_missing={patterns[:1]})"
        )
    patterns = condense_names(missing, own)
    _log.warning(
        "%s: %s not in it and random, as allowed: %s",
        where,
        count_noun(len(missing), "tensor of the network is", "tensors of the network are"),
        format_names(patterns),
    )
    return patterns


def _find_missing(own: StateDict, known: Collection[str]) -> list[str]:
    """The network's tensors that get no value of a file. Whole numbers are no weights; shared tensors count once."""
    loaded = {(own[name].data_ptr(), own[name].shape) for name in known}
    return [
        name
        for name, value in own.items()
        if name not in known and value.is_floating_point() and (value.data_ptr(), value.shape) not in loaded
    ]


def _find_inside(names: Iterable[str], own: Collection[str]) -> list[str]:
    """The tensors of a file that belong inside the network's modules, though the network does not have them.

    These are further blocks of a list, and further tensors in a part of the network. What lies beside the parts of the
    network (a projector, a decoder, a loss) is not among them.
    """
    sizes = Counter(".".join(parts[:end]) for parts in (name.split(".") for name in own) for end in range(len(parts)))
    inside = []
    for name in names:
        parts = name.split(".")
        depth = max(end for end in range(len(parts)) if ".".join(parts[:end]) in sizes)
        whole = 2 * sizes[".".join(parts[:depth])] > len(own)  # the network, or a wrapper around it
        if not whole or parts[depth].isdigit():
            inside.append(name)
    return inside


def _format_shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
