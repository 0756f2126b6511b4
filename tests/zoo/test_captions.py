from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from importlib import resources

import pytest

from encoscope.images.caltech101 import list_classes
from encoscope.zoo.attributes import HELD_OUT, load_class_words
from encoscope.zoo.captions import FILE, add_article, load_captions, load_vocabulary, make_captions, pack_captions

# Every way in which a held-out class could be named, plurals and the dataset's own spelling included.
HIDDEN = re.compile(
    r"\b(grand|pianos?|pianoforte|lobsters?|homarus|okapis?|forest giraffes?|pandas?"
    r"|saxophones?|sax(es)?|soccer|footballs?|strawberr(y|ies)|garden berr(y|ies)|(water ?)?lill?(y|ies)|nymphaea"
    r"|wheel ?chairs?|invalid|wild ?cats?|ocelots?|lynx(es)?|bobcats?)\b"
)


def test_the_table_has_a_full_row_for_each_class_in_order():
    rows = load_class_words()
    assert tuple(row.folder for row in rows) == list_classes()
    for row in rows:
        lists = (row.kind, row.material, row.texture, row.color, row.location, row.doing)
        assert all(lists) and len(row.parts) >= 3, row.folder
        assert row.nature in ("living", "made")
        phrases = [row.name, *row.synonyms, *row.parts, *(phrase for group in lists for phrase in group)]
        assert all(phrase == phrase.strip() and phrase for phrase in phrases), row.folder


def test_names_are_distinct_and_attributes_are_shared():
    rows = load_class_words()
    owners = Counter(name for row in rows for name in row.names)
    assert max(owners.values()) == 1, owners.most_common(3)
    shared = Counter(
        value for row in rows for value in {*row.kind, *row.parts, *row.texture, *row.color, *row.material}
    )
    assert sum(count > 1 for count in shared.values()) > 100


def test_there_are_enough_distinct_captions_and_each_class_has_some():
    captions = load_vocabulary()
    assert len(captions) >= 5000 and len(set(captions)) == len(captions)
    assert {folder for folder, _ in load_captions()} == set(list_classes())
    assert set(Counter(folder for folder, _ in load_captions()).values()) == {64}


def test_held_out_names_are_in_no_caption():
    assert len(HELD_OUT) == 10 and set(HELD_OUT) < set(list_classes())
    assert not [caption for caption in load_vocabulary() if HIDDEN.search(caption.lower())]
    by_folder = {row.folder: row for row in load_class_words()}
    hidden = [name for folder in HELD_OUT for name in by_folder[folder].names]
    assert all(HIDDEN.search(name) for name in hidden)  # the pattern knows each of them
    assert not [caption for caption in load_vocabulary() for name in hidden if name in caption]


def test_other_classes_are_named_and_held_out_ones_still_described():
    by_folder: dict[str, list[str]] = {}
    for folder, caption in load_captions():
        by_folder.setdefault(folder, []).append(caption)
    for row in load_class_words():
        captions = " | ".join(by_folder[row.folder])
        if row.folder in HELD_OUT:
            assert sum(part.removeprefix("a ") in captions for part in row.parts) >= 2, row.folder
        else:
            assert f"a photo of {add_article(row.name)}" in captions


def test_captions_read_as_english():
    for caption in load_vocabulary():
        assert not re.search(r"[{}]|  |\ba (?!eu)[aeio]|\ban [^aeiou]|\b(\w+) \1\b|,,|, *$", caption), caption


@pytest.mark.parametrize(
    "phrase,expected",
    [("ant", "an ant"), ("euphonium", "a euphonium"), ("umbrella", "an umbrella"), ("Snoopy", "Snoopy")],
)
def test_article(phrase, expected):
    assert add_article(phrase) == expected


def test_the_shipped_file_is_what_the_table_gives():
    assert (resources.files("encoscope.zoo") / "data" / FILE).read_bytes() == pack_captions()


def test_another_seed_gives_other_captions_and_too_many_are_refused():
    row = load_class_words()[10]
    assert make_captions(row) == make_captions(row) != make_captions(row, random_state=1)
    poor = replace(row, kind=row.kind[:1], parts=row.parts[:3], color=("red",), location=("on a table",), synonyms=())
    with pytest.raises(ValueError, match="for only"):
        make_captions(poor, count=5000)
