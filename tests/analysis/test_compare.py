"""Two encoders side by side: measures against literal forms, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope.analysis.compare import compare
from encoscope.analysis.comparison_pass import ComparedNetworks, ComparisonPartial, match_labels
from encoscope.cli.app import run
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.images import read_images
from encoscope.metrics import linear_cka
from encoscope.metrics.layer_cka import MINIBATCH, LayerCKA
from encoscope.metrics.matching import Correlation, match_units


def test_correlations_in_batches_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 1, (50, 4)), rng.normal(-100, 2, (50, 3))
    y[:, 1] = 7.0
    sums = Correlation()
    for part in (slice(0, 1), slice(1, 20), slice(20, 50)):
        sums.partial_fit(x[part], y[part])
    found = sums.finalize()
    expected = np.corrcoef(x.T, y[:, [0, 2]].T)[:4, 4:]
    np.testing.assert_allclose(found[:, [0, 2]], expected, atol=1e-12)
    assert (found[:, 1] == 0).all()


def test_matching_finds_a_permutation() -> None:
    rng = np.random.default_rng(0)
    x, order = rng.normal(size=(40, 6)), rng.permutation(6)
    pairs = match_units(Correlation().partial_fit(x, 2 * x[:, order] + 1).finalize())
    assert {tuple(pair) for pair in pairs.tolist()} == {(int(order[k]), k) for k in range(6)}


def test_layer_cka_is_unbiased_linear_cka_for_one_minibatch() -> None:
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(60, 5)), rng.normal(size=(60, 9))]
    second = [first[0] @ rng.normal(size=(5, 7)) + rng.normal(size=(60, 7))]
    sums = LayerCKA(2, 1)
    for part in (slice(0, 7), slice(7, 60)):
        sums.partial_fit([values[part] for values in first], [values[part] for values in second])
    found = sums.finalize()
    for row, values in enumerate(first):
        assert found[row, 0] == pytest.approx(linear_cka(values, second[0], unbiased=True), abs=1e-10)
    with pytest.raises(UsageError, match="at least 4"):
        LayerCKA(1, 1).partial_fit([np.ones((3, 2))], [np.ones((3, 2))]).finalize()


def test_minibatches_do_not_depend_on_how_images_arrive() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.normal(size=(300, 6))
    whole = LayerCKA(1, 1).partial_fit([x], [y]).finalize()
    parts = LayerCKA(1, 1)
    for start in range(0, 300, 37):
        parts.partial_fit([x[start : start + 37]], [y[start : start + 37]])
    np.testing.assert_allclose(parts.finalize(), whole, rtol=1e-12)


def test_merged_sums_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 1, (300, 4)), rng.normal(-100, 2, (300, 6))
    whole, cka = Correlation().partial_fit(x, y), LayerCKA(1, 1).partial_fit([x], [y])
    parts, ckas = [], []
    for start in range(0, 300, MINIBATCH):
        shard = slice(start, start + MINIBATCH)
        parts.append(Correlation().partial_fit(x[shard], y[shard]))
        ckas.append(LayerCKA(1, 1).partial_fit([x[shard]], [y[shard]]))
    merged = Correlation().merge(parts[2]).merge(parts[0]).merge(parts[1])
    assert merged.count == 300
    np.testing.assert_allclose(merged.finalize(), whole.finalize(), atol=1e-12)
    np.testing.assert_allclose(ckas[2].merge(ckas[0]).merge(ckas[1]).finalize(), cka.finalize(), rtol=1e-12)


def test_labels_take_the_others_colors() -> None:
    first = np.array([[0, 0, 1, 1, 2, 2]])
    assert match_labels(first, np.array([[3, 3, 0, 0, 1, 0]])).tolist() == [[0, 0, 1, 1, 2, 1]]
    assert match_labels(first, np.array([[2, 2, 0, 0, 1, 1]])).tolist() == first.tolist()


@pytest.fixture(scope="module")
def zoo() -> Encoder:
    return load("zoo:resnet-caltech101")


@pytest.fixture(scope="module")
def folder(image_paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for name, path in image_paths.items():
        with Image.open(path) as image:
            image.convert("RGB").resize((160, 128)).save(made / f"{name}.png")
    return made


def test_an_encoder_agrees_with_itself_and_not_with_its_untrained_twin(zoo: Encoder, folder: Path) -> None:
    same = compare(zoo, zoo, folder, n_clusters=(3, 5), progress=False)
    assert [row.agreement.value for row in same.agreements] == [1.0, 1.0]
    np.testing.assert_allclose(np.diag(same.cka), 1, atol=1e-6)
    assert (same.matches[:, 0] == same.matches[:, 1])[same.correlations > 0.999].all()
    twin = load("zoo:resnet-caltech101@untrained", random_state=3)
    other = compare(zoo, twin, read_images(folder), n_clusters=(3, 5), progress=False)
    for row in other.agreements:
        assert row.agreement.value < row.ceiling.value < 1
        assert row.floor is not None
    assert other.ranked[0][1] <= other.ranked[-1][1]
    assert other.images == 5 and "on 5 images" in str(other)
    assert other.plot().axes[0].get_ylabel() == zoo.source
    assert [entry["path"] for entry in other.to_dict()["results"][0]["images"]] == [path for path, _ in other.ranked]
    few = compare(zoo, twin, folder, n_clusters=(3,), limit=4, progress=False)
    assert few.images == 4


class Noise(torch.nn.Module):
    """Features that have nothing to do with another noise's, but are alike for images of the same color."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(3, 12, 4, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.conv(pixels).mean((2, 3))


