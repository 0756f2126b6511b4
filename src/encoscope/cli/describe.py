"""``encoscope describe``: what units stand for, in words (FALCON)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names
from encoscope.errors import UsageError

if TYPE_CHECKING:
    from encoscope.encoder import Encoder
    from encoscope.falcon import Description, Falcon

_words = Group("Words", sort_key=2)
_checks = Group("Checks", sort_key=3)


@Parameter(name="*", group=_words)
@dataclass(frozen=True)
class WordsFlags:
    """Where words come from; what every verb that describes units takes."""

    captions: Annotated[
        Path | None, Parameter(help="A store made by 'encoscope captions'. Default: the zoo's vocabulary.")
    ] = None
    vlm: Annotated[
        str | None, Parameter(help="Image-text model, such as zoo:clip-caltech101. Default: the captions' own.")
    ] = None
    preset: Annotated[Literal["paper", "authors"], Parameter(help="Where the paper and its authors' code differ.")] = (
        "paper"
    )

    def falcon(self, encoder: Encoder, probe: str, common: Common, **settings: Any) -> Falcon:
        """A Falcon fitted on the probing set that these flags name."""
        from encoscope import vlm
        from encoscope.falcon import Falcon
        from encoscope.falcon.captions.store import CaptionStore

        store = None if self.captions is None else CaptionStore.load(self.captions)
        name = self.vlm or ("zoo:clip-caltech101" if store is None else store.vlm_source)
        model = vlm.load(name, device=common.device, random_state=common.seed)
        falcon = Falcon(encoder, model, store, preset=self.preset, seed=common.seed, **settings)
        return falcon.fit(probe)


def describe(
    *units: Annotated[
        str,
        Parameter(help='Such as features:31, class:panda, layer3:5,9, layer4@FILE.npy; "all" features, or LAYER:all.'),
    ],
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    probe: Annotated[
        str, Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe.")
    ],
    score: Annotated[
        Literal["cosine", "softmax"] | None, Parameter(group=_words, help="Of captions. Default: the preset's.")
    ] = None,
    rank: Annotated[
        Literal["score", "specific"],
        Parameter(group=_words, help="Order of words: their scores; or first those that the whole probe has less of."),
    ] = "score",
    mask: Annotated[
        float,
        Parameter(group=_words, help="Part of a GradCAM's range that is cropped to; less leaves more around it."),
    ] = 0.6,
    top: Annotated[int, Parameter(group=_words, help="Words, phrases and images kept.")] = 8,
    contrast: Annotated[
        bool, Parameter(group=_words, negative="--no-contrast", help="Drop words that counterfactuals share.")
    ] = True,
    fallback: Annotated[
        Literal["dissect", "none"], Parameter(group=_words, help="What labels units FALCON finds no word for.")
    ] = "dissect",
    control: Annotated[
        str | None, Parameter(group=_checks, help='Show beside the AUC: "permuted", "captions", or both with a comma.')
    ] = None,
    holdout: Annotated[
        str, Parameter(group=_checks, help="Images kept to test descriptions: a share, or another dataset.")
    ] = "0.2",
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("descriptions"),
    words: WordsFlags | None = None,
    common: Common | None = None,
) -> int:
    """Say in words what units of an encoder stand for (FALCON).

    The images that activate a unit most are cropped to what it sees and matched with captions; words that similar
    images share without activating it are dropped. Each description is tested on images it was not made from. Into the
    output folder go result.json, and for each unit its crops and a contact sheet; for several units also the table
    descriptions.parquet. Images that cannot be read are reported and left out.
    """
    if not units:
        raise UsageError('name at least one unit, such as features:31, or "all"')
    common, words = common or Common(), words or WordsFlags()
    controls = names(control) or []
    for name in controls:
        if name not in ("permuted", "captions"):
            raise UsageError(f"--control takes permuted, captions, or both with a comma, not {name!r}")
    if top < 1:
        raise UsageError(f"--top takes a number from 1 on, not {top}")

    from encoscope import results
    from encoscope.falcon import Descriptions
    from encoscope.falcon.writing import write

    encoder = common.load(model)
    falcon = words.falcon(
        encoder,
        probe,
        common,
        score=score,
        rank=rank,
        mask=mask,
        top=top,
        contrast=contrast,
        fallback=fallback,
        control=controls,
        holdout=share_or_dataset(holdout),
    )
    given: Any = units[0] if len(units) == 1 else list(units)
    found = falcon.describe(given)
    several = isinstance(found, Descriptions)
    skipped = list(dict.fromkeys(item for space in falcon.spaces_.values() for item in space.skipped))
    for item in skipped:
        note(f"skipped: {item.reason}")
    described: list[Description] = list(found) if several else [found]
    summary = found.summary if several else None
    write(described, out, summary=summary, skipped=skipped)
    document = out / "result.json"
    if common.json:
        say(results.dumps(results.read(document, "description")))
    else:
        for item in described:
            say(line(item))
        if summary is not None:
            say(f"{summary['coverage']:.0%} of {summary['units']} units explained: {document}")
        else:
            say(f"{document}")
    return 1 if skipped else 0


def line(item: Description) -> str:
    """A description in one line."""
    words = ", ".join(f"{concept.word} {concept.score:.2f}" for concept in item.concepts) or item.note
    method = "" if item.method in ("falcon", "none") else f" ({item.method})"
    tested = "" if item.heldout is None else f"; AUC {item.heldout.auc}"
    controls = (
        "" if item.heldout is None else "".join(f", {name} {c.value:.3f}" for name, c in item.heldout.controls.items())
    )
    return f"{item.unit}{method}: {words}{tested}{controls}"


def share_or_dataset(text: str) -> float | str:
    """``.2`` as a share of the images, anything else as a dataset."""
    try:
        return float(text)
    except ValueError:
        return text
