"""The one training loop: of SerenDiff in all its forms, and of every rival.

A model says how large the loss of a batch is; the loop draws the batches,
descends, validates, stops and keeps the best weights. Every random choice of
a step derives from the seed and the number of the step, so that a run that
was stopped and resumed ends with the weights of one that was not.

One rule of stopping for everybody: the validation score is measured before
the first step and then every ``validate_every`` steps; after ``patience``
measurements without a better one the training stops, and the best state,
not the last, is kept.

Letters: B examples of a batch, M training examples.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from serendifflib.diffusion.checkpoints import (
    load_checkpoint,
    save_checkpoint,
    trained_state,
)
from serendifflib.diffusion.devices import (
    compiled,
    keep_large_blocks,
    own_randomness,
)
from serendifflib.diffusion.distributed import Team, current_team
from serendifflib.diffusion.reports import StageReport
from serendifflib.errors import ConfigError, ModelError, check_choice
from serendifflib.io import content_hash

CLIP = 1.0  # largest length of a gradient
EMA_STEPS = 200  # weights are averaged over so many last steps
CHECKPOINT_SECONDS = 20.0
WRITING_SHARE = 0.1  # of the time, at most, goes into checkpoints

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""(network, numbers of the examples [B], source of noise) -> mean loss."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults are App. B of the paper.

    Attributes:
        steps: at most this many optimiser steps.
        batch_size: examples per step.
        learning_rate, weight_decay: App. B: 0.001 and 0.0001.
        optimizer: ``adam`` (App. B) or ``adamw``, which decays matrices
            only, no bias and no norm.
        warmup: steps over which the learning rate rises to its value.
        ema: keep the mean of the weights of the last 200 steps.
        patience: stop after so many measurements without a better one; 0
            trains all steps and keeps the last weights.
        validate_every: steps between two measurements.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    warmup: int = 0
    ema: bool = False
    patience: int = 0
    validate_every: int = 100

    def __post_init__(self):
        check_choice("optimizer", self.optimizer, ("adam", "adamw"))
        for name in ("steps", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )


def train(
    network: nn.Module,
    loss: Loss,
    examples: int,
    settings: TrainingSettings,
    *,
    seed: int,
    name: str = "training",
    stage: str = "",
    device: torch.device | str = "cpu",
    validate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    keep_checkpoint: bool = False,
    origin: str = "",
    team: Team | None = None,
    progress: bool = False,
) -> StageReport:
    """Train ``network`` in place; keep the best (or the last) weights.

    Ctrl-C lets the step at hand end and writes the checkpoint before it
    stops; the same call then goes on from there.

    Args:
        network: what is trained.
        loss: of a batch, by the view of ``network`` that it is given.
        examples: M.
        settings: how to train.
        seed: of all random choices.
        name: of the model, for errors.
        stage: what the targets are.
        device: where to train; on CUDA in bfloat16 mixed precision.
        validate: score of a network, higher is better.
        checkpoint: file to resume from, and to save to.
        checkpoint_seconds: time between two saves.
        keep_checkpoint: leave the finished run there, for later calls.
        origin: hash of what else decides; another's checkpoint is refused.
        team: processes that train together; None is the current team.
        progress: show a bar.

    Raises:
        ConfigError: no example, or no even share for each process.
        CheckpointError: the checkpoint is damaged or of another run.
        ModelError: loss or validation score is not a number.
    """
    keep_large_blocks()
    team = team or current_team()
    team.check(settings.batch_size)
    run = _Run(network.to(device), settings, examples, name, stage, validate)
    saver = _Saver(run, checkpoint, checkpoint_seconds, team)
    saver.load(content_hash(dataclasses.asdict(settings), seed, origin))
    with own_randomness(), _patient_interrupt() as interrupted:
        _steps(run, saver, loss, seed, team, interrupted, progress)
    if keep_checkpoint:  # before anything else can fail
        saver.save()
    run.finish()
    if not keep_checkpoint and saver.path is not None and saver.writes:
        saver.path.unlink(missing_ok=True)
    team.wait()  # the next stage may look for the same file
    return run.report


def _steps(
    run: _Run,
    saver: _Saver,
    loss: Loss,
    seed: int,
    team: Team,
    interrupted: Callable[[], bool],
    progress: bool,
) -> None:
    """Step after step, until all are taken or the score rises no more."""
    report, settings = run.report, run.settings
    view = team.wrap(compiled(run.network, settings.steps))
    started = time.perf_counter() - report.seconds
    bar = tqdm(
        range(report.steps, settings.steps),
        run.words,
        initial=report.steps,
        total=settings.steps,
        disable=not (progress and team.first),
    )
    run.look()
    for step in bar:
        if run.exhausted():
            report.stopped = "patience"
            break
        value = _train_step(
            view, loss, run.optimizer, report.examples, settings, seed, step,
            team,
        )  # fmt: skip
        run.after_step(value)
        run.look()
        report.seconds = time.perf_counter() - started
        if report.steps % 20 == 0:
            news = {"loss": value}
            if report.validations:
                news["valid"] = report.validations[-1][1]
            bar.set_postfix(news)
        saver.save_now_and_then()
        if interrupted():
            saver.save()
            raise KeyboardInterrupt


def _train_step(
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    examples: int,
    settings: TrainingSettings,
    seed: int,
    step: int,
    team: Team,
) -> float:
    """One step of training: draw, noise, predict, descend."""
    number = _step_seed(seed, step)
    generator = torch.Generator().manual_seed(number)
    torch.manual_seed(number + team.rank)  # dropout: other masks per process
    # 1. draw a batch of examples, each of them once per round
    index = batch_of(examples, settings.batch_size, seed, step)
    # 2. noise them (Eq. 1), and
    # 3. let the network predict and measure how wrong it is (Eq. 10), as
    #    ImageLoss does for portraits
    value = loss(network, index, generator)
    # 4. descend, by gradients of length 1 at most; at first slowly, if asked
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warm
    optimizer.step()
    return float(team.mean(value.detach()))


def batch_of(examples: int, size: int, seed: int, step: int) -> Tensor:
    """Numbers of the examples of a step: shuffled rounds over all M.

    >>> rounds = torch.cat([batch_of(6, 4, 0, step) for step in range(3)])
    >>> sorted(rounds[:6].tolist()) == sorted(rounds[6:].tolist())
    True
    """
    place = torch.arange(step * size, (step + 1) * size)
    rounds, place = place // examples, place % examples
    return torch.cat(
        [
            _shuffled(examples, seed, int(one))[place[rounds == one]]
            for one in rounds.unique()
        ]
    )


@functools.lru_cache(maxsize=2)
def _shuffled(examples: int, seed: int, round_: int) -> Tensor:
    number = int(content_hash("round", seed, round_)[:15], 16)
    generator = torch.Generator().manual_seed(number)
    return torch.randperm(examples, generator=generator)


def draw_noise(
    shape: tuple[int, ...],
    generator: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    """N(0, 1) from the generator of a step; on CUDA other numbers.

    They are drawn there: drawing a batch of portraits on the processor takes
    longer than the rest of the step on a GPU.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return torch.randn(shape, generator=generator)
    number = int(torch.randint(2**31 - 1, (1,), generator=generator))
    there = torch.Generator(device).manual_seed(number)
    return torch.randn(shape, generator=there, device=device)


