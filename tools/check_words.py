"""Check that names are the field's own words, and that no two public classes share one.

    python tools/check_words.py                                      # everything
    python tools/check_words.py src/encoscope/store tests/store      # these alone

A name counts where code defines it: modules, classes, functions, parameters, variables, attributes, aliases of imports
and command-line flags. Names that are only used, keys of documents and texts are free. Outside src/ only what a module
offers is checked, not its functions' variables, nor the sentences that tests have as names.
Each line of the output says what to do: ``file:line: name 'colour_map' -> color``. The exit code is 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rooms import PACKAGE, ROOT, select_files, show

FOLDERS = [PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "docs", "examples", "tools"))]

NAMES = {
    # names that do not say what they hold
    "found": "what was found: selection, matches, rows, indices",
    "made": "what was made: images, reports; the images that an index is fitted on: fit",
    "some": "what they are: units, images; PixelSubset",
    "one": "what it is: unit, image, row",
    "there": "what is there: existing, present",
    "place": "index (in a list), position, path",
    "places": "indices, positions, paths",
    "asked": "requested, settings, questions",
    "wanted": "requested, needed",
    "given": "requested, supplied, values",
    "way": "geometry (of preparing an image), method, mode",
    "ways": "geometries (of preparing an image), methods, modes",
    # things that the field calls otherwise
    "ahead": "prefetch",
    "aside": "atomic_write",
    "brief": "concise_repr",
    "bring_in": "from_array",
    "deviation": "std",
    "deviations": "stds; as a setting: alpha_stds",
    "lows": "counterfactuals; as a setting: n_counterfactuals",
    "mark": "cue; watermark where it is laid over the image",
    "marks": "cues; watermarks where they are laid over images",
    "plus_plus": "kmeans_plusplus",
    "production": "run",
    "truth": "heldout_auc, ground_truth",
    "truths": "heldout_aucs, ground_truths",
}
"""Names that are wrong as they stand, whatever their case and the underscores around them."""

WORDS = {
    "colour": "color",
    "coloured": "colored",
    "colours": "colors",
    "contender": "baseline",
    "contenders": "baselines",
    "fires": "is_active",
    "firing": "activations",
    "parted": "segmented",
    "parting": "segmentation, segment",
    "photo": "image",
    "photograph": "image",
    "photographs": "images",
    "photos": "images",
    "picture": "visualization (of a unit), image, figure, thumbnail",
    "pictured": "visualized",
    "pictures": "visualizations (of units), images, figures, thumbnails",
    "picturing": "visualize",
    "spill": "feature_cache",
    "spilled": "cached",
    "steadiness": "stability",
    "twin": "untrained_copy",
    "twins": "untrained_copies",
    "wording": "description",
    "wordings": "descriptions",
}
"""Words that no name contains: ``photo_paths`` and ``PhotoSet`` are as wrong as ``photo``."""

SETTINGS = {
    "adaptive": "top_k_if_empty",
    "clear": "clarity_threshold",
    "least": "min_images",
    "mask": "mask_threshold",
    "most": "max_images",
    "quantile": "spurious_quantile",
    "smooth": "tv_weight, l2_weight",
    "spurious": "spurious_threshold",
    "top": "n_concepts; of other things: n_channels, top_k",
}
"""Names that are wrong for settings: numbers, truth values and texts that public functions or settings classes take."""

ROOM_WORDS = {"journal": ("store", "measurement_cache")}
"""Words that names contain in one room only, and the word elsewhere: the store's journal says which shards are done."""

ALLOWED = {("vital/visualization.py", "picture"), ("atlas/records.py", "picture")}
"""Names that stay, by the end of the file's path: keys of result documents that keep their names."""


@dataclass(frozen=True)
class Name:
    """A name that code defines.

    Attributes:
        line: Its line, from 1 on.
        text: The name.
        is_setting: Whether a user sets a number, a truth value or a text by it.
    """

    line: int
    text: str
    is_setting: bool = False


