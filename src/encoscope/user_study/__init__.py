"""The human study of VITAL (section 4.3, appendix D) as a kit: a questionnaire to hand out, and its evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoscope._lazy import lazy_names

if TYPE_CHECKING:
    from encoscope.user_study.answer_key import AnswerKey, Question, load_key
    from encoscope.user_study.build import build_study
    from encoscope.user_study.evaluate import score_study
    from encoscope.user_study.export import QuestionContent, StudyInfo, write_study
    from encoscope.user_study.responses import Answers, read_answers
    from encoscope.user_study.scoring import StudyScores, compute_scores

_HOMES = {
    "AnswerKey": "encoscope.user_study.answer_key",
    "Answers": "encoscope.user_study.responses",
    "Question": "encoscope.user_study.answer_key",
    "QuestionContent": "encoscope.user_study.export",
    "StudyInfo": "encoscope.user_study.export",
    "StudyScores": "encoscope.user_study.scoring",
    "build_study": "encoscope.user_study.build",
    "compute_scores": "encoscope.user_study.scoring",
    "load_key": "encoscope.user_study.answer_key",
    "read_answers": "encoscope.user_study.responses",
    "score_study": "encoscope.user_study.evaluate",
    "write_study": "encoscope.user_study.export",
}

__all__ = [
    "AnswerKey",
    "Answers",
    "Question",
    "QuestionContent",
    "StudyInfo",
    "StudyScores",
    "build_study",
    "compute_scores",
    "load_key",
    "read_answers",
    "score_study",
    "write_study",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
