from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, nn
from torch.nn import functional

from encoscope.errors import UsageError
from encoscope.recipes import augment, commandline, training
from encoscope.recipes.classify import compute_accuracies, make_cross_entropy, smooth_labels
from encoscope.recipes.contrast import compute_name_accuracies, multi_positive_loss
from encoscope.recipes.export import sample_indices
from encoscope.recipes.images import DecodedImages, crop_center, crop_randomly, draw_balanced_order, split_tenth
from encoscope.recipes.training import Phase, TrainingPlan, train

CPU = torch.device("cpu")
PLAN = TrainingPlan(name="tiny", batch=8, phases=(Phase(2, 8, mixed=0.5, erased=0.5), Phase(1, 12)))


@pytest.fixture(scope="module")
def dataset() -> DecodedImages:
    rng = np.random.default_rng(0)
    shapes = [(16, 20), (24, 16), (16, 16)]
    pixels = [torch.from_numpy(rng.integers(256, size=(3, *shapes[k % 3]), dtype=np.uint8)) for k in range(24)]
    return DecodedImages(pixels, np.arange(24) % 3, ("a", "b", "c"))


def network() -> nn.Module:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4, 3)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *head)


def trained(dataset, folder, *, stop=None, loss=None):
    loss = loss or make_cross_entropy(3)
    return train(PLAN, network(), dataset, loss, folder=folder, device=CPU, stop_epoch=stop)


def without_times(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_weights_on_the_way_are_kept(dataset, tmp_path):
    losses, keep = make_cross_entropy(3), (1, 2)
    train(PLAN, network(), dataset, losses, folder=tmp_path / "a", device=CPU, keep_at=keep)
    on_the_way, _ = train(PLAN, network(), dataset, losses, folder=tmp_path / "b", device=CPU, stop_epoch=2)
    found = load_file(training.find_kept_weights(tmp_path / "a", 2))
    assert all(torch.equal(found[name], value) for name, value in on_the_way.state_dict().items())
    assert not training.find_kept_weights(tmp_path / "a", 3).exists()
    train(PLAN, network(), dataset, losses, folder=tmp_path / "a", device=CPU, keep_at=keep)  # there already
    with pytest.raises(UsageError, match="kept no weights of epoch 2: train again"):
        train(PLAN, network(), dataset, losses, folder=tmp_path / "b", device=CPU, keep_at=(2, 3))


def test_epochs_on_a_command_line():
    assert commandline._epochs("1,3,10") == (1, 3, 10)
    with pytest.raises(ValueError, match="0"):
        commandline._epochs("0,2")


def test_a_killed_training_goes_on_to_the_same_weights(dataset, tmp_path):
    whole, history = trained(dataset, tmp_path / "whole")
    _, part = trained(dataset, tmp_path / "parts", stop=1)
    assert [record["epoch"] for record in part] == [1]

    class Killed(Exception):
        pass

    def dies(model, step):
        if step.epoch == 1 and step.index[0] != training.list_batches(PLAN, dataset, 1)[0][0]:
            raise Killed  # in the middle of the second epoch
        return make_cross_entropy(3)(model, step)

    with pytest.raises(Killed):
        trained(dataset, tmp_path / "parts", loss=dies)
    resumed, again = trained(dataset, tmp_path / "parts")
    assert same(whole, resumed)
    assert without_times(history) == without_times(again)
    assert [record["pixels"] for record in again] == [8, 8, 12]


def test_training_learns_and_a_plan_has_a_folder_of_its_own(dataset, tmp_path, monkeypatch):
    pixels = [p // 4 + 60 * int(k) for p, k in zip(dataset.pixels, dataset.labels, strict=True)]
    bright = DecodedImages(pixels, dataset.labels, dataset.classes)
    plan = TrainingPlan(name="tiny", batch=8, rate=0.05, phases=(Phase(12, 8, color=0.0),))
    _, history = train(plan, network(), bright, make_cross_entropy(3), folder=tmp_path, device=CPU)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path))
    assert plan.folder() != PLAN.folder() and plan.folder().parent == tmp_path / "zoo"


