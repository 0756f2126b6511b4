"""``encoscope concepts``: what a network makes up a class of, each concept with patches and a visualization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from encoscope.analysis.settings import ConceptsSettings
from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.counting import count_noun
from encoscope.craft.settings import CraftSettings
from encoscope.defaults import BATCH_SIZE

_concepts = Group("Concepts", sort_key=0)
_visualizations = Group("Visualizations", sort_key=2)

if TYPE_CHECKING:
    CraftFlags = ShownFlags = MethodFlags
else:
    CraftFlags = method_flags(CraftSettings, _concepts)
    ShownFlags = method_flags(ConceptsSettings, _visualizations, without=CraftSettings.infos())


def concepts(
    unit: Annotated[str, Parameter(help='A class: "class:golden retriever" or "class:207".')],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    references: Annotated[
        str, Parameter(help="Images of the class: a dataset such as caltech101:ROOT#train, or a folder.")
    ],
    settings: CraftFlags | None = None,
    batch: Annotated[int, Parameter(help="Patches at once.")] = BATCH_SIZE,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("concepts"),
    shown: ShownFlags | None = None,
    common: Common | None = None,
) -> int:
    """Find the concepts that a network makes up a class of (CRAFT), and visualize each (VITAL).

    Into the output folder go concept-1.npy, ... (directions, which LAYER@concept-1.npy names as a unit for other
    commands), concept-1.png, ... (visualizations, and with transparency), sheet.png with the patches that show each
    concept, and result.json. The most important concept is the first.
    """
    changes = read_changes(ConceptsSettings, settings, shown)
    common = common or Common()
    check_run(common, out=out, sources=[references], batch=batch)

    # only now what takes seconds to load
    from encoscope.analysis.concepts import concepts as find_concepts

    explained = find_concepts(
        common.load(model),
        unit,
        references,
        random_state=common.seed,
        batch_size=batch,
        progress=common.progress,
        out=out,
        **changes,
    )
    bank = explained.bank
    for message in [*bank.notes, *(f"skipped: {item.reason}" for item in bank.skipped)]:
        note(message)
    explained.save(out)
    if common.json:
        say((out / "result.json").read_text(encoding="utf-8"))
    else:
        for index, importance in enumerate(bank.importances):
            say(f"concept {index + 1}: importance {importance:.2f}: {bank.layer}@{out / bank.file(index)}")
        counted = f"{count_noun(len(bank), 'concept')} of {bank.unit} from {count_noun(len(bank.images), 'image')}"
        say(f"{counted}: {out / 'sheet.png'}")
    return 1 if bank.skipped else 0
