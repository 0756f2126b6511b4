"""The paper's statistics of a study: scores, similarities of descriptions, choices, for each method and in pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope import results
from encoscope.errors import UsageError
from encoscope.evaluation.report import Report
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.user_study.answer_key import TITLES, Key, Part, Question
from encoscope.user_study.cluster_bootstrap import Statistic, Table, clustered, difference, mean_of, median_of
from encoscope.user_study.responses import SCORES, Answers

HIGH = 4
"""Scores from here on count as high (paper: "scores 4-5")."""
QUANTILES = (0.05, 0.95)
Embed = Callable[[Sequence[str]], Any]
"""Texts as unit vectors, [texts, width]."""


@dataclass(frozen=True, eq=False)
class MeasuredShare:
    """A part in numbers.

    values: by method, a number for each participant and question; NaN where the participant saw another method's.
    Scores 1 to 5, cosines of descriptions and words, or 1 for the right image and 0 for the wrong one.
    strata: of the participants. beside: a second number of each answer: the mean cosine with the other questions'
    words, a control, or the confidence of a choice.
    """

    part: Part
    questions: tuple[Question, ...]
    values: Mapping[str, Table]
    strata: tuple[int, ...]
    beside: Mapping[str, Table] = field(default_factory=dict)

    def pooled(self, method: str) -> Float[np.ndarray, " answers"]:
        """All of a method's numbers."""
        found = self.values[method]
        return found[~np.isnan(found)]


@dataclass(frozen=True, eq=False)
class Scored:
    """What came out. tables: by name, in the order they are printed; the one of single questions comes last."""

    key: Key
    participants: int
    parts: tuple[MeasuredShare, ...]
    tables: Mapping[str, Report]
    skipped: tuple[SkippedImage, ...]

    def document(self) -> results.Document:
        """All tables as one document."""
        entries = [
            {"table": name, "title": report.title, "rows": report.document()["results"], "notes": list(report.notes)}
            for name, report in self.tables.items()
        ]
        settings = {"study": self.key.study, "participants": self.participants, **_settings(self)}
        model = None if self.key.model is None else dict(self.key.model)
        return results.envelope(
            "study-scores", entries, model=model, settings=settings, seed=self.key.seed, skipped=self.skipped
        )


def score(
    key: Key,
    answers: Sequence[Answers],
    embed: Embed | None = None,
    *,
    encoder: str | None = None,
    skipped: Sequence[SkippedImage] = (),
    seed: int = 0,
) -> Scored:
    """Score everyone's answers.

    embed: turns descriptions and words into unit vectors; needed where the study has a part 3. encoder: its name.

    Raises:
        UsageError: no answers, or descriptions without ``embed``.
    """
    if not answers:
        raise UsageError("no answers are left to be scored" + (f": {skipped[0].reason}" if skipped else ""))
    parts = [measured(key, part, answers, embed) for part in key.parts]
    notes = [f"{len(answers)} participants; intervals are 95 % bootstrap intervals over participants."]
    if len(answers) < 2:
        notes = ["One participant: the intervals say nothing."]
    near = (
        f"Similarity is the cosine of text vectors of {encoder or 'the given encoder'}, in place of the paper's "
        "Universal Sentence Encoder: read it beside the control, the similarity of the same descriptions with the "
        "words of the other questions; the paper's figures are on another scale."
    )
    how = {"study": key.study, "participants": len(answers), "text_encoder": encoder}

    def report(name: str, title: str, rows: Sequence[Mapping[str, Any]], *more: str) -> Report:
        return Report(f"study-{name}", title, rows, (*notes, *more), {}, how, seed, skipped)

    tables = {}
    rated = [part for part in parts if part.part in ("words", "examples")]
    if rated:
        rows = [row for part in rated for row in _rated(part, seed)]
        tables["scores"] = report("scores", "Scores from 1 (worst) to 5 (best)", rows, *key.notes)
    for part in parts:
        if part.part == "describe":
            told = "Similarity of free descriptions to the hidden word"
            tables["descriptions"] = report("descriptions", told, _described(part, seed), near, *key.notes)
        if part.part == "match":
            told = "Choice between two real images"
            tables["choices"] = report("choices", told, _matched(part, seed), "Chance is 0.5.", *key.notes)
    fair = "Differences are taken question by question, so that no method gains by easier questions."
    pairs = [row for part in parts for row in _pairs(key, part, seed)]
    tables["differences"] = report("differences", "Differences between methods", pairs, fair)
    tables["participants"] = replace(report("participants", "Who took part", _people(answers)), notes=())
    single = [row for part in parts for row in _questions(part)]
    tables["questions"] = replace(report("questions", "Question by question", single), notes=key.notes)
    return Scored(key, len(answers), tuple(parts), tables, tuple(skipped))


def measured(key: Key, part: Part, answers: Sequence[Answers], embed: Embed | None = None) -> MeasuredShare:
    """A part in numbers, participants in the order of ``answers``."""
    questions = tuple(key.of(part))
    methods = key.methods_of(part)
    shape = (len(answers), len(questions))
    values = {method: np.full(shape, np.nan) for method in methods}
    beside = {method: np.full(shape, np.nan) for method in methods} if part in ("describe", "match") else {}
    near = _similarities(questions, answers, embed) if part == "describe" else {}
    for row, one in enumerate(answers):
        for column, question in enumerate(questions):
            if part in ("words", "examples"):
                for method, given in one.scores[question.name].items():
                    values[method][row, column] = given
            elif part == "describe":
                method, text = one.texts[question.name]
                cosines = near[text]
                values[method][row, column] = cosines[column]
                others = np.delete(cosines, column)
                beside[method][row, column] = others.mean() if len(others) else np.nan
            else:
                method, right, confidence = one.choices[question.name]
                values[method][row, column] = right
                beside[method][row, column] = confidence
    strata = tuple(one.subsets.get(part, 0) for one in answers)
    return MeasuredShare(part, questions, values, strata, beside)


