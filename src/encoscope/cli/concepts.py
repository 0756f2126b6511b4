"""``encoscope concepts``: what a network makes up a class of, each concept with patches and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common

if TYPE_CHECKING:
    from PIL import Image

    from encoscope.craft import ConceptBank
    from encoscope.vital import Vital

_pictures = Group("Pictures", sort_key=2)


def concepts(
    unit: Annotated[str, Parameter(help='A class: "class:golden retriever" or "class:207".')],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    references: Annotated[
        str, Parameter(help="Images of the class: a dataset such as caltech101:ROOT#train, or a folder.")
    ],
    number: Annotated[int, Parameter(help="How many concepts.")] = 5,
    layer: Annotated[
        str | None, Parameter(help="A layer without negative activations. Default: the last stage.")
    ] = None,
    images: Annotated[int, Parameter(help="At most so many images of the class.")] = 100,
    patch: Annotated[
        int | None, Parameter(help="Side of the patches. Default: 64, or half of a smaller network's input.")
    ] = None,
    samples: Annotated[int, Parameter(help="Masks for the importances, a power of two.")] = 32,
    crops: Annotated[int, Parameter(help="Patches shown for each concept.")] = 8,
    batch: Annotated[int, Parameter(help="Patches at once.")] = 32,
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("concepts"),
    steps: Annotated[int, Parameter(group=_pictures, help="Steps of each concept's picture (VITAL).")] = 500,
    relevance: Annotated[
        Literal["auto", "none", "lrp", "guided-backprop", "gradient-input"],
        Parameter(group=_pictures, help="As for visualize; auto: the paper's LRP. Smoother: none, the whole patches."),
    ] = "auto",
    no_pictures: Annotated[bool, Parameter(group=_pictures, help="Directions and patches only.")] = False,
    common: Common | None = None,
) -> int:
    """Find the concepts that a network makes up a class of (CRAFT), and visualize each (VITAL).

    Into the output folder go concept-1.npy, ... (directions, which LAYER@concept-1.npy names as a unit for other
    commands), concept-1.png, ... (pictures, and with transparency), sheet.png with the patches that show each
    concept, and result.json. The most important concept is the first.
    """
    from encoscope import results
    from encoscope.craft import find_concepts
    from encoscope.errors import UsageError
    from encoscope.vital import Vital

    common = common or Common()
    if steps < 1:
        raise UsageError(f"--steps takes a number from 1 on, not {steps}")
    encoder = common.load(model)
    bank = find_concepts(
        encoder,
        unit,
        references,
        number=number,
        layer=layer,
        images=images,
        patch=patch,
        samples=samples,
        crops=crops,
        seed=common.seed,
        batch=batch,
    )
    for message in [*bank.notes, *(f"skipped: {item.reason}" for item in bank.skipped)]:
        note(message)
    bank.save(out)  # what is found lasts, however long the pictures take
    pictures: list[Image.Image | None] = [None] * len(bank)
    extras: list[dict[str, Any]] = [{} for _ in range(len(bank))]
    if not no_pictures:
        vital = Vital(encoder, steps=steps, relevance=relevance, patch=bank.settings["patch"], random_state=common.seed)
        for index, (picture, entry) in enumerate(_visualized(vital, bank, references, out)):
            pictures[index], extras[index] = picture, entry
    _sheet(bank, pictures, crops, out / "sheet.png")
    document = bank.save(out, extras)
    if common.json:
        say(results.dumps(document))
    else:
        for index, importance in enumerate(bank.importances):
            say(f"concept {index + 1}: importance {importance:.2f}: {bank.layer}@{out / bank.file(index)}")
        say(f"{len(bank)} concepts of {bank.unit} from {len(bank.images)} images: {out / 'sheet.png'}")
    return 1 if bank.skipped else 0


def _visualized(vital: Vital, bank: ConceptBank, references: str, out: Path) -> Any:
    """Each concept's picture, written, with its entry in the document.

    Its references are the patches of the class's own images that hold most of it.
    """
    from encoscope import results
    from encoscope.images import list_images
    from encoscope.probing import hash_files

    known = set(bank.images)
    paths = list_images(references).paths
    own = [path for path, identity in zip(paths, hash_files(paths), strict=True) if identity in known]
    vital.fit(own, [bank.as_unit(index) for index in range(len(bank))])
    for index, found in enumerate(vital.stream()):
        entry = found.entry()
        entry.pop("unit")
        for kind, image in (("picture", found.picture), ("transparent", found.transparent)):
            file = out / f"concept-{index + 1}{'' if kind == 'picture' else '.rgba'}.png"
            with results.atomic_write(file) as temporary:
                image.save(temporary)
            entry[kind] = file.name
        yield found.picture, {"visualization": entry}


def _sheet(bank: ConceptBank, pictures: list[Image.Image | None], crops: int, path: Path) -> None:
    """A row a concept: its picture, and the patches that hold most of it."""
    import numpy as np
    from PIL import Image

    from encoscope import plots, results
    from encoscope.images import read_image

    cells: list[Any] = []
    captions: list[str] = []
    columns = crops + any(picture is not None for picture in pictures)
    for index, patches in enumerate(bank.crops):
        row, title = [], f"concept {index + 1}, importance {bank.importances[index]:.2f}"
        picture = pictures[index]
        if picture is not None:
            row.append(picture)
        for patch in patches:
            x0, y0, x1, y1 = patch.box
            row.append(plots.to_rgb(read_image(patch.path))[y0 : y1 + 1, x0 : x1 + 1])
        row += [Image.new("RGB", (8, 8), "white")] * (columns - len(row))
        cells += row
        captions += [title] + [""] * (columns - 1)
    with results.atomic_write(path) as temporary:
        Image.fromarray(np.asarray(plots.draw_contact_sheet(cells, captions, columns, cell=120))).save(temporary)
