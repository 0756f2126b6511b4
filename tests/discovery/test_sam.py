"""Segment Anything through transformers: a tiny one of random weights, against one prompt at a time written out."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope._torchvision import ensure_torchvision
from encoscope.cli.app import run as command
from encoscope.discovery import DiscoveredObjects, get_method
from encoscope.discovery import sam as room
from encoscope.discovery.sam import decode_mask, load_sam, suppress_overlapping
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import LoadedImage, read_image
from encoscope.regions import compute_outer_box
from encoscope.reproduce.nave import figures

ensure_torchvision()
transformers = pytest.importorskip("transformers")

SIDE = 64  # of the network's input
EVERYTHING = {"predicted_iou": 0.0, "stability": 0.0, "overlap": 1.0}


def save(folder: Path) -> Path:
    width = {"hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 32}
    seen = {"image_size": SIDE, "patch_size": 8}
    config = transformers.SamConfig(
        vision_config={
            **width,
            **seen,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={**seen, "hidden_size": 16, "mask_input_channels": 4},
        mask_decoder_config={**width, "num_hidden_layers": 1, "iou_head_hidden_dim": 16, "iou_head_depth": 2},
    )
    torch.manual_seed(1)
    network = transformers.SamModel(config)
    for parameter in network.parameters():  # their own initial values answer every point alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    with torch.no_grad():  # predicted IoUs between 0 and 1
        last = network.mask_decoder.iou_prediction_head.proj_out
        last.weight *= 0.1
        last.bias += 0.5
    network.save_pretrained(folder)
    sizes = {
        "size": {"longest_edge": SIDE},
        "pad_size": {"height": SIDE, "width": SIDE},
        "mask_size": {"longest_edge": SIDE // 4},
        "mask_pad_size": {"height": SIDE // 4, "width": SIDE // 4},
    }
    transformers.SamProcessor(transformers.SamImageProcessor(**sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny-sam")


@pytest.fixture(scope="module")
def image() -> LoadedImage:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    pixels[20:50, 20:70] = (200, 20, 20)
    return read_image(pixels)


@pytest.fixture(scope="module")
def literally(weights: Path, image: LoadedImage) -> list[tuple[np.ndarray, float, float]]:
    """Mask, predicted IoU and stability of the three answers to each point of a 3 x 3 grid, asked one by one."""
    network = transformers.SamModel.from_pretrained(weights).eval()
    processor = transformers.SamProcessor.from_pretrained(weights)
    found = []
    for row in range(3):
        for column in range(3):
            point = [(column + 0.5) / 3 * image.width, (row + 0.5) / 3 * image.height]
            inputs = processor(Image.fromarray(image.pixels), input_points=[[[point]]], return_tensors="pt")
            sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
            with torch.no_grad():
                answer = network(pixel_values=inputs["pixel_values"], input_points=inputs["input_points"].float())
            values = processor.image_processor.post_process_masks(answer.pred_masks, *sizes, binarize=False)[0][0]
            for value, score in zip(values.numpy(), answer.iou_scores[0, 0].tolist(), strict=True):
                found.append((value > 0, score, float((value > 1).sum() / max(1, (value > -1).sum()))))
    return found


def ask(weights: Path, image: LoadedImage, points: int = 3, **settings: Any) -> DiscoveredObjects:
    return get_method(f"sam:{weights}", points=points, **{**EVERYTHING, **settings})(None, image)


def between(values: list[float]) -> float:
    """A threshold in the widest gap among the middle half of the values, so that rounding decides nothing."""
    middle = sorted(values)[len(values) // 4 : -(len(values) // 4)]
    gaps = np.diff(middle)
    place = int(gaps.argmax())
    return (middle[place] + middle[place + 1]) / 2


def same(objects: DiscoveredObjects, expected: list[np.ndarray]) -> None:
    assert len(objects) == len(expected) > 0
    left = list(expected)
    for mask in objects.masks:  # scores may tie
        nearest = min(range(len(left)), key=lambda index: int((left[index] != mask).sum()))
        assert (left.pop(nearest) != mask).mean() < 1e-3


# Against single prompts


def test_every_answer_to_every_point_in_the_photos_own_pixels(weights, image, literally):
    found = ask(weights, image)
    same(found, [mask for mask, _, _ in literally if mask.any()])
    assert (found.height, found.width) == (70, 100)
    np.testing.assert_array_equal(found.boxes, [compute_outer_box(mask) for mask in found.masks])
    assert len(ask(weights, image, points=2)) <= 12 < len(found)


def test_the_best_comes_first(weights, image, literally):
    best = max((one for one in literally if one[0].any()), key=lambda one: one[1])[0]
    assert (ask(weights, image).masks[0] != best).mean() < 1e-3


def test_thresholds_keep_what_lies_above_them(weights, image, literally):
    held = [one for one in literally if one[0].any()]
    score = between([one[1] for one in held])
    kept = [mask for mask, predicted, _ in held if predicted > score]
    assert len(kept) < len(held)
    same(ask(weights, image, predicted_iou=score), kept)
    firm = between([one[2] for one in held])
    kept = [mask for mask, _, stability in held if stability > firm]
    assert len(kept) < len(held)
    same(ask(weights, image, stability=firm), kept)


def test_boxes_that_coincide_leave_the_best_mask(weights, image):
    everything, few = ask(weights, image), ask(weights, image, overlap=0.985)
    assert 1 < len(few) < len(everything) and len(ask(weights, image, overlap=0.7)) < len(few)
    np.testing.assert_array_equal(few.masks[0], everything.masks[0])
    left = []
    for box in everything.boxes:
        if all(shared(box, other) <= 0.985 for other in left):
            left.append(box)
    np.testing.assert_array_equal(few.boxes, left)


def shared(box: np.ndarray, other: np.ndarray) -> float:
    """IoU of boxes by counting pixels."""
    cover = np.zeros((2, 100, 120), dtype=bool)
    for plane, (x0, y0, x1, y1) in zip(cover, (box.astype(int), other.astype(int)), strict=True):
        plane[y0 : y1 + 1, x0 : x1 + 1] = True
    return float(cover.all(0).sum() / cover.any(0).sum())


def test_suppression_of_planted_boxes():
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 5], [4, 4, 4, 8], [4, 4, 4, 8], [20, 0, 29, 9]]).float()
    scores = torch.tensor([0.5, 0.9, 0.7, 0.8, 0.3, 0.1])
    assert suppress_overlapping(boxes, scores, 0.7).tolist() == [1, 3, 2, 5]  # one pixel wide, too, and equal ones once
    assert suppress_overlapping(boxes, scores, 0.5).tolist() == [1, 3, 5]
    assert suppress_overlapping(boxes[:0], scores[:0], 0.5).tolist() == []


def test_run_lengths():
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(decode_mask({"size": [2, 3], "counts": [2, 3, 1]}), mask)
    np.testing.assert_array_equal(decode_mask({"size": [2, 3], "counts": [0, 2, 3, 1]})[:, 0], [True, True])


def test_again_and_with_few_prompts_at_a_time(weights, image, monkeypatch):
    first, again = ask(weights, image), ask(weights, image)
    np.testing.assert_array_equal(first.masks, again.masks)
    monkeypatch.setattr(room, "_VALUES", 3 * 70 * 100 * 2)
    same(ask(weights, image), list(first.masks))


def test_nothing_found(weights, image):
    found = ask(weights, image, stability=1.0)
    assert len(found) == 0 and found.masks.shape == (0, 70, 100) and found.boxes.shape == (0, 4)


# Among the other methods


def test_smaller_masks_lie_on_larger_ones(weights, image):
    parts = Baseline(f"sam:{weights}", options={"points": 3, **EVERYTHING})(image)
    masks = ask(weights, image).masks
    areas = masks.sum((1, 2))
    covered = np.asarray(masks.any(0))
    np.testing.assert_array_equal(parts.labels == 0, ~covered)
    for y, x in [(0, 0), (35, 45), (69, 99), (10, 80)]:
        if covered[y, x]:
            smallest = areas[masks[:, y, x]].min()
            assert areas[parts.labels[y, x] - 1] == smallest
    assert len(parts.candidates) == len(masks)


def test_results_are_kept_by_weights_and_settings(weights, tmp_path):
    one = Baseline(f"sam:{weights}", options={"points": 3})
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in weights.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert one.name == "sam:tiny-sam" and str(weights) not in json.dumps(one.manifest())
    assert Baseline(f"sam:{copy}", options={"points": 3, "device": "cpu"}).manifest() == one.manifest()
    assert Baseline(f"sam:{weights}", options={"points": 4}).manifest() != one.manifest()
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    (copy / "processor_config.json").write_text(json.dumps(settings))
    load_sam.cache_clear()
    assert Baseline(f"sam:{copy}", options={"points": 3}).manifest() != one.manifest()


def test_its_name_is_the_folders_own(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    for given in ("tiny-sam", "./tiny-sam/", "../" + weights.parent.name + "/tiny-sam"):
        assert Baseline(f"sam:{given}").name == "sam:tiny-sam"
    monkeypatch.chdir(weights)
    assert Baseline("sam:.").name == "sam:tiny-sam"
    assert Baseline("slic").name == "slic"


@pytest.fixture
def boxed(tmp_path: Path, image: LoadedImage, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    Image.fromarray(image.pixels).save(tmp_path / "photos" / "a.png")
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 70, "width": 100}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 50, 30], "area": 1500}],
        "categories": [{"id": 1, "name": "square"}],
    }
    truth["annotations"][0]["iscrowd"] = 0
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    return tmp_path


def test_evaluate_beside_nave(weights, boxed, capsys):
    asked = ["evaluate", "corloc", "--model", "timm:resnet10t@untrained", "--size", "64", "--clusters", "2", "--json"]
    asked += ["--dataset", f"coco:{boxed}/photos#{boxed}/boxes.json", "--min-area", "0", "--border", "0"]
    assert command([*asked, "--method", f"sam:{weights}", "--points", "2", "--limit", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    row = next(row for row in rows if row["method"] == "sam:tiny-sam")
    assert row["images"] == 1 and row["clusters"] is None
    assert {row["method"] for row in rows} == {"nave", "random", "sam:tiny-sam"}
    for given, code, said in (
        (f"sam:{boxed}/nowhere", 3, "is no folder"),
        ("sam", 2, "sam:FOLDER"),
        (f"sam:{weights} --points 0", 2, "points is a number from 1 on, not 0"),
    ):
        assert command([*asked, "--method", *given.split()]) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and said in lines[0]


def test_the_figure_with_and_without(weights, boxed):
    pytest.importorskip("skimage")
    asked = {"size": 32}
    without, given = (
        figures.fig1(
            EvaluationRequest(
                ("timm:resnet10t@untrained",), (str(boxed / "photos"),), options=asked | more, progress=False
            )
        )
        for more in ({}, {"sam": str(weights), "points": 2})
    )
    assert "Segment Anything is not drawn" in without.notes[0] and "sam" not in without.settings
    assert "sam:tiny-sam (Segment Anything)" in given.notes[0] and "2 x 2 prompts" in given.notes[0]
    assert [row["method"] for row in given.rows] == ["nave", "slic", "felzenszwalb", "random", "sam"]
    assert given.rows[:4] == without.rows
    assert given.figures["nave-fig1"].width > without.figures["nave-fig1"].width


# Refusals


def test_weights_that_cannot_be_had(tmp_path, weights, monkeypatch):
    monkeypatch.setattr("encoscope._offline.is_reachable", lambda host: False)
    with pytest.raises(UsageError, match="sam needs weights: sam:FOLDER"):
        get_method("sam")
    with pytest.raises(MissingError, match=r"no config.json in .*empty"):
        (tmp_path / "empty").mkdir()
        get_method(f"sam:{tmp_path / 'empty'}")
    with pytest.raises(MissingError, match=r"somebody/sam-no-such is no folder, and no available name on the hub"):
        get_method("sam:somebody/sam-no-such")
    partly = tmp_path / "partly"
    partly.mkdir()
    for name, message in (("config.json", "image processor"), ("processor_config.json", "weights of")):
        (partly / name).write_bytes((weights / name).read_bytes())
        with pytest.raises(MissingError, match=message):
            get_method(f"sam:{partly}")
    (partly / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(EncoscopeError, match="cannot be loaded"):
        get_method(f"sam:{partly}")


def test_another_network_and_weights_that_lack_some(tmp_path, weights):
    import safetensors.torch

    other = tmp_path / "vit"
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    transformers.ViTModel(transformers.ViTConfig(**shape, image_size=16, patch_size=8)).save_pretrained(other)
    with pytest.raises(UsageError, match="type 'vit', not Segment Anything"):
        get_method(f"sam:{other}")
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for file in weights.iterdir():
        (lacking / file.name).write_bytes(file.read_bytes())
    tensors = safetensors.torch.load_file(lacking / "model.safetensors")
    tensors.pop(next(name for name in tensors if "iou_prediction_head" in name))
    safetensors.torch.save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoscopeError, match=r"lack 1 tensors, mask_decoder.iou_prediction_head"):
        get_method(f"sam:{lacking}")


def test_without_transformers(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match=r"needs transformers.*encoscope\[hf\]"):
        get_method(f"sam:{tmp_path}")


def test_settings_out_of_range(weights, image):
    with pytest.raises(UsageError, match="points is a number"):
        ask(weights, image, points=0)
    with pytest.raises(UsageError, match=r"stability has to be in \[0, 1\], not 1.5"):
        ask(weights, image, stability=1.5)
    with pytest.raises(UsageError, match=r"sam has no setting 'point' .nearest: points"):
        get_method(f"sam:{weights}", point=3)
