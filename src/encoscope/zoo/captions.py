"""Captions from the attribute table: the image-text model's training text, and the default vocabulary.

``python -m encoscope.zoo.captions`` writes the shipped file again, byte for byte.
"""

from __future__ import annotations

import gzip
import io
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from encoscope.defaults import RANDOM_STATE
from encoscope.zoo.attributes import HELD_OUT, ClassWords, load_class_words

PER_CLASS = 64
FILE = "captions.tsv.gz"

# {noun}: a name or synonym, or a kind where the name is held out; {a:...} puts the article that fits before it.
TEMPLATES = (
    "a photo of {a noun}",
    "a picture of {a adjective noun}",
    "{a noun} {place}",
    "{a adjective noun} {place}",
    "{a adjective noun} {doing}",
    "{a noun} {doing} {place}",
    "{a noun} with {part}",
    "{a noun} with {part} and {part2}",
    "{a adjective noun} with {part}",
    "{a color noun} with {part}, {place}",
    "{a texture noun} {doing} {place}",
    "{a noun}, {a kind} with {part}",
    "{a noun} is {a kind}",
    "{a kind} with {part}, {part2} and {part3}",
    "{a adjective kind} {place}",
    "the {bare} of {a noun}",
    "the {bare} and the {bare2} of {a noun}",
    "{a noun}, {texture} and {color}",
    "{a color noun}, {texture}, {place}",
    "{a noun} {substance}",
    "{a color noun} {substance}",
    "{a texture kind} {substance}, {place}",
    "a close view of {a adjective noun}",
    "{a color kind} {doing}",
)


def add_article(phrase: str) -> str:
    """Put "a" or "an" before a noun phrase.

    Args:
        phrase: A noun phrase without article.

    Returns:
        The phrase with its article; a proper name as it is.

    Example:
        >>> add_article("umbrella"), add_article("Snoopy")
        ('an umbrella', 'Snoopy')
    """
    if phrase[:1].isupper():
        return phrase
    sounded = phrase[0] in "aeiou" and not phrase.startswith(("eu", "uni", "one"))
    return f"{'an' if sounded else 'a'} {phrase}"


def strip_article(phrase: str) -> str:
    """Take the article away from a noun phrase.

    Args:
        phrase: A noun phrase with or without "a" or "an".

    Returns:
        The phrase without it.

    Example:
        >>> strip_article("a long neck")
        'long neck'
    """
    for start in ("a ", "an "):
        if phrase.startswith(start):
            return phrase[len(start) :]
    return phrase


def _substance(words: ClassWords, material: str) -> str:
    return f"with {material}" if words.nature == "living" else f"made of {material}"


def _fill(template: str, words: ClassWords, rng: np.random.Generator, named: bool) -> str:
    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    parts = [words.parts[i] for i in rng.permutation(len(words.parts))]
    color, texture = pick(words.color), pick(words.texture)
    # the plain name half of the time: it is what people ask for
    name = words.name if rng.random() < 0.5 else pick(words.names)
    noun, kind = name if named else pick(words.kind), pick(words.kind)
    proper = named and noun[:1].isupper()
    adjective = (color, texture, f"{texture} {color}")[rng.integers(3)]
    phrases = {
        "a noun": add_article(noun),
        "a adjective noun": add_article(f"{adjective} {noun}"),
        "a color noun": add_article(f"{color} {noun}"),
        "a texture noun": add_article(f"{texture} {noun}"),
        "a kind": add_article(kind),
        "a adjective kind": add_article(f"{adjective} {kind}"),
        "a color kind": add_article(f"{color} {kind}"),
        "a texture kind": add_article(f"{texture} {kind}"),
        "place": pick(words.location),
        "doing": pick(words.doing),
        "part": parts[0],
        "part2": parts[1],
        "part3": parts[2],
        "bare": strip_article(parts[0]),
        "bare2": strip_article(parts[1]),
        "color": color,
        "texture": texture,
        "substance": _substance(words, pick(words.material)),
    }
    if proper:  # "Garfield", not "an orange Garfield"
        phrases |= {key: noun for key in phrases if key.startswith("a ") and key.endswith(" noun")}
    for key, phrase in phrases.items():
        template = template.replace("{" + key + "}", phrase)
    return template


def make_captions(words: ClassWords, count: int = PER_CLASS, random_state: int = RANDOM_STATE) -> list[str]:
    """Make distinct captions of a class from its attributes.

    Args:
        words: The class; its names are left out where they are held out.
        count: The number of captions.
        random_state: The random_state; the same random_state gives the same captions.

    Returns:
        The captions.

    Raises:
        ValueError: If the class has too few attributes for that many distinct captions.
    """
    rng = np.random.default_rng([random_state, *words.folder.encode()])
    named = words.folder not in HELD_OUT
    captions: dict[str, None] = {f"a photo of {add_article(words.name)}": None} if named else {}
    turn = last = -1
    while turn - last < 40 * len(TEMPLATES):  # no new caption in so many turns: there are no more
        turn += 1
        template = TEMPLATES[turn % len(TEMPLATES)]
        if not named and template == "{a noun} is {a kind}":
            continue  # it would say that a kind is a kind
        caption = _fill(template, words, rng, named)
        if caption not in captions:
            captions[caption], last = None, turn
        if len(captions) == count:
            return list(captions)
    raise ValueError(f"{words.folder} has attributes for only {len(captions)} of {count} captions")


def make_all_captions(random_state: int = RANDOM_STATE) -> list[tuple[str, str]]:
    """Make the captions of all classes.

    Args:
        random_state: The random_state.

    Returns:
        Pairs of class folder and caption; a caption that two classes share is there with each.
    """
    return [
        (words.folder, caption)
        for words in load_class_words()
        for caption in make_captions(words, random_state=random_state)
    ]


@cache
def load_captions() -> tuple[tuple[str, str], ...]:
    """Load the shipped captions as (class folder, caption), in the order of the classes."""
    packed = (resources.files("encoscope.zoo") / "data" / FILE).read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return tuple((folder, caption) for folder, caption in (line.split("\t") for line in lines))


def load_vocabulary() -> tuple[str, ...]:
    """Load the default vocabulary: the distinct shipped captions, in their order."""
    return tuple(dict.fromkeys(caption for _, caption in load_captions()))


def pack_captions() -> bytes:
    """Make the bytes of the shipped file from the table of attributes."""
    text = "".join(f"{folder}\t{caption}\n" for folder, caption in make_all_captions())
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as file:
        file.write(text.encode("utf-8"))
    return buffer.getvalue()


if __name__ == "__main__":
    (Path(__file__).parent / "data" / FILE).write_bytes(pack_captions())
