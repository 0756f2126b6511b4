"""The statistics of many classes in a small file: the sorted values of a layer's channels as sums of a few curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.errors import UsageError
from encoscope.store.tensors import open_tensors, write_tensors
from encoscope.vital.references.statistics import ColorStatistics, Prototype

FORMAT = "encoscope.prototypes/2"
_MAX_CURVES = 64  # of a layer
_SEED = 0
_ID = 32  # bytes of an image's sha256


@concise_repr
@dataclass(frozen=True)
class CompressedPrototypes:
    """The statistics of several units over the same layers.

    A channel's sorted values are a curve over the ranks; those of all units and channels of a layer span little more
    than a few curves, its principal ones (not centered).

    Attributes:
        encoder: The encoder's digest.
        names: The units' names.
        counts: The number of references of each unit.
        references: The ids of each unit's references.
        activations: The mean value of each unit on its references; None where it is not known.
        notes: The notes of each unit's statistics.
        spreads: The references' own loss of each unit, by layer; None where it is not known.
        colors: The color statistics of each unit's references; None where they are not known.
        curves: For each layer [curves, positions], float16.
        amounts: For each layer [units, channels, curves], how much of each curve, float16.
        error: For each layer, the root mean square of what is lost as a share of that of the values.
    """

    encoder: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    references: tuple[tuple[str, ...], ...]
    activations: tuple[float | None, ...]
    notes: tuple[tuple[str, ...], ...]
    spreads: tuple[Mapping[str, float] | None, ...]
    colors: tuple[ColorStatistics | None, ...]
    curves: Mapping[str, Float[Tensor, "number positions"]]
    amounts: Mapping[str, Float[Tensor, "units channels number"]]
    error: Mapping[str, float]

    def prototype(self, name: str) -> Prototype:
        """Give one unit's statistics as they were, within ``error``.

        Args:
            name: One of ``names``.

        Returns:
            The statistics, with a note on the error.

        Raises:
            UsageError: For an unknown name.
        """
        if name not in self.names:
            raise UsageError(f"there are no statistics of {name!r} here")
        index = self.names.index(name)
        values = {
            layer: (self.amounts[layer][index].float() @ curves.float()).sort(1).values
            for layer, curves in self.curves.items()
        }
        worst = max(self.error.values())
        note = f"statistics read from a compressed file, root mean square error up to {worst:.1%} of the values"
        notes = (*self.notes[index], note)
        return Prototype(
            values=values,
            count=self.counts[index],
            references=self.references[index],
            notes=notes,
            activation=self.activations[index],
            spread=self.spreads[index],
            colors=self.colors[index],
        )


def compress_prototypes(
    encoder: str,
    prototypes: Mapping[str, Prototype],
    *,
    megabytes: float = 10.0,
    error: float = 0.005,
) -> CompressedPrototypes:
    """Keep principal curves of each layer until every layer's error is below ``error`` or the room is used up.

    Room goes to where a byte lowers the sum of the layers' squared relative errors most; what is compressed is then
    measured against what it was.

    Args:
        encoder: The encoder's digest.
        prototypes: The statistics by name, all of the same layers, of whole images.
        megabytes: The room.
        error: The relative error of a layer that is small enough.

    Returns:
        The compressed statistics.

    Raises:
        UsageError: When there is nothing to compress, for patches, or when not even one curve a layer fits.
    """
    if not prototypes:
        raise UsageError("there are no statistics to compress")
    if any("@" in name for each in prototypes.values() for name in each.references):
        raise UsageError("statistics of patches are not compressed, only those of whole images")
    first = next(iter(prototypes.values()))
    stacks = {layer: torch.stack([each.values[layer] for each in prototypes.values()]) for layer in first.layers}
    names = tuple(prototypes)
    ids = sum(len(each.references) for each in prototypes.values())
    room = megabytes * 1e6 - 40 * ids - 200 * len(names) - 10_000
    bases = {layer: _principal(stack.flatten(0, 1)) for layer, stack in stacks.items()}
    numbers = _numbers(stacks, {layer: energies for layer, (_, energies) in bases.items()}, room, error)
    curves, amounts, lost = {}, {}, {}
    for layer, stack in stacks.items():
        basis = bases[layer][0][: numbers[layer]].half()
        # least squares on the rounded curves
        amount = torch.linalg.lstsq(basis.double().T, stack.flatten(0, 1).double().T).solution.T
        curves[layer], amounts[layer] = basis, amount.half().unflatten(0, stack.shape[:2])
        difference = amounts[layer].float() @ basis.float() - stack
        lost[layer] = float(difference.square().mean().sqrt() / stack.square().mean().sqrt().clamp(min=1e-12))
    values = tuple(prototypes.values())
    return CompressedPrototypes(
        encoder,
        names,
        tuple(each.count for each in values),
        tuple(each.references for each in values),
        tuple(each.activation for each in values),
        tuple(each.notes for each in values),
        tuple(each.spread for each in values),
        tuple(each.colors for each in values),
        curves,
        amounts,
        lost,
    )


def save_compressed(compressed: CompressedPrototypes, path: str | os.PathLike[str]) -> Path:
    """Write compressed statistics as a .safetensors file, reference ids as bytes.

    Args:
        compressed: The statistics.
        path: The file.

    Returns:
        The file.
    """
    ids = [bytes.fromhex(name) for names in compressed.references for name in names]
    tensors = {f"curves/{layer}": value for layer, value in compressed.curves.items()}
    tensors |= {f"amounts/{layer}": value for layer, value in compressed.amounts.items()}
    tensors["references"] = torch.from_numpy(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, _ID).copy())
    about = {
        "format": FORMAT,
        "encoder": compressed.encoder,
        "layers": list(compressed.curves),
        "names": list(compressed.names),
        "counts": list(compressed.counts),
        "references": [len(names) for names in compressed.references],
        "activations": list(compressed.activations),
        "notes": [list(notes) for notes in compressed.notes],
        "spreads": [None if spread is None else dict(spread) for spread in compressed.spreads],
        "colors": [None if colors is None else asdict(colors) for colors in compressed.colors],
        "error": dict(compressed.error),
    }
    return write_tensors(path, about, tensors)


def load_compressed(path: str | os.PathLike[str]) -> CompressedPrototypes:
    """Read what ``save_compressed`` wrote.

    Args:
        path: The file.

    Returns:
        The statistics.

    Raises:
        MissingError: When there is no file.
        EncoscopeError: When it is something else, or damaged.
    """
    with open_tensors(path, FORMAT, "compressed statistics") as (about, _, tensor):
        layers = about["layers"]
        rows = tensor("references").numpy()
        ends = np.cumsum([0, *about["references"]])
        return CompressedPrototypes(
            about["encoder"],
            tuple(about["names"]),
            tuple(about["counts"]),
            tuple(tuple(row.tobytes().hex() for row in rows[start:end]) for start, end in pairwise(ends)),
            tuple(about["activations"]),
            tuple(tuple(notes) for notes in about["notes"]),
            tuple(about["spreads"]),
            tuple(None if each is None else ColorStatistics.from_dict(each) for each in about["colors"]),
            {layer: tensor(f"curves/{layer}") for layer in layers},
            {layer: tensor(f"amounts/{layer}") for layer in layers},
            about["error"],
        )


def _principal(rows: Float[Tensor, "rows positions"]) -> tuple[Float[Tensor, "number positions"], Sequence[float]]:
    """The principal curves, the strongest first, and what share of the sum of squares is left after each."""
    number = min(_MAX_CURVES, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        _, sizes, curves = torch.svd_lowrank(rows.float(), q=min(number + 8, *rows.shape), niter=4)
    total = float(rows.double().square().sum())
    left = 1 - sizes[:number].double().square().cumsum(0) / max(total, 1e-30)
    return curves.T[:number], left.clamp(min=0).tolist()


def _numbers(
    stacks: Mapping[str, Tensor], left: Mapping[str, Sequence[float]], room: float, error: float
) -> dict[str, int]:
    """How many curves each layer gets."""
    price = {layer: 2 * (stack.shape[0] * stack.shape[1] + stack.shape[2]) for layer, stack in stacks.items()}
    numbers = dict.fromkeys(stacks, 1)
    room -= sum(price.values())
    if room < 0:
        raise UsageError(f"not even one curve a layer fits: give {-room / 1e6:.1f} megabytes more")
    while True:
        open_layers = [
            layer
            for layer, number in numbers.items()
            if number < len(left[layer]) and left[layer][number - 1] > error**2 and price[layer] <= room
        ]
        if not open_layers:
            return numbers
        gain = {layer: left[layer][numbers[layer] - 1] - left[layer][numbers[layer]] for layer in open_layers}
        best = max(open_layers, key=lambda layer: gain[layer] / price[layer])
        numbers[best] += 1
        room -= price[best]