class _Run:
    """The state of a training: what a checkpoint holds, and how it moves."""

    def __init__(self, network, settings, examples, name, stage, validate):
        self.network, self.settings = network.train(), settings
        self.words = f"{name}: stage {stage!r}" if stage else name
        if not examples:
            raise ConfigError(
                f"{self.words}: no training example: the training users have "
                "no target with an item before it"
            )
        self.validate = validate
        self.optimizer = _optimizer(network, settings)
        self.average = AveragedModel(
            # without averaging there is nothing to copy
            network if settings.ema else nn.Identity(),
            multi_avg_fn=_running_average,
            use_buffers=True,
        )
        self.best: dict[str, Tensor] = {}
        self.report = StageReport(
            stage=stage,
            examples=examples,
            parameters=count_parameters(network),
        )

    @property
    def kept(self) -> nn.Module:
        """The network whose weights count: the averaged one, if any."""
        return self.average.module if self.settings.ema else self.network

    def after_step(self, loss: float) -> None:
        """Note the loss of a step and average the weights."""
        if not math.isfinite(loss):
            raise ModelError(
                f"{self.words} diverged in step {self.report.steps + 1}: "
                f"the loss is {loss}; fit again with a smaller learning rate"
            )
        self.report.losses.append(loss)
        if self.settings.ema:
            self.average.update_parameters(self.network)

    def look(self) -> None:
        """Validate, if it is time, and remember the best weights."""
        report, every = self.report, self.settings.validate_every
        due = report.steps % every == 0 or report.steps == self.settings.steps
        seen = report.validations and report.validations[-1][0] == report.steps
        if self.validate is None or not due or seen:
            return
        score = quietly(self.kept, self.validate)
        if math.isnan(score):
            raise ModelError(
                f"{self.words}: the validation score of step "
                f"{report.steps} is not a number; fit again with a smaller "
                "learning rate"
            )
        if not report.validations or score > report.best_value:
            report.best_step = report.steps
            state = trained_state(self.kept)
            self.best = {k: v.detach().clone() for k, v in state.items()}
        report.validations.append((report.steps, score))

    def exhausted(self) -> bool:
        """No better score among the last ``patience`` ones."""
        best, patience = self.report.best_step, self.settings.patience
        since = sum(step > best for step, _ in self.report.validations)
        return 0 < patience <= since

    def finish(self) -> None:
        """Put the weights that count into the network."""
        state = self.best if self.settings.patience else {}
        if not state:
            self.report.best_step = self.report.steps
            state = trained_state(self.kept)
        self.network.load_state_dict(state, strict=False)
        self.network.to(memory_format=torch.contiguous_format).eval()


