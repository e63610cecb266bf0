"""What the trained rivals share: fit in stages, score, report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from serendifflib.baselines.loop import (
    Budget,
    Stage,
    StageReport,
    TrainingReport,
    Validation,
    quietly,
    seeded,
    train,
)
from serendifflib.baselines.sequences import (
    catalogue_items,
    item_vectors,
    last_items,
)
from serendifflib.data.splits import Examples
from serendifflib.errors import ModelError
from serendifflib.portrait.fold import FoldData
from serendifflib.recommender import check_request, check_scores

__all__ = [
    "Budget",
    "Stage",
    "StageReport",
    "TorchRival",
    "TrainingReport",
    "Validation",
    "catalogue_items",
    "count_parameters",
    "item_vectors",
    "seeded",
    "train",
]


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
        validation: cases to stop on; None draws them uniformly
            (:meth:`Validation.uniform`), the same for every model.
        device: torch device; None takes a GPU where there is one.
        progress: show a bar.
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
    validation: Validation | None = None
    device: str | None = None
    progress: bool = False
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
        self.place = torch.device(self.device or _default_device())
        self.n_items = fold.interactions.n_items
        self.chosen = {}
        with seeded(generator):
            vectors = item_vectors(fold, self.isotropy)
            self.network = self.build(fold, vectors).to(self.place)
            reports = [
                train(
                    self.network,
                    stage,
                    model_name=self.name,
                    budget=self.spending(),
                    generator=generator,
                    validate=self._validate(fold, stage),
                    weight_decay=self.weight_decay,
                    progress=self.progress,
                    **self.training_options(),
                )
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
            results.append(quietly(self.network, validate))
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
        """The given cases for the fold's own targets, else uniform ones."""
        if self.validation is not None and stage.name == fold.kind:
            return self.validation
        return Validation.uniform(
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

    def training_options(self) -> dict[str, Any]:
        """Further arguments of :func:`train`."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        return ()

    def settings(self) -> dict[str, Any]:
        """The options that were set, as plain JSON values."""
        hidden = {
            "name",
            "validation",
            "device",
            "progress",
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


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
