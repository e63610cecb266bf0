"""What the trained rivals share: fit in stages, score, report.

The loop itself is everybody's: :mod:`serendifflib.diffusion.training`.
"""

from __future__ import annotations

import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from serendifflib.baselines.sampling import Cases, item_vectors, last_items
from serendifflib.data.splits import Examples
from serendifflib.diffusion.devices import own_randomness, usable_device
from serendifflib.diffusion.distributed import ALONE
from serendifflib.diffusion.reports import StageReport, TrainingReport
from serendifflib.diffusion.training import (
    TrainingSettings,
    count_parameters,
    quietly,
    train,
)
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.fold import FoldData
from serendifflib.recommender import check_request, check_scores

Batch = Callable[[Tensor], Tensor]
"""Numbers of a batch's examples [B] -> their mean loss."""


@dataclass(frozen=True)
class Budget:
    """What a rival may spend on training.

    Attributes:
        pretrain_steps, max_steps: at most so many on next items, and on the
            fold's own targets.
        batch_size: examples per step.
        eval_every: steps between two measurements on the validation users.
        patience: measurements without a better one before a stage stops.
        haste: factor of every model's learning rate; a training that is
            too short for the usual rates takes larger steps.
        valid_cases, valid_candidates: at most so many validation cases (0
            takes all), and items ranked in each.
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
    """One stage of training: its targets' name, examples, and loss of a batch.

    The ``name`` is ``next-item`` or ``serendipity``; a ``batch_size`` of 0
    takes the budget's.
    """

    name: str
    n_examples: int
    loss: Batch
    max_steps: int
    lr: float
    batch_size: int = 0


def _seed_from(generator: Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))


@dataclass(eq=False, kw_only=True)
class TorchRival(ABC):
    """What the trained rivals share: fit in stages, score, report.

    A rival says how to ``_build`` its network, which :meth:`stages` it
    trains, and how to :meth:`score_batch`.

    Attributes:
        warmup: at most so many steps until the learning rate has risen.
        hasty: whether the budget's haste changes the learning rate.
        users_at_once: that are scored; 0 is the whole batch.
        budget: what training may spend.
        inputs: item inputs, ``text``, ``id`` or ``text+id``.
        width: d of the model.
        max_history: newest items that the model reads.
        device: torch device; None takes a GPU where there is one.
        checkpoint: folder in which an interrupted fit leaves its state; the
            same fit goes on from there. Whoever names it removes it.
        report: what the last fit took.
        chosen: options that the last fit chose on validation.
    """

    name: ClassVar[str] = "a rival"
    warmup: ClassVar[int] = 0
    hasty: ClassVar[bool] = True
    users_at_once: ClassVar[int] = 0
    budget: Budget = field(default_factory=Budget)
    inputs: str = "text"
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
    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        """A fresh network for item vectors [N + 1, d_t]."""

    @abstractmethod
    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """The stages to train, in order."""

    @abstractmethod
    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C] of a checked request, on the model's device."""

    def fit(self, fold: FoldData, *, generator: Generator) -> Self:
        """Train on ``fold``; the same generator gives the same model."""
        started = time.perf_counter()
        self.place = usable_device(self.device)
        self.n_items = fold.interactions.n_items
        self.chosen = {}
        with own_randomness(_seed_from(generator)):
            network = self._build(fold, item_vectors(fold))
            self.network = network.to(self.place)
            reports = [
                self._train(fold, stage, generator)
                for stage in self.stages(fold, generator)
                if stage.max_steps > 0
            ]
            self._choose(fold)
        self.network.eval()
        self.report = TrainingReport(
            count_parameters(self.network),
            tuple(reports),
            time.perf_counter() - started,
        )
        return self

    def _train(
        self, fold: FoldData, stage: Stage, generator: Generator
    ) -> StageReport:
        """Run one stage through the common loop."""
        budget = self.budget
        validate = self._validate(fold, stage.name)
        file = f"{stage.name}.safetensors"
        return train(
            self.network,
            lambda network, index, generator: stage.loss(index),
            stage.n_examples,
            TrainingSettings(
                steps=stage.max_steps,
                batch_size=stage.batch_size or budget.batch_size,
                learning_rate=stage.lr,
                weight_decay=self.weight_decay,
                optimizer="adamw",
                warmup=min(self.warmup, budget.max_steps // 5),
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

    def _choose(self, fold: FoldData) -> None:
        """Set the options of :meth:`tuning` on the validation fold."""
        options = self.tuning()
        validate = self._validate(fold, fold.kind) if options else None
        if validate is None:
            return
        trials = [
            dict(zip(options, values, strict=True))
            for values in itertools.product(*options.values())
        ]
        results = []
        for trial in trials:
            self.chosen = trial
            results.append(quietly(self.network, lambda _: validate()))
        self.chosen = trials[int(np.argmax(results))]

    def _validate(
        self, fold: FoldData, kind: str
    ) -> Callable[[], float] | None:
        """NDCG@10 on everybody's validation cases; None without a case."""
        validation = Validation.of(
            fold,
            kind=kind,
            n_cases=self.budget.valid_cases,
            n_candidates=self.budget.valid_candidates,
        )
        if validation is None:
            return None
        return functools.partial(validation.ndcg, self._score)

    def score(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C] of candidates; see the protocol."""
        if self.report is None:
            raise ModelError(f"{self.name}: not fitted; call fit first")
        check_request(self.name, histories, candidates, self.n_items)
        self.network.eval()
        with torch.no_grad():
            return check_scores(self.name, self._score(histories, candidates))

    def _score(self, histories: Tensor, candidates: Tensor) -> Tensor:
        histories = last_items(histories, self.max_history).to(self.place)
        some = self.users_at_once or len(histories)
        parts = zip(
            histories.split(some),
            candidates.to(self.place).split(some),
            strict=True,
        )
        scores = torch.cat([self.score_batch(*part) for part in parts])
        return scores.float().cpu()

    @property
    def rate(self) -> float:
        """Learning rate under the budget."""
        return self.lr * (self.budget.haste if self.hasty else 1.0)

    def two_stages(
        self,
        fold: FoldData,
        n_examples: int,
        next_item: Batch,
        labelled: Batch,
    ) -> list[Stage]:
        """Next items of all training users, then the labelled targets.

        Where targets are no labels there is only the first stage, of
        ``n_examples``, under the sum of both step limits. The second takes
        indices of ``fold.train``.
        """
        first, second = self.budget.pretrain_steps, self.budget.max_steps
        if fold.kind != "serendipity":
            first += second
        stages = [Stage("next-item", n_examples, next_item, first, self.rate)]
        if fold.kind == "serendipity":
            stages += self.one_stage(fold, labelled, second)
        return stages

    def one_stage(
        self, fold: FoldData, loss: Batch, steps: int | None = None
    ) -> list[Stage]:
        """The fold's own targets; None is the sum of both step limits."""
        if steps is None:
            steps = self.budget.pretrain_steps + self.budget.max_steps
        return [Stage(fold.kind, len(fold.train), loss, steps, self.rate)]

    def stages_of_cases(
        self,
        fold: FoldData,
        negatives: int,
        generator: Generator,
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        labelled: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        length: int = 0,
    ) -> list[Stage]:
        """Two stages that tell each target from K items the user lacks.

        A loss takes histories [B, n], items [B, 1 + K] with the target first,
        and all items of the users [B, w], on the processor; the second stage
        may have one of its own (``labelled``). The first reads ``length``
        items; 0 is ``max_history``.
        """

        def drawn(cases: Cases, loss) -> Batch:
            return lambda index: loss(
                *cases.draw(index, negatives, generator),
                cases.own[cases.owner[index]],
            )

        everything = Cases.next_items(fold, length or self.max_history)
        targets = Cases.of(fold, fold.train, self.max_history)
        return self.two_stages(
            fold,
            len(everything.targets),
            drawn(everything, loss),
            drawn(targets, labelled or loss),
        )

    def batch(
        self, examples: Examples, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Histories [B, n] and targets [B] of some examples, on device."""
        histories = last_items(examples.histories[index], self.max_history)
        targets = examples.targets[index]
        return histories.to(self.place), targets.to(self.place)