def count_parameters(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


class _Saver:
    """Writes a run to its checkpoint, every so many seconds."""

    def __init__(self, run: _Run, path: Path | None, every: float, team: Team):
        self.run, self.path, self.every = run, path, every
        self.writes = team.first
        self.origin = ""
        self.last = time.monotonic()

    def load(self, origin: str) -> None:
        """Continue where the file stands, if there is one."""
        if self.path is None:
            return
        run = self.run
        state = run.network.state_dict()
        shapes = {name: list(value.shape) for name, value in state.items()}
        self.origin = content_hash(origin, shapes)
        if self.path.exists():
            report, run.best = load_checkpoint(
                self.path, self.origin, run.network, run.average, run.optimizer
            )
            run.report = StageReport.from_json(report)

    def save_now_and_then(self) -> None:
        """Save if the last time is long enough ago."""
        if self.writes and time.monotonic() - self.last >= self.every:
            self.save()

    def save(self) -> None:
        """Write the file; a slow disk is asked less often."""
        if self.path is None or not self.writes:
            return
        run, started = self.run, time.monotonic()
        save_checkpoint(
            self.path,
            self.origin,
            dataclasses.asdict(run.report),
            run.best,
            run.network,
            run.average,
            run.optimizer,
        )
        self.last = time.monotonic()
        taken = self.last - started
        self.last += max(0.0, taken / WRITING_SHARE - self.every)


def quietly(
    network: nn.Module, validate: Callable[[nn.Module], float]
) -> float:
    """Validate without dropout, gradients or a trace in the randomness."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), own_randomness():
        score = float(validate(network))
    network.train(was_training)
    return score


@contextmanager
def _patient_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the step at hand first; a second one stops at once.

    A step that is cut in two could not be resumed to the same weights.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def handler(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _optimizer(network, settings) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict] = [{"params": trained}]
    make: type[torch.optim.Optimizer] = torch.optim.Adam
    if settings.optimizer == "adamw":
        make = torch.optim.AdamW
        groups = [
            {"params": [p for p in trained if p.dim() > 1]},
            {
                "params": [p for p in trained if p.dim() <= 1],
                "weight_decay": 0,
            },
        ]
    return make(
        groups,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        # one pass over the weights instead of ten
        fused=trained[0].device.type in ("cpu", "cuda"),
    )


def _running_average(averages, values, count) -> None:
    """Mean of the last steps, a plain mean while there are fewer."""
    share = 1.0 / min(int(count) + 1, EMA_STEPS)
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, values, share)
    else:  # counters of a batch norm
        for average, value in zip(averages, values, strict=True):
            average.copy_(average + (value - average) * share)


def _step_seed(seed: int, step: int) -> int:
    return int(content_hash(seed, step)[:15], 16)
