"""Words and noun phrases of captions: what is kept, what is left out, what is one word."""

from __future__ import annotations

import pytest

from encoscope.falcon.words import Terms, extract_terms, lemmatize


@pytest.mark.parametrize(
    ("caption", "words", "phrases"),
    [
        (
            "A shaggy white Komondor dog with a corded coat running on the beach",
            "shaggy white komondor dog corded coat running beach",
            ["shaggy white komondor", "white komondor", "white komondor dog", "komondor dog", "corded coat"],
        ),
        ("Striped cats' leaves & wolves: photo of 3 men, close-up", "striped cat leaf wolf man", ["striped cat"]),
        ("it's a dog's breakfast; DON’T", "dog breakfast", ["dog breakfast"]),
        ("sports cars driving quickly", "sport car driving quickly", ["sports car"]),  # only the last word's lemma
        ("a dog wearing a red hat", "dog wearing red hat", ["red hat"]),
        ("running shoes", "running shoe", ["running shoe"]),
        (
            "a round black and white yin yang",
            "round black white yin yang",
            ["round black", "white yin", "white yin yang", "yin yang"],
        ),
        ("an ox on a 3d mp3 x-ray of 4x4s", "x-ray", []),
        ("two dogs, three black cats", "dog black cat", ["black cat"]),
        ("dog, cat (brown) dog", "dog cat brown", []),
        ("<b>tree-lined</b> streets &amp; lanes www.shop.com/x IMG_2033.jpg", "tree-lined street lane", None),
        ("ＣＡＦÉ\u200b crème\nbrûlée", "café crème brûlée", None),
        ("stock photo background image 4K hd", "", []),
        ("of the", "", []),
        ("", "", []),
    ],
)
def test_terms(caption: str, words: str, phrases: list[str] | None) -> None:
    found = extract_terms(caption)
    assert " ".join(found.words) == words
    if phrases is not None:
        assert list(found.phrases) == phrases


@pytest.mark.parametrize(
    "pair",
    ["dogs dog", "wolves wolf", "leaves leaf", "corded corded", "striped striped", "running running", "bonsai bonsai",
     "lotus lotus", "louis louis", "glasses glasses", "octopus octopus", "komondors komondor", "metallic metallic",
     "grass grass", "x-rays x-ray", "scissors scissors", "louis-vuittons louis-vuitton"],
)  # fmt: skip
def test_lemmas_are_those_of_nouns(pair: str) -> None:
    word, expected = pair.split()
    assert lemmatize(word) == expected


def test_every_term_is_lower_case_and_long_enough_on_the_shipped_captions() -> None:
    from encoscope.zoo.captions import load_vocabulary

    everything = [extract_terms(caption) for caption in load_vocabulary()]
    assert isinstance(everything[0], Terms)
    words = {word for found in everything for word in found.words}
    assert {"komondor", "photo", "the", "made", "close"}.isdisjoint(words)
    assert {"golden", "yang", "mandolin", "fair-skinned", "gnawing"} <= words
    assert all(word == word.lower() and len(word) > 2 and not any(map(str.isdigit, word)) for word in words)
    phrases = {phrase for found in everything for phrase in found.phrases}
    assert {"electric guitar", "joshua tree", "musical instrument"} <= phrases
    assert {len(phrase.split()) for phrase in phrases} == {2, 3}
    for found in everything:  # a phrase's words are words too, but for lemmas inside
        assert all(lemmatize(part) in found.words for phrase in found.phrases for part in phrase.split())