def test_a_checkpoint_that_is_cut_short_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    training.save_checkpoint({"epoch": 1}, path)

    def cut(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(training.torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        training.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_the_learning_rate_rises_once_and_ends_at_nothing():
    rates = [training.compute_learning_rate(step, 100, 2.0, 0.2) for step in range(100)]
    assert max(rates) == rates[20] == 2.0 and rates[0] == 0.1 and rates[-1] < 0.002
    assert np.all(np.diff(rates[:20]) > 0) and np.all(np.diff(rates[20:]) < 0)


def test_orders_are_balanced_as_asked_and_follow_from_the_key():
    labels = np.repeat(np.arange(3), [10, 90, 900])
    plain = draw_balanced_order(labels, 0, (0, 0))
    assert sorted(plain) == list(range(1000))
    even = np.bincount(labels[draw_balanced_order(labels, 1, (0, 0))])
    assert even == pytest.approx([1000 / 3] * 3, abs=10)  # each draw stands for about one photo
    root = np.bincount(labels[draw_balanced_order(labels, 0.5, (0, 0))])
    assert root == pytest.approx(1000 * np.sqrt([10, 90, 900]) / np.sqrt([10, 90, 900]).sum(), abs=10)
    np.testing.assert_array_equal(draw_balanced_order(labels, 0.5, (3, 1)), draw_balanced_order(labels, 0.5, (3, 1)))
    assert np.any(draw_balanced_order(labels, 0.5, (3, 1)) != draw_balanced_order(labels, 0.5, (3, 2)))
    # a large class's images take turns: none twice before all once
    assert np.bincount(draw_balanced_order(labels, 0.5, (0, 0)), minlength=1000)[100:].max() == 1


def test_crops_follow_from_the_key_and_stay_inside(dataset):
    for k, pixels in enumerate(dataset.pixels[:6]):
        one = crop_randomly(pixels, 8, (0.2, 1.0), (0, 1, k))
        assert torch.equal(one, crop_randomly(pixels, 8, (0.2, 1.0), (0, 1, k)))
        assert not torch.equal(one, crop_randomly(pixels, 8, (0.2, 1.0), (0, 2, k)))
    middle = crop_center(dataset.pixels[0], 16)
    assert torch.equal(middle, dataset.pixels[0][:, :, 2:18])


def test_a_tenth_of_each_class_is_held_out():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [9, 25, 40]))
    kept, tuning = split_tenth(labels)
    assert sorted([*kept, *tuning]) == list(range(74))
    assert np.bincount(labels[tuning], minlength=3).tolist() == [0, 2, 4]


def test_color_at_no_strength_only_normalises_or_greys():
    pixels = torch.randint(256, (40, 3, 5, 5), dtype=torch.uint8, generator=Generator().manual_seed(0))
    plain = augment.normalize(pixels)
    changed = augment.jitter_color(pixels, 0.0, Generator().manual_seed(1))
    kept = (changed - plain).abs().amax((1, 2, 3)) < 1e-5
    assert 25 < int(kept.sum()) < 40
    colors = changed[~kept] * torch.tensor(augment.STD).view(3, 1, 1) + torch.tensor(augment.MEAN).view(3, 1, 1)
    assert (colors.amax(1) - colors.amin(1)).max() < 1e-5


def test_mixing_keeps_the_targets_mass_and_matches_the_pixels():
    labels = torch.arange(6)
    images = labels.float().view(6, 1, 1, 1).expand(6, 3, 10, 10)
    for seed in range(8):
        blended, targets = augment.mix_images(images, smooth_labels(labels, 6, 0.0), Generator().manual_seed(seed))
        assert torch.allclose(targets.sum(1), torch.ones(6))
        # an image is its number everywhere: the blend's mean is the targets' mean number
        assert torch.allclose(blended.mean((1, 2, 3)), targets @ labels.float(), atol=1e-4)
    assert torch.equal(images, labels.float().view(6, 1, 1, 1).expand(6, 3, 10, 10))


