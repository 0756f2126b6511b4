"""Run one of the papers' tables or figures by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError, explain_calls
from encoscope.progress import Progress
from encoscope.reproduce.registry import find_experiment

if TYPE_CHECKING:
    from encoscope.evaluation.report import Report


@explain_calls
def run_experiment(
    name: str,
    *,
    models: str | Sequence[str] = (),
    datasets: str | Sequence[str] = (),
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    random_state: int = RANDOM_STATE,
    load: Mapping[str, Any] | None = None,
    fresh: bool = False,
    progress: Progress = None,
) -> Report:
    """Run one of the papers' tables or figures on models and data at hand. An interrupted run resumes.

    Args:
        name: The experiment, such as "nave-fig6"; ``EXPERIMENTS`` has all of them.
        models: The encoders, for experiments that leave them open, or NAME=MODEL for a row; sources as for ``load``.
        datasets: Folders, or datasets such as coco:IMAGES#JSON.
        limit: At most so many images, classes or units, the first ones; None takes all.
        options: The settings that the paper leaves open, by name.
        random_state: The seed of everything random.
        load: Keyword arguments of ``encoscope.load`` for all models, such as ``device``.
        fresh: Start over instead of resuming an interrupted run.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table, with notes and figures; ``save`` writes it into a folder.

    Raises:
        UsageError: For an unknown experiment or option (the nearest name is given), and for wrong numbers.
        MissingError: For data or weights that are not there.

    Example:
        >>> report = run_experiment("nave-fig8", models="zoo:resnet-caltech101", datasets="images/")  # doctest: +SKIP
        >>> report.save("reproduced")  # doctest: +SKIP
    """
    experiment = find_experiment(name)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is a number from 1 on, not {limit}")

    from encoscope.evaluation.report import EvaluationRequest

    request = EvaluationRequest(
        models=(models,) if isinstance(models, str) else tuple(models),
        datasets=(datasets,) if isinstance(datasets, str) else tuple(datasets),
        limit=limit,
        seed=random_state,
        load={**(load or {}), "random_state": random_state},
        options=dict(options or {}),
        fresh=fresh,
        progress=progress,
    )
    return experiment.load()(request)
