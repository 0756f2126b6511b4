"""``encoscope classes``: which class of a model each folder of images stands for."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common
from encoscope.counting import count_noun


def classes(
    model: Annotated[
        str, Parameter(help='A classifier, such as "timm:resnet50" or "py:module:function".')
    ] = DEFAULT_MODEL,
    /,
    *,
    images: Annotated[str, Parameter(help="A folder with a folder for each class, or a dataset such as stl10:ROOT.")],
    common: Common | None = None,
) -> int:
    """Show which class of a model each folder (label) of a dataset stands for, and how that was found.

    Folders are matched by the name of a class, then by WordNet numbers (n01440764), then as the classes' indices if
    they are numbered from 0 to the last class. Folders that are numbered otherwise are refused unless --class-order
    says what they mean. All verbs match folders so. The exit code is 1 if a folder stands for no class.
    """
    from encoscope import results
    from encoscope.classes import match_classes

    common = common or Common()
    matches = match_classes(common.load(model), images)
    say(results.dumps(matches.to_dict()) if common.json else str(matches))
    if matches.unlabelled:
        note(f"{count_noun(matches.unlabelled, 'image has', 'images have')} no label")
    if matches.unmatched:
        note(f"{len(matches.unmatched)} of {len(matches)} folders stand for no single class of {matches.source}")
    return 1 if matches.unmatched else 0
