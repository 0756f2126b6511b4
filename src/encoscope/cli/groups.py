"""``encoscope groups``: features that are highly activated together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.describe import CaptionFlags, words_group
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.defaults import FEATURES
from encoscope.falcon.settings import FalconSettings, GroupSettings

_groups = Group("Groups", sort_key=1)
_SETTINGS = ("preset", "mode", "alpha_stds", "alpha", "mask_threshold", "clarity_threshold")

if TYPE_CHECKING:
    GroupFlags = GroupFalconFlags = MethodFlags
else:
    GroupFlags = method_flags(GroupSettings, _groups, without=("preset",))
    GroupFalconFlags = method_flags(
        FalconSettings,
        words_group,
        without=[name for name in FalconSettings.infos() if name not in _SETTINGS],
        name="GroupFalconFlags",
    )


def groups(
    *,
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    probe: Annotated[
        str, Parameter(help="Images to look at: caltech101:ROOT#train, a folder, or a folder of a probe.")
    ],
    layer: Annotated[
        str, Parameter(help='"features" (the pooled ones), "class", or a name from "encoscope layers".')
    ] = FEATURES,
    grouping: GroupFlags | None = None,
    settings: GroupFalconFlags | None = None,
    captions: CaptionFlags | None = None,
    out: Annotated[Path | None, Parameter(help="Folder for the result.")] = None,
    common: Common | None = None,
) -> int:
    """Find the groups of features that many images highly activate together, and which of them are interpretable.

    A group is interpretable where the mean pairwise cosine of its crops, by the image-text model, is above 0.8. Give a
    group's name to 'encoscope describe' to have it in words.
    """
    sizes = read_changes(GroupSettings, grouping)
    common, captions = common or Common(), captions or CaptionFlags()
    captions.check(probe, common, settings, out)

    from encoscope import results

    falcon = captions.fit_falcon(model, probe, common, settings, holdout=0)
    groups = falcon.find_groups(layer, **sizes)
    for item in groups.skipped:
        note(f"skipped: {item.reason}")
    if out is not None:
        groups.save(out)
    if common.json:
        say(results.dumps(groups.to_dict()))
    else:
        for group in groups:
            say(str(group))
        say(str(groups))
    return 1 if groups.skipped else 0
