"""The human study: orders follow from codes, the folder that is handed out tells nothing, known answers give known
statistics, and a real browser goes from the first page to the file."""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from encoscope.cli.app import run
from encoscope.errors import MissingError, UsageError
from encoscope.user_study import (
    AnswerKey,
    QuestionContent,
    StudyInfo,
    compute_scores,
    load_key,
    read_answers,
    write_study,
)
from encoscope.user_study.answer_key import StudyPart
from encoscope.user_study.cluster_bootstrap import (
    bootstrap_participants,
    compute_difference,
    compute_question_means,
    mean_statistic,
    median_statistic,
)
from encoscope.user_study.ordering import (
    draw_codes,
    find_subset,
    hash_text,
    make_latin_square,
    order_images,
    order_questions,
    shuffle,
)
from encoscope.user_study.plots import plot_scores
from encoscope.user_study.responses import check_answers
from support.atlas_browsing import Visit
from support.tiny_classifier import MODEL, settle

METHODS = ("vital", "deepinversion", "maco")
INNER = ("vital", "maco")
WORDS = ("sea horse", "barrel", "panda", "okapi", "lobster", "tick")


def noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))


def contents() -> list[QuestionContent]:
    rng = np.random.default_rng(0)

    def one(part: StudyPart, unit: str, word: str | None, methods: Sequence[str], **more: Any) -> QuestionContent:
        return QuestionContent(part, unit, word, {method: noise(rng) for method in methods}, **more)

    found = [one("words", f"class:{word}", word, METHODS) for word in WORDS[:3]]
    found += [one("examples", f"layer4:{c}", None, INNER, examples=[noise(rng) for _ in range(4)]) for c in (411, 97)]
    found += [one("describe", f"class:{word}", word, METHODS) for word in WORDS[3:]]
    found += [one("match", f"layer4:{c}", None, INNER, choices=[noise(rng), noise(rng)]) for c in (203, 355)]
    return found


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_study(contents(), METHODS, tmp_path / "study", StudyInfo(participants=12))
    return tmp_path / "study"


def answered(key: AnswerKey, code: str, *, scores: dict[str, int], text: Callable[[str, str], str], right: Any) -> dict:
    """What the page saves for a participant who gives a method always the same score."""
    orders, answers = {}, {}
    for part in key.parts:
        questions = {question.name: question for question in key.select_questions(part)}
        orders[part] = order_questions(key.study, code, part, list(questions))
        for name, question in questions.items():
            files = list(question.visualizations.values())
            given: dict[str, Any] = {"seconds": 2.0}
            file = files[find_subset(key.study, code, part, len(files))]
            method = question.find_method(file)
            if part in ("words", "examples"):
                given["shown"] = order_images(key.study, code, name, sorted(files))
                given["scores"] = {file: scores[method] for method, file in question.visualizations.items()}
            if part == "describe":
                given |= {"shown": [file], "text": text(method, question.label)}
            if part == "match":
                given["shown"] = order_images(key.study, code, name, sorted(question.choices))
                given |= {"picture": file, "choice": question.choices[0 if right(method) else 1], "confidence": 2}
            answers[name] = given
    return {
        "format": "encoscope.study-answers/1",
        "study": key.study,
        "participant": code,
        "orders": orders,
        "answers": answers,
        "demographics": {"age": "25-34", "gender": None},
    }


def embed(texts: Sequence[str]) -> np.ndarray:
    """Equal texts are alike, "half X" is half like X, others not at all."""
    known = [text.removeprefix("half ") for text in texts]
    names = sorted(set(known))
    rows = np.zeros((len(texts), len(names) + 1))
    for row, (text, word) in enumerate(zip(texts, known, strict=True)):
        rows[row, names.index(word)] = 0.5 if text != word else 1
        rows[row, -1] = np.sqrt(0.75) if text != word else 0
    return rows


def described(method: str, word: str) -> str:
    return {"vital": f" {word.upper()} ", "maco": f"half  {word}", "deepinversion": "nothing"}[method]


# Orders


