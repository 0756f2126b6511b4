"""VITAL's figures of what lies inside a network: relevance (2), small circuits (4), channels (24, 25), facets (26)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import bootstrap
from encoscope.probing import Patch
from encoscope.relevance import compute_relevance
from encoscope.reproduce.vital.harness import Bench, figures
from encoscope.reproduce.vital.judge import channel_figures
from encoscope.reproduce.vital.report import report, sheet, shown
from encoscope.units import parse_unit
from encoscope.vital.circuits import rank_channels
from encoscope.vital.references.references import find_class_references

_CIRCUITS = ("zebra", "pineapple", "Siberian husky", "dalmatian", "Leopards", "strawberry")
"""The paper's zebra, pineapple and a dog (which one it does not say), and Caltech-101's in their place."""
_POLYSEMANTIC = (485, 909, 1524, 1431)
"""The channels of ResNet50's layer4 that the paper shows."""
_METHODS = {
    "fourier": ("fourier", {}),
    "maco": ("maco", {}),
    "vital, guided backprop": ("vital", {"relevance": "guided-backprop"}),
    "vital, LRP": ("vital", {"relevance": "lrp"}),
}
_PHOTO = 224  # pixels of a side, as it is shown
_AGAINST = "AUC: the picture beside the channel's 50 strongest photos, 0.5 as strong as they."


def fig2(request: EvaluationRequest) -> Report:
    """An active channel of the block below need not be relevant: two channels, one of each kind, and pictures with LRP
    and without."""
    asked, benches = figures(request, {"layer": "", "channels": "", "relevance": "lrp"})
    (bench,) = benches.values()
    unit = (bench.channels(1) if asked["channels"] else _of_class(bench, 1))[0]
    below = _below(bench)
    patch = bench.search([unit])[0].items[0].source
    assert isinstance(patch, Patch)  # top patches were searched
    batch = bench.encoder.prepare(patch.path)
    active = bench.encoder.activations(batch, below)[below].maps[0]
    relevant = compute_relevance(bench.encoder, batch, parse_unit(unit, bench.encoder), below, asked["relevance"])[
        below
    ][0]
    found = two_channels(active, relevant)
    shares = shares_of(relevant)
    rows = [
        {
            "channel": f"{below}:{channel}",
            "kind": kind,
            "mean activation": float(active[channel].mean()),
            "share of the relevance": float(shares[channel]),
        }
        for kind, channel in zip(("relevant", "active, not relevant"), found, strict=True)
    ]
    with Image.open(patch.path) as opened:
        photo = opened.convert("RGB").resize((_PHOTO, _PHOTO))
    cells: list[tuple[Any, str]] = []
    for channel, (caption, settings) in zip(
        found, (("with relevance", asked["relevance"]), ("without", "none")), strict=True
    ):
        (picture,) = bench.pictures("vital", [unit], {"relevance": settings}, label=caption)
        where = f"{below}:{channel}"
        cells += [(photo, f"the photo {unit} answers to most"), (heat(active[channel]), f"{where}: activation")]
        cells += [(heat(relevant[channel]), f"{where}: relevance"), (picture, f"{unit}, {caption}")]
    notes = [
        f"Relevance of {below} for {unit} ({asked['relevance']}), on the photo of its strongest patch. relevant: the "
        "channel of the largest relevance; active, not relevant: of those with less than an even share of it, the most "
        "active one. Bright is high, each map by itself.",
    ]
    return report("vital-fig2", "why relevance", rows, benches, notes=notes, pictures={"vital-fig2": sheet(cells, 4)})