def main(arguments: Sequence[str]) -> int:
    """Print which names are wrong.

    Args:
        arguments: Files and folders; none for everything.

    Returns:
        The exit code: 1 if any name is wrong.
    """
    files = list(select_files(arguments, FOLDERS))
    problems = [problem for file in files for problem in check_file(file)]
    problems += check_classes(sorted(PACKAGE.rglob("*.py")), files)
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def check_file(file: Path) -> list[str]:
    """Check the names that one file defines.

    Args:
        file: A Python file.

    Returns:
        A line for each wrong name.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    module = Name(1, file.parent.name if file.stem == "__init__" else file.stem)
    in_package = not any(file.is_relative_to(folder) for folder in FOLDERS[1:])
    names = {module, *(list_names(tree) if in_package else list_offered_names(tree))}
    return [
        f"{show(file)}:{name.line}: name '{name.text}' -> {correction}"
        for name in sorted(names, key=lambda name: (name.line, name.text))
        if (correction := find_correction(name, file))
    ]


def find_correction(name: Name, file: Path) -> str | None:
    """Look up what a name should be.

    Args:
        name: The name.
        file: The file that defines it.

    Returns:
        The right word, or None where the name is right.
    """
    text = name.text.strip("_").lower()
    if any(file.as_posix().endswith(path) and text == allowed for path, allowed in ALLOWED):
        return None
    if text in NAMES:
        return NAMES[text]
    if name.is_setting and text in SETTINGS:
        return SETTINGS[text]
    for word in split_words(name.text):
        if word in WORDS:
            return WORDS[word]
        if word in ROOM_WORDS and ROOM_WORDS[word][0] not in file.parts:
            return ROOM_WORDS[word][1]
    return None


def split_words(name: str) -> list[str]:
    """Split a name into its words.

    Args:
        name: In snake_case, CamelCase or kebab-case.

    Returns:
        The words, in lower case.
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def list_names(tree: ast.Module) -> Iterator[Name]:
    """List every name that a module defines.

    Args:
        tree: The parsed module.

    Yields:
        The names with their lines.
    """
    for node in ast.walk(tree):
        yield from _defined(node)


def list_offered_names(tree: ast.Module) -> Iterator[Name]:
    """List the names that a module offers to others: what stands at its top level, and methods, with their parameters.

    Args:
        tree: The parsed module.

    Yields:
        The names with their lines; those of tests are left out, their parameters are not.
    """
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else []
        for inner in (node, *members):
            yield from (name for name in _defined(inner) if not name.text.startswith(("test_", "Test")))
            match inner:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    parameters = inner.args
                    for parameter in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs):
                        yield Name(parameter.lineno, parameter.arg)
                case ast.Assign(targets=targets):
                    yield from (name for target in targets for child in ast.walk(target) for name in _defined(child))
                case ast.AnnAssign(target=target):
                    yield from _defined(target)


def _defined(node: ast.AST) -> Iterator[Name]:
    """Names that this node alone defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield Name(node.lineno, node.name)
            if not node.name.startswith("_") or node.name == "__init__":
                yield from _settings(node.args)
        case ast.ClassDef():
            yield Name(node.lineno, node.name)
            if node.name.endswith("Settings"):
                fields = (field for field in node.body if isinstance(field, ast.AnnAssign))
                yield from (Name(field.lineno, ast.unparse(field.target), _is_scalar(field)) for field in fields)
        case ast.arg():
            yield Name(node.lineno, node.arg)
        case ast.Name(ctx=ast.Store()):
            yield Name(node.lineno, node.id)
        case ast.Attribute(ctx=ast.Store()):
            yield Name(node.lineno, node.attr)
        case ast.alias(asname=str(text)):
            yield Name(node.lineno, text)
        case ast.ExceptHandler(name=str(text)) | ast.MatchAs(name=str(text)) | ast.MatchStar(name=str(text)):
            yield Name(node.lineno, text)
        case ast.Constant(value=str(text)) if re.fullmatch(r"--[a-z][a-z-]*", text):
            yield Name(node.lineno, text)


def _settings(parameters: ast.arguments) -> Iterator[Name]:
    """Parameters that are settings. ``top`` beside ``left`` is a coordinate."""
    listed = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
    if all(parameter.arg != "left" for parameter in listed):
        yield from (Name(parameter.lineno, parameter.arg, _is_scalar(parameter)) for parameter in listed)


def _is_scalar(node: ast.arg | ast.AnnAssign) -> bool:
    """Whether the annotation is a number, a truth value or a text, or None beside them."""
    if node.annotation is None:
        return False
    annotation = node.annotation
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            annotation = first
    types = re.findall(r"[\w.]+", ast.unparse(annotation))
    return bool(types) and set(types) <= {"int", "float", "bool", "str", "None"}


def check_classes(package: Sequence[Path], checked: Sequence[Path]) -> list[str]:
    """Check that each public class of the package has a name of its own.

    Args:
        package: Files among which a name must be the only one of its kind.
        checked: Files whose classes are reported.

    Returns:
        A line for each class whose name another one has.
    """
    classes: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for file in sorted(package):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append((file, node.lineno))
    return [
        f"{show(file)}:{line}: name '{name}' -> another: {others} has a class of this name"
        for name, homes in classes.items()
        for file, line in homes
        if file in checked and (others := ", ".join(show(other) for other, _ in homes if other != file))
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
