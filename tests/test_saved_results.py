"""Every result is saved, read back equal, drawn and shown in a notebook."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import encoscope
from encoscope import evaluation, results
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, MissingError
from encoscope.evaluation.report import Report
from encoscope.evaluation.result import Evaluation
from encoscope.falcon.captions.build import embed_captions
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.results import ModelRecord, Result
from support import described_network as world


class Colors(nn.Module):
    """Two stages without negative values, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(3, 6, 4, stride=4)
        self.stage2 = nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.stage2(self.stage1(pixels).relu()).mean((2, 3)))


def make_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(Colors(), size=32, classes=["cat", "dog"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two labels, and one that cannot be read."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for number in range(4):
            small = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((48, 40), Image.Resampling.BICUBIC)
            image.save(root / label / f"{number}.png")
    (root / "cat" / "broken.png").write_bytes(b"?")
    return root


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What FALCON needs: images, captions and their model."""
    root = tmp_path_factory.mktemp("described")
    store = embed_captions(world.CAPTIONS, world.Reader(), root / "store")
    models = {"captions": store, "vlm": world.Reader(), "cache_dir": root / "cache"}
    return models | {"probe": world.write_images(root / "images", 90), "alpha_stds": 0.3, "progress": False}


def make_comparison(folder: Path, described: dict[str, Any]) -> Result:
    return encoscope.compare(make_encoder(), make_encoder(1), folder, n_clusters=(2, 3), progress=False)


def make_watermark_audit(folder: Path, described: dict[str, Any]) -> Result:
    return encoscope.audit(make_encoder(), folder, watermark="box", share=0.25, n_clusters=2, progress=False)


def make_label_audit(folder: Path, described: dict[str, Any]) -> Result:
    labels = folder.with_name("labels.csv")
    rows = [f"{number}.png,{number % 2},same" for number in range(4)]
    labels.write_text("\n".join(["image,site,scanner", *rows]))
    images = [folder / "cat" / f"{number}.png" for number in range(4)]
    return encoscope.audit(make_encoder(), images, labels=labels, n_clusters=2, permutations=20, progress=False)


def make_concepts(folder: Path, described: dict[str, Any]) -> Result:
    options = {"n_concepts": 2, "patch_size": 16, "n_samples": 4, "steps": 2, "n_crops": 2, "progress": False}
    return encoscope.concepts(make_encoder(), "class:cat", folder, **options)


def make_bare_concepts(folder: Path, described: dict[str, Any]) -> Result:
    options = {"n_concepts": 2, "patch_size": 16, "n_samples": 4, "visualize": False, "progress": False}
    return encoscope.concepts(make_encoder(), "class:dog", folder, **options)


def make_groups(folder: Path, described: dict[str, Any]) -> Result:
    return encoscope.groups(world.encoder(), more_than=5, **described)


def make_failure(folder: Path, described: dict[str, Any]) -> Result:
    image = sorted((described["probe"] / "red").iterdir())[0]
    options = {"label": "blue", "n_features": 2, "beta": 0.03, "spurious_threshold": 0.1}
    return encoscope.explain_failure(world.encoder(), image, **options, **described)


def make_bare_failure(folder: Path, described: dict[str, Any]) -> Result:
    image = sorted((described["probe"] / "red").iterdir())[0]
    return encoscope.explain_failure(world.encoder(), image, n_features=2)


def make_stability(folder: Path, described: dict[str, Any]) -> Result:
    return evaluation.stability(make_encoder(), str(folder), n_clusters=(2, 3), runs=2, limit=3, progress=False)


def make_evaluation(folder: Path, described: dict[str, Any]) -> Result:
    """A table with every kind of cell."""
    rows = [
        {"method": "nave", "clusters": 5, "corloc": Interval(0.5, 0.25, 0.75, 0.9), "difference": None, "note": "a, b"},
        {"method": "random", "clusters": None, "corloc": Interval(0.1, 0.0, 1 / 3), "difference": None, "note": ""},
    ]
    report = Report(
        "corloc", "Title", rows, ["note"], {}, {"layer": "stage2"}, 3, [SkippedImage("a.png", "cannot read a.png")]
    )
    model = ModelRecord("timm:x", "0" * 64, ("stage2",))
    return Evaluation(report, ({"method": "nave", "interval": [0.25, 0.75]},), model, {"n_clusters": [5]})


def make_similarity(folder: Path, described: dict[str, Any]) -> Result:
    options = {"box": (3, 4, 20, 22), "not_at": (40, 5), "n_random": 5, "n_maps": 3, "control": "untrained"}
    return encoscope.similar(make_encoder(), folder / "dog" / "1.png", folder, at=(7, 9), **options, progress=False)


MAKERS = [
    make_similarity,
    make_comparison,
    make_watermark_audit,
    make_label_audit,
    make_concepts,
    make_bare_concepts,
    make_groups,
    make_failure,
    make_bare_failure,
    make_stability,
    make_evaluation,
]


def plain(value: Any) -> Any:
    """A result as values that can be compared: dataclasses as dictionaries, lists for all sequences."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Image.Image | np.ndarray):
        return np.asarray(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@pytest.fixture(scope="module")
def kept() -> dict[Callable[..., Result], Result]:
    return {}


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_saved_is_read_back(
    make: Callable[..., Result], kept: dict[Any, Result], folder: Path, described: dict[str, Any], tmp_path: Path
) -> None:
    result = kept[make] = make(folder, described)
    kind = type(result)
    assert result.save(tmp_path / "saved") == tmp_path / "saved"
    again = kind.load(tmp_path / "saved")
    assert type(again) is kind
    np.testing.assert_equal(plain(again), plain(result))
    first, second = results.dumps(result.to_dict()), results.dumps(again.to_dict())
    assert first == second
    again.save(tmp_path / "again")  # what was read can be written
    np.testing.assert_equal(plain(kind.load(tmp_path / "again")), plain(result))


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_drawn_and_shown(
    make: Callable[..., Result], kept: dict[Any, Result], folder: Path, described: dict[str, Any]
) -> None:
    result = kept.get(make) or make(folder, described)
    assert result._repr_png_().startswith(b"\x89PNG")
    page = result._repr_html_()
    assert "data:image/png;base64," in page and "object at 0x" not in page


@pytest.mark.parametrize("make", MAKERS)
def test_the_encoder_is_named_in_one_form(
    make: Callable[..., Result], kept: dict[Any, Result], folder: Path, described: dict[str, Any]
) -> None:
    model = (kept.get(make) or make(folder, described)).to_dict()["model"]
    several, single = {"sources", "digests", "preprocessing"}, {"source", "digest", "layers", "preprocess"}
    expected = several if make is make_comparison else single - ({"preprocess"} if make is make_evaluation else set())
    expected |= {"trial"} if make in (make_concepts, make_bare_concepts) else set()
    assert set(model) == expected


@pytest.mark.parametrize(
    "kind",
    [
        encoscope.Audit,
        encoscope.Comparison,
        encoscope.DescribedGroups,
        encoscope.FailureExplanation,
        encoscope.SimilarityMaps,
        encoscope.VisualizedConcepts,
        Evaluation,
    ],
)
def test_what_is_not_there_or_another_result_is_refused(kind: type[Result], tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        kind.load(tmp_path)
    other = results.envelope("segmentation", [], model=None, settings={}, seed=0)
    for name in ("result", "corloc"):
        results.write(tmp_path / f"{name}.json", other)
    with pytest.raises(EncoscopeError, match=r"its format is 'encoscope\.segmentation/1'"):
        kind.load(tmp_path)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, with a few wrong bytes, or with numbers that cannot be."""
    kind, data = rng.integers(4), bytearray(content)
    if kind == 0:
        return content[: int(rng.integers(len(content)))]
    if kind == 1:
        return re.sub(rb"-?\d+\.?\d*", lambda match: rng.choice([b"NaN", b"[]", b'"x"', match[0]]), content, count=9)
    if kind == 2:
        return re.sub(rb'"(\w+)":', lambda match: rng.choice([b'"other":', match[0]], p=[0.1, 0.9]), content)
    for position in rng.integers(len(data), size=8):
        data[position] ^= 1 << int(rng.integers(8))
    return bytes(data)


@pytest.mark.parametrize("make", MAKERS)
def test_damaged_files_are_said_in_one_line(
    kept: dict[Callable[..., Result], Result],
    make: Callable[..., Result],
    folder: Path,
    described: dict[str, Any],
    tmp_path: Path,
) -> None:
    result = kept.setdefault(make, make(folder, described))
    rng = np.random.default_rng(0)
    saved = result.save(tmp_path / "result")
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    refused = 0
    for number in range(40):
        document = next(file for file in files if file.suffix == ".json")
        file = document if number % 2 else files[number // 2 % len(files)]
        whole = file.read_bytes()
        file.write_bytes(damage(whole, rng))
        try:
            type(result).load(saved)
        except EncoscopeError as error:
            refused += 1
            assert "\n" not in str(error)
        file.write_bytes(whole)
    type(result).load(saved)
    assert refused >= 5


def test_a_preset_of_concepts_is_that_of_their_visualizations(folder: Path) -> None:
    options = {"n_concepts": 2, "patch_size": 16, "n_samples": 4, "steps": 1, "n_crops": 2, "progress": False}
    for preset, parametrization in (("paper", "pixels"), ("default", "pyramid")):
        found = encoscope.concepts(make_encoder(), "class:cat", folder, preset=preset, **options)
        assert {each.settings["parametrization"] for each in found.visualizations} == {parametrization}
