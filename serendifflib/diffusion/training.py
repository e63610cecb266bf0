"""Training of the conditional U-Net (Sec. 4.3, Eq. 10).

One loop for CPU and GPU. Every random choice of a step derives from the seed
and the number of the step, so that a run that was stopped and resumed makes
the same choices as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from serendifflib.diffusion.memory import keep_large_blocks
from serendifflib.diffusion.schedule import PREDICT, DDPMSchedule
from serendifflib.diffusion.team import Team, current_team
from serendifflib.errors import CheckpointError, ConfigError, ModelError
from serendifflib.io import atomic_path, content_hash
from serendifflib.portrait.portrait import Portraits, cell_of

CHECKPOINT_VERSION = 2


@dataclass(frozen=True)
class TrainingSet:
    """Portraits and the serendipity point that belongs to each.

    Attributes:
        portraits: M sparse portraits.
        targets: item numbers, [M].
        positions: where each target lies for its user, [M, 2].
    """

    portraits: Portraits
    targets: torch.Tensor
    positions: torch.Tensor

    def __len__(self) -> int:
        """Number of examples M."""
        return len(self.targets)

    def target_cells(self, side: int) -> torch.Tensor:
        """Grid indices of the targets, int64, [M, 2]."""
        return cell_of(self.positions, side)

    def to(self, device: torch.device) -> TrainingSet:
        """The same on a device."""
        return TrainingSet(
            Portraits(
                self.portraits.items.to(device),
                self.portraits.positions.to(device),
            ),
            self.targets.to(device),
            self.positions.to(device),
        )


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the defaults are App. B of the paper.

    Attributes:
        steps: optimiser steps.
        batch_size: examples per step.
        learning_rate, weight_decay: App. B: 0.001 and 0.0001.
        optimizer: ``adam`` (App. B) or ``adamw``.
        predict: ``noise`` (Eq. 10), ``x0`` or ``v``.
        loss: ``uniform`` - every cell weighs the same (Eq. 10);
            ``balanced`` - the point and the background weigh the same.
        data_scale: item vectors are multiplied by this before diffusion, so
            that they are not drowned in N(0, I); sqrt(d) gives variance 1.
        ema: average the weights over the last steps (up to 200).
        patience: stop after so many validations without a better one; 0
            trains all steps and keeps the last weights.
        validate_every: steps between two validations.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: str = "adam"
    predict: str = "noise"
    loss: str = "uniform"
    data_scale: float = 1.0
    ema: bool = False
    patience: int = 0
    validate_every: int = 100

    def __post_init__(self):
        if self.loss not in ("uniform", "balanced"):
            raise ConfigError(
                f"unknown loss {self.loss!r}: choose uniform or balanced"
            )
        if self.optimizer not in ("adam", "adamw"):
            raise ConfigError(
                f"unknown optimizer {self.optimizer!r}: choose adam or adamw"
            )
        if self.predict not in PREDICT:
            raise ConfigError(
                f"unknown target {self.predict!r}: choose one of "
                f"{', '.join(PREDICT)}"
            )
        for name in ("steps", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )


@dataclass
class TrainingReport:
    """What happened.

    Attributes:
        losses: training loss of every step.
        validations: (step, score) pairs; a higher score is better.
        best_step: step of the weights that were kept.
        seconds: wall time, resumed parts included.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0

    @classmethod
    def from_json(cls, values: dict) -> TrainingReport:
        """The report that ``asdict`` turned into plain values."""
        report = cls(**values)
        report.validations = [(s, v) for s, v in report.validations]
        return report


def point_grid(
    targets: torch.Tensor,
    cells: torch.Tensor,
    vectors: torch.Tensor,
    side: int,
) -> torch.Tensor:
    """M_seren: the target's vector in its cell, zero elsewhere.

    Args:
        targets: item numbers, [B].
        cells: grid indices, [B, 2].
        vectors: item vectors, [N + 1, d].
        side: L.

    Returns:
        [B, d, L, L].
    """
    grid = vectors.new_zeros(len(targets), vectors.shape[1], side, side)
    rows = torch.arange(len(targets), device=targets.device)
    grid[rows, :, cells[:, 0], cells[:, 1]] = vectors[targets]
    return grid


def grid_loss(
    output: torch.Tensor,
    target: torch.Tensor,
    cells: torch.Tensor,
    kind: str,
) -> torch.Tensor:
    """Squared error per coordinate, averaged as ``kind`` says.

    ``uniform`` is Eq. 10. 99 of 100 cells of the target are empty, so that
    predicting nothing is nearly optimal; ``balanced`` gives the one cell
    with the point the same weight as all the others together.
    """
    errors = (output - target).square().mean(dim=1)  # [B, L, L]
    if kind == "uniform":
        return errors.mean()
    rows = torch.arange(len(cells), device=cells.device)
    point = errors[rows, cells[:, 0], cells[:, 1]]
    others = errors.shape[-1] * errors.shape[-2] - 1
    background = (errors.sum(dim=(1, 2)) - point) / max(others, 1)
    return 0.5 * (point.mean() + background.mean())


