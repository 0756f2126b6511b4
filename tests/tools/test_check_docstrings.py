"""Docstrings of public names list parameters and results, and nothing else is asked of them."""

from __future__ import annotations

from textwrap import dedent

import check_docstrings
import pytest

GOOD = '''
def resize(image: Tensor, *sizes: int, keep: bool = True, **options: int) -> Tensor:
    """Resize an image.

    Text between.

    Args:
        image: The image, [channel, height, width], 0 to 1:
            with a second line: and a colon.
        *sizes: Height and width.
        keep (bool): Whether the ratio stays.
        **options: More.

    Returns:
        The resized image.

    Raises:
        ValueError: If there is none.

    Source: NAVE, section 3.2.
    """


def walk(image: Tensor, _unused: int) -> Iterator[int]:
    """Walk.

    Args:
        image: The image.

    Yields:
        Its pixels.
    """
    yield 1


def lazy(image: Tensor) -> Iterator[int]:
    """Walk with an inner generator.

    Args:
        image: The image.

    Returns:
        Its pixels.
    """

    def inner():
        yield 1

    return inner()


def write(path: Path) -> None:
    """Write.

    Args:
        path: The file.
    """


def now() -> float:
    """Give the time."""


def _private(a: int) -> int: ...


@overload
def first(a: int) -> int: ...


class Model:
    """A model.

    Args:
        size: Its size.
    """

    def __init__(self, size: int) -> None: ...

    def __len__(self) -> int: ...

    @property
    def shape(self) -> int:
        """Its shape."""

    @classmethod
    def load(cls, path: Path) -> Model:
        """Load it.

        Args:
            path: The file.

        Returns:
            The model.
        """


@dataclass(frozen=True)
class Region:
    """A region.

    Attributes:
        label: Its label.
        area: Its pixels.
    """

    label: int
    kinds: ClassVar[int] = 1
    _cached: int = 0
    area: int = 0


def command(image: Annotated[Path, Parameter(help="The image.")], common: Common | None = None) -> int:
    """Do it."""


@dataclass
class Flags:
    """Flags of every command."""

    seed: Annotated[int, Parameter(help="The seed.")] = 0
'''


def _check(tmp_path, code: str) -> list[str]:
    file = tmp_path / "module.py"
    file.write_text(dedent(code))
    return [line.removeprefix(f"{file}:") for line in check_docstrings.check_file(file)]


def _function(signature: str, *sections: str) -> str:
    body = "\n\n".join(("Do it.", *sections)).replace("\n", "\n    ")
    return f'def f{signature}:\n    """{body}\n    """\n'


def test_complete_docstrings_pass(tmp_path):
    assert _check(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def f(): pass", "f has no docstring"),
        (_function("(a: int) -> None"), "f: Args: is missing (a)"),
        (_function("(a: int, *, b: int) -> None", "Args:\n    a: An a."), "f: Args: lacks b"),
        (_function("(a: int) -> None", "Args:\n    a: An a.\n    b: A b."), "f: Args: lists b, which it does not have"),
        (_function("(a, b) -> None", "Args:\n    b: A b.\n    a: An a."), "f: Args: the order should be a, b"),
        (_function("(a) -> None", "Args:\n    a:\n        An a."), "f: Args: lacks a"),
        (_function("(a) -> int", "Args:\n    a: An a."), "f: Returns: is missing"),
        (_function("(a) -> int", "Args:\n    a: An a.", "Returns:"), "f: Returns: is missing"),
        (
            _function("(a) -> None", "Args:\n    a: An a.", "Returns:\n    It."),
            "f: Returns: is wrong, as nothing is returned",
        ),
        (_function("(a) -> int", "Args:\n    a: An a.", "Yields:\n    It."), "f: Yields: should be Returns:"),
        (
            _function("(a) -> int", "Args:\n    a: An a.", "Returns:\n    It.") + "    yield 1\n",
            "f: Yields: is missing",
        ),
        ('class K:\n    """K."""\n    def f(self, a) -> None:\n        """F."""', "K.f: Args: is missing (a)"),
        ('class K:\n    """K."""\n    def __init__(self, a) -> None: ...', "K: Args: is missing (a)"),
        ('@dataclasses.dataclass(frozen=True)\nclass K:\n    """K."""\n    a: int', "K: Attributes: is missing (a)"),
        ('class K(NamedTuple):\n    """K."""\n    a: int', "K: Attributes: is missing (a)"),
    ],
)
def test_incomplete_docstrings_are_told(tmp_path, code, problem):
    assert problem in [line.split(": ", 1)[1] if ": " in line else line for line in _check(tmp_path, code)]


def test_each_line_says_where(tmp_path):
    file = tmp_path / "module.py"
    file.write_text('x = 1\ndef f(a) -> None:\n    """F."""\n')
    assert check_docstrings.check_file(file) == [f"{file}:2: f: Args: is missing (a)"]


def test_the_exit_code_says_whether_anything_lacks(tmp_path, capsys):
    file = tmp_path / "module.py"
    file.write_text(dedent(GOOD))
    assert check_docstrings.main([str(file)]) == 0
    file.write_text("def f(): pass\n")
    assert check_docstrings.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{file}:1: f has no docstring\n"
