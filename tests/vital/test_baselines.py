from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from encoscope import units
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Preprocess
from encoscope.vital.baselines import deepinversion, fourier, maco, plugin
from encoscope.vital.baselines.losses import Classify, Maximize, compute_cross_entropy
from encoscope.vital.baselines.registry import METHODS, find_planner
from encoscope.vital.settings import DeepInversionSettings, MacoSettings, PluginSettings, make_settings
from encoscope.vital.synthesis.loop import Outcome, run_stages
from encoscope.vital.synthesis.parametrization import denormalize
from encoscope.vital.synthesis.random import make_generators
from encoscope.vital.synthesis.views import NoisyCrops, Wander, mid_gray

SIDE = 24
PREPROCESS = Preprocess(size=(SIDE, SIDE), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def network(*, normalise: bool = True) -> Encoder:
    def norm(width: int) -> nn.Module:
        return nn.BatchNorm2d(width) if normalise else nn.Identity()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, stride=2, padding=1), norm(6), nn.ReLU()),
            *(nn.Conv2d(6, 8, 3, stride=2, padding=1), norm(8), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        )
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                nn.init.normal_(child.running_mean)
                nn.init.uniform_(child.running_var, 0.5, 2.0)
    return Encoder(module, size=SIDE, mean=PREPROCESS.mean, std=PREPROCESS.std, classes=list("abcde"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return network()


@pytest.fixture(scope="module")
def magnitude(encoder) -> torch.Tensor:
    pixels = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return maco.compute_mean_magnitude([pixels], encoder.preprocess, (SIDE, SIDE))


def options(method: str, magnitude: torch.Tensor, steps: int = 14, **extra) -> Any:
    own = {"maco": {"magnitude": magnitude, "n_views": 3}, "plugin": {"n_views": 4, "lr": 0.05}}.get(method, {})
    return make_settings(method, steps=steps, **own, **extra)


def targets(encoder: Encoder, *texts: str) -> list[units.Unit]:
    return [units.parse_unit(text, encoder) for text in texts]


# ------------------------------------------------------------------------------------------------- spectra, pictures


def test_a_fourier_picture_is_the_formula():
    height, width = 10, 12
    picture = fourier.FourierImage(PREPROCESS, (height, width), make_generators(0, ["x"]))
    (coefficients,) = picture.parameters()
    assert coefficients.shape == (1, 3, height, width // 2 + 1, 2)
    numbers = coefficients.detach().numpy().astype(np.float64)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    scale = 1 / np.maximum(np.hypot(down, right), 1 / max(height, width))
    plain = np.fft.irfft2((numbers[..., 0] + 1j * numbers[..., 1]) * scale, s=(height, width), norm="ortho") / 4
    square_root = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    square_root /= np.linalg.norm(square_root, axis=0).max()
    colours = 1 / (1 + np.exp(-np.einsum("ij,bjhw->bihw", square_root, plain)))
    shown = denormalize(picture.image().detach(), PREPROCESS).numpy()
    np.testing.assert_allclose(shown, colours, atol=1e-6)


def test_the_first_coefficients_have_a_deviation_of_a_hundredth():
    picture = fourier.FourierImage(PREPROCESS, (64, 64), make_generators(0, ["x"]))
    assert picture.parameters()[0].std().item() == pytest.approx(0.01, rel=0.02)


def test_macos_colours_are_fouriers_transposed():
    published = [[0.5628, 0.5845, 0.5845], [0.1948, 0, -0.1948], [0.0433, -0.1082, 0.0649]]
    np.testing.assert_allclose(fourier.color_matrix().T.numpy(), published, atol=5e-5)
    pixels = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(fourier.correlate_colors(fourier.decorrelate_colors(pixels)), pixels)
    grey_levels = torch.rand(2, 1, 4, 5)  # other channels have no colours to correlate
    assert fourier.correlate_colors(grey_levels) is grey_levels


def test_the_mean_magnitude_is_that_of_decorrelated_pixels_however_they_are_batched():
    pixels = torch.rand(3, 3, 8, 6)
    batch = (pixels - torch.tensor(PREPROCESS.mean).reshape(3, 1, 1)) / torch.tensor(PREPROCESS.std).reshape(3, 1, 1)
    inverse = np.linalg.inv(fourier.color_matrix().numpy().astype(np.float64))
    expected = np.abs(np.fft.rfft2(np.einsum("ij,bjhw->bihw", inverse, pixels.numpy()))).mean(0)
    for parts in ([batch], [batch[:1], batch[1:]]):
        np.testing.assert_allclose(maco.compute_mean_magnitude(parts, PREPROCESS, (8, 6)).numpy(), expected, rtol=2e-4)
    assert maco.compute_mean_magnitude([batch], PREPROCESS, (16, 16)).shape == (3, 16, 9)


def test_a_maco_picture_keeps_its_spectrum_whatever_its_phase():
    natural = 1 / (1 + np.arange(8 * 5).reshape(1, 8, 5) * np.ones((3, 1, 1)))
    picture = maco.PhaseImage(torch.from_numpy(natural).float(), PREPROCESS, (8, 8), make_generators(0, ["x", "y"]))
    (phase,) = picture.parameters()
    with torch.no_grad():
        phase.mul_(3)
    shown = denormalize(picture.image().detach(), PREPROCESS).double()
    assert not torch.allclose(shown[0], shown[1], atol=0.05)
    plain = fourier.decorrelate_colors(torch.logit(shown)).numpy()
    np.testing.assert_allclose(plain.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(plain.std((1, 2, 3)), 1, atol=1e-3)
    # a real signal's first and middle column hold pairs of conjugates: only elsewhere is every magnitude free
    found = np.abs(np.fft.rfft2(plain))[..., 1:-1]
    ratio = found / natural[None, ..., 1:-1]
    np.testing.assert_allclose(ratio / ratio.mean((1, 2, 3), keepdims=True), 1, rtol=1e-2)


def test_pictures_stay_photos(magnitude):
    for picture in (
        fourier.FourierImage(PREPROCESS, (SIDE, SIDE), make_generators(0, ["x"])),
        maco.PhaseImage(magnitude, PREPROCESS, (SIDE, SIDE), make_generators(0, ["x"])),
        plugin.GrowingStart(PREPROCESS, (SIDE, SIDE), torch.device("cpu"))(None, make_generators(0, ["x"])),
    ):
        with torch.no_grad():
            for parameter in picture.parameters():
                parameter.mul_(50).sub_(20)
        picture.clamp_()
        mean, std = torch.tensor(PREPROCESS.mean).reshape(3, 1, 1), torch.tensor(PREPROCESS.std).reshape(3, 1, 1)
        plain = picture.image().detach() * std + mean
        assert plain.min() >= -1e-6 and plain.max() <= 1 + 1e-6


def test_a_spectrum_of_another_size_is_refused(encoder, magnitude):
    wanted = make_settings("maco", steps=1, size=(16, 16), magnitude=magnitude)
    made = maco.plan(encoder, targets(encoder, "class:a"), wanted)
    with pytest.raises(UsageError, match=r"shape \(3, 24, 13\) where \(3, 16, 9\)"):
        run_stages(made.stages, made.objective, ["class:a"])


# ------------------------------------------------------------------------------------------------------------- views


def test_a_view_that_does_not_wander_is_the_picture():
    images = torch.randn(2, 3, SIDE, SIDE)
    still = Wander((SIDE, SIDE), mid_gray(PREPROCESS), crops=(0, 0), scales=(1.0,), degrees=0)
    torch.testing.assert_close(still(images, make_generators(0, ["x", "y"])), images, atol=1e-5, rtol=1e-5)


def test_a_view_moves_by_whole_pixels_and_shows_grey_beside_the_picture():
    images = torch.randn(1, 3, 224, 224)
    moved = Wander((224, 224), mid_gray(PREPROCESS), scales=(1.0,), degrees=0)
    seen = moved(images, make_generators(3, ["x"]))
    found = [
        (down, right)
        for down in range(-6, 7)
        for right in range(-6, 7)
        if torch.allclose(
            seen[:, :, 10:-10, 10:-10], images[:, :, 10 + down : 214 + down, 10 + right : 214 + right], atol=1e-3
        )
    ]
    assert len(found) == 1 and found[0] != (0, 0)
    down = found[0][0]
    row = -1 if down > 0 else 0
    if down:
        torch.testing.assert_close(seen[0, :, row, 50], torch.tensor(mid_gray(PREPROCESS)), atol=1e-4, rtol=1e-4)


def test_a_view_turns_and_zooms_about_the_middle():
    rows = torch.arange(SIDE).float().expand(1, 3, SIDE, SIDE).clone()  # brightness grows to the right
    turned = Wander((SIDE, SIDE), (0.0, 0.0, 0.0), crops=(0, 0), scales=(2.0,), degrees=0)
    seen = turned(rows, make_generators(0, ["x"]))[0, 0, 12]
    torch.testing.assert_close(seen.diff(), torch.full((SIDE - 1,), 0.5), atol=1e-4, rtol=1e-4)
    centre = (SIDE - 1) / 2
    assert seen.mean().item() == pytest.approx(centre, abs=1e-3)
    angles = Wander((SIDE, SIDE), (0.0, 0.0, 0.0), crops=(0, 0), scales=(1.0,), degrees=10)
    draws = [angles(rows, make_generators(seed, ["x"]))[0, 0, 8:16, 8:16] for seed in range(8)]
    slopes = [torch.atan2(view.diff(dim=0).mean(), view.diff(dim=1).mean()).rad2deg().item() for view in draws]
    assert np.allclose(slopes, np.round(slopes), atol=1e-2) and 0 < np.abs(slopes).max() <= 10.01
    assert all(abs(view.diff(dim=1).norm() ** 2 / 56 + view.diff(dim=0).norm() ** 2 / 56 - 1) < 1e-2 for view in draws)


def test_crops_lie_inside_and_carry_bounded_noise():
    across = torch.arange(64).float().expand(64, 64)
    images = torch.stack([across, across.T, across])[None].repeat(2, 1, 1, 1)
    seen = NoisyCrops((16, 16), 40, noise=0.0)(images, make_generators(0, ["x", "y"])).reshape(2, 40, 3, 16, 16)
    steps = seen[:, :, 0].diff(dim=-1).mean((-2, -1)) * 16 / 64  # the crop's side, as a share of the picture's
    assert steps.min() > 0.04 and steps.mean().item() == pytest.approx(0.25, abs=0.04)
    assert steps.std().item() == pytest.approx(0.1, abs=0.03)
    torch.testing.assert_close(seen[:, :, 1].diff(dim=-2).mean((-2, -1)) * 16 / 64, steps, atol=1e-3, rtol=1e-3)
    assert seen.min() >= 0 and seen.max() <= 63
    noisy = NoisyCrops((16, 16), 40)(images, make_generators(0, ["x", "y"])).reshape(2, 40, 3, 16, 16)
    assert 0.09 < (noisy - seen).abs().max() <= 0.1001 and abs((noisy - seen).mean()) < 1e-3


def test_colour_shifts_are_affine_in_each_channel():
    images = torch.rand(2, 3, 5, 5)
    views = plugin.ColorShifts(PREPROCESS, 4)(images, make_generators(0, ["x", "y"]))
    assert views.shape == (8, 3, 5, 5)
    mean, std = torch.tensor(PREPROCESS.mean).reshape(3, 1, 1), torch.tensor(PREPROCESS.std).reshape(3, 1, 1)
    for number, view in enumerate(views):
        before, after = images[number // 4] * std + mean, view * std + mean
        slope = after.flatten(1).std(1) / before.flatten(1).std(1)
        shift = (after - slope.reshape(3, 1, 1) * before).flatten(1)
        assert (shift.std(1) < 1e-4).all() and (shift.mean(1).abs() <= 1).all()
        assert (slope.log().abs() <= 1.001).all() and slope.std() > 0


# -------------------------------------------------------------------------------------------------------- objectives


def test_maximize_is_less_each_units_own_value_averaged_over_its_views(encoder):
    chosen = targets(encoder, "class:b", "0:3", "features:2")
    images = torch.randn(6, 3, SIDE, SIDE)
    with torch.no_grad():
        found = Maximize(encoder, chosen)(images, slice(0, 3)).main
        expected = [-units.measure_units(encoder, images[2 * i : 2 * i + 2], [chosen[i]]).mean() for i in range(3)]
    torch.testing.assert_close(found, torch.stack(expected))
    torch.testing.assert_close(Maximize(encoder, chosen)(images[4:], slice(2, 3)).main, expected[2][None])


def test_a_silent_channel_is_woken_by_its_layer():
    first, second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[0, 0] = first.weight[1, 0] = 1.0
        second.weight[0, 0] = second.weight[1, 1] = 1.0
        second.bias[1] = -0.5  # channel 1 answers only to more red than there is at the start
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    silent = Encoder(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *tail), size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    (unit,) = targets(silent, "3:1")
    image = torch.full((1, 3, 8, 8), 0.3, requires_grad=True)
    objective = Maximize(silent, [unit])
    assert float(objective(image, slice(0, 1)).main.detach()) < 0  # of the whole layer
    for _ in range(80):
        (gradient,) = torch.autograd.grad(objective(image, slice(0, 1)).main.sum(), image)
        image = (image - gradient).detach().requires_grad_()
    value = float(units.measure_units(silent, image.detach(), [unit]).mean())
    assert value > 0
    assert float(objective(image, slice(0, 1)).main.detach()) == pytest.approx(-value)


def test_classify_is_the_cross_entropy_averaged_over_views(encoder):
    images = torch.randn(4, 3, SIDE, SIDE)
    scores = encoder.logits(images).double()
    each = scores.logsumexp(1) - scores[torch.arange(4), torch.tensor([3, 3, 1, 1])]
    found = Classify(encoder, (0, 3, 1))(images, slice(1, 3)).main
    torch.testing.assert_close(found.double(), each.reshape(2, 2).mean(1), atol=1e-5, rtol=1e-5)


def test_deepinversions_terms_are_the_literal_ones(encoder):
    images = torch.randn(3, 3, SIDE, SIDE, requires_grad=True)
    found = deepinversion.BatchStatistics(encoder, (1, 4, 0), statistics_weight=0.05, tv_weight=1e-4, l2_weight=1e-5)(
        images, slice(0, 3)
    )
    stages, pixels, distances = encoder.module, images.detach().numpy().astype(np.float64), []
    values = images.detach().double()
    for layer in stages.double().eval():
        if isinstance(layer, nn.BatchNorm2d):
            taken = values.transpose(0, 1).reshape(values.shape[1], -1).detach().numpy()
            mean = np.linalg.norm(taken.mean(1) - layer.running_mean.numpy())
            distances.append(mean + np.linalg.norm(taken.var(1) - layer.running_var.numpy()))
        values = layer(values)
    stages.float()
    entropy = (values.logsumexp(1) - values[torch.arange(3), torch.tensor([1, 4, 0])]).detach().numpy()
    statistics = 0.05 * (10 * distances[0] + distances[1])
    np.testing.assert_allclose(found.main.detach().numpy(), entropy + statistics, rtol=1e-4)
    variation = [
        np.linalg.norm(x[:, :, 1:] - x[:, :, :-1])
        + np.linalg.norm(x[:, 1:] - x[:, :-1])
        + np.linalg.norm(x[:, 1:, 1:] - x[:, :-1, :-1])
        + np.linalg.norm(x[:, 1:, :-1] - x[:, :-1, 1:])
        for x in pixels
    ]
    expected = 1e-4 * np.array(variation) + 1e-5 * np.linalg.norm(pixels.reshape(3, -1), axis=1)
    assert found.auxiliary is not None
    np.testing.assert_allclose(found.auxiliary.detach().numpy(), expected, rtol=1e-4)


def test_deepinversion_leaves_no_hook(encoder):
    objective = deepinversion.BatchStatistics(encoder, (1,))
    objective(torch.randn(1, 3, SIDE, SIDE), slice(0, 1))
    assert not any(child._forward_pre_hooks for child in encoder.module.modules())


def test_plugin_grows_from_a_quarter_to_the_whole_in_seven_stages(encoder):
    made = plugin.plan(encoder, targets(encoder, "class:a"), PluginSettings())
    assert [stage.steps for stage in made.stages] == [401] * 7
    draws = make_generators(0, ["x"])
    sides, picture = [], None
    for stage in made.stages:
        picture = stage.start(None if picture is None else picture.image().detach(), draws)
        sides.append(picture.image().shape[2])
    assert sides == [6, 9, 12, 15, 18, 21, 24]
    assert (
        sum(stage.steps for stage in plugin.plan(encoder, targets(encoder, "class:a"), PluginSettings(steps=16)).stages)
        == 16
    )
    assert len(plugin.plan(encoder, targets(encoder, "class:a"), PluginSettings(steps=3)).stages) == 3


def test_plugin_pastes_the_enlarged_picture_into_the_middle_of_noise():
    flat = (torch.full((1, 3, 24, 24), 0.75) - 0.5) / 0.25
    gray = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    canvas = (
        plugin.GrowingStart(gray, (32, 32), torch.device("cpu"))(flat, make_generators(0, ["x"]))
        .parameters()[0]
        .detach()
    )
    assert (canvas[:, :, 2:30, 2:30] - 0.75).abs().max() < 1e-6
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert canvas[..., border].min() < 0.1 and canvas[..., border].max() > 0.9


# --------------------------------------------------------------------------------------------------- the whole methods


@pytest.mark.parametrize("method", METHODS)
def test_steps_raise_the_unit_and_the_same_seed_gives_the_same_picture(method, encoder, magnitude):
    chosen = targets(encoder, "class:b", "class:d")

    def run(steps: int) -> Outcome:
        made = find_planner(method)(encoder, chosen, options(method, magnitude, steps), None)
        return run_stages(
            made.stages, made.objective, [str(unit) for unit in chosen], chunk=2 if made.together else None
        )

    long = run(42)
    losses = long.losses["loss"]
    if method != "plugin":  # whose colours differ more from step to step than the picture does
        assert (losses[-6:].mean(0) < losses[:6].mean(0)).all()
    else:
        shifts = plugin.ColorShifts(encoder.preprocess, 64)
        views = [shifts(found.images, make_generators(9, ["x", "y"])) for found in (run(7), run(140))]
        before, after = (compute_cross_entropy(encoder.logits(seen), [1, 3]) for seen in views)
        assert after.sum() < before.sum() - 0.02
    assert torch.equal(run(5).images, run(5).images)


@pytest.mark.parametrize("method", ["fourier", "maco", "plugin"])
def test_a_picture_does_not_depend_on_what_shares_its_batch(method, encoder, magnitude):
    chosen = targets(encoder, "class:b", "class:d", "class:e")

    def run(group: list[units.Unit], chunk: int | None) -> torch.Tensor:
        made = find_planner(method)(encoder, group, options(method, magnitude, 8), None)
        return run_stages(made.stages, made.objective, [str(unit) for unit in group], chunk=chunk).images

    together, alone = run(chosen, 3), run(chosen[1:2], None)
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=1e-4)


def test_maximising_methods_picture_channels_and_directions(encoder, magnitude):
    chosen = [*targets(encoder, "3:2"), units.direction_unit("3", [1.0, -1, 0, 0, 0, 0, 0, 2], "d")]
    for method in ("fourier", "maco"):
        made = find_planner(method)(encoder, chosen, options(method, magnitude, 20), None)
        losses = run_stages(made.stages, made.objective, ["3:2", "d"]).losses["loss"]
        assert (losses[-5:].mean(0) < losses[:2].mean(0)).all()


def test_fourier_takes_macos_views(encoder, magnitude):
    settings: Any = make_settings("fourier", steps=3, views="crops", n_views=2, lr=1.0)
    made = fourier.plan(encoder, targets(encoder, "class:b"), settings)
    assert isinstance(made.stages[0].transform, NoisyCrops) and made.settings["n_views"] == 2
    assert run_stages(made.stages, made.objective, ["class:b"]).images.shape == (1, 3, SIDE, SIDE)


def test_maco_takes_its_spectrum_from_photos(encoder, image_paths):
    chosen = targets(encoder, "class:b")
    made = maco.plan(encoder, chosen, MacoSettings(steps=2, size=(20, 20)), [image_paths["chelsea"]])
    pixels = encoder.prepare(image_paths["chelsea"]).pixels
    given = maco.compute_mean_magnitude([pixels], encoder.preprocess, (20, 20))
    again = maco.plan(encoder, chosen, MacoSettings(steps=2, size=(20, 20), magnitude=given))
    assert made.settings == again.settings and len(str(made.settings["magnitude"])) == 64
    with pytest.raises(UsageError, match="magnitude spectrum from images"):
        maco.plan(encoder, chosen, MacoSettings(), [])


@pytest.mark.parametrize("method", ["deepinversion", "plugin"])
def test_methods_that_classify_refuse_other_units(method, encoder):
    with pytest.raises(UsageError, match=r"classes only, not 0:3: give class:NAME"):
        find_planner(method)(encoder, targets(encoder, "0:3"), make_settings(method), None)


def test_deepinversion_needs_batch_normalisation():
    bare = network(normalise=False)
    with pytest.raises(UsageError, match="needs batch normalisation"):
        deepinversion.plan(bare, targets(bare, "class:a"), DeepInversionSettings())


def test_wrong_settings_are_named(encoder, magnitude):
    chosen = targets(encoder, "class:a")
    with pytest.raises(UsageError, match=r"fourier has no setting 'veiws' \(nearest: views"):
        make_settings("fourier", veiws="crops")
    with pytest.raises(UsageError, match="views is one of wander, crops, not 'x'"):
        make_settings("fourier", views="x")
    with pytest.raises(UsageError, match="steps is a number from 1 on, not 0"):
        make_settings("plugin", steps=0)
    with pytest.raises(UsageError, match="at least 8 pixels, not 4 x 4"):
        maco.plan(encoder, chosen, MacoSettings(size=(4, 4), magnitude=magnitude))
    with pytest.raises(UsageError, match="n_views is a number from 1 on"):
        make_settings("maco", magnitude=magnitude, n_views=0)
    with pytest.raises(UsageError, match="crop_side is a share above 0"):
        make_settings("maco", crop_side=0.0)
    with pytest.raises(UsageError, match="statistics_weight goes with method deepinversion, not with maco"):
        make_settings("maco", statistics_weight=1.0)
    with pytest.raises(UsageError, match=r"unknown method 'maca' .nearest: maco"):
        make_settings("maca")