def test_orders_are_permutations_that_a_code_decides() -> None:
    items = list("abcdefgh")
    assert sorted(shuffle(items, "one")) == items and shuffle(items, "one") == shuffle(items, "one")
    assert shuffle(items, "one") != shuffle(items, "two")
    assert hash_text("") == hash_text("") != hash_text("a")
    first = Counter(shuffle("abcd", f"study/{number}/x")[0] for number in range(4000))
    assert stats.chisquare(list(first.values())).pvalue > 1e-3
    pairs = Counter("".join(shuffle("abc", f"study/{number}/x")) for number in range(6000))
    assert len(pairs) == 6 and stats.chisquare(list(pairs.values())).pvalue > 1e-3


def test_every_question_has_each_method_once_and_every_subset_shares_them_evenly() -> None:
    table = make_latin_square(9, METHODS)
    assert all(sorted(row) == sorted(METHODS) for row in table)
    for column in zip(*table, strict=True):
        assert set(Counter(column).values()) == {3}


def test_codes_to_hand_out_are_spread_over_the_subsets_of_all_parts() -> None:
    parts = [("describe", 3), ("match", 2)]
    found = draw_codes("abc", 12, parts, random_state=1)
    assert len(set(found)) == 12 and found == draw_codes("abc", 12, parts, random_state=1) != draw_codes(
        "abc", 12, parts, random_state=2
    )
    cells = Counter(tuple(find_subset("abc", code, name, of) for name, of in parts) for code in found)
    assert len(cells) == 6 and set(cells.values()) == {2}


# What is handed out


def test_the_folder_for_participants_tells_neither_method_nor_class(study: Path) -> None:
    handed = study / "questionnaire"
    files = sorted(path.relative_to(handed).as_posix() for path in handed.rglob("*") if path.is_file())
    assert {name for name in files if not name.startswith("pictures/")} == {
        "index.html",
        "questions.js",
        "study.css",
        "study.js",
    }
    hidden = [*METHODS, "fourier", "plugin", "layer", "resnet", *WORDS[3:], "411", "97", "203", "355", "class:"]
    text = "\n".join((handed / name).read_text() for name in files if not name.endswith(".png")).casefold()
    assert not re.search(r"https?:|//[a-z]", text)
    assert [method for method in METHODS if method in text] == []
    questions = (handed / "questions.js").read_text().casefold()
    questions = re.sub(r"[0-9a-f]{16}\.png", "", questions).replace(load_key(study).study, "")
    assert [word for word in hidden if word in questions] == []
    sizes, chunks = set(), set()
    for name in files:
        if name.endswith(".png"):
            assert re.fullmatch(r"pictures/[0-9a-f]{16}\.png", name)
            with Image.open(handed / name) as opened:
                sizes.add(opened.size)
            data = (handed / name).read_bytes()
            place = 8
            while place < len(data):
                chunks.add(data[place + 4 : place + 8])
                place += 12 + int.from_bytes(data[place : place + 4])
    assert chunks == {b"IHDR", b"IDAT", b"IEND"}
    assert sizes == {(24, 24), (192, 192)}


def test_pictures_stand_in_an_order_that_says_nothing(study: Path) -> None:
    key = load_key(study)
    shown = json.loads(
        (study / "questionnaire" / "questions.js").read_text().removeprefix("window.STUDY = ").strip("; \n")
    )
    parts = {part["kind"]: part["questions"] for part in shown["parts"]}
    assert [question["word"] for question in parts["words"]] != list(WORDS[:3])
    assert all(one["pictures"] == sorted(one["pictures"]) for kind in ("words", "examples") for one in parts[kind])
    assert all(one["choices"] == sorted(one["choices"]) and "word" not in one for one in parts["match"])
    for one, question in zip(parts["describe"], key.select_questions("describe"), strict=True):
        assert set(one) == {"name", "pictures"} and one["pictures"] == list(question.visualizations.values())
    columns = [
        [question.find_method(one) for one in question.visualizations.values()]
        for question in key.select_questions("describe")
    ]
    assert sorted(zip(*columns, strict=True)) == sorted(zip(*make_latin_square(3, columns[0]), strict=True))