def train(
    network: nn.Module,
    schedule: DDPMSchedule,
    data: TrainingSet,
    vectors: torch.Tensor,
    side: int,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    validate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200,
    keep_checkpoint: bool = False,
    origin: str = "",
    progress: bool = False,
) -> TrainingReport:
    """Train ``network`` in place; keep the best (or the last) weights.

    Within :func:`~serendifflib.diffusion.team.training_as`, several processes
    do this together; each one ends with the same weights.

    Args:
        network: takes (x_t, t, portrait, counts), see
            :class:`~serendifflib.diffusion.unet.UNet`.
        schedule: noise schedule.
        data: training examples.
        vectors: unit item vectors, [N + 1, d].
        side: L.
        settings: how to train.
        seed: of all random choices.
        device: where to train; on CUDA in bfloat16 mixed precision, with
            data and noise made there (its random numbers are its own).
        validate: score of a network on the validation fold (higher is
            better), for early stopping.
        checkpoint: file to resume from and to save to.
        checkpoint_every: steps between two saves.
        keep_checkpoint: leave the finished run in the file, so that a later
            call has nothing to do; otherwise the file is removed at the end.
        origin: what else the run depends on, e.g. how the weights began; a
            checkpoint of another origin is refused.
        progress: show a progress bar.

    Returns:
        losses and validations.

    Raises:
        ConfigError: there is nothing to train on, or a batch cannot be
            dealt out to the processes.
        CheckpointError: the checkpoint is damaged or of another run.
        ModelError: the loss is no longer a number.
    """
    if not len(data):
        raise ConfigError(
            "no training example: the training users have no target with "
            "an item before it"
        )
    keep_large_blocks()
    team = current_team()
    team.check(settings.batch_size)
    device = torch.device(device)
    network.to(device).train()
    if device.type == "cuda":  # its tensor cores want the channels together
        network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, settings, device)
    average = AveragedModel(
        # without averaging there is nothing to copy
        network if settings.ema else nn.Identity(),
        multi_avg_fn=_running_average,
        use_buffers=True,
    )
    report = TrainingReport()
    best: dict[str, torch.Tensor] = {}
    run = ""
    if checkpoint is not None:
        run = _run_hash(
            network, schedule, data, vectors, side, settings, seed, origin
        )
        if checkpoint.exists():
            report, best = _load_checkpoint(
                checkpoint, run, network, average, optimizer
            )
    trained = team.wrap(network)
    resident = data.to(device)
    scaled = vectors.to(device) * settings.data_scale
    started = time.perf_counter() - report.seconds
    done = len(report.losses)
    bar = tqdm(
        range(done, settings.steps),
        "train",
        initial=done,
        total=settings.steps,
        disable=not (progress and team.first),
    )
    with torch.random.fork_rng():  # dropout draws from the global state
        for step in bar:
            if _exhausted(report, settings):
                break
            loss = _train_step(
                trained, schedule, resident, scaled, side, settings,
                optimizer, _step_seed(seed, step), device, team,
            )  # fmt: skip
            if not math.isfinite(loss):
                raise ModelError(
                    f"training diverged in step {step + 1}: the loss is "
                    f"{loss}; fit again with a smaller learning rate"
                )
            if settings.ema:
                average.update_parameters(network)
            report.losses.append(loss)
            now = step + 1
            if validate is not None and (
                now % settings.validate_every == 0 or now == settings.steps
            ):
                kept = average.module if settings.ema else network
                score = validate(kept.eval())
                network.train()
                if score > max(
                    (s for _, s in report.validations), default=-float("inf")
                ):
                    report.best_step = now
                    best = {k: v.clone() for k, v in kept.state_dict().items()}
                report.validations.append((now, score))
                bar.set_postfix(loss=f"{loss:.4f}", valid=f"{score:.4f}")
            elif now % 20 == 0:
                bar.set_postfix(loss=f"{loss:.4f}")
            report.seconds = time.perf_counter() - started
            if (
                checkpoint is not None
                and team.first
                and now % checkpoint_every == 0
            ):
                _save_checkpoint(
                    checkpoint, run, network, average, optimizer, report, best
                )
    if checkpoint is not None and keep_checkpoint and team.first:
        _save_checkpoint(
            checkpoint, run, network, average, optimizer, report, best
        )
    if settings.patience and best:
        network.load_state_dict(best)
    else:
        report.best_step = len(report.losses)
        if settings.ema:
            network.load_state_dict(average.module.state_dict())
    network.to(memory_format=torch.contiguous_format).eval()
    if checkpoint is not None and not keep_checkpoint and team.first:
        checkpoint.unlink(missing_ok=True)
    team.wait()  # the next stage may look for the same file
    return report


