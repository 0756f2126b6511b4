"""One synthesis loop for every method: parametrization, objective, transforms, optimizer and schedule, in stages."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from encoscope.concise_repr import concise_repr
from encoscope.defaults import RANDOM_STATE
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
    """The losses of a batch.

    Attributes:
        main: The loss of each image.
        auxiliary: A further loss of each image that is added (regularizers).
        named: Parts for the record and for messages, such as {"layer1": ...}, detached or not.
    """

    main: Float[Tensor, " batch"]
    auxiliary: Float[Tensor, " batch"] | None = None
    named: Mapping[str, Float[Tensor, " batch"]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A loss for each image."""

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the losses of some images of the run.

        Args:
            images: The views that the transform gave. With k views of each image there are k images for each unit.
            rows: Which units of the run they belong to.

        Returns:
            The losses, one for each unit.
        """
        ...


@dataclass(frozen=True)
class Optimizer:
    """Adam or NAdam: both work elementwise, so that images of a batch do not influence each other.

    Attributes:
        lr: The learning rate, before the schedule.
        betas: The decay rates of the moments.
        eps: Added to the denominator.
        kind: "adam" or "nadam".
    """

    lr: float = 1.0
    betas: tuple[float, float] = (0.5, 0.9)
    eps: float = 1e-8
    kind: str = "adam"

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Make the optimizer of some parameters.

        Args:
            parameters: What it optimizes.

        Returns:
            The optimizer.
        """
        optimizer = torch.optim.Adam if self.kind == "adam" else torch.optim.NAdam
        return optimizer(parameters, lr=self.lr, betas=self.betas, eps=self.eps)


Start: TypeAlias = Callable[[Images | None, Generators], Parametrization]
"""Begins a stage, from the last images of the stage before (None in the first) and each image's generator."""


@dataclass(frozen=True)
class Stage:
    """A part of a run with one size of image.

    Attributes:
        start: Makes the parametrization.
        steps: The number of steps.
        optimizer: The optimizer.
        schedule: The factor of the learning rate in each step.
        transform: Applied to the image in each step, before the network.
    """

    start: Start
    steps: int
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = warmup_cosine
    transform: Transform = identity


@concise_repr
@dataclass(frozen=True)
class Outcome:
    """The result of a run, or of the part of it that is done.

    Attributes:
        images: Normalized images, on the CPU.
        attention: The absolute gradient of the loss at the image, averaged over the steps of the last stage, in the
            image's own coordinates (transforms undone).
        losses: The sum ("loss") and the objective's named parts, [steps so far, batch].
        steps: The steps that are done in all stages.
        total: The steps of the whole run.
        frames: Images on the way, half precision, where some were requested.
    """

    images: Float[Tensor, "batch channels height width"]
    attention: Float[Tensor, "batch channels height width"]
    losses: Mapping[str, Float[np.ndarray, "steps batch"]]
    steps: int
    total: int
    frames: Sequence[Float[Tensor, "batch channels _ _"]] = ()


OutcomePreview: TypeAlias = Callable[[Outcome], None]


