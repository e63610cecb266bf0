"""What the trained rivals share: fit in stages, score, report.

The loop itself is everybody's: :mod:`serendifflib.diffusion.training`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from serendifflib.baselines.sequences import item_vectors, last_items
from serendifflib.data.splits import Examples
from serendifflib.diffusion.devices import best_device
from serendifflib.diffusion.distributed import ALONE
from serendifflib.diffusion.training import (
    StageReport,
    TrainingReport,
    TrainingSettings,
    quietly,
    train,
)
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.fold import FoldData
from serendifflib.recommender import check_request, check_scores

Batch = Callable[[torch.Tensor], torch.Tensor]
"""Numbers of the examples of a batch [B] -> mean loss."""


@dataclass(frozen=True)
class Budget:
    """What a rival may spend on training.

    Attributes:
        pretrain_steps: at most this many steps on next items.
        max_steps: at most this many steps on the fold's own targets.
        batch_size: examples per step.
        eval_every: steps between two measurements on the validation users.
        patience: measurements without a better one before a stage stops.
        haste: factor of every model's learning rate; a training that is
            too short for the usual rates takes larger steps.
        valid_cases: at most this many validation cases; 0 takes all.
        valid_candidates: items ranked per validation case.
    """

    pretrain_steps: int = 2_000
    max_steps: int = 2_000
    batch_size: int = 128
    eval_every: int = 50
    patience: int = 10
    haste: float = 1.0
    valid_cases: int = 0
    valid_candidates: int = 1_000

    def __post_init__(self):
        for name in ("batch_size", "eval_every", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"budget: {name} must be at least 1")
        if min(self.pretrain_steps, self.max_steps) < 0:
            raise ConfigError("budget: steps must not be negative")


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: ``next-item`` or ``serendipity``, what the targets are.
        n_examples: number of examples.
        loss: numbers of the examples of a batch [B] -> their mean loss.
        max_steps: step limit of this stage.
        lr: learning rate of this stage.
    """

    name: str
    n_examples: int
    loss: Batch
    max_steps: int
    lr: float


