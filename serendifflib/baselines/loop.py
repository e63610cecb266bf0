"""One training loop, one budget rule and one report for all torch rivals.

The budget rule, the same for everybody: a stage (next-item training, then
fine-tuning on labels) takes at most a set number of optimiser steps of
``batch_size`` examples; every ``eval_every`` steps NDCG@10 is measured on the
validation users, for the targets that the stage trains on; after
``patience`` measurements without a better one the stage stops, and the best
state, not the last, is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from serendifflib.baselines.sequences import catalogue_items
from serendifflib.data.splits import make_examples
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.fold import FoldData


@dataclass(frozen=True)
class Budget:
    """What a rival may spend on training.

    Attributes:
        pretrain_steps: at most this many steps on next items.
        max_steps: at most this many steps on the fold's own targets.
        batch_size: examples per step.
        eval_every: steps between two looks at the validation fold.
        patience: looks without improvement before a stage stops.
        haste: factor of every model's learning rate; a training that is
            too short for the usual rates takes larger steps.
        seconds: fuse per stage. It ends a run that would take for ever;
            a run that hits it is not repeatable, and its report says so.
        valid_cases: at most this many validation cases per look.
        valid_candidates: items ranked per validation case.
    """

    pretrain_steps: int = 2_000
    max_steps: int = 2_000
    batch_size: int = 128
    eval_every: int = 50
    patience: int = 10
    haste: float = 1.0
    seconds: float = 3_600.0
    valid_cases: int = 400
    valid_candidates: int = 1_000

    def __post_init__(self):
        for name in ("batch_size", "eval_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"budget: {name} must be at least 1")
        if min(self.pretrain_steps, self.max_steps) < 0:
            raise ConfigError("budget: steps must not be negative")


@dataclass(frozen=True)
class Validation:
    """The validation cases that decide when to stop.

    Attributes:
        histories: LongTensor [V, n].
        candidates: LongTensor [V, C].
        positive: column of the target in ``candidates``, LongTensor [V].
    """

    histories: torch.Tensor
    candidates: torch.Tensor
    positive: torch.Tensor

    @classmethod
    def uniform(
        cls,
        fold: FoldData,
        *,
        kind: str | None = None,
        n_cases: int = 400,
        n_candidates: int = 1_000,
        seed: int = 0,
    ) -> Validation | None:
        """Each target among uniform items that the user does not have.

        The same for every model of a fold: it depends on the fold and the
        seed only. None where the fold has no validation case. ``kind``
        ``"next-item"`` takes the validation users' last liked items in a
        fold about serendipity, to stop pre-training on.
        """
        drawn = np.random.default_rng(seed)
        valid = fold.valid
        if kind not in (None, fold.kind):
            valid = make_examples(
                fold.interactions,
                fold.split.valid_users,
                kind,
                max_history=valid.histories.shape[1],
            )
            present = ~np.isin(valid.targets.numpy(), fold.missing_items)
            valid = valid.subset(present)
        chosen = np.arange(len(valid))
        if len(chosen) > n_cases:
            chosen = np.sort(drawn.choice(chosen, n_cases, replace=False))
        if not len(chosen):
            return None
        pool = catalogue_items(fold)
        data = fold.interactions
        rows, positive = [], []
        sizes = []
        for m in chosen:
            target = int(valid.targets[m])
            own = data.item_index[data.rows(int(valid.users[m]))]
            others = np.setdiff1d(pool, np.append(own, target))
            sizes.append(min(n_candidates - 1, len(others)))
            others = drawn.permutation(others)
            place = int(drawn.integers(sizes[-1] + 1))
            rows.append(np.insert(others, place, target))
            positive.append(place)
        width = min(sizes) + 1
        candidates = np.stack(
            [
                row[:width] if place < width else _move(row, place, width)
                for row, place in zip(rows, positive, strict=True)
            ]
        )
        return cls(
            valid.histories[torch.from_numpy(chosen)],
            torch.from_numpy(candidates.astype(np.int64)),
            torch.tensor([min(p, width - 1) for p in positive]),
        )

    def ndcg(
        self,
        score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        *,
        k: int = 10,
        batch: int = 64,
    ) -> float:
        """Mean NDCG@k (Eq. 12) of ``score`` on these cases; ties mid-rank.

        The untruncated gain, a thousandth of it, is added: with few
        validation cases NDCG@10 alone ties all the time.
        """
        total = 0.0
        for start in range(0, len(self.positive), batch):
            part = slice(start, start + batch)
            scores = score(self.histories[part], self.candidates[part])
            column = self.positive[part].unsqueeze(1)
            own = scores.gather(1, column)
            better = (scores > own).sum(1)
            tied = (scores == own).sum(1) - 1
            rank = 1.0 + better + 0.5 * tied
            gain = 1.0 / torch.log2(1.0 + rank)
            total += float((gain * ((rank <= k) + 1e-3)).sum())
        return total / len(self.positive)


def _move(row: np.ndarray, place: int, width: int) -> np.ndarray:
    """First ``width`` of ``row``, its entry ``place`` in the last column."""
    return np.append(row[: width - 1], row[place])


def batches(
    n_examples: int, batch_size: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Endless batches of indices; every example once per round."""
    while True:
        order = torch.randperm(n_examples, generator=generator)
        yield from order.split(batch_size)


@contextlib.contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Draw all of torch's own randomness from ``generator``.

    Layers initialise themselves and drop units with torch's global state;
    inside this context that state follows from ``generator``, and after it
    the global state is what it was.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with _forked():
        torch.manual_seed(seed)
        yield


