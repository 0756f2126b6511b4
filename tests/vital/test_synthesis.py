"""The synthesis loop: independence of the batch, going on after a stop, and what it says when numbers go wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from encoscope.errors import EncoscopeError
from encoscope.images import Preprocess
from encoscope.vital.synthesis.checkpoint import Checkpoint
from encoscope.vital.synthesis.loop import Losses, Optimizer, Stage, run_stages
from encoscope.vital.synthesis.parametrization import pixel_bounds, start_from_noise
from encoscope.vital.synthesis.schedule import constant, cosine, warmup_cosine
from encoscope.vital.synthesis.transforms import Chain, Roll

PREPROCESS = Preprocess(size=(16, 16))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Conv2d(8, 5, 3)).eval()


def objective(network):
    def losses(images, rows):
        maps = network(images)
        values = torch.stack([maps[i, row % 5].mean() for i, row in enumerate(range(rows.start, rows.stop))])
        return Losses(-values, 1e-3 * images.flatten(1).norm(dim=1), {"conv": -values})

    return losses


def stage(steps=12, size=16, **settings):
    def start(previous, generators):
        return start_from_noise(PREPROCESS, (size, size), generators, torch.device("cpu"))

    return Stage(start, steps, **({"transform": Roll(3)} | settings))


def test_an_image_does_not_depend_on_its_batch(network):
    def pictures(names, offset, **settings):
        inner = objective(network)
        return run_stages(
            [stage()],
            lambda images, rows: inner(images, slice(rows.start + offset, rows.stop + offset)),
            names,
            **settings,
        ).images

    together = pictures(["a", "b", "c"], 0)
    assert torch.equal(together[1:2], pictures(["b"], 1))
    torch.testing.assert_close(together, pictures(["a", "b", "c"], 0, chunk=3), atol=1e-4, rtol=1e-4)
    assert not torch.equal(together, pictures(["a", "b", "c"], 0, random_state=1))


def test_steps_are_adam_on_the_rolled_image(network):
    """Against a plain loop written out."""
    made = run_stages([stage(steps=5)], objective(network), ["a"])

    from encoscope.vital.synthesis.random import make_generators

    (generator,) = make_generators(0, ["a"])
    x = torch.randn(3, 16, 16, generator=generator)[None].requires_grad_()
    adam = torch.optim.Adam([x], lr=1.0, betas=(0.5, 0.9))
    low, high = pixel_bounds(PREPROCESS)
    mean = torch.zeros_like(x)
    for step in range(5):
        for group in adam.param_groups:
            group["lr"] = warmup_cosine(step, 5)
        down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
        rolled = torch.roll(x, (down, right), (2, 3))
        adam.zero_grad()
        (-network(rolled)[0, 0].mean() + 1e-3 * rolled.norm()).backward()
        assert x.grad is not None
        mean += x.grad.abs() / 5
        adam.step()
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, low), high))
    torch.testing.assert_close(made.images, x.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.attention, mean, atol=1e-7, rtol=1e-4)
    assert made.losses["loss"].shape == made.losses["conv"].shape == (5, 1)


@pytest.mark.parametrize("stop", [1, 7, 12, 13])
def test_a_stopped_run_goes_on_to_the_same_result(network, tmp_path, stop):
    def grow(previous, generators):
        made = start_from_noise(PREPROCESS, (20, 20), generators, torch.device("cpu"))
        with torch.no_grad():
            made.parameters()[0][:, :, 2:18, 2:18] = previous
        return made

    settings = {"optimizer": Optimizer(lr=0.1, kind="nadam"), "transform": Chain((Roll(2), Roll(1)))}
    stages = [stage(), Stage(grow, 6, **settings)]
    names = ["a", "b"]
    whole = run_stages(stages, objective(network), names, frames=5)

    kept = Checkpoint(tmp_path / "run", {"unit": names})
    seen = []

    def interrupt(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(
            stages, objective(network), names, checkpoint=kept, preview=seen.append, frames=5, progress=interrupt
        )
    assert seen[-1].steps == stop  # the picture so far
    again = run_stages(stages, objective(network), names, checkpoint=kept, frames=5)
    assert len(whole.frames) == len(again.frames) == 5
    assert all(torch.equal(first, second) for first, second in zip(whole.frames, again.frames, strict=True))
    assert torch.equal(whole.images, again.images)
    assert torch.equal(whole.attention, again.attention)
    np.testing.assert_array_equal(whole.losses["loss"], again.losses["loss"])
    assert again.steps == again.total == 18

    def never(images, rows):
        raise AssertionError("a finished run is not made again")

    assert torch.equal(run_stages(stages, never, names, checkpoint=kept).images, whole.images)


def test_a_checkpoint_of_another_run_is_not_taken(network, tmp_path):
    path = tmp_path / "run"
    run_stages([stage(3)], objective(network), ["a"], checkpoint=Checkpoint(path, {"seed": 0}))
    other = run_stages([stage(3)], objective(network), ["a"], random_state=1, checkpoint=Checkpoint(path, {"seed": 1}))
    assert torch.equal(other.images, run_stages([stage(3)], objective(network), ["a"], random_state=1).images)
    (path / "state.pt").write_bytes(b"half")
    assert Checkpoint(path, {"seed": 1}).load() is None


def test_ctrl_c_finishes_the_step(network, tmp_path):
    import os
    import signal

    calls = []
    inner = objective(network)

    def losses(images, rows):
        calls.append(rows)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(images, rows)

    before = signal.getsignal(signal.SIGINT)
    kept = Checkpoint(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        run_stages([stage()], losses, ["a"], checkpoint=kept)
    state = kept.load()
    assert state is not None
    assert state["done"] == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_names_the_step_and_the_part(network):
    inner = objective(network)
    calls = []

    def losses(images, rows):
        calls.append(rows)
        found = inner(images, rows)
        bad = found.main * float("nan") if len(calls) > 4 else found.main  # the first image's third step
        return Losses(bad, None, {"layer1": found.main, "layer2": bad})

    with pytest.raises(EncoscopeError, match=r"step 3 of 12, a: layer2 is nan"):
        run_stages([stage()], losses, ["a", "b"])


def test_no_gradient_is_said(network):
    with pytest.raises(EncoscopeError, match="no gradient to its input"):
        run_stages([stage()], lambda images, rows: Losses(network(images.detach()).mean((1, 2, 3))), ["a"])


def test_schedules():
    assert [warmup_cosine(step, 2000) for step in (0, 49, 99, 100)] == [0.01, 0.5, 1.0, 1.0]
    assert warmup_cosine(1050, 2000) == pytest.approx(0.5)  # 0.5 (1 + cos(pi (i - 100) / 1900))
    assert warmup_cosine(1999, 2000) == pytest.approx(0, abs=1e-5)
    assert warmup_cosine(0, 1) == 1
    assert (constant(7, 9), cosine(0, 9)) == (1.0, 1.0)
