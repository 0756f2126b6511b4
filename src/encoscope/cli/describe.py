"""``encoscope describe``: what units stand for, in words (FALCON)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_run, check_source
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, names, read_changes
from encoscope.counting import count_noun
from encoscope.errors import UsageError
from encoscope.falcon.settings import CONTROLS, CONTROLS_TEXT, HOLDOUT, FalconSettings

if TYPE_CHECKING:
    from encoscope.encoder import Encoder
    from encoscope.falcon import Description, Falcon

words_group = Group("Words", sort_key=2)
_checks = Group("Checks", sort_key=3)

if TYPE_CHECKING:
    FalconFlags = MethodFlags
else:
    FalconFlags = method_flags(FalconSettings, words_group)


@Parameter(name="*", group=words_group)
@dataclass(frozen=True)
class CaptionFlags:
    """Where words come from; what every verb that describes units takes."""

    captions: Annotated[
        Path | None, Parameter(help="A store made by 'encoscope captions'. Default: the zoo's vocabulary.")
    ] = None
    vlm: Annotated[
        str | None, Parameter(help="Image-text model, such as zoo:clip-caltech101. Default: the captions' own.")
    ] = None

    def check(
        self, probe: str, common: Common, settings: MethodFlags | None, out: Path | None = None
    ) -> dict[str, Any]:
        """Refuse what is wrong whatever the network is, before it is loaded.

        Args:
            probe: The probing set.
            common: The flags of every verb.
            settings: The flags of FALCON's settings.
            out: The output folder; None where nothing is written.

        Returns:
            FALCON's settings that were set, by name.
        """
        changes = read_changes(FalconSettings, settings)
        check_run(common, out=out, sources=[probe, self.captions])
        return changes

    def fit_falcon(
        self, model: Encoder | str, probe: str, common: Common, settings: MethodFlags | None, **options: Any
    ) -> Falcon:
        """Fit FALCON on the encoder, captions and probing set that flags name.

        Args:
            model: The encoder, or its model string.
            probe: The probing set.
            common: The flags of every verb.
            settings: The flags of FALCON's settings.
            **options: Other arguments of ``Falcon``.

        Returns:
            The fitted estimator.
        """
        changes = self.check(probe, common, settings)

        from encoscope import vlm
        from encoscope.falcon import CaptionStore, Falcon

        store = None if self.captions is None else CaptionStore.load(self.captions)
        encoder = common.load(model) if isinstance(model, str) else model
        name = self.vlm or ("zoo:clip-caltech101" if store is None else store.vlm_source)
        image_text_model = vlm.load(name, device=common.device, random_state=common.seed)
        options |= {"random_state": common.seed}
        falcon = Falcon(encoder, vlm=image_text_model, captions=store, progress=common.progress, **changes, **options)
        return falcon.fit(probe)


Holdout = Annotated[
    str, Parameter(group=_checks, help="Images kept to test descriptions: a share, or another dataset.")
]


def describe(
    *units: Annotated[
        str,
        Parameter(help='Such as features:31, class:panda, layer3:5,9, layer4@FILE.npy; "all" features, or LAYER:all.'),
    ],
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    probe: Annotated[
        str, Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe.")
    ],
    settings: FalconFlags | None = None,
    control: Annotated[
        str, Parameter(group=_checks, help='What the AUC is compared with: "permuted", "captions", both, "none".')
    ] = CONTROLS_TEXT,
    holdout: Holdout = str(HOLDOUT),
    out: Annotated[Path, Parameter(help="Folder for the results.")] = Path("descriptions"),
    captions: CaptionFlags | None = None,
    common: Common | None = None,
) -> int:
    """Say in words what units of an encoder stand for (FALCON).

    The images that activate a unit most are cropped to the part it responds to and matched with captions; words that
    similar images share without activating it are dropped. Each description is tested on images it was not made from.
    Into the output folder go result.json, and for each unit its crops and a contact sheet; for several units also the
    table descriptions.parquet. Images that cannot be read are reported and left out.
    """
    if not units:
        raise UsageError('name at least one unit, such as features:31, or "all"')
    common, captions = common or Common(), captions or CaptionFlags()
    controls = [] if control == "none" else names(control) or []
    for name in controls:
        if name not in CONTROLS:
            raise UsageError(f"--control takes {', '.join(CONTROLS)}, both with a comma, or none, not {name!r}")

    kept = parse_share_or_dataset(holdout)
    captions.check(probe, common, settings, out)
    falcon = captions.fit_falcon(model, probe, common, settings, control=controls, holdout=kept)

    from encoscope import results
    from encoscope.falcon import Descriptions
    from encoscope.falcon.heldout import BEATS_CHANCE

    described = falcon.describe(units[0]) if len(units) == 1 else falcon.describe(list(units))
    for item in falcon.skipped_:
        note(f"skipped: {item.reason}")
    described.save(out)
    document = out / "result.json"
    if common.json:
        say(results.dumps(results.read(document, "description")))
    elif isinstance(described, Descriptions):
        for description in described:
            say(write_line(description))
        summary = described.summary
        better, units_number = summary["verdicts"][BEATS_CHANCE], count_noun(summary["units"], "unit")
        say(f"{summary['coverage']:.0%} of {units_number} explained; {better} beat their control: {document}")
    else:
        say(write_line(described))
        say(f"{document}")
    return 1 if falcon.skipped_ else 0


def write_line(description: Description) -> str:
    """Write a description in one line.

    Args:
        description: The description.

    Returns:
        Its unit, words with scores (or the note), and test.
    """
    words = ", ".join(f"{concept.word} {concept.score:.2f}" for concept in description.concepts) or description.note
    method = "" if description.method in ("falcon", "none") else f" ({description.method})"
    line = f"{description.unit}{method}: {words}"
    if not description.concepts:
        return line
    if description.images:
        line += f" (from {count_noun(description.images, 'image')})"
    test = "" if description.heldout is None else "AUC "
    return f"{line}; {description.verdict}: {test}{description.write_test()}"


def parse_share_or_dataset(text: str) -> float | str:
    """Read what ``--holdout`` takes.

    Args:
        text: Such as ".2" or "caltech101:ROOT#test".

    Returns:
        A number as the share of the images, anything else as a dataset.

    Raises:
        UsageError: For a number that is no share.
        MissingError: For a dataset that is not there.
    """
    try:
        share = float(text)
    except ValueError:
        check_source(text)
        return text
    if not 0 <= share < 1:
        raise UsageError(f"--holdout takes a share from 0 to below 1, or a dataset, not {text}")
    return share
