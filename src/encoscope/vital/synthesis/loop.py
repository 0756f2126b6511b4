"""One synthesis loop for every method: parametrisation + objective + transforms + optimiser and schedule, in stages."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from encoscope.concise_repr import concise_repr
from encoscope.errors import EncoscopeError, UsageError
from encoscope.progress import Progress, track_steps
from encoscope.vital.synthesis.checkpoint import Checkpoint, State
from encoscope.vital.synthesis.parametrization import Parametrization
from encoscope.vital.synthesis.random import Generators, make_generators
from encoscope.vital.synthesis.schedule import Schedule, warmup_cosine
from encoscope.vital.synthesis.transforms import Transform, identity

Images: TypeAlias = Float[Tensor, "batch channels height width"]
_SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class Losses:
    """What an objective says of a batch.

    main: for each image, to be minimised; its gradient at the image is what transparency is made of.
    auxiliary: for each image, added to the loss, left out of transparency (regularisers of the image alone). The two
    may have nothing in common but the images they were given.
    named: parts for the record and for messages, such as {"layer1": ...}, detached or not.
    """

    main: Float[Tensor, " batch"]
    auxiliary: Float[Tensor, " batch"] | None = None
    named: Mapping[str, Float[Tensor, " batch"]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A loss for each image."""

    def __call__(self, images: Images, rows: slice) -> Losses:
        """The losses of some images of the run, as the transform leaves them.

        rows: which units of the run these images are, so that each meets its own target. A transform that gives k
        views of each image hands over k images a unit; the losses are one for each unit.
        """
        ...


