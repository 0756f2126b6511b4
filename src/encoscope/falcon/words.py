"""The words and noun phrases of a caption, cleaned and lemmatised; nothing is downloaded.

Nouns, verbs and adjectives are all concepts, so instead of tagging parts of speech it is enough to leave out a short
list of function words, words about the image itself ("photo", "background"), words of one or two letters and
whatever holds a digit. The lists are files in ``data/``.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

LONGEST = 3  # words in a phrase
_SHORTEST = 3  # letters in a word

_NOISE = re.compile(r"<[^<>]*>|(?:https?://|www\.)\S+|\S+@\S+|\S+\.(?:jpe?g|png|gif|webp|html?|com|org|net)\b", re.I)
_TOKEN = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Terms:
    """The terms of a caption.

    Attributes:
        words: Its words as lemmas, each once, in their order.
        phrases: Its noun phrases, each once, in their order.
    """

    words: tuple[str, ...]
    phrases: tuple[str, ...]


@lru_cache(maxsize=1 << 17)
def extract_terms(caption: str) -> Terms:
    """Extract the words and noun phrases of a caption.

    Words: lower case, as nouns' lemmas ("dogs" is "dog"; "corded", "running" and "striped" stay), more than two
    letters, no digits, neither stop words nor words about the image itself. A word with hyphens is one word.

    Phrases: two or three neighboring words, with nothing left out or punctuated between them, the last of which is a
    noun (or unknown to the dictionary) and is lemmatized. A noun that may be an adjective ("white") is the last one
    only where nothing follows it. No phrase contains an adverb, nor a verb in "-ing" that follows another word:
    "a dog wearing a red hat" has "red hat" but not "dog wearing"; "running shoes" stays.

    Args:
        caption: Its text.

    Returns:
        Its words and phrases.

    Example:
        >>> extract_terms("two dogs wearing red hats")
        Terms(words=('dog', 'wearing', 'red', 'hat'), phrases=('red hat',))
    """
    words: dict[str, None] = {}
    phrases: dict[str, None] = {}
    for chunk in _chunks(caption):
        words.update(dict.fromkeys(map(lemmatize, chunk)))
        for run in _runs(chunk):
            phrases.update(dict.fromkeys(_phrases(run)))
    return Terms(tuple(word for word in words if word not in _left_out()), tuple(phrases))


@lru_cache(maxsize=1 << 17)
def lemmatize(word: str) -> str:
    """Turn a word into a noun's lemma.

    Args:
        word: In lower case.

    Returns:
        The lemma; a word that is no known plural of a noun stays as it is.

    Example:
        >>> lemmatize("leaves"), lemmatize("striped")
        ('leaf', 'striped')
    """
    exceptions = _exceptions()
    if word in exceptions:
        return exceptions[word]
    if "-" in word:  # "tree-lined streets" have no dictionary entry, but their last part may
        before, _, last = word.rpartition("-")
        return f"{before}-{lemmatize(last)}"
    known = _nouns(word, rules=False)
    # its rules for unknown words would make "bonsaus" of "bonsai"
    plural = word.endswith("s") and not word.endswith(("ss", "us", "is", "as"))
    return (known or (_nouns(word, rules=True) if plural else None) or [word])[0]


def _nouns(word: str, rules: bool) -> list[str]:
    import lemminflect

    return list(lemminflect.getLemma(word, "NOUN", lemmatize_oov=rules))


def _chunks(caption: str) -> list[list[str]]:
    """Runs of words that count, cut at stop words, left-out words and punctuation."""
    text = unicodedata.normalize("NFKC", html.unescape(caption)).lower().replace("’", "'")
    chunks: list[list[str]] = [[]]
    for token in _TOKEN.findall(_NOISE.sub(" . ", text).replace("_", " ")):
        word = token
        if word not in _left_out():  # "it's" is on the list, "dog's" is a dog
            word = word.removesuffix("'s")
        letters = sum(map(str.isalpha, word))
        if letters < _SHORTEST or any(map(str.isdigit, word)) or word in _left_out():
            chunks.append([])
        else:
            chunks[-1].append(word)
    return [chunk for chunk in chunks if chunk]


def _runs(chunk: list[str]) -> list[list[str]]:
    """A chunk without its adverbs, and without verbs in "-ing" that follow another word, cut there."""
    runs: list[list[str]] = [[]]
    for word in chunk:
        kinds = _kinds(word)
        verb = word.endswith("ing") and "VERB" in kinds
        if kinds == ("ADV",) or (verb and runs[-1]):
            runs.append([])
        else:
            runs[-1].append(word)
    return runs


def _phrases(run: list[str]) -> Iterator[str]:
    for last in range(1, len(run)):
        kinds = _kinds(run[last])
        noun = not kinds or "NOUN" in kinds or "PROPN" in kinds
        if noun and (last == len(run) - 1 or "ADJ" not in kinds):
            for first in range(max(0, last - LONGEST + 1), last):
                yield " ".join((*run[first:last], lemmatize(run[last])))


@lru_cache(maxsize=1 << 17)
def _kinds(word: str) -> tuple[str, ...]:
    """The parts of speech that the dictionary has a word as; none for a word that it does not have."""
    import lemminflect

    return tuple(lemminflect.getAllLemmas(word.rpartition("-")[2]))


def _listed(name: str) -> list[str]:
    text = (resources.files("encoscope.falcon") / "data" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _left_out() -> frozenset[str]:
    """Stop words and words about the image itself."""
    lines = _listed("stop-words.txt") + _listed("discard-words.txt")
    return frozenset(word for line in lines for word in line.split())


@cache
def _exceptions() -> dict[str, str]:
    return dict(line.split("\t") for line in _listed("lemmas.tsv"))
