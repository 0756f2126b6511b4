"""The study behind NAVE's default: choosing on one half, measuring on the other, resumed, each image encoded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoscope.cli.app import run as command
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import measure_baselines
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images.panoptic import VOID
from encoscope.metrics import image_miou
from encoscope.nave import NaveSettings, segment
from encoscope.reproduce.nave import candidates, default_table, defaults, shared_maps
from support.masked_images import write_masked_images

MODEL = "timm:resnet10t@untrained"


@pytest.fixture(autouse=True)
def small_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and fewer candidates."""
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    names = ("last three depths", "last block but one")
    monkeypatch.setattr(candidates, "LAYERS", {name: candidates.LAYERS[name] for name in names})
    monkeypatch.setattr(candidates, "SIZES", (1.0, 2.0))
    monkeypatch.setattr(candidates, "RESOLUTIONS", ("first-layer", 8))
    monkeypatch.setattr(candidates, "WEIGHTINGS", ("paper", "variance"))
    monkeypatch.setattr(candidates, "GROUPINGS", ("kmeans", "pca"))
    monkeypatch.setattr(candidates, "NORMALIZATIONS", ("unit", "centered"))
    monkeypatch.setattr(candidates, "MIN_REGIONS", (0.0, 0.05))
    monkeypatch.setattr(default_table, "OTHERS", ("felzenszwalb", "random"))


@pytest.fixture
def datasets(tmp_path: Path) -> tuple[str, str]:
    """Four images of a red thing before blue, with panoptic masks and with boxes."""
    return write_masked_images(tmp_path, 4, (40, 56), rows=(8, 34), width=22, step=7, hidden=2)


def make_request(datasets: tuple[str, ...], **options: Any) -> EvaluationRequest:
    shared: dict[str, Any] = {"load": {"input_size": 32}, "progress": False}
    return EvaluationRequest((MODEL,), datasets, options={"clusters": "2,3", "rounds": 1, **options}, **shared)


def test_choosing_on_one_half_and_measuring_on_the_other(datasets: tuple[str, str]) -> None:
    request = make_request(datasets)
    report = defaults.run(request)
    steps = report.further["search"]
    for factor in candidates.FACTORS:
        tried = [row for row in steps if row["factor"] == factor]
        (chosen,) = [row for row in tried if row["chosen"]]
        best = max(row["mIoU"] for row in tried)
        for row in tried:
            assert row["best - this"].value == pytest.approx(best - row["mIoU"])
        assert chosen["best - this"].low <= 0  # not clearly worse than the best
    what = [(row["what"], row["K"]) for row in report.rows]
    assert what[:2] == [("chosen", 2), ("as written", 2)]  # the network has no weights of its own: no untrained twin
    assert ("random, as many segments", 3) in what and ("felzenszwalb, as many regions", 2) in what
    images = defaults.read_masked_images(request)
    choosing, reporting = defaults.split_images(images, request.seed)
    assert sorted(m.example.path for m in choosing + reporting) == sorted(m.example.path for m in images)
    assert len(choosing) == len(reporting) == 2
    paper = Baseline("nave", load(MODEL, input_size=32), 3, {"preset": "paper"}, 32, 0, 0)
    (expected,) = measure_baselines([paper], [m.example for m in reporting], overlap.TASK, progress=False)
    row = next(row for row in report.rows if (row["what"], row["K"]) == ("as written", 3))
    assert row["mIoU"].value == pytest.approx(expected.mean("miou"))
    assert row["boundary F"].value == pytest.approx(expected.mean("boundary f"))
    chosen = next(row for row in report.rows if (row["what"], row["K"]) == ("chosen", 3))
    assert row["mIoU: chosen - this"].value == pytest.approx(chosen["mIoU"].value - row["mIoU"].value)
    assert row["CorLoc"] is not None
    assert "joined" not in report.further


def test_small_regions_joined_stand_beside_as_many_regions(datasets: tuple[str, str]) -> None:
    report = defaults.run(make_request(datasets, clusters="3", joined=MODEL))
    (joined, felzenszwalb, random) = report.further["joined"]
    assert (joined["what"], felzenszwalb["what"]) == ("joined", "felzenszwalb, as many regions")
    chosen = next(row for row in report.rows if row["what"] == "chosen")
    assert joined["regions"] <= chosen["regions"]
    assert random["regions"] == joined["regions"]
    difference = joined["region mIoU"].value - felzenszwalb["region mIoU"].value
    assert felzenszwalb["region mIoU: joined - this"].value == pytest.approx(difference)


def test_an_interrupted_run_resumes_and_encodes_each_image_once(
    datasets: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts = {"encoded": 0, "clustered": 0}
    limit = [10_000]
    encode, cluster = shared_maps.encode_images, shared_maps.segment_maps

    def counted_encode(*args: Any) -> Any:
        counts["encoded"] += 1
        return encode(*args)

    def counted_cluster(*args: Any) -> Any:
        counts["clustered"] += 1
        if counts["clustered"] > limit[0]:
            raise KeyboardInterrupt
        return cluster(*args)

    monkeypatch.setattr(shared_maps, "encode_images", counted_encode)
    monkeypatch.setattr(shared_maps, "segment_maps", counted_cluster)
    request = make_request(datasets[:1], clusters="2")
    whole = defaults.run(request)
    total = dict(counts)
    # two images to choose on: at two sizes, then for each later factor at the chosen one; two to report, twice
    assert total["encoded"] <= 2 * (2 + len(candidates.FACTORS) - 1) + 2 * 2
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "other"))
    counts["clustered"], limit[0] = 0, 17
    with pytest.raises(KeyboardInterrupt):
        defaults.run(request)
    counts["clustered"], limit[0] = 0, 10_000
    again = defaults.run(request)
    assert counts["clustered"] == total["clustered"] - 17
    assert again.rows[0]["CorLoc"] is None  # no boxes were given
    assert again.to_dict()["results"] == whole.to_dict()["results"] and again.further == whole.further
    page = again.save(tmp_path / "out").read_text(encoding="utf-8")
    assert "## Search" in page and "Foreground ARI" in page
    assert (tmp_path / "out" / "nave-defaults-search.csv").is_file()


