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
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from serendifflib.baselines.base import check_request, check_scores
from serendifflib.data.folds import Examples, FoldData, make_examples
from serendifflib.errors import ConfigError, ModelError
from serendifflib.items import Isotropy


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


def catalogue_items(fold: FoldData) -> np.ndarray:
    """Numbers of all items that can be candidates, sorted."""
    everything = np.arange(1, fold.interactions.n_items + 1)
    return np.setdiff1d(everything, fold.missing_items)


def item_vectors(fold: FoldData, isotropy: str = "center") -> torch.Tensor:
    """Unit item vectors [N + 1, d], the same transform for every rival."""
    fitted = Isotropy.fit(fold.raw_vectors, fold.train_items, isotropy)
    return fitted.apply(fold.raw_vectors)


def last_items(histories: torch.Tensor, length: int) -> torch.Tensor:
    """The newest ``length`` columns without columns that are all padding."""
    histories = histories[:, -length:]
    used = (histories != 0).any(dim=0)
    first = int(used.int().argmax()) if bool(used.any()) else 0
    return histories[:, first:]


def pad_left(sequences: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """The newest ``length`` items of each sequence, LongTensor [M, length]."""
    table = np.zeros((len(sequences), length), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        newest = sequence[-length:]
        table[row, length - len(newest) :] = newest
    return torch.from_numpy(table)


def windows(sequences: Sequence[np.ndarray], length: int) -> list[np.ndarray]:
    """Cut sequences in pieces of at most ``length`` that overlap by one.

    Pieces end at the newest item; a piece has at least two items, so each
    holds at least one step from an item to the next.
    """
    pieces = []
    for sequence in sequences:
        end = len(sequence)
        while end >= 2:
            start = max(0, end - length)
            pieces.append(sequence[start:end])
            end = start + 1
    return pieces


def batches(
    n_examples: int, batch_size: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Endless batches of indices; every example once per round."""
    while True:
        order = torch.randperm(n_examples, generator=generator)
        yield from order.split(batch_size)


def draw_unseen(
    seen: torch.Tensor,
    count: int,
    pool: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Uniform items of ``pool`` outside each row of ``seen``.

    Args:
        seen: item numbers the negatives must avoid, [B, n] (0 = nothing).
        count: negatives per row.
        pool: item numbers to draw from, [P].
        generator: the source of randomness.

    Returns:
        LongTensor [B, count]. After 20 rounds of redrawing a collision
        stays; that only happens when a user has nearly the whole pool.
    """
    shape = (len(seen), count)
    drawn = pool[torch.randint(len(pool), shape, generator=generator)]
    for _ in range(20):
        clash = (drawn.unsqueeze(2) == seen.unsqueeze(1)).any(dim=2)
        number = int(clash.sum())
        if not number:
            break
        drawn[clash] = pool[
            torch.randint(len(pool), (number,), generator=generator)
        ]
    return drawn


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
        values.append(best.look(0, _quiet(network, validate)))
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
                values.append(best.look(step, _quiet(network, validate)))
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
        if value > self.value:
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


def _quiet(network: nn.Module, validate: Callable[[], float]) -> float:
    """Validate without dropout, gradients or a trace in the randomness."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), _forked():
        value = validate()
    network.train(was_training)
    return value


@dataclass(eq=False, kw_only=True)
class TorchRival:
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

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """A fresh network for item vectors [N + 1, d_t]."""
        raise NotImplementedError

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """The stages to train, in order."""
        raise NotImplementedError

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores [B, C] of a checked request, on the model's device."""
        raise NotImplementedError

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
            results.append(_quiet(self.network, validate))
        self.chosen = trials[int(np.argmax(results))]
        words = ", ".join(f"{name}={v}" for name, v in self.chosen.items())
        return (f"{words} chosen on validation out of {len(trials)} trials",)

    def _validate(
        self, fold: FoldData, stage: Stage
    ) -> Callable[[], float] | None:
        """NDCG@10 for the targets of a stage; None without a case."""
        validation = self.validation
        if validation is None or stage.name != fold.kind:
            validation = Validation.uniform(
                fold,
                kind=stage.name,
                n_cases=self.budget.valid_cases,
                n_candidates=self.budget.valid_candidates,
            )
        if validation is None:
            return None
        return functools.partial(validation.ndcg, self._score)

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