def _similarities(
    questions: Sequence[Question], answers: Sequence[Answers], embed: Embed | None
) -> dict[str, Float[np.ndarray, " questions"]]:
    """The cosine of each distinct description with the word of every question."""
    if embed is None:
        raise UsageError("descriptions are scored by a text encoder: give one")
    texts = list(dict.fromkeys(text for one in answers for _, text in one.texts.values()))
    written = [" ".join(text.casefold().split()) for text in texts]
    words = [" ".join(question.label.casefold().split()) for question in questions]
    vectors = np.asarray(embed([*written, *words]), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[: len(texts)] @ vectors[len(texts) :].T
    return dict(zip(texts, cosines, strict=True))


def _rated(part: MeasuredShare, seed: int) -> list[dict[str, Any]]:
    rows = []
    for method, values in part.values.items():
        pooled = part.pooled(method)
        rows.append(
            {"part": TITLES[part.part], "method": method}
            | {"answers": len(pooled)}
            | {"mean": clustered(part.strata, mean_of(values), seed=seed)}
            | {"median": clustered(part.strata, median_of(values), seed=seed)}
            | {"share of 4-5": clustered(part.strata, mean_of((values >= HIGH).astype(float)), seed=seed)}
            | {f"scored {number}": int((pooled == number).sum()) for number in SCORES}
        )
    return rows


def _described(part: MeasuredShare, seed: int) -> list[dict[str, Any]]:
    rows = []
    for method, values in part.values.items():
        pooled = part.pooled(method)
        low, high = (float(np.quantile(pooled, q)) for q in QUANTILES) if len(pooled) else (None, None)
        rows.append(
            {"method": method, "answers": len(pooled)}
            | {"median": _interval(part, values, median_of, seed), "5 %": low, "95 %": high}
            | {"mean": _interval(part, values, mean_of, seed)}
            | {"control": _interval(part, part.beside[method], mean_of, seed)}
        )
    return rows


def _matched(part: MeasuredShare, seed: int) -> list[dict[str, Any]]:
    return [
        {"method": method, "answers": len(part.pooled(method))}
        | {"correct": _interval(part, values, mean_of, seed)}
        | {"confidence": _interval(part, part.beside[method], mean_of, seed)}
        | {"confidence if correct": _mean(part.beside[method][values == 1])}
        for method, values in part.values.items()
    ]


def _pairs(key: Key, part: MeasuredShare, seed: int) -> list[dict[str, Any]]:
    rows = []
    for one, other in combinations(part.values, 2):
        found, questions = difference(part.values[one], part.values[other], part.strata, seed)
        row = {"part": TITLES[part.part], "methods": f"{one} - {other}", "difference": found, "questions": questions}
        rows.append(row | {"of": len(key.of(part.part))})
    return rows


def _people(answers: Sequence[Answers]) -> list[dict[str, Any]]:
    """How many of each age range and gender; shares are of those who told (as in the paper)."""
    rows: list[dict[str, Any]] = []
    for name in ("age", "gender"):
        told = [one.demographics.get(name) for one in answers]
        counts = Counter(value for value in told if value is not None)
        total = sum(counts.values())
        order = sorted(counts, key=lambda value: (value != "under 18", value)) if name == "age" else sorted(counts)
        rows += [
            {"what": name, "answer": value, "number": counts[value], "share": counts[value] / total} for value in order
        ]
        rows.append({"what": name, "answer": "not told", "number": told.count(None), "share": None})
    minutes = float(np.median([one.seconds for one in answers])) / 60
    rows.append({"what": "median minutes", "answer": None, "number": round(minutes, 1), "share": None})
    return rows


def _questions(part: MeasuredShare) -> list[dict[str, Any]]:
    """Figures 37 to 39 in numbers."""
    rows = []
    for column, question in enumerate(part.questions):
        for method, values in part.values.items():
            found = values[:, column][~np.isnan(values[:, column])]
            scored = part.part in ("words", "examples")
            low, high = (float(np.quantile(found, q)) for q in QUANTILES) if len(found) else (None, None)
            rows.append(
                {"part": TITLES[part.part], "question": question.name, "about": question.label, "unit": question.unit}
                | {"method": method, "answers": len(found), "mean": _mean(found)}
                | {"median": float(np.median(found)) if len(found) else None}
                | {"5 %": low, "95 %": high}
                | {f"scored {number}": int((found == number).sum()) if scored else None for number in SCORES}
            )
    return rows


def _interval(part: MeasuredShare, values: Table, of: Callable[[Table], Statistic], seed: int) -> Interval | None:
    return None if np.isnan(values).all() else clustered(part.strata, of(values), seed=seed)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _settings(scored: Scored) -> dict[str, Any]:
    return {"methods": list(scored.key.methods), "title": scored.key.title}
