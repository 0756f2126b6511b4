"""The human study of VITAL (section 4.3, appendix D) as a kit: a questionnaire to hand out, and its evaluation."""

from encoscope.user_study.answer_key import Key, Question, read_key
from encoscope.user_study.build import StudySettings, build, write_study
from encoscope.user_study.responses import Answers, read_answers
from encoscope.user_study.scoring import score

__all__ = ["Answers", "Key", "Question", "StudySettings", "build", "read_answers", "read_key", "score", "write_study"]