def fig4(request: EvaluationRequest) -> Report:
    """Small circuits: the three channels of the last hidden layer most relevant to a class, by VITAL and MACO."""
    _, benches = figures(request, {"layer": "", "top": 3})
    (bench,) = benches.values()
    top = int(bench.asked["top"])
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for label in bench.classes(3, _CIRCUITS):
        unit = f"class:{label}"
        pool = find_class_references(
            bench.references, bench.encoder, parse_unit(unit, bench.encoder), seed=request.seed
        )
        _, method, links = rank_channels(
            bench.encoder, unit, pool, top=top, layer=bench.layer, progress=request.progress
        )
        units = [link.unit.text for link in links]
        bench.search(units)
        for how in ("maco", "vital"):
            (whole,) = bench.pictures(how, [unit])
            made = bench.pictures(how, units)
            cells.append((whole, f"{bench.names[label]}, {how}"))
            cells += [
                (path, f"{link.unit.text}, {link.share:.1%}, {how}") for link, path in zip(links, made, strict=True)
            ]
            rows += [
                {"class": bench.names[label], "channel": link.unit.text, "relevance": method, "share": link.share}
                | {"method": how, "AUC": _auc(bench, link.unit.text, [path])}
                for link, path in zip(links, made, strict=True)
            ]
    notes = [f"share: of the relevance of {bench.layer}'s channels for the class, mean over its photos. {_AGAINST}"]
    return report(
        "vital-fig4", "small circuits", rows, benches, notes=notes, pictures={"vital-fig4": sheet(cells, 1 + top)}
    )


def channels(number: int, request: EvaluationRequest) -> Report:
    """Figs. 24 and 25: four channels at random, by Fourier, MACO and VITAL, with LRP and with guided backprop."""
    _, benches = figures(request, {"layer": "", "channels": ""})
    (bench,) = benches.values()
    units = bench.channels(4, draw=number)
    patches = bench.search(units)
    rows, notes = [], []
    columns: dict[str, list[Any]] = {"strongest patch": [shown(found.items[0]) for found in patches]}
    for caption, (method, settings) in _METHODS.items():
        try:
            made = bench.drawn(method, units, settings, label=caption)
        except UsageError as error:
            notes.append(f"{caption} on {bench.model} cannot run: {error}.")
            continue
        columns[caption] = list(made.first)
        aucs = [_auc(bench, unit, made.of(place)) for place, unit in enumerate(units)]
        rows.append({"method": caption, "channels": len(units), "AUC": bootstrap(aucs, seed=request.seed)})
    cells = [
        (pictures[place], f"{unit}, {caption}")
        for place, unit in enumerate(units)
        for caption, pictures in columns.items()
    ]
    name = f"vital-fig{number}"
    about = f"Channels of {bench.layer} at random, others in each of Figs. 24 and 25. {_AGAINST}"
    pictures = {name: sheet(cells, len(columns))}
    return report(name, "channels inside the network", rows, benches, notes=[about, *notes], pictures=pictures)


fig24, fig25 = partial(channels, 24), partial(channels, 25)


def fig26(request: EvaluationRequest) -> Report:
    """Polysemantic channels: MACO's one picture beside VITAL's of each cluster of the top patches."""
    asked, benches = figures(request, {"layer": "", "channels": "", "facets": 2, "candidates": 1000})
    (bench,) = benches.values()
    labels = dict(zip(bench.probe.ids, bench.probe.labels, strict=True))
    units = bench.channels(4) if asked["channels"] else _mixed(bench, request.limit or 4)
    facets = int(asked["facets"])
    made = bench.estimator(units, candidates=int(asked["candidates"]))
    made.fit(bench.references, units, facets=facets, progress=request.progress)
    found = made.synthesize(progress=request.progress, fresh=request.fresh)
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for place, unit in enumerate(units):
        (path,) = bench.pictures("maco", [unit])
        cells.append((path, f"{unit}, maco"))
        for part in range(place * facets, (place + 1) * facets):
            target = made.targets_[part]
            assert target.references is not None  # the statistics are of patches
            name, share = commonest([labels.get(item.id) for item in target.references.items])
            rows.append(
                {"channel": unit, "facet": part % facets + 1, "patches": len(target.references)}
                | {"commonest label": name, "its share": share, "on the picture": found[part].activation}
                | {"on its patches": found[part].reference_activation}
            )
            cells += [(found[part].picture, f"{target.name}, vital")]
            cells += [(shown(item), labels.get(item.id) or "") for item in target.references.items[:2]]
    notes = [
        f"k-means ({facets} clusters) on the activations of {bench.layer} over its top patches (at most 1,000, "
        f"of the {asked['candidates']} most active photos); commonest label: of the photos behind the patches that a "
        "picture is made from.",
        "Channels: the paper's where the network is its own; others those whose 20 strongest photos bear the most "
        "labels (--set channels=485,909). The channel's value on a picture and, mean, on its patches.",
    ]
    pictures = {"vital-fig26": sheet(cells, 1 + 3 * facets, cell=150)}
    return report("vital-fig26", "channels of several meanings", rows, benches, notes=notes, pictures=pictures)


