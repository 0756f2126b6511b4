"""Times and peak memory, so that two ways of doing the same are compared in the same minute on the same machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median seconds of each function: one warm-up each, then all of them in turn, again and again."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_process(module: str, *arguments: str) -> float:
    """The number that ``python -m MODULE ARGUMENTS`` reports, see ``report_peak`` and ``report_seconds``."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def apart(module: str, names: Sequence[str], arguments: Sequence[str], rounds: int) -> dict[str, float]:
    """The median seconds of functions that disturb each other in one process, by the threads their libraries keep.

    Each runs in a process of its own, in turn, ``rounds`` times: ``python -m MODULE NAME ARGUMENTS`` reports seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            seconds[name].append(in_process(module, name, *arguments))
    return {name: statistics.median(values) for name, values in seconds.items()}


def report_seconds(run: Callable[[], Any], repeats: int) -> None:
    """Print the median seconds of a few runs, after one to warm up."""
    sys.stdout.write(f"{interleaved({'run': run}, repeats)['run']}\n")


def report_peak(run: Callable[[], Any]) -> None:
    """Print by how much this process's memory rises, at most, above where it stands now, while ``run`` runs.

    Linux only: the kernel's high-water mark of resident memory, reset before.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    sys.stdout.write(f"{(_status('VmHWM') - before) / 1024}\n")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def make_images(folder: Path, count: int, size: tuple[int, int], step: int = 1) -> list[Path]:
    """JPEG files of (height, width) pixels, all different: windows of two photos, every ``step``-th pixel of them."""
    folder.mkdir()
    sources = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    height, width = size[0] * step, size[1] * step
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        source = sources[number % 2]
        top, left = generator.integers(0, source.shape[0] - height), generator.integers(0, source.shape[1] - width)
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(source[top : top + height : step, left : left + width : step]).save(files[-1])
    return files
