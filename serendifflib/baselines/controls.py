"""Controls: simple scorers that keep a table honest, and its ceilings.

What the model must beat: chance, popularity, cosines, the frequency of grid
cells, an item prior without any user, linear maps. What it cannot beat: the
oracles, which know what no model may know (:class:`CaseControl`). All look
at the same centred unit vectors and the same grid as the candidate lists.

Shapes: B users in a batch, n history length, C candidates, N items, d width,
M training examples, K negatives, L side of the grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from serendifflib.baselines.sequences import catalogue_items, item_vectors
from serendifflib.data.splits import Examples
from serendifflib.diffusion.linear import (
    Ridge,
    conditional_logit,
    history_means,
    inner,
    reaches,
)
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import ConfigError, ModelError
from serendifflib.io import content_hash
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import join, memberships
from serendifflib.portrait.scores import has_vector
from serendifflib.recommender import check_request, check_scores

if TYPE_CHECKING:
    from serendifflib.data.world import World

ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
NEGATIVES = ("uniform", "cells")


def draw_negatives(
    cells: np.ndarray | None,
    pool: np.ndarray,
    avoid: np.ndarray,
    count: int,
    how: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Items to learn against, with replacement.

    Args:
        cells: flat cell of every item for the user, [N + 1]; ``uniform``
            needs none.
        pool: item numbers to draw from.
        avoid: item numbers that are no negatives (the user's own).
        count: K.
        how: ``uniform`` over the pool, or ``cells``: first a cell that is
            not empty, then an item of it, as candidate lists are made.
        random: the source of randomness.

    Returns:
        int64 [K].
    """
    allowed = pool[~np.isin(pool, avoid)]
    if how == "uniform":
        return allowed[random.integers(len(allowed), size=count)]
    cells = cells[allowed].astype(np.int64)
    order = np.argsort(cells, kind="stable")
    held = np.bincount(cells)
    filled = np.flatnonzero(held)
    first = (np.cumsum(held) - held)[filled]
    chosen = random.integers(len(filled), size=count)
    within = np.floor(random.random(count) * held[filled][chosen])
    return allowed[order[first[chosen] + within.astype(np.int64)]]


# ------------------------------------------------------------ no learning


