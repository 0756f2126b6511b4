"""Settle by a trial what shapes alone do not tell: where tokens lie, and whether channels come first or last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from encoscope.encoder.capture import OutputLocation, capture, evaluation_mode, removing_hooks
from encoscope.encoder.layouts import Layout, Size, TokenLayout, make_token_layout
from encoscope.encoder.module_trial import OutputKey
from encoscope.encoder.placement import (
    TRIALS_IN_ANY_ORDER,
    PatchTrial,
    TokenOrder,
    find_order,
    find_order_of_any_kind,
    make_trial,
    measure_responses,
    respond_locally,
    responds_in_order,
    score_order,
)
from encoscope.errors import UsageError

_PIECE = 12 * 224 * 224  # pixels of the images of a trial that run together, beside the one they are compared with

_Form: TypeAlias = Literal["nchw", "nhwc", "tokens", "tokens first"]
_MapForm: TypeAlias = Literal["nchw", "nhwc"]
_Placement: TypeAlias = tuple[Size, TokenOrder]


@dataclass(frozen=True)
class Sequence:
    """A sequence of tokens in the trial run.

    Attributes:
        count: Number of tokens.
        channels: Number of channels.
        batch_first: False for ``[tokens, batch, channels]``.
        grids: The grids that it may have, as ``list_token_grids`` gives them.
    """

    count: int
    channels: int
    batch_first: bool
    grids: tuple[Size, ...]

    @property
    def form(self) -> _Form:
        """How its tensor is read."""
        return "tokens" if self.batch_first else "tokens first"


@dataclass(frozen=True)
class TrialSubject:
    """What trials are run on.

    Attributes:
        module: The network.
        forward: Runs it.
        locations: Where in a forward pass the outputs are found.
        image: (channels, height, width) of the network's own input.
    """

    module: nn.Module
    forward: Callable[[Tensor], Any]
    locations: Mapping[OutputKey, OutputLocation]
    image: tuple[int, int, int]

    @property
    def size(self) -> Size:
        """(height, width) of the network's own input in pixels."""
        return self.image[1], self.image[2]


def settle_layouts(
    subject: TrialSubject,
    layouts: Mapping[OutputKey, Layout],
    sequences: Mapping[OutputKey, Sequence],
    stated: TokenLayout | None = None,
) -> tuple[dict[OutputKey, Layout], dict[str, int]]:
    """Find the layouts of sequences, and check those of maps that may be something else.

    Args:
        subject: The network.
        layouts: The layouts of maps, as their shapes tell them.
        sequences: The sequences of tokens.
        stated: Where the patch tokens stand, if the user states it.

    Returns:
        The layouts of maps and of sequences whose patches were found; and the names of modules with sequences whose
        tokens respond to where the image changes, and yet lie on no grid that was found, with the number of tokens.

    Raises:
        UsageError: If no sequence has the stated layout.
    """
    settled = dict(layouts)
    if stated is not None:
        settled |= _place_as_stated(sequences, stated, subject.size)
    pending = {key: sequence for key, sequence in sequences.items() if sequence.grids and key not in settled}
    unclear = {key: layout for key, layout in layouts.items() if _is_unclear(layout)}
    grids = [sequence.grids[0] for sequence in pending.values()] + [layout.grid for layout in unclear.values()]
    if not grids:
        return settled, {}
    trial = make_trial(subject.image[0], subject.size, dict.fromkeys(grids))
    forms: list[tuple[OutputKey, _Form]] = [(key, sequence.form) for key, sequence in pending.items()]
    for key in unclear:
        forms.append((key, "nchw"))
        forms.append((key, "nhwc"))
    responses = _measure(subject, trial, forms)
    seen: set[Size] = set()  # the grids of maps whose channels are known to come last
    for key, layout in unclear.items():
        both: dict[_MapForm, np.ndarray | None] = {
            "nchw": responses.get((key, "nchw")),
            "nhwc": responses.get((key, "nhwc")),
        }
        form = _choose_form(layout, trial, both, clearly=layout.grid not in seen)
        if form == "nhwc":
            seen.add(layout.grid)
        if form is None:
            del settled[key]
        else:
            settled[key] = replace(layout, form=form)
    tokens = {key: responses[key, pending[key].form] for key in pending if (key, pending[key].form) in responses}
    settled |= _lay_out(pending, tokens, trial, subject.size)
    unplaced: dict[str, int] = {}
    own: dict[int, _Placement | None] = {}
    local: dict[int, bool] = {}
    for key, values in tokens.items():
        sequence = pending[key]
        rows, columns = sequence.grids[0]
        responds = respond_locally(trial.select(values, (rows, columns))[0], rows * columns)
        # The first sequence with so many tokens tells for all: in it they are not mixed yet.
        if not local.setdefault(sequence.count, responds) or not responds or key in settled:
            continue
        if sequence.count not in own:
            own[sequence.count] = _find_own_order(subject, key, sequence)
        placement = own[sequence.count]
        if placement is not None and _responds(values, trial, placement):
            settled[key] = _make_layout(sequence, placement, subject.size)
        else:
            unplaced[key[0]] = sequence.count
    return settled, unplaced


def _is_unclear(layout: Layout) -> bool:
    """Whether a map may have its axes in another order, or be windows of tokens."""
    return layout.form == "nhwc" or (layout.form == "nchw" and layout.channels == layout.grid[0])