@dataclass(frozen=True)
class Optimizer:
    """Adam or NAdam, elementwise, so that images of a batch do not touch each other. lr: before the schedule."""

    lr: float = 1.0
    betas: tuple[float, float] = (0.5, 0.9)
    eps: float = 1e-8
    kind: Literal["adam", "nadam"] = "adam"

    def over(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        made = torch.optim.Adam if self.kind == "adam" else torch.optim.NAdam
        return made(parameters, lr=self.lr, betas=self.betas, eps=self.eps)


Start: TypeAlias = Callable[[Images | None, Generators], Parametrization]
"""Begins a stage from the images the stage before ended with (None in the first), and each image's generator."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with one size of image.

    start: makes the parametrisation. steps: how many. transform: before the network, each step.
    """

    start: Start
    steps: int
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = warmup_cosine
    transform: Transform = identity


@concise_repr
@dataclass(frozen=True)
class Outcome:
    """What a run gives, or has given so far.

    images: normalised, on the CPU. attention: mean over the last stage's steps of the main loss's gradient at the
    image, in the image's own coordinates (transforms undone), with its sign. losses: the sum and the objective's
    named parts, [steps so far, batch]. steps: done in all stages, of ``total``.
    """

    images: Float[Tensor, "batch channels height width"]
    attention: Float[Tensor, "batch channels height width"]
    losses: Mapping[str, Float[np.ndarray, "steps batch"]]
    steps: int
    total: int


Preview: TypeAlias = Callable[[Outcome], None]


def run_stages(
    stages: Sequence[Stage],
    objective: Objective,
    names: Sequence[str],
    *,
    seed: int = 0,
    chunk: int | None = None,
    checkpoint: Checkpoint | None = None,
    preview: Preview | None = None,
    preview_every: int = 100,
    progress: Progress = None,
    label: str = "visualize",
) -> Outcome:
    """Make one image for each name, all in one batch.

    names: the units' texts; with ``seed`` they are all that an image's random numbers depend on.
    chunk: how many images go through the network at once. Left out: one on the CPU, where more is no faster and one
        by one makes the result the same to the last bit whatever shares the batch; all of them on a GPU. Objectives
        that look at the batch as a whole (batch statistics) need ``len(names)``.
    checkpoint: where the state is kept; a run that was stopped goes on there, to the same result.
    preview: called with the outcome so far every ``preview_every`` steps, and when the run is interrupted.

    Raises EncoscopeError naming step and part when a loss or a gradient is not finite, and when the network passes no
    gradient to its input. On Ctrl-C the step is finished, state and preview are written, and KeyboardInterrupt goes on.
    """
    if not names or not stages:
        raise UsageError("nothing to synthesize: no units or no stages were given")
    run = _Run(stages, objective, names, seed, chunk)
    if checkpoint is not None:
        run.resume(checkpoint)
    saved = time.monotonic()
    with track_steps(run.total, label, progress) as count, _deferred_interrupt() as interrupted:
        try:
            count(run.done)
            while run.done < run.total:
                loss = run.step()
                count(1, f"loss {loss:.4g}")
                last = run.done == run.total
                if preview is not None and (run.done % preview_every == 0 or last):
                    preview(run.outcome())
                if checkpoint is not None and (last or time.monotonic() - saved > _SAVE_SECONDS):
                    checkpoint.save(run.state())
                    saved = time.monotonic()
                if interrupted.is_set():
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            if checkpoint is not None:
                checkpoint.save(run.state())
            if preview is not None:
                preview(run.outcome())
            raise
    return run.outcome()


class _Run:
    """The state of a run between steps."""

    def __init__(
        self, stages: Sequence[Stage], objective: Objective, names: Sequence[str], seed: int, chunk: int | None
    ) -> None:
        self._stages, self._objective, self._names = stages, objective, tuple(names)
        self._chunk = chunk
        self._generators: list[Generator] = make_generators(seed, names)
        self._history: dict[str, list[Tensor]] = {}
        self.total = sum(stage.steps for stage in stages)
        self.done = 0
        self._enter(0, None)

    def _enter(self, index: int, previous: Images | None) -> None:
        """Begin a stage."""
        self._index, self._step, self._previous = index, 0, previous
        self._entered = [generator.get_state() for generator in self._generators]
        self._stage = self._stages[index]
        self._image = self._stage.start(previous, self._generators)
        self._optimizer = self._stage.optimizer.over(self._image.parameters())
        with torch.no_grad():
            self._attention = torch.zeros_like(self._image.image())

    def step(self) -> float:
        """One step of all images; gives the mean loss."""
        stage = self._stage
        images = self._image.image()
        try:
            main, total, parts = self._gradients(images.detach())
        except EncoscopeError as error:
            raise EncoscopeError(f"step {self.done + 1}: {error}") from error
        self._check(parts, total)
        self._attention += main
        for group in self._optimizer.param_groups:
            group["lr"] = stage.optimizer.lr * stage.schedule(self._step, stage.steps)
        self._optimizer.zero_grad()
        images.backward(total)
        self._optimizer.step()
        self._image.clamp_()
        for name, values in parts.items():
            self._history.setdefault(name, []).append(values)
        self.done += 1
        self._step += 1
        if self._step == stage.steps and self._index + 1 < len(self._stages):
            self._enter(self._index + 1, self._image.image().detach().clone())
        return float(parts["loss"].mean())

    def _gradients(self, images: Images) -> tuple[Images, Images, dict[str, Tensor]]:
        """The gradients of the main and of the whole loss at the images, and the loss with its parts."""
        chunk = self._chunk or (1 if images.device.type == "cpu" else len(images))
        mains, totals, parts = [], [], []
        for first in range(0, len(images), chunk):
            rows = slice(first, min(first + chunk, len(images)))
            leaf = images[rows].requires_grad_()
            view = self._stage.transform(leaf, self._generators[rows])
            seen = view.detach().requires_grad_()
            losses = self._objective(seen, rows)
            gradient = _gradient(losses.main, seen)
            whole = gradient if losses.auxiliary is None else gradient + _gradient(losses.auxiliary, seen)
            separate = losses.auxiliary is not None
            (back,) = torch.autograd.grad(view, leaf, gradient, retain_graph=separate)
            mains.append(back)
            totals.append(torch.autograd.grad(view, leaf, whole)[0] if separate else back)
            loss = losses.main if losses.auxiliary is None else losses.main + losses.auxiliary
            parts.append({name: part.detach().float() for name, part in (*losses.named.items(), ("loss", loss))})
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return torch.cat(mains), torch.cat(totals), joined

    def _check(self, parts: Mapping[str, Tensor], gradient: Images) -> None:
        """Stop at the first number that is not finite, naming where it is."""
        named = {**parts, "the gradient at the image": gradient.flatten(1).sum(1)}
        if bool(torch.isfinite(torch.stack([values.sum() for values in named.values()])).all()):
            return
        for name, values in named.items():
            bad = (~torch.isfinite(values)).nonzero()
            if len(bad):
                raise EncoscopeError(
                    f"step {self.done + 1} of {self.total}, {self._names[int(bad[0])]}: {name} is "
                    f"{float(values[bad[0]])}: use precision fp32, a smaller learning rate, or other layers"
                )

    def outcome(self) -> Outcome:
        """The images as they are now."""
        with torch.no_grad():
            images = self._image.image().detach().float().cpu().clone()
        return Outcome(
            images=images,
            attention=(self._attention / max(self._step, 1)).float().cpu(),
            losses={name: torch.stack(rows).cpu().numpy() for name, rows in self._history.items()},
            steps=self.done,
            total=self.total,
        )

    def state(self) -> State:
        """All that a later process needs to go on; once the run is over, only what its outcome is made of."""
        over = self.done == self.total
        return {
            "done": self.done,
            "index": self._index,
            "step": self._step,
            "entered": self._entered,
            "generators": [generator.get_state() for generator in self._generators],
            "previous": self._previous,
            "parameters": [parameter.detach() for parameter in self._image.parameters()],
            "optimizer": {} if over else self._optimizer.state_dict(),
            "attention": self._attention,
            "history": {name: torch.stack(rows) for name, rows in self._history.items()},
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go back to a kept state, if there is one."""
        state = checkpoint.load()
        if state is None:
            return
        for generator, kept in zip(self._generators, state["entered"], strict=True):
            generator.set_state(kept)
        device = self._attention.device
        previous = state["previous"]
        self._enter(state["index"], None if previous is None else previous.to(device))
        with torch.no_grad():
            for parameter, kept in zip(self._image.parameters(), state["parameters"], strict=True):
                parameter.copy_(kept)
        if state["optimizer"]:
            self._optimizer.load_state_dict(state["optimizer"])
        for generator, kept in zip(self._generators, state["generators"], strict=True):
            generator.set_state(kept)
        self._attention = state["attention"].to(device)
        self._history = {name: list(rows.to(device)) for name, rows in state["history"].items()}
        self.done, self._step = state["done"], state["step"]


def _gradient(
    losses: Float[Tensor, " batch"], images: Float[Tensor, "views channels height width"]
) -> Float[Tensor, "views channels height width"]:
    """Each image's gradient of its own loss."""
    found = torch.autograd.grad(losses.sum(), images, allow_unused=True)[0] if losses.requires_grad else None
    if found is None:
        raise EncoscopeError(
            "the network passes no gradient to its input (it detaches it, or runs without gradients), so there is "
            "nothing to follow"
        )
    return found


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step is never left half done; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    try:
        signal.signal(signal.SIGINT, handler)
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