@dataclass(eq=False, kw_only=True)
class Control:
    """What all controls share: checks, vectors, the grid.

    A control says what to :meth:`learn` and how to :meth:`rate`.

    Attributes:
        grid: looks to share with other controls of the same fold; None
            makes an own one where it is needed.
        parameters: numbers that the last fit learned.
        chosen: options that the last fit chose on validation users.
    """

    name: ClassVar[str] = "a control"
    needs_grid: ClassVar[bool] = False
    grid: Grid | None = None
    parameters: int = field(default=0, init=False)
    chosen: dict[str, float | str] = field(default_factory=dict, init=False)
    n_items: int = field(default=0, init=False)

    def fit(self, fold: FoldData, *, generator: torch.Generator) -> Self:
        """Learn from ``fold``; see the protocol."""
        self.n_items = fold.interactions.n_items
        self.vectors = item_vectors(fold)
        if self.needs_grid and self.grid is None:
            self.grid = Grid.of(fold)
        self.learn(fold, generator)
        return self

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Nothing, unless a control says otherwise."""

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores [B, C] of a checked request."""
        raise NotImplementedError

    def score(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores [B, C]; see the protocol.

        Raises:
            ModelError: not fitted, or a bad request.
        """
        if not self.n_items:
            raise ModelError(f"{self.name}: not fitted; call fit first")
        check_request(self.name, histories, candidates, self.n_items)
        return check_scores(self.name, self.rate(histories, candidates))


@dataclass(eq=False, kw_only=True)
class Random(Control):
    """A random order per user: chance, and nothing but chance."""

    name: ClassVar[str] = "Random"

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Draw the seed."""
        self.seed = int(torch.randint(2**31 - 1, (1,), generator=generator))

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """A number per item that derives from the seed and the history."""
        rows = []
        for history, wanted in zip(histories, candidates, strict=True):
            key = content_hash(self.seed, history[history > 0].numpy())
            generator = torch.Generator().manual_seed(int(key[:15], 16))
            drawn = torch.rand(self.n_items + 1, generator=generator)
            rows.append(drawn[wanted])
        return torch.stack(rows)


@dataclass(eq=False, kw_only=True)
class Popularity(Control):
    """How many training users have the item."""

    name: ClassVar[str] = "Popularity"

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Count."""
        counts = np.zeros(self.n_items + 1)
        for history in fold.training_histories():
            counts[np.unique(history)] += 1
        self.counts = torch.from_numpy(counts).float()
        self.parameters = self.n_items

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Counts of the candidates."""
        return self.counts[candidates]


@dataclass(eq=False, kw_only=True)
class MeanCosine(Control):
    """Cosine to the mean of the history."""

    name: ClassVar[str] = "Mean cosine"

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Cosines in [-1, 1]."""
        mean = F.normalize(history_means(histories, self.vectors), dim=1)
        return inner(mean, candidates, self.vectors)


@dataclass(eq=False, kw_only=True)
class MaxCosine(Control):
    """Largest cosine to an item of the history (Eq. 8, relevance)."""

    name: ClassVar[str] = "Max cosine"

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Cosines in [-1, 1]."""
        rows = []
        for history, wanted in zip(histories, candidates, strict=True):
            known = self.vectors[history[history > 0]]
            known = known[has_vector(known)]
            if not len(known):
                known = self.vectors[:1]  # zeros: all are alike
            rows.append((self.vectors[wanted] @ known.T).amax(dim=1))
        return torch.stack(rows)


@dataclass(eq=False, kw_only=True)
class LowExpectedness(Control):
    """The least expected first: -log p(i | T) (Eq. 7, 14)."""

    name: ClassVar[str] = "Low expectedness"
    needs_grid: ClassVar[bool] = True

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Negative log-expectedness."""
        space, rows = self.grid.space, []
        for history, wanted in zip(
            histories.numpy(), candidates.numpy(), strict=True
        ):
            scores = space.catalogue_scores(history[history > 0])[0]
            rows.append(-scores[wanted])
        return torch.from_numpy(np.array(rows))


@dataclass(eq=False, kw_only=True)
class DenseCell(Control):
    """Share of the catalogue that lies in the candidate's cell.

    It learns nothing and knows no label, and yet it beats chance: the lists
    hold about as many candidates of every cell, whatever its size. If the
    labels were drawn evenly over *items*, the positive would lie in a cell
    with n_k of the N items n_k / N of the time, but be one of only C / L^2
    candidates there. The control measures that bias of the protocol.
    """

    name: ClassVar[str] = "Dense cell"
    needs_grid: ClassVar[bool] = True

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Note which items can be candidates at all."""
        self.pool = catalogue_items(fold)

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Shares in [0, 1]."""
        rows = []
        for history, wanted in zip(
            histories.numpy(), candidates.numpy(), strict=True
        ):
            cells = self.grid.look(history).cells
            held = np.bincount(cells[self.pool], minlength=self.grid.side**2)
            rows.append(held[cells[wanted]] / len(self.pool))
        return torch.from_numpy(np.array(rows))


# --------------------------------------------------------------- learned


def cell_log_frequency(counts: np.ndarray) -> np.ndarray:
    """Log share of labels per cell with one added to each, [L * L].

    >>> cell_log_frequency(np.array([1, 1])).round(3).tolist()
    [-0.693, -0.693]
    """
    counts = counts + 1.0
    return np.log(counts / counts.sum(axis=-1, keepdims=True))


@dataclass(eq=False, kw_only=True)
class LabelCell(Control):
    """The cell where labels lie most often, whoever the user is."""

    name: ClassVar[str] = "Label cell"
    needs_grid: ClassVar[bool] = True

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Count the cells of the training targets."""
        counts = np.zeros(self.grid.side**2)
        targets = fold.train.targets.numpy()[:, None]
        placed = self.grid.place_training(fold, fold.train, targets)
        np.add.at(counts, self.grid.cells_of(placed), 1)
        self.log_frequency = torch.from_numpy(cell_log_frequency(counts))
        self.parameters = len(counts)

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Log-frequency of the candidates' cells."""
        return self.log_frequency[self.grid.cells(histories, candidates)]


@dataclass(eq=False, kw_only=True)
class ItemPrior(Control):
    """Is this item ever a target? A logistic regression without a user.

    Over all items of the catalogue, from the vector alone, classes weighted
    evenly. If it rivals the models, the item vectors carry the labels.
    """

    name: ClassVar[str] = "Item prior"

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Regress "is a training target" on the item vectors."""
        pool = catalogue_items(fold)
        is_target = np.isin(pool, fold.train.targets.numpy())
        self.prior = torch.zeros(self.n_items + 1)
        if is_target.all() or not is_target.any():
            return  # one class only: there is nothing to tell apart
        model = LogisticRegression(class_weight="balanced", max_iter=2_000)
        vectors = self.vectors.numpy().astype(np.float64)
        model.fit(vectors[pool], is_target)
        self.prior = torch.from_numpy(model.decision_function(vectors))
        self.parameters = model.coef_.size + 1

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Log-odds of being a target."""
        return self.prior[candidates]


@dataclass(eq=False, kw_only=True)
class LinearMap(Control):
    """Ridge regression from the history mean to the target's vector.

    A candidate's score is its inner product with the prediction. Cosine
    would order the same way, since item vectors have length 1. The strength
    is chosen on the validation users.

    Attributes:
        alphas: strengths to choose from.
        prototypes: memberships in so many stand beside each item vector, as
            for SerenDiff; 0 is none.
    """

    name: ClassVar[str] = "Linear map"
    alphas: tuple[float, ...] = ALPHAS
    prototypes: int = 0

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Fit every strength, keep the best on validation."""
        self.learn_map(fold, Validation.of(fold))

    def learn_map(self, fold: FoldData, validation: Validation | None) -> None:
        """Choose the regression; without validation the middle strength."""
        belonging = memberships(self.vectors, self.prototypes)
        self.points = join(self.vectors, belonging)
        inputs = history_means(fold.train.histories, self.points).numpy()
        outputs = self.points[fold.train.targets].numpy()
        outputs = outputs.astype(np.float64)
        alphas = self.alphas
        if validation is None:
            alphas = alphas[len(alphas) // 2 :][:1]
        best = -np.inf
        for alpha in alphas:
            fitted = Ridge.fit(inputs, outputs, alpha)
            weights = torch.from_numpy(fitted.weights).float()
            value = 0.0
            if validation is not None:
                value = validation.ndcg(_linear(weights, self.points))
            if value > best:
                best = value
                self.weights, self.left_out = weights, fitted.left_out
                self.chosen["alpha"] = alpha
        self.parameters = self.weights.numel()

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Inner products with the prediction."""
        return _linear(self.weights, self.points)(histories, candidates)


def _linear(
    weights: torch.Tensor, vectors: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def score(histories: torch.Tensor, candidates: torch.Tensor):
        wanted = history_means(histories, vectors) @ weights[:-1]
        return inner(wanted + weights[-1], candidates, vectors)

    return score


@dataclass(eq=False, kw_only=True)
class LinearRadius(LinearMap):
    """The linear map and how far to go: a conditional logit.

    Among the target and K negatives the target is chosen with probability
    softmax(w . f), f = [linear score, radius, radius^2, radius times the
    user's reach, log-frequency of labels in the cell]: 5 numbers. With
    them a preferred radius that grows with the user's reach can be said.
    The training rows' own linear scores and cell counts are those without
    the row itself, or the logit would trust both too much.

    Attributes:
        negatives: K.
        draw: ``uniform`` or ``cells``, see :func:`draw_negatives`.
    """

    name: ClassVar[str] = "Linear map + radius"
    needs_grid: ClassVar[bool] = True
    negatives: int = 100
    draw: str = "uniform"

    def __post_init__(self):
        check_draw(self.name, self.draw)

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Fit the map, then the logit; choose how the map's score enters."""
        validation = Validation.of(fold)
        self.learn_map(fold, validation)
        self.parameters += self.grid.side**2 + 5
        targets, items, cells, counts = self._choices(fold, generator)
        self.log_frequency = torch.from_numpy(
            cell_log_frequency(counts)
        ).float()
        own = np.arange(len(targets)), cells[:, 0]
        without = np.repeat(counts[None], len(targets), axis=0)
        without[own] -= 1  # the row itself
        places = torch.from_numpy(cells)
        frequency = torch.from_numpy(cell_log_frequency(without)).float()
        frequency = frequency.gather(1, places)
        predicted = torch.from_numpy(self.left_out).float()
        best = -np.inf
        for match in ("inner", "cosine"):
            features = self._features(
                fold.train.histories, items, predicted, frequency, match
            )
            logit = conditional_logit(features)
            self.chosen["match"], self.logit = match, logit
            if validation is None:
                return
            value = validation.ndcg(self.rate)
            if value > best:
                best, kept = value, (match, logit)
        self.chosen["match"], self.logit = kept

    def _choices(self, fold: FoldData, generator: torch.Generator):
        """Targets and negatives [M, 1 + K], their cells, label counts."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        random = np.random.default_rng(seed)
        pool, own = catalogue_items(fold), fold.training_items
        train = fold.train
        targets = train.targets.numpy()
        items = np.zeros((len(targets), 1 + self.negatives), dtype=np.int64)
        items[:, 0] = targets
        for row, user in enumerate(train.users.tolist()):
            seen = None
            if self.draw == "cells":
                seen = self.grid.training_look(fold, train, row).cells
            items[row, 1:] = draw_negatives(
                seen,
                pool,
                np.append(own[user], targets[row]),
                self.negatives,
                self.draw,
                random,
            )
        placed = self.grid.place_training(fold, train, items)
        cells = self.grid.cells_of(placed)
        counts = np.bincount(cells[:, 0], minlength=self.grid.side**2)
        return targets, torch.from_numpy(items), cells, counts.astype(float)

    def _features(
        self,
        histories: torch.Tensor,
        items: torch.Tensor,
        predicted: torch.Tensor,
        log_frequency: torch.Tensor,
        match: str,
    ) -> torch.Tensor:
        """Features [B, C, 5] of items [B, C] for users."""
        if match == "cosine":
            predicted = F.normalize(predicted, dim=1)
        mean = F.normalize(history_means(histories, self.vectors), dim=1)
        radius = 1.0 - inner(mean, items, self.vectors)
        reach = reaches(histories, self.vectors)[:, None]
        return torch.stack(
            [
                inner(predicted, items, self.points),
                radius,
                radius**2,
                radius * reach,
                log_frequency,
            ],
            dim=2,
        )

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Utilities of the logit."""
        means = history_means(histories, self.points)
        features = self._features(
            histories,
            candidates,
            means @ self.weights[:-1] + self.weights[-1],
            self.log_frequency[self.grid.cells(histories, candidates)],
            self.chosen["match"],
        )
        return features @ self.logit


def check_draw(name: str, draw: str) -> None:
    """Refuse an unknown way of drawing negatives.

    Raises:
        ConfigError: it is not one of :data:`NEGATIVES`.
    """
    if draw not in NEGATIVES:
        raise ConfigError(
            f"{name}: unknown negatives {draw!r}: choose one of "
            f"{', '.join(NEGATIVES)}"
        )


# --------------------------------------------------------------- ceilings


@dataclass(eq=False, kw_only=True)
class CaseControl(Control):
    """A ceiling: it knows which case it is asked about.

    The one exception to the rule that a user is known only by the history:
    a ceiling says how much could be reached by who knew the truth. Before
    it scores it is given the cases (:meth:`for_cases`); it then recognises
    each by its history (and target, where two cases share a history) and
    refuses any other.
    """

    examples: Examples | None = field(default=None, init=False)

    def for_cases(self, examples: Examples) -> Self:
        """A copy that knows these cases."""
        known = copy.copy(self)
        known.examples = examples
        known._cases = {}
        for case, history in enumerate(examples.histories):
            known._cases.setdefault(_key(history), []).append(case)
        return known

    def rate(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores of each row's case."""
        if self.examples is None:
            raise ModelError(f"{self.name}: call for_cases(examples) first")
        rows = [
            self.rate_case(
                self._case(row, histories[row], candidates[row]),
                candidates[row].numpy(),
            )
            for row in range(len(histories))
        ]
        return torch.from_numpy(np.array(rows))

    def rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """Scores [C] for one of the known cases."""
        raise NotImplementedError

    def _case(
        self, row: int, history: torch.Tensor, candidates: torch.Tensor
    ) -> int:
        for case in self._cases.get(_key(history), []):
            if bool((candidates == self.examples.targets[case]).any()):
                return case
        raise ModelError(
            f"{self.name}: row {row} is none of its cases; give it the "
            "examples of these candidates with for_cases"
        )


def _key(history: torch.Tensor) -> bytes:
    return history[history > 0].numpy().tobytes()


@dataclass(eq=False, kw_only=True)
class OracleCell(CaseControl):
    """Knows the true cell of the target, and nothing within the cell."""

    name: ClassVar[str] = "Oracle cell"
    needs_grid: ClassVar[bool] = True

    def rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """1 in the target's cell, else 0."""
        history = self.examples.histories[case].numpy()
        cells = self.grid.look(history).cells
        target = cells[int(self.examples.targets[case])]
        return (cells[candidates] == target).astype(np.float64)


@dataclass(eq=False, kw_only=True)
class Oracle(CaseControl):
    """The law that drew the labels (simulated worlds only)."""

    name: ClassVar[str] = "Oracle"

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Find the world behind the data.

        Raises:
            ConfigError: the data are real, or targets are not labels.
        """
        data = fold.interactions
        if data.world is None or fold.kind != "serendipity":
            raise ConfigError(
                f"{self.name}: {data.name} with {fold.kind} targets follows "
                "no known law; leave the oracle out"
            )
        self.world: World = data.world

    def rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """True log-probabilities, up to a constant."""
        user = int(self.examples.users[case])
        labels = self.world.label_rows(user)
        which = int(np.searchsorted(labels, self.examples.rows[case]))
        return self.world.oracle_scores(user, candidates, which=which)


@dataclass(eq=False, kw_only=True)
class OracleProtocol(Oracle):
    """The law and how the lists were drawn: Bayes' rule, the true ceiling.

    A list holds m_k of the n_k items of cell k. Had item c been the label,
    a list with these members would have been drawn with probability
    proportional to n_k / m_k of its cell, so log p(c) + log(n_k / m_k)
    orders the candidates best. Exact where no cell lends items to another.
    """

    name: ClassVar[str] = "Oracle + protocol"
    needs_grid: ClassVar[bool] = True

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Find the world, and the items that can be candidates."""
        super().learn(fold, generator)
        self.pool = catalogue_items(fold)
        self.data = fold.interactions

    def rate_case(self, case: int, candidates: np.ndarray) -> np.ndarray:
        """Log-posterior, up to a constant."""
        history = self.examples.histories[case].numpy()
        cells = self.grid.look(history).cells
        rows = self.data.rows(int(self.examples.users[case]))
        own = self.data.item_index[rows]
        target = int(self.examples.targets[case])
        eligible = np.union1d(np.setdiff1d(self.pool, own), target)
        size = self.grid.side**2
        held = np.bincount(cells[eligible], minlength=size)
        listed = np.bincount(cells[candidates], minlength=size)
        weight = held[cells[candidates]] / listed[cells[candidates]]
        return super().rate_case(case, candidates) + np.log(weight)


CONTROLS: dict[str, type[Control]] = {
    "random": Random,
    "popularity": Popularity,
    "mean-cosine": MeanCosine,
    "max-cosine": MaxCosine,
    "low-expectedness": LowExpectedness,
    "dense-cell": DenseCell,
    "label-cell": LabelCell,
    "item-prior": ItemPrior,
    "linear-map": LinearMap,
    "linear-radius": LinearRadius,
    "oracle-cell": OracleCell,
    "oracle": Oracle,
    "oracle-protocol": OracleProtocol,
}