def _place_as_stated(
    sequences: Mapping[OutputKey, Sequence], stated: TokenLayout, size: Size
) -> dict[OutputKey, Layout]:
    counts = Counter(sequence.count for sequence in sequences.values() if sequence.count >= stated.least)
    rows, columns = stated.grid
    if not counts:
        lengths = ", ".join(map(str, sorted({sequence.count for sequence in sequences.values()}))) or "none"
        raise UsageError(
            f"a grid of {rows}x{columns} after {stated.prefix} tokens takes {stated.least} tokens, and no layer gives "
            f"as many (lengths of this network's sequences: {lengths})"
        )
    count = stated.least if stated.least in counts else counts.most_common(1)[0][0]
    extra = count - rows * columns
    return {
        key: Layout(
            "tokens",
            sequence.channels,
            stated.grid,
            size,
            extra,
            front=stated.prefix,
            batch_first=sequence.batch_first,
        )
        for key, sequence in sequences.items()
        if sequence.count == count
    }


def _lay_out(
    pending: Mapping[OutputKey, Sequence], tokens: Mapping[OutputKey, np.ndarray], trial: PatchTrial, size: Size
) -> dict[OutputKey, Layout]:
    """The layouts of sequences in row-major order."""
    placed: dict[OutputKey, Layout] = {}
    known: dict[int, list[_Placement]] = {}  # by the number of tokens: a network keeps to an order
    for key, values in tokens.items():
        sequence = pending[key]
        before = known.setdefault(sequence.count, [])
        placement = next((each for each in before if _responds(values, trial, each)), None)
        if placement is None:
            for grid in sequence.grids:
                order = find_order(*trial.select(values, grid))
                if order is not None:
                    placement = grid, order
                    before.append(placement)
                    break
        if placement is not None:
            placed[key] = _make_layout(sequence, placement, size)
    return placed


def _responds(values: np.ndarray, trial: PatchTrial, placement: _Placement) -> bool:
    grid, order = placement
    return responds_in_order(*trial.select(values, grid), np.array(order.patches))


def _make_layout(sequence: Sequence, placement: _Placement, size: Size) -> Layout:
    return make_token_layout(sequence.channels, placement[0], size, placement[1], sequence.batch_first)


def _find_own_order(subject: TrialSubject, key: OutputKey, sequence: Sequence) -> _Placement | None:
    """The grid and order of a sequence with an order of its own, by a longer trial that ends at its module."""
    for grid in sequence.grids[:2]:
        trial = make_trial(subject.image[0], subject.size, [grid], TRIALS_IN_ANY_ORDER)
        pieces = []
        for pixels in _split(trial, subject.module):
            with evaluation_mode(subject.module), torch.no_grad():
                outputs, _ = capture(subject.module, pixels, {"layer": subject.locations[key]}, forward=subject.forward)
            pieces.append(measure_responses(_read_tokens(outputs["layer"], sequence.form)))
        order = find_order_of_any_kind(*trial.select(np.concatenate(pieces), grid))
        if order is not None:
            return grid, order
    return None


def _choose_form(
    layout: Layout, trial: PatchTrial, responses: Mapping[_MapForm, np.ndarray | None], *, clearly: bool
) -> _MapForm | None:
    """Whichever form responds where the image changes; None for channels last that do not."""
    cells = np.arange(layout.grid[0] * layout.grid[1])
    best: tuple[float, _MapForm] | None = None
    for form, values in responses.items():
        if values is None or values.shape[1] != len(cells):
            continue
        chosen = trial.select(values, layout.grid)
        score = score_order(*chosen)
        if responds_in_order(*chosen, cells, clearly=clearly) and (best is None or score > best[0]):
            best = score, form
    if best is None:
        return "nchw" if layout.form == "nchw" else None
    return best[1]


def _measure(
    subject: TrialSubject, trial: PatchTrial, forms: list[tuple[OutputKey, _Form]]
) -> dict[tuple[OutputKey, _Form], np.ndarray]:
    """The responses of each module's last call; its output is not kept."""
    pieces: dict[tuple[OutputKey, _Form], list[np.ndarray]] = {each: [] for each in forms}
    latest: dict[tuple[OutputKey, _Form], np.ndarray] = {}

    def note(key: OutputKey, form: _Form) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = subject.locations[key].find_tensor(output)
            if tensor is not None:
                latest[key, form] = measure_responses(_read_tokens(tensor, form))

        return hook

    with evaluation_mode(subject.module), torch.no_grad(), removing_hooks([]) as handles:
        for key, form in forms:
            handles.append(subject.module.get_submodule(key[0]).register_forward_hook(note(key, form)))
        for pixels in _split(trial, subject.module):
            latest.clear()
            subject.forward(pixels)
            for each, values in latest.items():
                pieces[each].append(values)
    return {
        each: np.concatenate(values) for each, values in pieces.items() if sum(map(len, values)) == len(trial.masks)
    }


def _split(trial: PatchTrial, module: nn.Module) -> Iterator[Tensor]:
    first = next(module.parameters(), None)
    count = max(1, min(12, _PIECE // (trial.pixels.shape[2] * trial.pixels.shape[3])))
    for piece in trial.pixels[1:].split(count):
        pixels = torch.cat([trial.pixels[:1], piece])
        yield pixels if first is None else pixels.to(first.device, first.dtype)


def _read_tokens(output: Tensor, form: _Form) -> Tensor:
    """[images, tokens, channels]."""
    if form == "tokens first":
        return output.transpose(0, 1)
    if form == "nchw":
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, 2) if form == "nhwc" else output
