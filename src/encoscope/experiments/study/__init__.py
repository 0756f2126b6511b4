"""The human study of VITAL (section 4.3, appendix D) as a kit: a questionnaire to hand out, and its evaluation."""

from encoscope.experiments.study.answers import Answers, read_answers
from encoscope.experiments.study.building import Asked, build, write_study
from encoscope.experiments.study.key import Key, Question, read_key
from encoscope.experiments.study.scoring import score

__all__ = ["Answers", "Asked", "Key", "Question", "build", "read_answers", "read_key", "score", "write_study"]