def test_the_key_comes_back_and_is_never_written_over(study: Path, tmp_path: Path) -> None:
    again = write_study(contents(), METHODS, study, StudyInfo(participants=12))
    assert load_key(study) == again
    with pytest.raises(UsageError, match="key of another study"):
        write_study(contents()[:-1], METHODS, study)
    with pytest.raises(MissingError, match="no such file"):
        load_key(tmp_path)
    with (study / "participants.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["address"] == f"index.html#{rows[0]['code']}"
    for row in rows:
        assert int(row["subset (describe)"]) == find_subset(again.study, row["code"], "describe", 3) + 1


# What comes back


def test_known_answers_give_known_statistics(study: Path) -> None:
    key = load_key(study)
    given = {"vital": 5, "deepinversion": 2, "maco": 1}
    answers = [
        check_answers(key, answered(key, code, scores=given, text=described, right=lambda method: method == "vital"))
        for code in draw_codes(key.study, 12, [("describe", 3), ("match", 2)])
    ]
    scored = compute_scores(key, answers, embed, text_encoder="ours")
    rows = {(row["part"][:6], row["method"]): row for row in scored.tables["scores"].rows}
    for method, number in given.items():
        row = rows["part 1", method]
        assert row["answers"] == 36 and row[f"scored {number}"] == 36
        assert (row["mean"].value, row["median"].value) == (number, number)
        assert row["share of 4-5"].value == (number >= 4)
    assert rows["part 2", "maco"]["answers"] == 24 and ("part 2", "deepinversion") not in rows
    written = {row["method"]: row for row in scored.tables["descriptions"].rows}
    expected = {"vital": 1.0, "maco": 0.5, "deepinversion": 0.0}
    for method, value in expected.items():
        row = written[method]
        assert row["answers"] == 12
        for name in ("5 %", "95 %"):
            assert row[name] == pytest.approx(value)
        assert row["median"].value == pytest.approx(value) and row["control"].value == pytest.approx(0)
    chosen = {row["method"]: row for row in scored.tables["choices"].rows}
    assert chosen["vital"]["correct"].value == 1 and chosen["maco"]["correct"].value == 0
    assert chosen["maco"]["confidence"].value == 2 and chosen["maco"]["confidence if correct"] is None
    pairs = {(row["part"][:6], row["methods"]): row["difference"].value for row in scored.tables["differences"].rows}
    assert pairs["part 1", "vital - maco"] == 4 and pairs["part 2", "vital - maco"] == 4
    assert pairs["part 3", "vital - maco"] == pytest.approx(0.5) and pairs["part 4", "vital - maco"] == 1
    people = {(row["what"], row["answer"]): row["number"] for row in scored.tables["participants"].rows}
    assert people["age", "25-34"] == 12 and people["gender", "not told"] == 12
    single = scored.tables["questions"].rows
    assert len(single) == 3 * 3 + 2 * 2 + 3 * 3 + 2 * 2
    assert {row["about"] for row in single if row["part"].startswith("part 3")} == set(WORDS[3:])
    assert scored.to_dict()["settings"]["participants"] == 12
    assert set(plot_scores(scored)) == {"study-summary", *(f"study-questions-{part}" for part in key.parts)}


def test_intervals_draw_participants_not_answers() -> None:
    """Ten answers of a participant that are all alike are worth one."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=40)
    values = np.repeat(means[:, None], 10, 1)
    found = bootstrap_participants([0] * 40, mean_statistic(values))
    wide = stats.sem(means)
    assert found.value == pytest.approx(means.mean())
    assert (found.high - found.low) / (2 * 1.96 * wide) == pytest.approx(1, abs=0.12)


def test_statistics_of_draws_against_numpy() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(7, 5))
    values[rng.random(values.shape) < 0.3] = np.nan
    rows = rng.integers(7, size=(20, 7))
    assert mean_statistic(values)(rows) == pytest.approx([np.nanmean(values[one]) for one in rows])
    assert median_statistic(values)(rows) == pytest.approx([np.nanmedian(values[one]) for one in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of questions that nobody drawn has answered
        expected = np.array([np.nanmean(values[one], 0) for one in rows])
    assert compute_question_means(values, rows) == pytest.approx(expected, nan_ok=True)


def test_differences_are_not_moved_by_who_saw_the_easy_questions() -> None:
    """Two methods alike on each question, one of them seen more often on the easy one."""
    easy, hard = 0.9, 0.1
    one = np.array([[easy, np.nan]] * 6 + [[np.nan, hard]] * 2)
    other = np.array([[np.nan, hard]] * 6 + [[easy, np.nan]] * 2)
    found, questions = compute_difference(one, other, [0] * 6 + [1] * 2)
    assert questions == 2 and found is not None and found.value == pytest.approx(0)
    assert (found.low, found.high) == pytest.approx((0, 0))
    assert np.nanmean(one) - np.nanmean(other) == pytest.approx(0.4)
    assert compute_difference(np.full((2, 1), np.nan), np.zeros((2, 1)), [0, 0]) == (None, 0)


def test_what_cannot_be_used_is_named_and_left_out(study: Path, tmp_path: Path, capsys: Any) -> None:
    key = load_key(study)
    whole = answered(key, "AAA", scores=dict.fromkeys(METHODS, 3), text=described, right=bool)
    folder = tmp_path / "answers"
    folder.mkdir()

    def put(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> None:
        document = json.loads(json.dumps(whole))
        if change is not None:
            change(document)
        (folder / f"{name}.json").write_text(json.dumps(document))

    question = key.select_questions("words")[0]
    file = question.visualizations["maco"]
    text = key.select_questions("describe")[0].name
    put("a-good")
    put("b-twice")
    put("c-other", lambda found: found.update(study="other", participant="B"))
    put("d-open", lambda found: (found.update(participant="AAA"), found["answers"][question.name]["scores"].pop(file)))
    put("e-range", lambda found: found["answers"][question.name]["scores"].update({file: 6}))
    put("f-empty", lambda found: found["answers"][text].update(text="  "))
    put("g-order", lambda found: found["answers"][question.name]["shown"].reverse())
    put("h-code", lambda found: found.update(participant="BBB"))
    (folder / "i-broken.json").write_text('{"format": ')
    (folder / "j-else.json").write_text("[]")
    found, skipped = read_answers(key, [folder])
    assert [one.participant for one in found] == ["AAA"]
    reasons = {Path(item.path).stem[0]: item.reason for item in skipped}
    assert "has answered already, in a-good.json" in reasons["b"]
    assert "answers to study 'other'" in reasons["c"]
    place = whole["orders"]["words"].index(question.name) + 1
    assert reasons["d"] == f"part 1, question {place}: score missing"
    assert reasons["e"] == f"part 1, question {place}: score is 1 to 5, not 6"
    assert "nothing is written" in reasons["f"]
    assert reasons["g"] == f"part 1, question {place}: other images were shown than participant AAA is to see"
    assert "is not that of participant BBB" in reasons["h"]
    assert set("ij") < set(reasons) and not any("\n" in reason for reason in reasons.values())
    with pytest.raises(UsageError, match="no answers are left to be scored"):
        compute_scores(key, [], embed)
    assert run(["study", "score", str(study), str(folder / "missing.json")]) == 3
    assert "no such file" in capsys.readouterr().err


# In a browser


def visited(browser: Any, study: Path, code: str = "", **options: Any) -> Visit:
    window = Visit(browser, (study / "questionnaire").as_uri(), **options)
    window.page.goto(f"{window.base}/index.html{code}")
    window.page.wait_for_selector("h1")
    return window


def go_on(window: Visit) -> None:
    before = window.page.inner_text("main")
    window.page.keyboard.press("Enter")
    window.wait("(text) => document.querySelector('main').innerText !== text", before)


def files_shown(page: Any, where: str) -> list[str]:
    return page.evaluate("(where) => [...document.querySelectorAll(where)].map((i) => i.src.split('/').pop())", where)


@pytest.mark.parametrize("code", ["K7P2QX", "q-19"])
def test_from_the_first_page_to_the_file_by_keyboard(browser: Any, study: Path, tmp_path: Path, code: str) -> None:
    key = load_key(study)
    given = {"vital": 5, "deepinversion": 2, "maco": 1}
    window = visited(browser, study, f"#{code}", accept_downloads=True)
    page = window.page
    code = code.upper()
    assert code in page.inner_text("main") and page.evaluate("location.hash") in (f"#{code}", f"#{code.lower()}")
    go_on(window)
    for part in key.parts:
        questions = {question.name: question for question in key.select_questions(part)}
        go_on(window)  # from the instructions
        for place, name in enumerate(order_questions(key.study, code, part, list(questions))):
            question = questions[name]
            files = list(question.visualizations.values())
            page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
            assert page.evaluate("[...document.images].every((i) => i.hasAttribute('alt'))")
            if part in ("words", "examples"):
                order = order_images(key.study, code, name, sorted(files))
                assert files_shown(page, "fieldset img") == order
                assert files_shown(page, ".examples img") == list(question.examples)
                if place == 0:
                    page.keyboard.press("Enter")
                    assert page.inner_text("#warning") == "Please give picture A a score."
                for file in order:
                    page.keyboard.press(str(given[question.find_method(file)]))
            elif part == "describe":
                file = files[find_subset(key.study, code, part, len(files))]
                assert files_shown(page, "img") == [file]
                page.keyboard.type(described(question.find_method(file), question.label))
            else:
                file = files[find_subset(key.study, code, part, len(files))]
                choices = order_images(key.study, code, name, sorted(question.choices))
                assert files_shown(page, "img") == [file, *choices]
                page.check(f'input[value="{question.choices[0]}"]', force=True)
                page.check('input[name="confidence"][value="2"]', force=True)
            if place == 1:  # nothing is lost on the way back, nor by loading the page again
                page.click("text=Back")
                page.reload()
                page.wait_for_selector("h1")
                assert order_questions(key.study, code, part, list(questions))[0] in questions
                go_on(window)
            go_on(window)
    page.check('input[value="25-34"]', force=True)
    go_on(window)
    with page.expect_download() as saving:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    path = tmp_path / saving.value.suggested_filename
    saving.value.save_as(path)
    assert path.name == f"answers-{key.study}-{code}.json"
    (found,), skipped = read_answers(key, [path])
    expected = check_answers(key, answered(key, code, scores=given, text=described, right=lambda _: True))
    assert not skipped and found.scores == expected.scores and found.choices == expected.choices
    assert {name: (method, text.strip()) for name, (method, text) in expected.texts.items()} == found.texts
    assert found.subsets == expected.subsets and found.demographics == {"age": "25-34", "gender": None}
    assert 0 < found.seconds < 600
    window.close()
    assert window.problems == []


def test_a_code_is_drawn_for_who_comes_without_one(browser: Any, study: Path) -> None:
    window = visited(browser, study)
    code = window.page.evaluate("location.hash")
    assert re.fullmatch("#[A-Z2-9]{8}", code)
    window.page.reload()
    assert window.page.evaluate("location.hash") == code
    window.close()
    assert window.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_windows_in_light_and_dark(browser: Any, study: Path, scheme: str) -> None:
    window = visited(browser, study, "#A", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    parts = window.page.evaluate("window.STUDY.parts.map((part) => part.questions.length + 1)")
    home = f"study-{load_key(study).study}-A"
    page = window.page
    for place in range(sum(parts) + 3):
        kept = json.dumps({"screen": place, "answers": {}, "demographics": {"age": None, "gender": None}})
        page = window.context.new_page()
        page.add_init_script(f"sessionStorage.setItem({json.dumps(home)}, {json.dumps(kept)})")
        page.goto(f"{window.base}/index.html#A")
        page.wait_for_selector("h1")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
    assert page.inner_text("h1") == "Thank you"
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (paper == "rgb(20, 20, 18)") == (scheme == "dark")
    window.close()


# From a network


LABELS = ("sea_horse", "barrel, cask", "panda", "crab", "water_lilly")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos of five labels, a module with a network, and a cache of its own."""
    return settle(tmp_path, monkeypatch, ("sea horse", *LABELS[1:]), LABELS)


def built(*tokens: str) -> int:
    fixed = ("--model", MODEL, "--references", "photos", "--n-references", "4", "--participants", "6")
    return run(["study", "build", *fixed, *tokens])


def test_build_draws_pictures_and_writes_and_again_gives_the_same(here: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ("--classes", "2", "--described", "3", "--channels", "2", "--matched", "2", "--layer", "2", "--steps", "2")
    assert built(*asked, "--out", "one", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    key = load_key(here / "one")
    assert document == json.loads((here / "one" / "key.json").read_text())
    assert [len(key.select_questions(part)) for part in key.parts] == [2, 2, 3, 2]
    words = {question.word for question in key.questions} - {None}
    assert words == {"sea horse", "barrel", "panda", "crab", "water lily"}
    assert key.select_methods("words") == list(METHODS) and key.select_methods("examples") == list(INNER)
    channels = [question.unit for part in ("examples", "match") for question in key.select_questions(part)]
    assert len(set(channels)) == 4 and all(unit.startswith("2:") for unit in channels)
    handed = here / "one" / "questionnaire" / "pictures"
    for question in key.questions:
        pictures = [(handed / name).read_bytes() for name in question.visualizations.values()]
        assert len(set(pictures)) == len(pictures)
        assert len(question.examples) == (4 if question.part == "examples" else 0)
        assert len(set(question.choices)) == (2 if question.part == "match" else 0)
    assert built(*asked, "--out", "two") == 0
    assert load_key(here / "two") == key
    assert built(*asked, "--seed", "1", "--out", "one") == 2


def test_pictures_that_were_made_before(here: Path, capsys: pytest.CaptureFixture) -> None:
    units = [f"class:{label}" for label in LABELS] + ["2:3", "2:5"]
    for method in ("vital", "maco"):
        made = ("--method", method, "--references", "photos", "--steps", "2", "--out", f"made/{method}")
        assert run(["visualize", *units, "--model", MODEL, *made]) == 0
    asked = ("--methods", "vital,maco", "--channels", "2", "--described", "panda,crab", "--visualizations", "made")
    assert built(*asked, "--classes", "sea horse", "--layer", "2", "--out", "study") == 0
    key = load_key(here / "study")
    assert {question.unit for question in key.select_questions("examples")} == {"2:3", "2:5"}
    panda = next(question for question in key.select_questions("describe") if question.word == "panda")
    handed = here / "study" / "questionnaire" / "pictures" / panda.visualizations["maco"]
    with Image.open(here / "made" / "maco" / "class-panda.png") as one, Image.open(handed) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    capsys.readouterr()
    assert built(*asked[:-1], "nowhere", "--classes", "2", "--out", "b") == 3
    assert "no such file" in capsys.readouterr().err
    assert built(*asked, "--classes", "barrel", "--layer", "1", "--out", "c") == 2
    assert "only 0 are left" in capsys.readouterr().err


def test_what_cannot_be_asked_is_said_in_one_line(here: Path, capsys: pytest.CaptureFixture) -> None:
    for tokens, said in (
        (("--methods", "vital,mako"), "unknown method 'mako'"),
        (("--methods", "vital"), "compares two methods or more"),
        (("--methods", "deepinversion,plugin"), "none visualizes channels"),
        (("--classes", "panda", "--described", "crab,Panda"), "'panda' is asked about twice"),
        (("--classes", "4", "--described", "2"), "only 1 are left that have references"),
        (("--classes", "1", "--described", "1", "--channels", "2:90"), "out of range"),
        (("--classes", "1", "--described", "1", "--channels", "2-4"), "--channels takes a number or LAYER:CHANNEL"),
        (("--steps", "0"), "steps is a number from 1 on, not 0"),
    ):
        assert built(*tokens, "--out", "out") == 2, tokens
        captured = capsys.readouterr()
        assert said in captured.err and captured.err.count("\n") == 1, captured.err
    assert not (here / "out").exists()


def test_score_writes_tables_and_figures(study: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    class Texts:
        source = "ours"
        embed_texts = staticmethod(embed)

    monkeypatch.setattr("encoscope.vlm.load", lambda source, device: Texts())
    key = load_key(study)
    given = {"vital": 4, "deepinversion": 2, "maco": 1}
    (study / "answers").mkdir()
    for code in draw_codes(key.study, 3, [("describe", 3)]):
        found = answered(key, code, scores=given, text=described, right=lambda method: method == "vital")
        (study / "answers" / f"{code}.json").write_text(json.dumps(found))
    assert run(["study", "score", str(study), str(study / "answers"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "encoscope.study-scores/1" and document["settings"]["participants"] == 3
    tables = {entry["table"]: entry for entry in document["results"]}
    assert list(tables) == ["scores", "descriptions", "choices", "differences", "participants", "questions"]
    assert any("in place of the paper's Universal Sentence Encoder" in note for note in tables["descriptions"]["notes"])
    folder = study / "scores"
    for name in tables:
        assert {(folder / f"study-{name}").with_suffix(end).is_file() for end in (".csv", ".json", ".md")} == {True}
    with Image.open(folder / "study-summary.png") as opened:
        assert opened.width > 1000
    (study / "answers" / "z.json").write_text("{}")
    assert run(["study", "score", str(study), str(study / "answers")]) == 1
    said = capsys.readouterr()
    assert "skipped:" in said.err and "vital - maco" in said.out
    assert run(["study", "score", str(study), str(study / "answers"), "--out", str(study / "questionnaire")]) == 2