def _forked() -> contextlib.AbstractContextManager[None]:
    devices = range(torch.cuda.device_count())
    return torch.random.fork_rng(devices=devices)


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: ``next-item`` or ``serendipity``, what the targets are.
        n_examples: number of examples.
        loss: indices of a batch [B] -> mean loss of the batch.
        max_steps: step limit of this stage.
        lr: learning rate of this stage.
    """

    name: str
    n_examples: int
    loss: Callable[[torch.Tensor], torch.Tensor]
    max_steps: int
    lr: float


@dataclass(frozen=True)
class StageReport:
    """What one stage took.

    Attributes:
        stage: its name.
        examples: number of training examples.
        steps: optimiser steps taken.
        seconds: wall clock, validation included.
        best_step: step whose state was kept (0 = the state before).
        best_value: validation NDCG@10 there, NaN without validation.
        stopped: ``steps``, ``patience`` or ``seconds``.
        losses: mean training loss between two looks.
        values: validation values, one per look, the first before training.
    """

    stage: str
    examples: int
    steps: int
    seconds: float
    best_step: int
    best_value: float
    stopped: str
    losses: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class TrainingReport:
    """What fitting a model took; tables print it as the model's budget.

    Attributes:
        model: its name.
        parameters: trained numbers.
        stages: one report per stage.
        seconds: wall clock of the whole fit, preparation included.
        settings: the options that the model was made with.
        notes: what a reader of the table must know.
    """

    model: str
    parameters: int
    stages: tuple[StageReport, ...]
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimiser steps over all stages."""
        return sum(stage.steps for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values (NaN becomes None)."""
        content = dataclasses.asdict(self)
        for stage in content["stages"]:
            if stage["best_value"] != stage["best_value"]:
                stage["best_value"] = None
        return content | {"steps": self.steps}


def train(
    network: nn.Module,
    stage: Stage,
    *,
    model_name: str,
    budget: Budget,
    generator: torch.Generator,
    validate: Callable[[], float] | None = None,
    weight_decay: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    clip: float = 5.0,
    warmup: int = 0,
    progress: bool = False,
) -> StageReport:
    """Train ``network`` by AdamW until the budget or the patience ends.

    Biases and one-dimensional parameters are not decayed. With
    ``validate`` the best state is restored at the end, which may be the
    state from before the stage.

    Raises:
        ModelError: the loss is not finite; names model, stage and step.
    """
    if not stage.n_examples:
        raise ModelError(
            f"{model_name}: no training example for stage {stage.name!r}; "
            "the fold's training users need at least two interactions (and "
            "a label for the serendipity stage)"
        )
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1]},
            {
                "params": [p for p in parameters if p.dim() <= 1],
                "weight_decay": 0.0,
            },
        ],
        lr=stage.lr,
        betas=betas,
        weight_decay=weight_decay,
    )
    started = time.perf_counter()
    best = _Best(network)
    values, losses, running = [], [], []
    if validate is not None:
        values.append(best.look(0, quietly(network, validate)))
    stopped, step, since = "steps", 0, 0
    source = batches(stage.n_examples, budget.batch_size, generator)
    bar = tqdm(
        total=stage.max_steps,
        desc=f"{model_name}: {stage.name}",
        disable=not progress,
    )
    network.train()
    while step < stage.max_steps:
        if warmup:
            share = min(1.0, (step + 1) / warmup)
            for group in optimizer.param_groups:
                group["lr"] = stage.lr * share
        loss = stage.loss(next(source))
        if not bool(torch.isfinite(loss)):
            raise ModelError(
                f"{model_name}: the loss of stage {stage.name!r} is not "
                f"finite at step {step}; use a smaller learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        step += 1
        bar.update()
        running.append(float(loss.detach()))
        if step % budget.eval_every == 0 or step == stage.max_steps:
            losses.append(float(np.mean(running)))
            running.clear()
            if validate is not None:
                values.append(best.look(step, quietly(network, validate)))
                since = 0 if best.step == step else since + 1
                bar.set_postfix(loss=losses[-1], valid=values[-1])
                if since >= budget.patience:
                    stopped = "patience"
                    break
        if time.perf_counter() - started > budget.seconds:
            stopped = "seconds"
            break
    bar.close()
    if validate is None:
        best.step = step
    else:
        best.restore()
    network.eval()
    return StageReport(
        stage=stage.name,
        examples=stage.n_examples,
        steps=step,
        seconds=time.perf_counter() - started,
        best_step=best.step,
        best_value=best.value if validate is not None else float("nan"),
        stopped=stopped,
        losses=tuple(losses),
        values=tuple(values),
    )


class _Best:
    """The best state of the trained parameters so far."""

    def __init__(self, network: nn.Module):
        self.network = network
        self.step = 0
        self.value = -float("inf")
        self.state: dict[str, torch.Tensor] = {}

    def look(self, step: int, value: float) -> float:
        if not self.state or value > self.value:
            self.step, self.value = step, value
            self.state = {
                name: tensor.detach().clone()
                for name, tensor in self._trained()
            }
        return value

    def restore(self) -> None:
        with torch.no_grad():
            for name, tensor in self._trained():
                tensor.copy_(self.state[name])

    def _trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        # frozen parts (a language model, text vectors) are not copied
        for name, tensor in self.network.named_parameters():
            if tensor.requires_grad:
                yield name, tensor


def quietly(network: nn.Module, validate: Callable[[], float]) -> float:
    """Validate without dropout, gradients or a trace in the randomness."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), _forked():
        value = validate()
    network.train(was_training)
    return value