@pytest.mark.parametrize("seed", range(6))
def test_categories_counted_by_cell_give_the_miou_of_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(30, 90, 2))
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    category = np.kron(rng.integers(VOID, 4, (6, 6)), np.ones((15, 15), dtype=np.int64))[:height, :width]
    encoder = load(MODEL, input_size=32)
    segmentation = segment(encoder, pixels, n_clusters=4, size=32 + 8 * seed, layers="layer2", preset="paper")
    shares = shared_maps.CategoryShares(category)
    expected = image_miou(segmentation.labels.astype(np.int64), category, void=VOID)
    assert shares.compute_miou(segmentation) == pytest.approx(expected)
    assert shares.compute_miou(segmentation) == pytest.approx(expected)
    assert np.isnan(shared_maps.CategoryShares(np.full((height, width), VOID)).compute_miou(segmentation))


def test_regions_are_named_each_by_itself() -> None:
    """Two regions of one cluster on two categories: together they can bear one name, apart both."""
    from encoscope.evaluation.baselines import BaselineSegments
    from encoscope.evaluation.runner import AnnotatedImage
    from encoscope.images import read_image
    from encoscope.regions import find_regions

    labels = np.repeat(np.array([[0, 1, 0]]), 6, axis=0).repeat(4, axis=1)
    category = np.repeat(np.array([[7, 8, 9]]), 6, axis=0).repeat(4, axis=1)
    masked = shared_maps.MaskedImage(AnnotatedImage(Path("x.png"), np.stack([category] * 3)), np.zeros((0, 4)))
    segments = BaselineSegments(labels, tuple(find_regions(labels)))
    values = shared_maps.measure_segments(segments, read_image(np.zeros((6, 12, 3), dtype=np.uint8)), masked)
    assert values["region miou"] == 1 and values["regions"] == 3
    assert values["miou"] == pytest.approx((0.5 + 1 + 0) / 3)


def list_choices(encoder: Encoder) -> dict[str, tuple[str, ...]]:
    return {name: choose(encoder) for name, choose in candidates.LAYERS.items()}


def test_candidates_say_what_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models.vision_transformer import VisionTransformer

    monkeypatch.undo()
    lite = list_choices(load("timm:tf_efficientnet_lite0@untrained"))
    assert lite["last three depths"] == ("blocks.2", "blocks.4", "bn2")
    assert lite["last block but one"] == ("blocks.5.3",)
    assert lite["last two blocks"] == ("blocks.5.3", "blocks.6.0")
    assert lite["last block but one, and the last on a finer grid"] == ("blocks.4", "blocks.5.3")
    shape: dict[str, Any] = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 12}
    vit = list_choices(Encoder(VisionTransformer(**shape, num_heads=2, num_classes=0), size=32))
    assert vit["last depth"] == vit["last block"] == ("blocks.11",)
    assert vit["block at three quarters"] == ("blocks.8",)
    assert vit["last block but one, and the last on a finer grid"] == ("blocks.4", "blocks.10")


def test_the_default_is_what_the_kept_table_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    kept = Path(__file__).parents[2] / "benchmarks" / "results" / "nave-defaults.json"
    chosen = json.loads(kept.read_text(encoding="utf-8"))["settings"]["chosen"]
    best = {
        "stages": candidates.Candidate("last three depths", 2.0, weighting="equal"),
        "one grid": candidates.Candidate("last depth", 3.0, resolution=56, min_region=0.005),
    }
    assert chosen == {family: str(candidate) for family, candidate in best.items()}
    left_out = {"preset", "min_region"}  # nested segmentations could not be joined, so the default joins none
    for family, model, size in (("stages", MODEL, 32), ("one grid", "zoo:vit-caltech101", None)):
        encoder = load(model, input_size=size)
        settings = NaveSettings.of(encoder)
        for name, value in best[family].options(encoder).items():
            if name not in left_out and not (family == "one grid" and name == "weighting"):  # of one layer
                assert getattr(settings, name) == (tuple(value) if name == "layers" else value), name


def test_wrong_use_is_one_line(datasets: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "nave-defaults", "--model", MODEL]
    assert command(words) == 2
    assert command([*words, "--dataset", datasets[0], "--set", "clusters=one"]) == 2
    shown = capsys.readouterr().err
    assert "coco:IMAGES#PANOPTIC.json" in shown and "not 'one'" in shown and shown.count("\n") == 2
    with pytest.raises(UsageError, match="at least two"):
        defaults.run(EvaluationRequest((MODEL,), datasets[:1], limit=1, progress=False))
