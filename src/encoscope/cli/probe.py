"""``encoscope probe``: one pass over a dataset, whose values are kept for later commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common
from encoscope.counting import count_noun
from encoscope.defaults import BATCH_SIZE, FEATURES


def probe(
    *dataset: Annotated[
        str, Parameter(help="A dataset such as caltech101:ROOT#train, a folder (its folders are labels), or files.")
    ],
    model: Annotated[str, Parameter(help='Such as "timm:resnet50" or "hf:facebook/dinov2-small".')] = DEFAULT_MODEL,
    layer: Annotated[
        str,
        Parameter(help='"features" (the pooled ones), "logits", a name from "encoscope layers", or NAME@cls.'),
    ] = FEATURES,
    batch: Annotated[int, Parameter(help="Images at once.")] = BATCH_SIZE,
    features: Annotated[
        Path | None, Parameter(help="Take values from this .npy file, a row for each image, instead of the model's.")
    ] = None,
    fresh: Annotated[bool, Parameter(help="Delete what an earlier pass has stored, and start over.")] = False,
    common: Common | None = None,
) -> int:
    """Run every image of a dataset through a model once, and keep the values of a layer's channels.

    The values are kept in the cache (ENCOSCOPE_CACHE): other commands find them again for the same dataset and model.
    Run the command again to resume it after it was stopped. Images that cannot be read are reported and left out.
    """
    from encoscope import results
    from encoscope.errors import UsageError
    from encoscope.probing import probe as run

    if not dataset:
        raise UsageError("give a dataset, a folder or image files")
    common = common or Common()
    check_run(common, sources=[*dataset, features], batch=batch)
    encoder = common.load(model)
    source = dataset[0] if len(dataset) == 1 else list(dataset)
    options: dict[str, Any] = {"batch_size": batch, "fresh": fresh, "progress": common.progress}
    result = run(encoder, source, layer, features=features, **options)
    for item in result.skipped:
        note(f"skipped: {item.reason}")
    if common.json:
        entry = {
            "dataset": list(dataset),
            "layer": result.layer,
            "images": len(result),
            "channels": result.values.shape[1],
            "labelled": sum(label is not None for label in result.labels),
            "store": str(result.path),
            **({"values": result.imported} if result.imported else {}),
        }
        document = results.envelope(
            "probe",
            [entry],
            model=results.record_model(encoder, [result.layer]).as_dict(),
            settings={"batch": batch, "features": None if features is None else str(features)},
            seed=common.seed,
            skipped=result.skipped,
        )
        say(results.dumps(document))
    else:
        left_out = f", {len(result.skipped)} skipped" if result.skipped else ""
        counted = f"{count_noun(len(result), 'image')}{left_out}, {count_noun(result.values.shape[1], 'channel')}"
        say(f"{counted} of {result.layer}: {result.path}")
    return 1 if result.skipped else 0