def _train_step(
    network: nn.Module,
    schedule: DDPMSchedule,
    data: TrainingSet,
    scaled: torch.Tensor,
    side: int,
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    seed: int,
    device: torch.device,
    team: Team,
) -> float:
    """The four steps of training: draw, noise, predict, descend.

    ``data`` and ``scaled``, the item vectors times ``data_scale``, are on the
    device; the batch is dealt out to the processes of the team.
    """
    torch.manual_seed(seed + team.rank)  # dropout: another one per process
    generator = torch.Generator().manual_seed(seed)
    batch = settings.batch_size
    index = torch.randint(len(data), (batch,), generator=generator)
    t = torch.randint(schedule.timesteps, (batch,), generator=generator)
    index, t = team.share(index).to(device), team.share(t).to(device)
    # 1. portraits of a batch of users, and their serendipity points
    portrait, counts = data.portraits.dense(index, scaled, side)
    cells = data.target_cells(side)[index]
    x0 = point_grid(data.targets[index], cells, scaled, side)
    # 2. noise them to a random step (Eq. 1 in closed form)
    noise = _noise((batch, *x0.shape[1:]), generator, seed, device)
    noise = team.share(noise)
    x_t = schedule.q_sample(x0, t, noise)
    # 3. let the network predict (Eq. 10)
    with torch.autocast(
        device.type, torch.bfloat16, enabled=device.type == "cuda"
    ):
        output = network(x_t, t, portrait, counts)
    wanted = schedule.target(settings.predict, x0, t, noise)
    loss = grid_loss(output.float(), wanted, cells, settings.loss)
    # 4. descend
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(team.mean(loss.detach()))


def _noise(shape, generator, seed, device) -> torch.Tensor:
    """N(0, 1) from the generator of the step; on CUDA it is drawn there."""
    if device.type == "cuda":
        # drawing it on the processor would take longer than the step
        generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return noise.to(device)


def _optimizer(network, settings, device) -> torch.optim.Optimizer:
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return make[settings.optimizer](
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        # one pass over the weights instead of ten
        fused=device.type in ("cpu", "cuda"),
    )


def _running_average(averages, values, count) -> None:
    """Mean of the last steps, a plain mean while there are fewer."""
    share = 1.0 / min(int(count) + 1, 200)
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, values, share)
    else:  # counters of a batch norm
        for average, value in zip(averages, values, strict=True):
            average.copy_(average + (value - average) * share)


def _exhausted(report: TrainingReport, settings: TrainingSettings) -> bool:
    """No better validation among the last ``patience`` ones."""
    if not settings.patience or not report.validations:
        return False
    since = sum(step > report.best_step for step, _ in report.validations)
    return since >= settings.patience


def _step_seed(seed: int, step: int) -> int:
    return int(content_hash(seed, step)[:15], 16)


def _run_hash(
    network, schedule, data, vectors, side, settings, seed, origin
) -> str:
    """Hash of all that decides about a run; a checkpoint belongs to one."""
    shapes = {k: list(v.shape) for k, v in network.state_dict().items()}
    return content_hash(
        asdict(settings),
        shapes,
        side,
        seed,
        origin,
        schedule.betas.numpy(),
        vectors.cpu().numpy(),
        data.portraits.items.numpy(),
        data.portraits.positions.numpy(),
        data.targets.numpy(),
        data.positions.numpy(),
    )


def _checksum(header: dict, tensors: dict[str, torch.Tensor]) -> str:
    parts = (
        part
        for name in sorted(tensors)
        for part in (name, tensors[name].cpu().numpy())
    )
    return content_hash(header, *parts)


def _save_checkpoint(
    path, run, network, average, optimizer, report, best
) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{number}.{name}"] = value
    header = {
        "version": CHECKPOINT_VERSION,
        "run": run,
        "report": asdict(report),
    }
    metadata = {
        "serendiff": json.dumps(header),
        "checksum": _checksum(header, tensors),
    }
    with atomic_path(path) as temporary:
        save_file(
            {k: v.contiguous().clone() for k, v in tensors.items()},
            temporary,
            metadata=metadata,
        )


def _load_checkpoint(path, run, network, average, optimizer):
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            header = json.loads(metadata["serendiff"])
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}
            damaged = metadata["checksum"] != _checksum(header, tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}); delete it to "
            "start again"
        ) from error
    if damaged:
        raise CheckpointError(
            f"{path} is damaged: its checksum is wrong; delete it to start "
            "again"
        )
    if header["version"] != CHECKPOINT_VERSION or header["run"] != run:
        raise CheckpointError(
            f"{path} belongs to another version or another run; delete it "
            "or choose another checkpoint file"
        )
    parts: dict[str, dict] = {"network": {}, "average": {}, "best": {}}
    states: dict[int, dict] = {}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        if part == "optimizer":
            number, key = rest.split(".", 1)
            states.setdefault(int(number), {})[key] = value
        else:
            parts[part][rest] = value
    network.load_state_dict(parts["network"])
    average.load_state_dict(parts["average"])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return TrainingReport.from_json(header["report"]), parts["best"]
