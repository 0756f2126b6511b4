"""Every command and every piece of Python in README.md and docs/ is parsed, and run on small data where it can be.

Data stands in for a reader's: crops of real images, a network of three layers, texts of a few lines. Steps are cut and
networks that would be downloaded are replaced, both in the tables below, as are the commands that are not run and why.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import pytest
import torch
from PIL import Image

import encoscope
from encoscope.cli import app as cli
from support.atlas_records import small_site, unit
from support.tiny_classifier import MODEL, settle

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

CLASSES = ("golden retriever", "zebra", "leopard", "sunflower")

REPLACED = {
    "MODEL": MODEL,
    "MODEL@untrained": f"{MODEL}@untrained",
    "timm:resnet50": MODEL,
    "timm:resnet50@pretrained.pth": f"{MODEL}@pretrained.pth",
    "torchvision:resnet18@own.pth": f"{MODEL}@pretrained.pth",
    "timm:vit_small_patch16_224.dino": "zoo:vit-caltech101",
    "layer4:485": "2:5",
    "layer4:all": "class:all",
    "layer3:12": "1:3",
    "features:31": "features:3",
    "caltech101:ROOT#train": "images/",
    "OTHER": "SITE",
    "120,80": "60,40",
}
"""Arguments for which a small stand-in is taken: networks that are large or downloaded, units of these, data sets."""

SMALL = {"atlas": {"zoo:resnet-caltech101": MODEL}}
"""Further ones of single verbs, which take long on a network of the zoo."""

CUT = {"--steps": "2", "--runs": "2", "--classes": "2", "--max-images": "12"}
"""Numbers that are made smaller where a command gives them."""

ADDED = {
    "visualize": ["--steps", "2", "--size", "64"],
    "circuit": ["--steps", "2"],
    "concepts": ["--steps", "2", "--concepts", "2", "--samples", "4"],
    "atlas build": [
        "--model",
        MODEL,
        "--steps",
        "2",
        "--features",
        "2:5,1",
        "--visualize",
        "1",
        "--classes",
        "1",
        "--captions",
        "captions",
    ],
    "describe": ["--model", MODEL, "--captions", "captions", "--control", "permuted"],
    "explain-failure": ["--captions", "captions"],
    "audit": ["--permutations", "20"],
}
"""Flags that make a command quick where it does not give them."""

NOT_RUN = {
    "make": "makes an environment, or runs these tests",
    "pip install": "downloads packages",
    "git clone": "downloads the repository",
    "open": "opens a browser",
    "encoscope atlas serve": "serves until it is stopped",
}
"""Commands that are not run, by how they begin, and why. Those of encoscope are parsed all the same."""

IN_PYTHON = {
    "steps=500": "steps=2",
    "layer4:485": "2:5",
    "layer3:5,9": "1:5,9",
    "layer3:5": "1:5",
    '"layer3", "layer4"': '"1", "2"',
    "features:31": "features:3",
    "class:5": "class:0",
}
"""What is replaced in the text of Python blocks."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and its first line's number."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]


def read_blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        yield Block(page, start + 2, lines[start].removeprefix("```").strip(), tuple(lines[start + 1 : end]))


def split_command(line: str) -> list[str]:
    """A command line's words, without its comment. In ``caltech101:ROOT#train`` there is none."""
    return shlex.split(re.sub(r"\s#.*", "", line))


def adapt(tokens: list[str]) -> list[str]:
    """A command's arguments with small data and few steps."""
    replaced = REPLACED | SMALL.get(tokens[0], {})
    adapted = [replaced.get(token, token) for token in tokens]
    adapted = [CUT.get(flag, token) for flag, token in zip(["", *adapted], adapted, strict=False)]
    for command, flags in ADDED.items():
        if tokens[: len(command.split())] == command.split():
            for flag, value in zip(flags[::2], flags[1::2], strict=True):
                adapted += [] if flag in adapted else [flag, value]
    return adapted


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
COMMANDS = [
    block for block in BLOCKS if block.language != "python" and not block.lines[0].startswith("{")
]  # a document begins with a brace
LINES = [
    pytest.param(line, id=f"{block.page.name}:{number}")
    for block in COMMANDS
    for number, line in enumerate(block.lines, block.line)
]
MENTIONED = [
    pytest.param(max(command), id=f"{page.name}:{number}:{max(command)[:40]}")
    for page in PAGES
    for number, line in enumerate(page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines(), 1)
    for command in re.findall(r"`(encoscope [^`]+)`|^    (encoscope .+)", line)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, image_paths: dict[str, Path]) -> Iterator[Path]:
    """A folder with what the pages name, and a cache that all commands share."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch, CLASSES, ())
        for name, path in zip(CLASSES, image_paths.values(), strict=False):
            (folder / "images" / name).mkdir(parents=True)
            image = Image.open(path).convert("RGB")
            for number in range(3):
                corner = (40 * number, 30 * number)
                crop = image.crop((*corner, corner[0] + 160, corner[1] + 120))
                crop.resize((64, 48)).save(folder / "images" / name / f"{name}{number}.png")
        for name in ("cat.jpg", "wrong.jpg", "scan.png"):
            Image.open(image_paths["chelsea"]).convert("RGB").resize((96, 64)).save(folder / name)
        shutil.copytree(folder / "images" / CLASSES[0], folder / "new")
        names = sorted(path.name for path in folder.glob("images/*/*"))
        rows = [f"{name},{'north' if number % 2 else 'south'}" for number, name in enumerate(names)]
        (folder / "sites.csv").write_text("\n".join(["image,site", *rows]) + "\n")
        things = (*CLASSES, "face", "stone", "leaf", "sky", "cup", "house")
        (folder / "texts.txt").write_text("".join(f"a photo of a {thing}\n" for thing in things))
        assert cli.run(["captions", "texts.txt", "--vlm", "zoo:clip-caltech101", "--store", "captions"]) == 0
        torch.save(encoscope.load(MODEL).module.state_dict(), folder / "pretrained.pth")
        yield folder


@pytest.mark.parametrize("line", LINES)
def test_commands_are_parsed(line: str) -> None:
    if any(line.startswith(start) for start in NOT_RUN) and not line.startswith("encoscope"):
        return
    program, *tokens = split_command(line)
    assert program == "encoscope"
    cli.app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", MENTIONED)
def test_mentioned_commands_are_parsed_as_far_as_they_go(command: str) -> None:
    with contextlib.suppress(cyclopts.MissingArgumentError):  # in a sentence, arguments may be left out
        cli.app.parse_args(split_command(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page.name}:{block.line}") for block in COMMANDS])
def test_commands_run(block: Block, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, line in enumerate(block.lines, block.line):
        if not any(line.startswith(start) for start in NOT_RUN):
            code = cli.run(adapt(split_command(line)[1:]))
            assert code == 0, f"{block.page.name}:{number}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_python_runs(page: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks one after the other: later ones use what earlier ones made."""
    blocks = [block for block in BLOCKS if block.page == page and block.language == "python"]
    replaced = IN_PYTHON
    if page.name == "atlas.md":
        monkeypatch.chdir(tmp_path)
        small_site(tmp_path / "SITE")
        replaced = {"layer4:485": unit(5)}
    encoder = encoscope.load(MODEL)
    names = {
        "encoscope": encoscope,
        "encoder": encoder,
        "module": encoder.module,
        "images": sorted(folder.glob("images/*/*")),
        "names": CLASSES,
    }
    for block in blocks:
        code = "\n".join(block.lines)
        for text, replacement in replaced.items():
            code = code.replace(text, replacement)
        exec(compile("\n" * (block.line - 1) + code, str(page), "exec"), names)