def run_stages(
    stages: Sequence[Stage],
    objective: Objective,
    names: Sequence[str],
    *,
    random_state: int = RANDOM_STATE,
    chunk: int | None = None,
    checkpoint: Checkpoint | None = None,
    preview: OutcomePreview | None = None,
    preview_every: int = 100,
    frames: int = 0,
    progress: Progress = None,
    runs_left: int = 1,
    label: str = "visualize",
) -> Outcome:
    """Optimize one image for each name, all in one batch.

    On Ctrl-C the step is finished, state and preview are written, and KeyboardInterrupt is raised.

    Args:
        stages: The stages, in order.
        objective: The loss.
        names: The units' texts; an image's random numbers depend on its name and ``random_state`` alone.
        random_state: The seed.
        chunk: How many images go through the network at once. None is one on the CPU, where more is no faster and the
            result then is the same to the last bit whatever else is in the batch, and all on a GPU. Objectives that
            look at the batch as a whole (batch statistics) need ``len(names)``.
        checkpoint: Where the state is kept; a run that was stopped is resumed, to the same result.
        preview: Called with the outcome so far every ``preview_every`` steps, and when the run is interrupted.
        preview_every: Steps between two previews.
        frames: So many images on the way are kept, at even distances, from before the first step to after the last.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        runs_left: How many runs like this one follow, this one included, for the estimate of how long all take; 0
            where that was said before.
        label: The text beside the bar.

    Returns:
        The outcome.

    Raises:
        UsageError: Without names or stages.
        EncoscopeError: When a loss or a gradient is not finite, naming the step and the part, and when the network
            passes no gradient to its input.
    """
    if not names or not stages:
        raise UsageError("nothing to synthesize: no units or no stages were given")
    run = _Run(stages, objective, names, random_state, chunk, frames)
    if checkpoint is not None:
        run.resume(checkpoint)
    saved = time.monotonic()
    tracked = track_steps(
        run.total, label, progress, initial=run.done, runs_left=runs_left, shorter="--steps N (in Python, steps=N)"
    )
    with tracked as count, _deferred_interrupt() as interrupted:
        try:
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
        self,
        stages: Sequence[Stage],
        objective: Objective,
        names: Sequence[str],
        random_state: int,
        chunk: int | None,
        frames: int,
    ) -> None:
        self._stages, self._objective, self._names = stages, objective, tuple(names)
        self._chunk = chunk
        self._generators: list[Generator] = make_generators(random_state, names)
        self._history: dict[str, list[Tensor]] = {}
        self.total = sum(stage.steps for stage in stages)
        self.done = 0
        self._frame_steps = set(np.linspace(0, self.total, frames).round().astype(int).tolist())
        self._frames: list[Tensor] = []
        self._enter(0, None)
        self._keep_frame()

    def _enter(self, index: int, previous: Images | None) -> None:
        """Begin a stage."""
        self._index, self._step, self._previous = index, 0, previous
        self._entered = [generator.get_state() for generator in self._generators]
        self._stage = self._stages[index]
        self._image = self._stage.start(previous, self._generators)
        self._optimizer = self._stage.optimizer.build(self._image.parameters())
        with torch.no_grad():
            self._attention = torch.zeros_like(self._image.image())

    def step(self) -> float:
        """Do one step of all images; gives the mean loss."""
        stage = self._stage
        images = self._image.image()
        try:
            gradient, parts = self._gradients(images.detach())
        except EncoscopeError as error:
            raise EncoscopeError(f"step {self.done + 1}: {error}") from error
        self._check(parts, gradient)
        self._attention += gradient.abs()
        for group in self._optimizer.param_groups:
            group["lr"] = stage.optimizer.lr * stage.schedule(self._step, stage.steps)
        self._optimizer.zero_grad()
        images.backward(gradient)
        self._optimizer.step()
        self._image.clamp_()
        for name, values in parts.items():
            self._history.setdefault(name, []).append(values)
        self.done += 1
        self._step += 1
        self._keep_frame()
        if self._step == stage.steps and self._index + 1 < len(self._stages):
            self._enter(self._index + 1, self._image.image().detach().clone())
        return float(parts["loss"].mean())

    def _gradients(self, images: Images) -> tuple[Images, dict[str, Tensor]]:
        """The gradient of the loss at the images, and the loss with its parts."""
        chunk = self._chunk or (1 if images.device.type == "cpu" else len(images))
        gradients, parts = [], []
        for first in range(0, len(images), chunk):
            rows = slice(first, min(first + chunk, len(images)))
            leaf = images[rows].requires_grad_()
            view = self._stage.transform(leaf, self._generators[rows])
            seen = view.detach().requires_grad_()
            losses = self._objective(seen, rows)
            loss = losses.main if losses.auxiliary is None else losses.main + losses.auxiliary
            gradients.append(torch.autograd.grad(view, leaf, _gradient(loss, seen))[0])
            parts.append({name: part.detach().float() for name, part in (*losses.named.items(), ("loss", loss))})
        return torch.cat(gradients), {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

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

    @torch.no_grad()
    def _keep_frame(self) -> None:
        """Keep the image as it is now, if this step is one of the frames."""
        if self.done in self._frame_steps:
            self._frames.append(self._image.image().detach().half().cpu())

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
            frames=tuple(self._frames),
        )

    def state(self) -> State:
        """What a later process needs to resume; once the run is over, only what its outcome is made of."""
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
            "frames": self._frames,
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the saved state, if there is one."""
        state = checkpoint.load()
        if state is None:
            return
        for generator, saved in zip(self._generators, state["entered"], strict=True):
            generator.set_state(saved)
        device = self._attention.device
        previous = state["previous"]
        self._enter(state["index"], None if previous is None else previous.to(device))
        with torch.no_grad():
            for parameter, saved in zip(self._image.parameters(), state["parameters"], strict=True):
                parameter.copy_(saved)
        if state["optimizer"]:
            self._optimizer.load_state_dict(state["optimizer"])
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)
        self._attention = state["attention"].to(device)
        self._history = {name: list(rows.to(device)) for name, rows in state["history"].items()}
        self._frames = list(state.get("frames", ()))
        self.done, self._step = state["done"], state["step"]


def _gradient(
    losses: Float[Tensor, " batch"], images: Float[Tensor, "views channels height width"]
) -> Float[Tensor, "views channels height width"]:
    """Each image's gradient of its own loss."""
    gradient = torch.autograd.grad(losses.sum(), images, allow_unused=True)[0] if losses.requires_grad else None
    if gradient is None:
        raise EncoscopeError(
            "the network passes no gradient to its input (it detaches it, or runs without gradients), so the image "
            "cannot be optimized"
        )
    return gradient


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Let Ctrl-C set the event, so that a step is finished; a second Ctrl-C interrupts at once."""
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
