"""``encoscope groups``: features that are highly activated together."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.describe import WordsFlags
from encoscope.cli.flags import Common
from encoscope.errors import UsageError


def groups(
    *,
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101" or "timm:resnet50".')],
    probe: Annotated[
        str, Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe.")
    ],
    layer: Annotated[
        str, Parameter(help='"features" (the pooled ones), "class", or a name from "encoscope layers".')
    ] = ("features"),
    mode: Annotated[
        Literal["threshold", "exact"] | None,
        Parameter(help="Images where all members pass alpha, or those with exactly this set. Default: the preset's."),
    ] = None,
    more_than: Annotated[int, Parameter(help="A group is shared by more images than this.")] = 10,
    largest: Annotated[int, Parameter(help="Members of a group at most (threshold mode).")] = 4,
    words: WordsFlags | None = None,
    common: Common | None = None,
) -> int:
    """Find the groups of features that many images highly activate together, and which of them are interpretable.

    A group is interpretable where the mean pairwise cosine of its crops, by the image-text model, is above 0.8. Give a
    group's name to 'encoscope describe' to have it in words.
    """
    if more_than < 0 or largest < 2:
        raise UsageError(f"--more-than is at least 0 and --largest at least 2, not {more_than} and {largest}")
    common, words = common or Common(), words or WordsFlags()

    from encoscope import results

    encoder = common.load(model)
    falcon = words.falcon(encoder, probe, common, holdout=0)
    found = falcon.groups(layer, mode, more_than=more_than, largest=largest)
    skipped = list(dict.fromkeys(item for space in falcon.spaces_.values() for item in space.skipped))
    for item in skipped:
        note(f"skipped: {item.reason}")
    if common.json:
        document = results.envelope(
            "groups",
            [group.as_dict() for group in found],
            model={"source": encoder.source, "digest": encoder.digest, "layers": [layer]},
            settings=falcon.settings_.as_dict()
            | {"mode": mode or falcon.settings_.mode, "more_than": more_than, "largest": largest},
            seed=common.seed,
            skipped=skipped,
        )
        say(results.dumps(document))
        return 1 if skipped else 0
    for group in found:
        told = "" if group.clarity is None else f", clarity {group.clarity:.2f}"
        say(f"{group.unit}: {len(group.images)} images{told}{', interpretable' if group.interpretable else ''}")
    say(f"{len(found)} groups, {sum(group.interpretable for group in found)} interpretable")
    return 1 if skipped else 0
