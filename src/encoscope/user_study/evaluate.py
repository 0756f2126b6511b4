"""Evaluate the answers to a study by one call."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from encoscope import vlm
from encoscope.defaults import DEVICE, RANDOM_STATE
from encoscope.devices import find_device
from encoscope.errors import UsageError, explain_calls
from encoscope.user_study.answer_key import load_key
from encoscope.user_study.responses import read_answers
from encoscope.user_study.scoring import StudyScores, compute_scores
from encoscope.user_study.settings import TEXT_ENCODER
from encoscope.vlm import VLM

_log = logging.getLogger(__name__)


@explain_calls
def score_study(
    study: str | os.PathLike[str],
    answers: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    text_encoder: VLM | str = TEXT_ENCODER,
    device: str = DEVICE,
    random_state: int = RANDOM_STATE,
) -> StudyScores:
    """Evaluate participants' answers: scores, similarities of descriptions, differences between methods.

    Answers that are damaged, incomplete, of another study or a second time of the same participant are left out, with a
    warning; they are the result's ``skipped``.

    Args:
        study: The folder of the study, which holds key.json.
        answers: The files that participants saved, or folders of them.
        text_encoder: An image-text model or its name, which compares descriptions with words, in place of the
            Universal Sentence Encoder. It is loaded only where the study has descriptions.
        device: Where the text encoder runs; "auto" is the GPU if there is one.
        random_state: The seed of the bootstrap.

    Returns:
        The statistics, as tables; ``save`` writes them and their figures into a folder.

    Raises:
        MissingError: If there is no study or no file of answers.
        UsageError: If no answers are left to be scored.

    Example:
        >>> score_study("study", "answers/").tables["scores"].rows  # doctest: +SKIP

    Source: VITAL, section 4.3 and appendix D, figures 6, 13 and 37 to 39.
    """
    sources = [answers] if isinstance(answers, str | os.PathLike) else list(answers)
    if not sources:
        raise UsageError("give the files that participants saved, or their folder")
    if isinstance(text_encoder, str):
        find_device(device)  # before answers are read
    key = load_key(Path(study))
    participants, skipped = read_answers(key, [Path(source) for source in sources])
    for item in skipped:
        _log.warning("skipped: %s: %s", item.path, item.reason)
    model = None
    if participants and key.select_questions("describe"):
        model = vlm.load(text_encoder, device=device) if isinstance(text_encoder, str) else text_encoder
    return compute_scores(
        key,
        participants,
        None if model is None else model.embed_texts,
        text_encoder=None if model is None else model.source,
        skipped=skipped,
        random_state=random_state,
    )
