"""The paper's statistics of a study: scores, similarities of descriptions, choices, for each method and in pairs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope import results
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.evaluation.report import Report
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.user_study.answer_key import TITLES, AnswerKey, Question, StudyPart
from encoscope.user_study.cluster_bootstrap import (
    Statistic,
    Table,
    bootstrap_participants,
    compute_difference,
    mean_statistic,
    median_statistic,
)
from encoscope.user_study.responses import SCORES, Answers

HIGH = 4
"""Scores from here on count as high (paper: "scores 4-5")."""
QUANTILES = (0.05, 0.95)
EmbedTexts = Callable[[Sequence[str]], Any]
"""Turns texts into unit vectors, [texts, width]."""


@dataclass(frozen=True, eq=False)
class PartResult:
    """A part of a study in numbers.

    Attributes:
        part: The part.
        questions: Its questions, in the order of the columns.
        values: By method, a number for each participant and question; NaN where the participant saw another method's
            visualization. It is a score of 1 to 5, the cosine of a description and the word, or 1 for the right image
            and 0 for the wrong one.
        strata: The stratum of each participant: the subset.
        secondary: By method, a second number of each answer: the mean cosine with the other questions' words, which is
            the control, or the confidence of a choice. Empty for scores.
    """

    part: StudyPart
    questions: tuple[Question, ...]
    values: Mapping[str, Table]
    strata: tuple[int, ...]
    secondary: Mapping[str, Table] = field(default_factory=dict)

    def pool(self, method: str) -> Float[np.ndarray, " answers"]:
        """Pool all numbers of a method.

        Args:
            method: The method.

        Returns:
            The numbers of all participants and questions, without NaNs.
        """
        values = self.values[method]
        return values[~np.isnan(values)]


@dataclass(frozen=True, eq=False)
class StudyScores:
    """The statistics of a study.

    Attributes:
        key: The study's answer key.
        participants: The number of participants.
        parts: Each part in numbers.
        tables: By name, in the order in which they are printed; the table of single questions comes last.
        skipped: Files that were left out.
    """

    key: AnswerKey
    participants: int
    parts: tuple[PartResult, ...]
    tables: Mapping[str, Report]
    skipped: tuple[SkippedImage, ...]

    def to_dict(self) -> results.Document:
        """Give all tables as one result document."""
        entries = [
            {"table": name, "title": report.title, "rows": report.to_dict()["results"], "notes": list(report.notes)}
            for name, report in self.tables.items()
        ]
        settings = {
            "study": self.key.study,
            "participants": self.participants,
            "methods": list(self.key.methods),
            "title": self.key.title,
        }
        model = None if self.key.model is None else dict(self.key.model)
        return results.envelope(
            "study-scores", entries, model=model, settings=settings, seed=self.key.seed, skipped=self.skipped
        )

    def save(self, path: str | os.PathLike[str], command: str | None = None) -> Path:
        """Write each table as JSON, CSV and Markdown, and the figures, into a folder.

        Args:
            path: The folder; it is made if it is absent.
            command: The command that made them, for the Markdown pages.

        Returns:
            The folder.
        """
        from encoscope.user_study.plots import plot_scores

        folder = Path(path)
        for report in self.tables.values():
            report.save(folder, command)
        for name, figure in plot_scores(self).items():
            with results.atomic_write(folder / f"{name}.png") as temporary:
                figure.save(temporary)
        return folder


def compute_scores(
    key: AnswerKey,
    answers: Sequence[Answers],
    embed: EmbedTexts | None = None,
    *,
    text_encoder: str | None = None,
    skipped: Sequence[SkippedImage] = (),
    random_state: int = RANDOM_STATE,
) -> StudyScores:
    """Compute all statistics of a study.

    Args:
        key: The study's answer key.
        answers: The answers of each participant.
        embed: Embeds descriptions and words; needed where the study has a part 3.
        text_encoder: The name of what embeds, for the notes.
        skipped: Files that were left out, for the document.
        random_state: The seed of the bootstrap.

    Returns:
        The statistics, as tables.

    Raises:
        UsageError: If there are no answers, or descriptions but no ``embed``.

    Source: VITAL, section 4.3 and appendix D, figures 6, 13 and 37 to 39.
    """
    if not answers:
        raise UsageError("no answers are left to be scored" + (f": {skipped[0].reason}" if skipped else ""))
    parts = [measure_part(key, part, answers, embed) for part in key.parts]
    notes = [f"{len(answers)} participants; intervals are 95 % bootstrap intervals over participants."]
    if len(answers) < 2:
        notes = ["One participant: the intervals say nothing."]
    stand_in = (
        f"Similarity is the cosine of text vectors of {text_encoder or 'the text encoder'}, in place of the paper's "
        "Universal Sentence Encoder: read it beside the control, the similarity of the same descriptions with the "
        "words of the other questions; the paper's figures are on another scale."
    )
    settings = {"study": key.study, "participants": len(answers), "text_encoder": text_encoder}

    def make_report(name: str, title: str, rows: Sequence[Mapping[str, Any]], *more: str) -> Report:
        return Report(f"study-{name}", title, rows, (*notes, *more), {}, settings, random_state, skipped)

    tables = {}
    scored = [part for part in parts if part.part in ("words", "examples")]
    if scored:
        rows = [row for part in scored for row in _tabulate_scores(part, random_state)]
        tables["scores"] = make_report("scores", "Scores from 1 (worst) to 5 (best)", rows, *key.notes)
    for part in parts:
        if part.part == "describe":
            title, rows = "Similarity of free descriptions to the hidden word", _tabulate_texts(part, random_state)
            tables["descriptions"] = make_report("descriptions", title, rows, stand_in, *key.notes)
        if part.part == "match":
            title, rows = "Choice between two real images", _tabulate_choices(part, random_state)
            tables["choices"] = make_report("choices", title, rows, "Chance is 0.5.", *key.notes)
    fair = "Differences are taken question by question, so that no method gains by easier questions."
    pairs = [row for part in parts for row in _tabulate_pairs(key, part, random_state)]
    tables["differences"] = make_report("differences", "Differences between methods", pairs, fair)
    people = make_report("participants", "Who took part", _tabulate_people(answers))
    tables["participants"] = replace(people, notes=())
    single = make_report("questions", "Question by question", [row for part in parts for row in _tabulate(part)])
    tables["questions"] = replace(single, notes=key.notes)
    return StudyScores(key, len(answers), tuple(parts), tables, tuple(skipped))


def measure_part(
    key: AnswerKey, part: StudyPart, answers: Sequence[Answers], embed: EmbedTexts | None = None
) -> PartResult:
    """Turn the answers to a part into numbers.

    Args:
        key: The study's answer key.
        part: The part.
        answers: The answers of each participant, in the order of the rows.
        embed: Embeds descriptions and words; needed for part 3.

    Returns:
        The numbers.

    Raises:
        UsageError: If there are descriptions but no ``embed``.
    """
    questions = tuple(key.select_questions(part))
    methods = key.select_methods(part)
    shape = (len(answers), len(questions))
    values = {method: np.full(shape, np.nan) for method in methods}
    has_secondary = part in ("describe", "match")
    secondary = {method: np.full(shape, np.nan) for method in methods} if has_secondary else {}
    similarities = _compute_similarities(questions, answers, embed) if part == "describe" else {}
    for row, participant in enumerate(answers):
        for column, question in enumerate(questions):
            if part in ("words", "examples"):
                for method, score in participant.scores[question.name].items():
                    values[method][row, column] = score
            elif part == "describe":
                method, text = participant.texts[question.name]
                cosines = similarities[text]
                values[method][row, column] = cosines[column]
                others = np.delete(cosines, column)
                secondary[method][row, column] = others.mean() if len(others) else np.nan
            else:
                method, is_right, confidence = participant.choices[question.name]
                values[method][row, column] = is_right
                secondary[method][row, column] = confidence
    strata = tuple(participant.subsets.get(part, 0) for participant in answers)
    return PartResult(part, questions, values, strata, secondary)


def _compute_similarities(
    questions: Sequence[Question], answers: Sequence[Answers], embed: EmbedTexts | None
) -> dict[str, Float[np.ndarray, " questions"]]:
    """The cosine of each distinct description with the word of every question."""
    if embed is None:
        raise UsageError("descriptions are scored by a text encoder: give one")
    texts = list(dict.fromkeys(text for participant in answers for _, text in participant.texts.values()))
    descriptions = [" ".join(text.casefold().split()) for text in texts]
    words = [" ".join(question.label.casefold().split()) for question in questions]
    vectors = np.asarray(embed([*descriptions, *words]), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[: len(texts)] @ vectors[len(texts) :].T
    return dict(zip(texts, cosines, strict=True))


def _tabulate_scores(part: PartResult, random_state: int) -> list[dict[str, Any]]:
    rows = []
    for method, values in part.values.items():
        pooled = part.pool(method)
        rows.append(
            {"part": TITLES[part.part], "method": method, "answers": len(pooled)}
            | {"mean": _compute_interval(part, values, mean_statistic, random_state)}
            | {"median": _compute_interval(part, values, median_statistic, random_state)}
            | {"share of 4-5": _compute_interval(part, (values >= HIGH).astype(float), mean_statistic, random_state)}
            | {f"scored {number}": int((pooled == number).sum()) for number in SCORES}
        )
    return rows


def _tabulate_texts(part: PartResult, random_state: int) -> list[dict[str, Any]]:
    rows = []
    for method, values in part.values.items():
        pooled = part.pool(method)
        low, high = _compute_quantiles(pooled)
        rows.append(
            {"method": method, "answers": len(pooled)}
            | {"median": _compute_interval(part, values, median_statistic, random_state), "5 %": low, "95 %": high}
            | {"mean": _compute_interval(part, values, mean_statistic, random_state)}
            | {"control": _compute_interval(part, part.secondary[method], mean_statistic, random_state)}
        )
    return rows


def _tabulate_choices(part: PartResult, random_state: int) -> list[dict[str, Any]]:
    return [
        {"method": method, "answers": len(part.pool(method))}
        | {"correct": _compute_interval(part, values, mean_statistic, random_state)}
        | {"confidence": _compute_interval(part, part.secondary[method], mean_statistic, random_state)}
        | {"confidence if correct": _compute_mean(part.secondary[method][values == 1])}
        for method, values in part.values.items()
    ]


def _tabulate_pairs(key: AnswerKey, part: PartResult, random_state: int) -> list[dict[str, Any]]:
    rows = []
    for first, second in combinations(part.values, 2):
        difference, count = compute_difference(part.values[first], part.values[second], part.strata, random_state)
        row = {"part": TITLES[part.part], "methods": f"{first} - {second}", "difference": difference}
        rows.append(row | {"questions": count, "of": len(key.select_questions(part.part))})
    return rows


def _tabulate_people(answers: Sequence[Answers]) -> list[dict[str, Any]]:
    """How many of each age range and gender; shares are of those who told (as in the paper)."""
    rows: list[dict[str, Any]] = []
    for name in ("age", "gender"):
        values = [participant.demographics.get(name) for participant in answers]
        counts = Counter(value for value in values if value is not None)
        total = sum(counts.values())
        order = sorted(counts, key=lambda value: (value != "under 18", value)) if name == "age" else sorted(counts)
        rows += [
            {"what": name, "answer": value, "number": counts[value], "share": counts[value] / total} for value in order
        ]
        rows.append({"what": name, "answer": "not told", "number": values.count(None), "share": None})
    minutes = float(np.median([participant.seconds for participant in answers])) / 60
    rows.append({"what": "median minutes", "answer": None, "number": round(minutes, 1), "share": None})
    return rows


def _tabulate(part: PartResult) -> list[dict[str, Any]]:
    """Figures 37 to 39 in numbers: a row for each question and method."""
    is_scored = part.part in ("words", "examples")
    rows = []
    for column, question in enumerate(part.questions):
        for method, table in part.values.items():
            values = table[:, column][~np.isnan(table[:, column])]
            low, high = _compute_quantiles(values)
            rows.append(
                {"part": TITLES[part.part], "question": question.name, "about": question.label, "unit": question.unit}
                | {"method": method, "answers": len(values), "mean": _compute_mean(values)}
                | {"median": float(np.median(values)) if len(values) else None}
                | {"5 %": low, "95 %": high}
                | {f"scored {number}": int((values == number).sum()) if is_scored else None for number in SCORES}
            )
    return rows


def _compute_interval(
    part: PartResult, values: Table, make_statistic: Callable[[Table], Statistic], random_state: int
) -> Interval | None:
    """The interval of a statistic; None without any answer."""
    if np.isnan(values).all():
        return None
    return bootstrap_participants(part.strata, make_statistic(values), random_state=random_state)


def _compute_quantiles(values: np.ndarray) -> tuple[float | None, float | None]:
    low, high = (float(np.quantile(values, level)) for level in QUANTILES) if len(values) else (None, None)
    return low, high


def _compute_mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
