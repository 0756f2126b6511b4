"""The human study of VITAL (section 4.3, appendix D) as a kit: a questionnaire to hand out, and its evaluation."""

from encoscope.user_study.answer_key import AnswerKey, Question, load_key
from encoscope.user_study.build import StudySettings, build_study
from encoscope.user_study.evaluate import score_study
from encoscope.user_study.export import QuestionContent, StudyInfo, write_study
from encoscope.user_study.responses import Answers, read_answers
from encoscope.user_study.sampling import SynthesisOptions
from encoscope.user_study.scoring import StudyScores, compute_scores

__all__ = [
    "AnswerKey",
    "Answers",
    "Question",
    "QuestionContent",
    "StudyInfo",
    "StudyScores",
    "StudySettings",
    "SynthesisOptions",
    "build_study",
    "compute_scores",
    "load_key",
    "read_answers",
    "score_study",
    "write_study",
]
