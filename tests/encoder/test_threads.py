"""One encoder in several threads: each call gives what it gives alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import encoscope
from encoscope import Encoder
from encoscope.encoder.lock import hold_module
from encoscope.relevance import compute_relevance

THREADS = 4


class Residual(nn.Module):
    """Two stages with batch norm, dropout and a shortcut, in training mode as a user may leave it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.stem(pixels)
        maps = self.stage(maps) + maps
        return self.fc(self.drop(maps.mean((2, 3))))


def make_encoder() -> Encoder:
    torch.manual_seed(0)
    module = Residual().train()
    return Encoder(module, size=32, mean=[0.5] * 3, std=[0.5] * 3, classes=["a", "b", "c"])


def draw_image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (40 + number, 48, 3), dtype=np.uint8)


def segment(encoder: Encoder, number: int) -> Any:
    return encoscope.segment(encoder, draw_image(number), n_clusters=2 + number % 3).labels


def observe_stem(encoder: Encoder, number: int) -> Any:
    return encoder.activations(draw_image(number), ["stem"])["stem"].maps


def observe_all(encoder: Encoder, number: int) -> Any:
    seen = encoder.observe(draw_image(number), encoder.depths, features=True, logits=True)
    assert seen.features is not None and seen.logits is not None
    return torch.cat([seen.features, seen.logits], 1)


def relevance(encoder: Encoder, number: int) -> Any:
    pixels = encoder.prepare(draw_image(number)).pixels
    return compute_relevance(encoder, pixels, f"class:{number % 3}", ["stem"], method="lrp")["stem"]


CALLS = [segment, observe_stem, observe_all, relevance]


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_jobs(encoder: Encoder, jobs: list[tuple[Callable[[Encoder, int], Any], int]], threads: int) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(function, encoder, number) for function, number in jobs]
        return [np.asarray(future.result()) for future in futures]


@pytest.mark.parametrize("kind", [*([call] for call in CALLS), CALLS])
def test_calls_in_threads_give_what_they_give_alone(kind: list[Callable[[Encoder, int], Any]]) -> None:
    jobs = [(kind[number % len(kind)], number // 2) for number in range(24)]
    alone = run_jobs(make_encoder(), jobs, 1)
    encoder = make_encoder()  # of which nothing is known yet: the trial runs are shared, too
    together = run_jobs(encoder, jobs, THREADS)
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second, strict=True)
    assert all(child.training for child in encoder.module.modules())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in encoder.module.modules())


def test_another_network_does_not_wait() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    done = threading.Event()

    def work() -> None:
        with hold_module(second):
            done.set()

    with hold_module(first):
        thread = threading.Thread(target=work)
        thread.start()
        assert done.wait(10)
        thread.join()