def two_channels(
    active: Float[Tensor, "channels height width"], relevant: Float[Tensor, "channels height width"]
) -> tuple[int, int]:
    """The channel of the largest relevance, and the most active one of those with less than an even share of it."""
    shares = shares_of(relevant)
    first = int(shares.argmax())
    means = active.mean((1, 2)).cpu().numpy().astype(np.float64)
    means[shares >= 1 / len(shares)] = -np.inf
    return first, int(means.argmax())


def shares_of(relevant: Float[Tensor, "channels height width"]) -> Float[np.ndarray, " channels"]:
    """Each channel's share of the relevance, summed over space; of its size, where signs differ."""
    sums = relevant.sum((1, 2)).cpu().numpy().astype(np.float64)
    return sums / max(float(np.abs(sums).sum()), 1e-30)


def heat(map_: Float[Tensor, "height width"]) -> np.ndarray:
    """A map in colours, dark to bright from its least to its largest value, enlarged without smoothing."""
    from matplotlib import colormaps

    values = map_.detach().cpu().numpy().astype(np.float64)
    values = (values - values.min()) / max(float(values.max() - values.min()), 1e-30)
    enlarged = values.repeat(16, 0).repeat(16, 1)
    return np.asarray(colormaps["inferno"](enlarged)[..., :3] * 255).round().astype(np.uint8)


def commonest(labels: Sequence[str | None]) -> tuple[str | None, float | None]:
    """The label that most bear, and its share; ties go by name."""
    known = Counter(label for label in labels if label is not None)
    if not known:
        return None, None
    name, count = min(known.items(), key=lambda pair: (-pair[1], pair[0]))
    return name, count / len(labels)


def _below(bench: Bench) -> str:
    """The stage or block below the channels' layer, or whatever layer is. UsageError for the first one."""
    order = [info.name for info in bench.encoder.layers]
    under = order[: order.index(bench.layer)]
    if not under:
        raise UsageError(f"no layer lies below {bench.layer}: name a later one with --set layer=NAME")
    return next((name for name in reversed(under) if name in bench.encoder.depths), under[-1])


def _of_class(bench: Bench, count: int) -> list[str]:
    """The channels most relevant to the first class that is pictured."""
    label = bench.classes(1, _CIRCUITS)[0]
    unit = parse_unit(f"class:{label}", bench.encoder)
    pool = find_class_references(bench.references, bench.encoder, unit, seed=bench.request.seed)
    return [link.unit.text for link in rank_channels(bench.encoder, unit, pool, top=count, layer=bench.layer)[2]]


def _mixed(bench: Bench, count: int) -> list[str]:
    """The paper's channels, where the network has them; else those whose 20 strongest photos bear the most labels."""
    if bench.model.partition(":")[2].partition(".")[0] == "resnet50" and bench.layer == "layer4":
        return [f"{bench.layer}:{channel}" for channel in _POLYSEMANTIC[:count]]
    probed = bench.probe
    many = min(20, len(probed))
    top = np.argsort(-probed.values, axis=0, kind="stable")[:many]
    found = np.array([len({probed.labels[row] for row in column}) for column in top.T])
    found[probed.values.max(0) <= probed.values.min(0)] = 0
    return [f"{bench.layer}:{channel}" for channel in np.argsort(-found, kind="stable")[:count]]


def _auc(bench: Bench, unit: str, paths: Sequence[Any]) -> float:
    return channel_figures(bench.encoder, unit, list(paths), bench.strongest(unit).tolist())[0]
