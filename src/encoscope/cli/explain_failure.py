"""``encoscope explain-failure``: which features contributed most to a prediction, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from encoscope.cli.checks import check_source
from encoscope.cli.console import say
from encoscope.cli.describe import CaptionFlags, FalconFlags, Holdout, parse_share_or_dataset
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.falcon.settings import HOLDOUT, FailureSettings

_features = Group("Features", sort_key=1)

if TYPE_CHECKING:
    FailureFlags = MethodFlags
else:
    FailureFlags = method_flags(FailureSettings, _features, without=("preset",))


def explain_failure(
    image: Annotated[Path, Parameter(help="The image that was misclassified.")],
    /,
    *,
    model: Annotated[str, Parameter(help='Such as "timm:resnet50"; it needs a linear head.')] = DEFAULT_MODEL,
    probe: Annotated[
        str,
        Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe."),
    ],
    label: Annotated[str | None, Parameter(help="What the image shows: a class's name or number.")] = None,
    features: FailureFlags | None = None,
    settings: FalconFlags | None = None,
    holdout: Holdout = str(HOLDOUT),
    captions: CaptionFlags | None = None,
    out: Annotated[Path | None, Parameter(help="Folder for the result, with the features' images.")] = None,
    common: Common | None = None,
) -> int:
    """Say which features of an image contributed most to its prediction, and what they stand for.

    A feature's contribution is its value times its weight in the predicted class's logit. With --label also those
    features that support the right class most against the predicted one.
    """
    changes = read_changes(FailureSettings, features)
    common, captions = common or Common(), captions or CaptionFlags()
    kept = parse_share_or_dataset(holdout)
    captions.check(probe, common, settings, out)
    check_source(image)

    from encoscope import results
    from encoscope.falcon.failure import describe_contributions, find_contributions

    encoder = common.load(model)
    # what is wrong with the image is said before anything is probed
    explanation = find_contributions(encoder, image, label=label, **changes)
    falcon = captions.fit_falcon(encoder, probe, common, settings, holdout=kept)
    explanation = describe_contributions(explanation, falcon)
    if out is not None:
        explanation.save(out)
    if common.json:
        say(results.dumps(explanation.to_dict()))
        return 0
    say(str(explanation))
    return 0
