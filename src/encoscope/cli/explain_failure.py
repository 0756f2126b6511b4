"""``encoscope explain-failure``: which features drove a prediction, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from encoscope.cli.console import say
from encoscope.cli.describe import WordsFlags
from encoscope.cli.flags import Common
from encoscope.errors import UsageError


def explain_failure(
    image: Annotated[Path, Parameter(help="The image that was taken for something.")],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "zoo:resnet-caltech101"; it needs a linear head.')],
    probe: Annotated[
        str,
        Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe."),
    ],
    label: Annotated[str | None, Parameter(help="What the image shows: a class's name or number.")] = None,
    top: Annotated[int, Parameter(help="How many features.")] = 5,
    words: WordsFlags | None = None,
    common: Common | None = None,
) -> int:
    """Say which features of an image drove its prediction, and what they stand for.

    A feature's part is its value times its weight in the predicted class's logit. With --label also those features
    that speak most for the right class against the predicted one.
    """
    if top < 1:
        raise UsageError(f"--top takes a number from 1 on, not {top}")
    common, words = common or Common(), words or WordsFlags()

    from encoscope import results
    from encoscope.falcon.failure import build_failure_document, describe_contributions
    from encoscope.falcon.failure import explain_failure as explain

    encoder = common.load(model)
    found = explain(encoder, image, label=label, top=top)  # what is wrong with the image is said before any probing
    falcon = words.falcon(encoder, probe, common)
    found = describe_contributions(found, falcon)
    if common.json:
        say(
            results.dumps(
                build_failure_document(found, encoder, falcon.settings_.as_dict() | {"top_features": top}, common.seed)
            )
        )
        return 0
    told = "" if found.actual is None else f", it is {found.actual}"
    say(f"{image}: taken for {found.predicted} ({found.probability:.0%}){told}")
    for title, items in (("for it", found.features), (f"for {found.actual}", found.against)):
        for item in items:
            concepts = "" if item.description is None else ", ".join(item.description.words)
            said = concepts or (item.description.note if item.description is not None else "")
            say(f"  {title}: features:{item.feature} {item.contribution:+.2f}: {said}")
    return 0