def colored(shade: int, number: int) -> np.ndarray:
    """A picture of a class that is known by its color."""
    noise = np.random.default_rng(1000 * shade + number).integers(-3, 4, (16, 16, 3))
    return (np.array([30 * shade, 255 - 30 * shade, 128]) + noise).clip(0, 255).astype(np.uint8)


def test_chance_does_not_profit_from_classes_in_a_row(tmp_path: Path) -> None:
    for shade in range(8):
        for number in range(4):
            (tmp_path / str(shade)).mkdir(exist_ok=True)
            Image.fromarray(colored(shade, number)).save(tmp_path / str(shade) / f"{number}.png")
    with torch.random.fork_rng():
        first, second = Encoder(Noise(0), size=16), Encoder(Noise(1), size=16)
    result = compare(first, second, tmp_path, n_clusters=(2,), progress=False)
    assert np.median(result.correlations) > 0.9  # color decides both
    assert result.chance.max() < 0.5  # the neighbor in the folder would give 0.9
    assert result.notes == ()
    few = compare(first, second, [colored(shade, 0) for shade in range(4)], n_clusters=(2,), progress=False)
    assert "4 images are too few" in str(few) and few.to_dict()["settings"]["notes"] == list(few.notes)


def test_shards_add_up_to_the_whole() -> None:
    with torch.random.fork_rng():
        networks = ComparedNetworks(
            Encoder(Noise(0), size=16), Encoder(Noise(1), size=16), None, (("conv",), ("conv",)), (2,)
        )
    images = list(read_images([colored(number % 8, number) for number in range(12)]))
    whole = ComparisonPartial(networks).partial_fit(0, images[:6]).partial_fit(MINIBATCH, images[6:])
    late = ComparisonPartial(networks).partial_fit(MINIBATCH, images[6:])
    merged = late.merge(ComparisonPartial(networks).partial_fit(0, images[:6]))
    assert merged.images == whole.images
    for ours, expected in zip(merged.finalize(), whole.finalize(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert np.array_equal(np.asarray(merged.draw_sheet()), np.asarray(whole.draw_sheet()))


def test_the_untrained_twin_is_no_second_column(zoo: Encoder, folder: Path) -> None:
    result = compare(zoo, "zoo:resnet-caltech101@untrained", folder, n_clusters=(3,), progress=False)
    assert result.agreements[0].floor is None


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    try:
        model = "zoo:resnet-caltech101"
        words = ["compare", model, f"{model}@untrained", "--images", str(folder), "--clusters", "4", "--out"]
        assert run([*words, str(tmp_path / "out"), "--json"]) == 1
    finally:
        broken.unlink()
    document = json.loads(capsys.readouterr().out)
    (entry,) = document["results"]
    assert document["format"] == "encoscope.comparison/1" and len(document["skipped"]) == 1
    assert [row["clusters"] for row in entry["agreement"]] == [4]
    assert entry["cka"]["layers"][0] == ["layer1", "layer2", "layer3", "layer4"]
    assert (tmp_path / "out" / entry["images"][0]["path"]).resolve().is_file()
    for name in ("cka.png", "differences.png", "result.json"):
        assert (tmp_path / "out" / name).is_file()


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "zoo:resnet-caltech101"
    assert run(["compare", model, model, "--images", str(tmp_path / "none")]) == 3
    assert run(["compare", model, model, "--images", str(tmp_path), "--clusters", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
