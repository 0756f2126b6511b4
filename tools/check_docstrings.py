"""Check that docstrings of public names list what goes in and what comes out, in Google's form.

    python tools/check_docstrings.py                           # all of src/encoscope
    python tools/check_docstrings.py src/encoscope/store       # this alone, listed or not

Checked are public functions and classes of modules, and public methods of these classes. Each needs a docstring, and

- a function or method with parameters: ``Args:``, which lists these parameters in their order, and ``Returns:`` or,
  for a generator, ``Yields:``, unless it returns nothing;
- a class with an ``__init__`` of its own: ``Args:`` for its parameters;
- a dataclass or a named tuple: ``Attributes:``, which lists its own public fields in their order.

Not checked: private names, functions in functions, overloads, properties' parameters, methods such as ``__len__``, and
functions and fields of the command line whose parameters carry their help in ``Parameter(help=...)``: a command's
docstring is what ``--help`` prints.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rooms import PACKAGE, select_files, show

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")
ENTRY = re.compile(r"\*{0,2}(\w+)(?: \([^)]*\))?: \S")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Docstring:
    """A docstring taken apart.

    Attributes:
        summary: The first line.
        sections: The lines below each section's heading, without the indentation of the first.
    """

    summary: str
    sections: dict[str, list[str]]

    def list_entries(self, section: str) -> list[str]:
        """List the names that a section describes.

        Args:
            section: "Args" or "Attributes".

        Returns:
            The names without stars. A line that names nothing is given as it is, in quotes.
        """
        lines = [line for line in self.sections.get(section, []) if line and not line.startswith(" ")]
        return [entry[1] if (entry := ENTRY.match(line)) else repr(line) for line in lines]


def main(arguments: Sequence[str]) -> int:
    """Print which docstrings lack something.

    Args:
        arguments: Files and folders; none for the whole package.

    Returns:
        The exit code: 1 if any docstring lacks something.
    """
    files = select_files(arguments, [PACKAGE])
    problems = [problem for file in files for problem in check_file(file)]
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def check_file(file: Path) -> list[str]:
    """Check the docstrings of one file.

    Args:
        file: A Python file.

    Returns:
        A line for each thing that is missing or wrong.
    """
    problems: list[str] = []
    for name, node in list_public(ast.parse(file.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node)
        if text is None:
            problems.append(f"{show(file)}:{node.lineno}: {name} has no docstring")
            continue
        check = check_class if isinstance(node, ast.ClassDef) else check_function
        problems += [f"{show(file)}:{node.lineno}: {name}: {problem}" for problem in check(node, parse_docstring(text))]
    return problems


def list_public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """List the public functions, classes and methods of a module.

    Args:
        tree: The parsed module.

    Yields:
        Each with its name, a method as ``Class.method``.
    """
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not _decorated(node, "overload"):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if (
                    isinstance(method, Function)
                    and not method.name.startswith("_")
                    and not _decorated(method, "overload", "property", "cached_property", "setter")
                ):
                    yield f"{node.name}.{method.name}", method


def parse_docstring(text: str) -> Docstring:
    """Take a docstring apart.

    Args:
        text: The docstring, without the indentation of the code.

    Returns:
        Its summary and sections.
    """
    lines = inspect.cleandoc(text).splitlines()
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines[1:]:
        if line[:-1] in SECTIONS and line.endswith(":"):
            current = sections.setdefault(line[:-1], [])
        elif line and not line.startswith(" "):
            current = None
        elif current is not None:
            current.append(line)
    return Docstring(lines[0] if lines else "", {name: _dedent(body) for name, body in sections.items()})


def check_function(node: Function, docstring: Docstring) -> list[str]:
    """Compare a function's docstring with its signature.

    Args:
        node: The function or method.
        docstring: Its docstring.

    Returns:
        What is missing or wrong.
    """
    if takes_flags(node):
        return []
    parameters = list_parameters(node)
    if not parameters:
        return []
    problems = compare_entries("Args", parameters, docstring)
    needed = find_result_section(node)
    for section in ("Returns", "Yields"):
        if section == needed and not any(docstring.sections.get(section, [])):
            problems.append(f"{section}: is missing")
        if section != needed and section in docstring.sections:
            problems.append(f"{section}: " + (f"should be {needed}:" if needed else "is wrong, as nothing is returned"))
    return problems


def check_class(node: ast.ClassDef, docstring: Docstring) -> list[str]:
    """Compare a class's docstring with its fields, or with its constructor's parameters.

    Args:
        node: The class.
        docstring: Its docstring.

    Returns:
        What is missing or wrong.
    """
    if _decorated(node, "dataclass") or any(ast.unparse(base).endswith("NamedTuple") for base in node.bases):
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign) and not _is_class_variable(field)]
        if fields and all("Parameter(" in ast.unparse(field.annotation) for field in fields):
            return []
        names = [ast.unparse(field.target) for field in fields]
        return compare_entries("Attributes", [name for name in names if not name.startswith("_")], docstring)
    constructors = [method for method in node.body if isinstance(method, Function) and method.name == "__init__"]
    return compare_entries("Args", list_parameters(constructors[0]), docstring) if constructors else []


def compare_entries(section: str, names: Sequence[str], docstring: Docstring) -> list[str]:
    """Compare what a section lists with what it has to list.

    Args:
        section: "Args" or "Attributes".
        names: What it has to list.
        docstring: The docstring with the section.

    Returns:
        What is missing, superfluous or in another order.
    """
    entries = docstring.list_entries(section)
    if names and section not in docstring.sections:
        return [f"{section}: is missing ({', '.join(names)})"]
    missing = [name for name in names if name not in entries]
    superfluous = [entry for entry in entries if entry not in names]
    problems = [f"{section}: lacks {', '.join(missing)}"] if missing else []
    problems += [f"{section}: lists {', '.join(superfluous)}, which it does not have"] if superfluous else []
    if not problems and entries != list(names):
        problems.append(f"{section}: the order should be {', '.join(names)}")
    return problems


def list_parameters(node: Function) -> list[str]:
    """List the parameters that a docstring has to describe.

    Args:
        node: A function or method.

    Returns:
        Their names in order, without self and cls, and without those that begin with an underscore.
    """
    signature = node.args
    names = [parameter.arg for parameter in (*signature.posonlyargs, *signature.args)]
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    names += [signature.vararg.arg] if signature.vararg else []
    names += [parameter.arg for parameter in signature.kwonlyargs]
    names += [signature.kwarg.arg] if signature.kwarg else []
    return [name for name in names if not name.startswith("_")]


def takes_flags(node: Function) -> bool:
    """Tell whether a function is a command, whose parameters say in the signature what they are.

    Args:
        node: A function.

    Returns:
        Whether a parameter is annotated with ``Parameter(...)``.
    """
    return any(
        "Parameter(" in ast.unparse(child.annotation)
        for child in ast.walk(node.args)
        if isinstance(child, ast.arg) and child.annotation
    )


def find_result_section(node: Function) -> str | None:
    """Tell how a docstring has to name what comes out.

    Args:
        node: A function.

    Returns:
        "Yields" for a generator, "Returns" for what returns anything but None, else None.
    """
    if any(isinstance(child, ast.Yield | ast.YieldFrom) for child in _own_nodes(node)):
        return "Yields"
    if node.returns is None or ast.unparse(node.returns) in ("None", "NoReturn", "Never"):
        return None
    return "Returns"


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function, without the functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda):
            yield child
            yield from _own_nodes(child)


def _decorated(node: Function | ast.ClassDef, *names: str) -> bool:
    decorators = (ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list)
    return any(decorator.split(".")[-1] in names for decorator in decorators)


def _is_class_variable(field: ast.AnnAssign) -> bool:
    return ast.unparse(field.annotation).startswith("ClassVar")


def _dedent(lines: Sequence[str]) -> list[str]:
    """Lines without the indentation of the first that is not empty."""
    first = next((line for line in lines if line), "")
    width = len(first) - len(first.lstrip())
    return [line[min(width, len(line) - len(line.lstrip())) :] for line in lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