def test_erasing_changes_one_rectangle_in_its_share_of_images():
    images = torch.zeros(200, 3, 20, 20)
    erased = (augment.erase_rectangles(images, 0.25, Generator().manual_seed(0)) != 0).any(1)
    touched = erased.flatten(1).any(1)
    assert 30 < int(touched.sum()) < 70
    for mask in erased[touched]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum() <= 0.3 * 400


def test_many_positives_is_clip_s_loss_where_pairs_are_single():
    logits = torch.randn(5, 5, generator=Generator().manual_seed(0))
    both = (functional.cross_entropy(logits, torch.arange(5)) + functional.cross_entropy(logits.T, torch.arange(5))) / 2
    assert multi_positive_loss(logits, torch.eye(5, dtype=torch.bool)) == pytest.approx(float(both))
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    # two images of one class with two captions: the best that can be done is an even split, at a loss of ln 2 for both
    perfect = torch.where(same, 50.0, -50.0)
    assert multi_positive_loss(perfect, same) == pytest.approx(2 / 3 * np.log(2), abs=1e-5)


def test_accuracies_per_class():
    top1, mean, each = compute_accuracies(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 2]), 4)
    assert (top1, mean) == pytest.approx((0.75, (2 / 3 + 1) / 2))
    assert each == pytest.approx([2 / 3, np.nan, 1, np.nan], nan_ok=True)


def test_held_out_names_compete_only_with_each_other_in_the_zero_shot_figure():
    classes = ("ant", "panda", "crab", "okapi")
    names = np.eye(4, dtype=np.float32)
    images = np.array([[1, 2, 0, 0], [0, 1, 2, 0], [0, 2, 0, 1], [0, 0, 1, 0]], dtype=np.float32)
    labels = np.array([0, 1, 3, 2])
    figures, each = compute_name_accuracies(images, labels, names, classes)
    assert figures == {"known": 1.0, "known_mean_per_class": 1.0, "zero_shot": 0.5, "zero_shot_all": 0.0}
    assert each.tolist() == [1, 1, 1, 0]


def test_the_sample_is_fixed():
    places = sample_indices(2893)
    assert len(set(places.tolist())) == 600 and places[:5].tolist() == sample_indices(2893)[:5].tolist()
    assert np.all(np.diff(places) > 0) and places.max() < 2893


def test_what_is_exported_is_what_the_registry_loads(tmp_path, monkeypatch):
    from encoscope._torchvision import ensure_torchvision

    ensure_torchvision()
    import timm
    from PIL import Image

    from encoscope.images.caltech101 import LabelledImages
    from encoscope.recipes.export import measure_and_export, round_to_half
    from encoscope.zoo import registry

    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{k}.png" for k in range(6))
    for path in paths:
        Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype=np.uint8)).save(path)
    torch.manual_seed(0)
    model = round_to_half(timm.create_model("test_resnet", num_classes=3))
    plan = TrainingPlan(name="resnet-caltech101", phases=(Phase(2, 16),))
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "top1": 0.5}]
    accuracy = measure_and_export(
        model,
        plan,
        history,
        LabelledImages(paths, (0, 1, 2, 0, 1, 2), ("ant", "bass", "crab")),
        output=tmp_path,
        architecture="test_resnet",
        kwargs={"num_classes": 3},
        side=16,
        about="Tiny.",
        limits="Knows nothing.",
    )
    assert set(accuracy) == {"top1", "mean_per_class", "top1_sample"}
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "weights")
    entry = registry.find_entry("zoo:resnet-caltech101")
    stored = registry.load_weights(entry)
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert entry.accuracy["top1"] == pytest.approx(accuracy["top1"], abs=1e-5) and entry.preprocess["size"] == (16, 16)
    card = (tmp_path / "cards" / "resnet-caltech101.md").read_text()
    assert entry.sha256 in card and "| crab | " in card and "2 epochs at 16 px" in card
    assert (tmp_path / "cards" / "resnet-caltech101.tsv").read_text() == "epoch\tloss\ttop1\n1\t2\t\n2\t1\t0.5\n"