@contextlib.contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Draw all of torch's own randomness from ``generator``.

    Layers initialise themselves with torch's global state; inside this
    context that state follows from ``generator``, and after it the global
    state is what it was.
    """
    seed = _seed_from(generator)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _seed_from(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))


@dataclass(eq=False, kw_only=True)
class TorchRival(ABC):
    """What the trained rivals share: fit in stages, score, report.

    A rival says how to :meth:`build` its network, which :meth:`stages` it
    trains, and how to :meth:`score_batch`.

    Attributes:
        budget: what training may spend.
        inputs: item inputs, ``text``, ``id`` or ``text+id``.
        isotropy: transform of the item vectors.
        width: d of the model.
        max_history: newest items that the model reads.
        lr, weight_decay, dropout: as named.
        device: torch device; None takes a GPU where there is one.
        progress: show a bar.
        checkpoint: folder in which an interrupted fit leaves its state; the
            same fit goes on from there. Whoever names it removes it.
        report: what the last fit took.
        chosen: options that the last fit chose on validation.
    """

    name: ClassVar[str] = "a rival"
    budget: Budget = field(default_factory=Budget)
    inputs: str = "text"
    isotropy: str = "center"
    width: int = 64
    max_history: int = 50
    lr: float = 1e-3
    weight_decay: float = 1e-4
    dropout: float = 0.2
    device: str | None = None
    progress: bool = False
    checkpoint: Path | None = None
    report: TrainingReport | None = field(default=None, init=False)
    chosen: dict[str, float] = field(default_factory=dict, init=False)

    @abstractmethod
    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """A fresh network for item vectors [N + 1, d_t]."""

    @abstractmethod
    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """The stages to train, in order."""

    @abstractmethod
    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores [B, C] of a checked request, on the model's device."""

    def fit(self, fold: FoldData, *, generator: torch.Generator) -> Self:
        """Train on ``fold``; the same generator gives the same model.

        Raises:
            ModelError: nothing to train on, or the loss diverged.
        """
        started = time.perf_counter()
        self.place = torch.device(self.device or best_device())
        self.n_items = fold.interactions.n_items
        self.chosen = {}
        with seeded(generator):
            vectors = item_vectors(fold, self.isotropy)
            self.network = self.build(fold, vectors).to(self.place)
            reports = [
                self._train(fold, stage, generator)
                for stage in self.stages(fold, generator)
                if stage.max_steps > 0
            ]
            chosen = self._choose(fold)
        self.network.eval()
        self.report = TrainingReport(
            model=self.name,
            parameters=count_parameters(self.network),
            stages=tuple(reports),
            seconds=time.perf_counter() - started,
            settings=self.settings(),
            notes=self.notes() + chosen,
        )
        return self

    def _train(
        self, fold: FoldData, stage: Stage, generator: torch.Generator
    ) -> StageReport:
        """Run one stage through the common loop."""
        budget = self.spending()
        validate = self._validate(fold, stage)
        file = f"{stage.name}.safetensors"
        return train(
            self.network,
            lambda network, index, generator: stage.loss(index),
            stage.n_examples,
            TrainingSettings(
                steps=stage.max_steps,
                batch_size=budget.batch_size,
                learning_rate=stage.lr,
                weight_decay=self.weight_decay,
                optimizer="adamw",
                warmup=self.warmup(),
                patience=budget.patience if validate else 0,
                validate_every=budget.eval_every,
            ),
            seed=_seed_from(generator),
            name=self.name,
            stage=stage.name,
            device=self.place,
            validate=validate and (lambda network: validate()),
            checkpoint=self.checkpoint and self.checkpoint / file,
            keep_checkpoint=True,
            origin=str(self.checkpoint and self.checkpoint.name),
            team=ALONE,  # each process trains it as a whole
            progress=self.progress,
        )

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """Options to choose on the validation fold after training.

        Only options that a score depends on and training does not.
        """
        return {}

    def option(self, name: str) -> float:
        """An option as chosen on validation, else as it was set."""
        return self.chosen.get(name, getattr(self, name))

    def _choose(self, fold: FoldData) -> tuple[str, ...]:
        """Set the options of :meth:`tuning`; say what was chosen."""
        grid = self.tuning()
        stage = Stage(fold.kind, 0, lambda index: index, 0, 0.0)
        validate = self._validate(fold, stage) if grid else None
        if validate is None:
            return ()
        trials = [
            dict(zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
        ]
        results = []
        for trial in trials:
            self.chosen = trial
            results.append(quietly(self.network, lambda _: validate()))
        self.chosen = trials[int(np.argmax(results))]
        words = ", ".join(f"{name}={v}" for name, v in self.chosen.items())
        return (f"{words} chosen on validation out of {len(trials)} trials",)

    def _validate(
        self, fold: FoldData, stage: Stage
    ) -> Callable[[], float] | None:
        """NDCG@10 for the targets of a stage; None without a case."""
        validation = self._cases(fold, stage)
        if validation is None:
            return None
        return functools.partial(validation.ndcg, self._score)

    def _cases(self, fold: FoldData, stage: Stage) -> Validation | None:
        """Everybody's validation cases, for the targets of a stage."""
        return Validation.of(
            fold,
            kind=stage.name,
            n_cases=self.budget.valid_cases,
            n_candidates=self.budget.valid_candidates,
        )

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores [B, C] of candidates; see the protocol.

        Raises:
            ModelError: not fitted, a bad request, or NaN scores.
        """
        if self.report is None:
            raise ModelError(f"{self.name}: not fitted; call fit first")
        check_request(self.name, histories, candidates, self.n_items)
        self.network.eval()
        with torch.no_grad():
            return check_scores(self.name, self._score(histories, candidates))

    def _score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        histories = last_items(histories, self.max_history)
        scores = self.score_batch(
            histories.to(self.place), candidates.to(self.place)
        )
        return scores.float().cpu()

    def spending(self) -> Budget:
        """The budget of each stage."""
        return self.budget

    def warmup(self) -> int:
        """Steps over which the learning rate rises to its value."""
        return 0

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        return ()

    def settings(self) -> dict[str, Any]:
        """The options that were set, as plain JSON values."""
        hidden = {
            "name",
            "device",
            "progress",
            "checkpoint",
            "report",
            "chosen",
        }
        return {
            option.name: _plain(getattr(self, option.name))
            for option in dataclasses.fields(self)
            if option.name not in hidden
        } | self.chosen

    def two_stages(
        self,
        fold: FoldData,
        next_item: tuple[int, Callable[[torch.Tensor], torch.Tensor]],
        labelled: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Stage]:
        """Next items of all training users, then the labelled targets.

        Args:
            fold: with ``kind="serendipity"`` both stages are trained; with
                ``"next-item"`` only the first, under the sum of both step
                limits.
            next_item: number of examples and loss of the first stage.
            labelled: loss of the second, indices of ``fold.train`` -> loss.
        """
        first = Stage(
            "next-item",
            next_item[0],
            next_item[1],
            self.budget.pretrain_steps,
            self.lr * self.budget.haste,
        )
        if fold.kind != "serendipity":
            both = self.budget.pretrain_steps + self.budget.max_steps
            return [dataclasses.replace(first, max_steps=both)]
        second = Stage(
            "serendipity",
            len(fold.train),
            labelled,
            self.budget.max_steps,
            self.lr * self.budget.haste,
        )
        return [first, second]

    def one_stage(
        self,
        fold: FoldData,
        loss: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[Stage]:
        """The fold's own targets, under the sum of both step limits."""
        steps = self.budget.pretrain_steps + self.budget.max_steps
        rate = self.lr * self.budget.haste
        return [Stage(fold.kind, len(fold.train), loss, steps, rate)]

    def batch(
        self, examples: Examples, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Histories [B, n] and targets [B] of some examples, on device."""
        histories = last_items(examples.histories[index], self.max_history)
        targets = examples.targets[index]
        return histories.to(self.place), targets.to(self.place)


def count_parameters(network: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
