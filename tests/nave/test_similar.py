"""Point at places: scores, regions, ranks and random places against a literal computation; what is no place."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import encoscope
from encoscope import results
from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import read_image
from encoscope.nave.feature_colors import find_otsu_threshold
from encoscope.nave.features import encode_images
from encoscope.nave.settings import NaveSettings
from encoscope.nave.target_features import grow_region
from encoscope.nave.targets import QueryTargets, mask_targets, parse_points, read_labels


class Stages(nn.Module):
    """Two stages; the first has values of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(3, 6, 3, 4, 1)
        self.stage2 = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.stage2(self.stage1(pixels)).mean((2, 3)))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(5)
    return Encoder(Stages(), size=32)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Of several shapes; the sides of none are multiples of the network's stride."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 255, (5, columns, 3), dtype=np.uint8) for columns in (6, 8, 5, 7)]
    sizes = [(61, 41), (83, 50), (45, 47), (70, 49)]
    return [
        np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        for pixels, size in zip(coarse, sizes, strict=True)
    ]


@pytest.fixture
def folder(images: list[np.ndarray], tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def unit_vectors(encoder: Encoder, pixels: np.ndarray, **settings: Any) -> tuple[np.ndarray, Any, tuple[int, int]]:
    """Of all cells ``[rows, columns, dim]``, from the composite features written out; the geometry and the grid."""
    chosen = NaveSettings.of(encoder, **settings)
    (maps,) = encode_images(encoder, [read_image(pixels)], chosen)
    features = maps.features(chosen)
    rows = features.dense()[0].double().numpy()
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit.reshape(*features.grid, -1), maps.geometries[0], maps.grid(chosen.resolution)


def cells_of(mask: np.ndarray, geometry: Any, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Pixels of a mask in each cell, one by one."""
    rows, columns = geometry.cells_of_pixels(grid)
    counts = np.zeros(shape)
    for y, x in zip(*np.nonzero(mask), strict=True):
        counts[rows[y], columns[x]] += 1
    return counts


def vector_of(unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = (unit * weights[..., None]).sum((0, 1)) / weights.sum()
    return mean / np.linalg.norm(mean)


def literal_scores(unit: np.ndarray, positives: list[np.ndarray], negatives: list[np.ndarray]) -> np.ndarray:
    best = np.max([unit @ vector for vector in positives], axis=0)
    return best - np.max([unit @ vector for vector in negatives], axis=0) if negatives else best


QUERIES: dict[str, dict[str, Any]] = {
    "point": {"at": (30, 20)},
    "points": {"at": [(30, 20), (5, 40)]},
    "negative": {"at": (30, 20), "not_at": [(60, 0), (0, 40)]},
    "box": {"box": (10, 5, 33, 28)},
    "box and point": {"box": (10, 5, 33, 28), "at": [(60, 40)], "not_at": (2, 2)},
    "corner": {"at": (0, 0), "not_at": (60, 40)},
    "fraction": {"at": (30.9, 20.2)},
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"weighting": "equal", "resolution": "image", "size": "model"},
    {"layers": "stage2", "resolution": 9},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["default", "image", "deep"])
@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_differences_of_cosines(encoder: Any, images: Any, query: str, settings: Any) -> None:
    asked = QUERIES[query]
    unit, geometry, grid = unit_vectors(encoder, images[0], **settings)
    height, width = images[0].shape[:2]
    masks: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for name, found in (("at", masks[0]), ("not_at", masks[1])):
        points = asked.get(name, [])
        for x, y in [points] if isinstance(points, tuple) else points:
            mask = np.zeros((height, width), dtype=bool)
            mask[int(y), int(x)] = True
            found.append(mask)
    if "box" in asked:
        mask = np.zeros((height, width), dtype=bool)
        mask[5:29, 10:34] = True
        masks[0].append(mask)
    shape = (unit.shape[0], unit.shape[1])
    vectors = [[vector_of(unit, cells_of(mask, geometry, grid, shape)) for mask in part] for part in masks]
    maps = encoscope.similar(encoder, images[0], images[1:], **asked, **settings, n_random=5, progress=False)
    np.testing.assert_allclose(maps.query.values, literal_scores(unit, *vectors), atol=2e-5)
    expected = []
    for pixels in images[1:]:
        other, _, _ = unit_vectors(encoder, pixels, **settings)
        expected.append(literal_scores(other, *vectors))
    best = sorted((float(values.max()) for values in expected), reverse=True)
    np.testing.assert_allclose([best_match.similarity for best_match in maps.ranking], best, atol=2e-5)
    for item in maps.maps:
        assert item.best_match is not None
        assert any(
            item.values.shape == values.shape and np.allclose(item.values, values, atol=2e-5) for values in expected
        )
        rows, columns = item.geometry.cells_of_pixels(item.grid)
        assert item.values[rows[item.best_match.y], columns[item.best_match.x]] == item.values.max()
    if not masks[1] and "box" not in asked:
        assert maps.query.values.max() == pytest.approx(1)


def wrap(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cells of one grid on another, around its edges, one by one."""
    wrapped = np.zeros(shape)
    for row, column in itertools.product(*map(range, cells.shape)):
        wrapped[row % shape[0], column % shape[1]] += cells[row, column]
    return wrapped


@pytest.mark.parametrize("query", ["point", "negative", "box and point"])
def test_random_places_are_the_same_cells_moved(encoder: Any, images: Any, query: str) -> None:
    """All moves of small grids are taken, so that their order is of no matter."""
    settings = {"layers": "stage2", "resolution": 4}
    asked = QUERIES[query]
    targets = QueryTargets(
        parse_points("at", asked["at"]), parse_points("not_at", asked.get("not_at")), asked.get("box")
    )
    masks = mask_targets(targets, images[0].shape[:2])
    units, geometries, grids = zip(*(unit_vectors(encoder, pixels, **settings) for pixels in images), strict=True)
    weights = [[cells_of(mask, geometries[0], grids[0], units[0].shape[:2]) for mask in part] for part in masks]
    moved = [[] for _ in units]
    for unit, sets in zip(units, moved, strict=True):
        wrapped = [[wrap(cells, unit.shape[:2]) for cells in part] for part in weights]
        for move in itertools.product(range(unit.shape[0]), range(unit.shape[1])):
            sets.append([[vector_of(unit, np.roll(cells, move, (0, 1))) for cells in part] for part in wrapped])
    maps = encoscope.similar(encoder, images[0], images[1:], **asked, **settings, n_random=10_000, progress=False)
    own = np.stack([literal_scores(units[0], *vectors) for each in moved for vectors in each])
    assert maps.typical == pytest.approx(float(np.median(own)), abs=2e-5)
    for item in maps.maps:
        assert item.best_match is not None
        (number,) = [number for number, pixels in enumerate(images) if pixels.shape[:2] == item.geometry.original]
        others = [vectors for index, each in enumerate(moved) if index != number for vectors in each]
        best = np.array([literal_scores(units[number], *vectors).max() for vectors in others])
        assert item.best_match.chance == pytest.approx(float(np.median(best)), abs=2e-5)
        reached = float((best >= item.best_match.similarity - 1e-6).mean())
        assert item.best_match.exceeded_by == pytest.approx(reached, abs=1.5 / len(others))


def grow_by_steps(scores: np.ndarray, threshold: float, seeds: np.ndarray) -> np.ndarray:
    """From the seeds above the threshold, again and again the neighbours above it."""
    region = seeds & (scores > threshold)
    while True:
        padded = np.pad(region, 1)
        near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        grown = (region | near) & (scores > threshold)
        if (grown == region).all():
            return region
        region = grown


@pytest.mark.parametrize("seed", range(6))
def test_a_region_grows_step_by_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(9, 12))
    seeds = rng.random((9, 12)) < 0.08
    for threshold in (-0.5, 0.0, 0.4):
        np.testing.assert_array_equal(grow_region(scores, threshold, seeds), grow_by_steps(scores, threshold, seeds))


def test_thresholds_and_regions(encoder: Any, images: Any) -> None:
    plain = encoscope.similar(encoder, images[0], images[1:], at=(30, 20), progress=False)
    assert plain.threshold == pytest.approx(find_otsu_threshold(plain.query.values.ravel().astype(float)))
    against = encoscope.similar(encoder, images[0], at=(30, 20), not_at=(2, 2))
    assert against.threshold == 0 and against.maps == () and against.ranking == ()
    for maps in (plain, against, encoscope.similar(encoder, images[0], images[1], at=(30, 20), threshold=0.9)):
        rows, columns = maps.query.geometry.cells_of_pixels(maps.query.grid)
        seeds = np.zeros(maps.query.values.shape, dtype=bool)
        seeds[rows[20], columns[30]] = True
        np.testing.assert_array_equal(maps.query.region, grow_by_steps(maps.query.values, maps.threshold, seeds))
        for item in (maps.query, *maps.maps):  # on pixels, a cell's middle is in the region where the cell is
            rows, columns = item.geometry.cells_of_pixels(item.grid)
            cells = item.region_on_pixels()
            middle = np.zeros(item.region.shape, dtype=bool)
            for row, column in itertools.product(range(middle.shape[0]), range(middle.shape[1])):
                y, x = np.flatnonzero(rows == row), np.flatnonzero(columns == column)
                middle[row, column] = cells[np.ix_(y, x)].any()
            assert (middle | ~item.region).all() and cells.shape == item.geometry.original
        for item in maps.maps:
            seeds = item.values == item.values.max()
            np.testing.assert_array_equal(item.region, grow_by_steps(item.values, maps.threshold, seeds))
    assert not encoscope.similar(encoder, images[0], at=(30, 20), threshold=1.5).query.region.any()


def test_a_segment_is_that_of_segment(encoder: Any, images: Any, tmp_path: Path) -> None:
    segmentation = encoscope.segment(encoder, images[0], n_clusters=3)
    mask = segmentation.labels == 1
    unit, geometry, grid = unit_vectors(encoder, images[0])
    expected = unit @ vector_of(unit, cells_of(mask, geometry, grid, unit.shape[:2]))
    Image.fromarray(segmentation.labels).save(tmp_path / "a.labels.png")
    sources: list[dict[str, Any]] = [
        {"n_clusters": 3},
        {"labels": segmentation},
        {"labels": segmentation.labels.astype(np.int64)},
        {"labels": tmp_path / "a.labels.png"},
        {"labels": segmentation.save(tmp_path / "saved")},
    ]
    for source in sources:
        maps = encoscope.similar(encoder, images[0], segment=1, **source)
        np.testing.assert_allclose(maps.query.values, expected, atol=2e-5)
        assert maps.settings.get("n_clusters", 3) == 3


def test_the_image_itself_is_no_other_image_and_top_keeps_maps(encoder: Any, images: Any, folder: Path) -> None:
    maps = encoscope.similar(encoder, folder / "0.png", folder, at=(30, 20), n_maps=2, progress=False)
    assert len(maps.ranking) == 3 and len(maps.maps) == 2
    assert {Path(best_match.path or "").name for best_match in maps.ranking} == {"1.png", "2.png", "3.png"}
    assert [item.best_match for item in maps.maps] == list(maps.ranking[:2])
    none = encoscope.similar(encoder, folder / "0.png", folder, at=(30, 20), n_maps=0, progress=False)
    assert none.maps == () and none.ranking == maps.ranking
    batches = encoscope.similar(encoder, folder / "0.png", folder, at=(30, 20), batch_size=1, progress=False)
    for one, other in zip(batches.ranking, maps.ranking, strict=True):
        assert one.path == other.path and one.similarity == pytest.approx(other.similarity, abs=1e-5)


def test_the_control_is_the_same_search_with_other_weights(encoder: Any, images: Any, tmp_path: Path) -> None:
    maps = encoscope.similar(encoder, images[0], images[1:], at=(30, 20), control="untrained", progress=False)
    control = maps.control
    assert control is not None and control.targets == maps.targets and control.control is None
    other = untrained_copy(encoder, random_state=1)
    alone = encoscope.similar(other, images[0], images[1:], at=(30, 20), progress=False)
    np.testing.assert_allclose(control.query.values, alone.query.values, atol=1e-6)
    assert not np.allclose(control.query.values, maps.query.values, atol=1e-2)
    assert maps.sheet().shape[0] > encoscope.similar(encoder, images[0], images[1:], at=(30, 20)).sheet().shape[0]
    loaded = encoscope.SimilarityMaps.load(maps.save(tmp_path / "out"))
    assert loaded.control is not None
    np.testing.assert_array_equal(loaded.control.query.values, control.query.values)


def test_files_that_cannot_be_read_are_left_out(encoder: Any, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"?")
    maps = encoscope.similar(encoder, folder / "0.png", folder, at=(30, 20), progress=False)
    assert len(maps.ranking) == 3 and [Path(item.path).name for item in maps.skipped] == ["broken.png"]
    with pytest.raises(MissingError):
        encoscope.similar(encoder, folder / "none.png", at=(1, 1))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "point at a place"),
    "only negative": ({"not_at": (3, 3)}, "point at a place"),
    "right": ({"at": (61, 5)}, r"61,5 lies outside of the image, which is 61 x 41: x goes from 0 to 60"),
    "below": ({"at": (5, 41)}, "lies outside"),
    "left": ({"at": (-1, 5)}, "lies outside"),
    "far": ({"at": [(1, 1), (10**12, 5)]}, "lies outside"),
    "negative outside": ({"at": (1, 1), "not_at": (5, 99)}, "5,99 lies outside"),
    "nan": ({"at": (float("nan"), 5)}, r"at is a point \(x, y\)"),
    "infinite": ({"at": [(float("inf"), 5)]}, r"at is a point \(x, y\)"),
    "three": ({"at": [(1, 2, 3)]}, r"at is a point \(x, y\)"),
    "text": ({"at": "1,2"}, r"at is a point \(x, y\) or a list"),
    "number": ({"at": 7}, "at is a point"),
    "words": ({"at": ["a", "b"]}, "at is a point"),
    "truth": ({"at": (True, False)}, "at is a point"),
    "box outside": ({"box": (0, 0, 61, 10)}, "0,0,61,10 lies outside"),
    "box empty": ({"box": (10, 5, 9, 20)}, r"the box 10,5,9,20 is empty"),
    "box of nan": ({"box": (0, 0, float("nan"), 5)}, "box is x0, y0, x1, y1"),
    "box of three": ({"box": (0, 0, 5)}, "box is x0, y0, x1, y1"),
    "segment": ({"segment": 5, "n_clusters": 3}, "there is no segment 5 in this segmentation: it has 0, 1, 2"),
    "labels alone": ({"at": (1, 1), "labels": np.zeros((41, 61), int)}, "give segment, too"),
    "labels of another image": ({"segment": 0, "labels": np.zeros((9, 9), int)}, "the labels are 9 x 9"),
    "labels of floats": ({"segment": 0, "labels": np.zeros((41, 61))}, "labels are whole numbers"),
    "clusters": ({"at": (1, 1), "n_clusters": 3}, "n_clusters goes with a segment"),
    "several clusters": ({"segment": 0, "n_clusters": (2, 3)}, "one number of clusters"),
    "threshold": ({"at": (1, 1), "threshold": float("nan")}, "threshold is a number from -2 to 2"),
    "random": ({"at": (1, 1), "n_random": 0}, "n_random is a number from 1"),
    "top": ({"at": (1, 1), "n_maps": -1}, "n_maps is a number from 0"),
    "batch": ({"at": (1, 1), "batch_size": 0}, "batch_size"),
    "control": ({"at": (1, 1), "control": "color"}, "control is untrained"),
    "unknown": ({"at": (1, 1), "tresh": 1}, "similar has no setting 'tresh'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_place_is_said_in_one_line(encoder: Any, images: Any, what: str) -> None:
    wrong, said = WRONG[what]
    with pytest.raises(UsageError, match=said) as raised:
        encoscope.similar(encoder, images[0], images[1:], **wrong)
    assert "\n" not in str(raised.value)


def test_images_are_read_twice(encoder: Any, images: Any) -> None:
    with pytest.raises(UsageError, match="one-shot iterator"):
        encoscope.similar(encoder, images[0], iter(images[1:]), at=(1, 1))


def test_places_without_features_are_refused(images: Any) -> None:
    module = Stages()
    for layer in (module.stage1, module.stage2[0]):
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    encoder = Encoder(module, size=32, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, 16:] = 255
    with pytest.raises(UsageError, match="all zero"):
        encoscope.similar(encoder, pixels, at=(2, 2))
    maps = encoscope.similar(encoder, pixels, at=(28, 20), n_random=40)  # random places may be dark: similar to nothing
    assert np.isfinite(maps.query.values).all() and np.isfinite(maps.typical)
    assert maps.query.values[:, 0].max() == 0


@pytest.mark.parametrize("wrong", ["color", "text", "missing"])
def test_labels_that_cannot_be_read(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    if wrong == "color":
        Image.new("RGB", (4, 4)).save(path)
    elif wrong == "text":
        path.write_text("0 1 2")
    with pytest.raises(EncoscopeError) as raised:
        read_labels(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_places_are_written_and_read() -> None:
    targets = QueryTargets(((1.0, 2.0),), ((3.5, 4.0),), (0.0, 1.0, 2.0, 3.0), 2)
    assert QueryTargets.from_dict(targets.as_dict()) == targets
    assert QueryTargets.from_dict(QueryTargets(((1.0, 2.0),)).as_dict()) == QueryTargets(((1.0, 2.0),))
    assert str(targets) == "1,2; box 0,1,2,3; segment 2; not 3.5,4"


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from encoscope.cli.app import run

    model = ["--model", "timm:resnet10t", "--untrained", "--size", "32"]
    asked, out = str(folder / "0.png"), tmp_path / "out"
    assert run(["similar", asked, "--at", "30,20", str(folder), *model, "--not-at", "2,2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and printed[-1].startswith("3 other images: ")
    document = results.read(out / "result.json", "similarity")
    assert document["targets"] == {"at": [[30, 20]], "not_at": [[2, 2]], "box": None, "segment": None}
    assert Path(document["results"][0]["path"]).name == "0.png"
    assert (out / document["results"][1]["overlay"]).is_file() and (out / "sheet.png").is_file()
    assert (out / document["ranking"][0]["path"]).resolve().parent == folder
    assert run(["similar", asked, "--segment", "1", "--clusters", "3", *model, "--json", "--out", str(out)]) == 0
    assert '"segment": 1' in capsys.readouterr().out
    for wrong in (["--at", "900,5"], ["--at", "x,y"], ["--at=-3,5"], ["--box", "9,9,5,20"], ["--at", "nan,2"], []):
        assert run(["similar", asked, *model, *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert run(["similar", str(folder), *model, "--at", "1,1"]) == 2
    assert run(["similar", str(folder / "none.png"), *model, "--at", "1,1"]) == 3
