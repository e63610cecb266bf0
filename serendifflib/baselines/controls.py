"""Controls: simple scorers that keep a table honest.

What the model must beat: chance, popularity, cosines, the frequency of grid
cells, an item prior without any user, linear maps. All look at the same
centred unit vectors and the same grid as the candidate lists.
:data:`CONTROLS` also has those of other modules, and the ceilings.

Shapes: B users in a batch, n history length, C candidates, N items, d width,
M training examples, K negatives, L side of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from serendifflib.baselines.base import (
    NEGATIVES,
    Control,
    UserControl,
    targets_and_negatives,
)
from serendifflib.baselines.ceilings import (
    Oracle,
    OracleCell,
    OraclePortrait,
    OracleProtocol,
)
from serendifflib.baselines.neighbours import NearestUsers
from serendifflib.diffusion.linear import (
    Ridge,
    conditional_logit,
    history_means,
    inner,
    reaches,
)
from serendifflib.diffusion.validation import Validation
from serendifflib.errors import check_choice
from serendifflib.io import content_hash
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import with_memberships
from serendifflib.portrait.scores import has_vector

ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


# ------------------------------------------------------------ no learning


@dataclass(eq=False, kw_only=True)
class Random(UserControl):
    """A random order per user: chance, and nothing but chance."""

    name: ClassVar[str] = "Random"

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Draw the seed."""
        self.seed = int(torch.randint(2**31 - 1, (1,), generator=generator))

    def rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """A number per item that derives from the seed and the history."""
        key = content_hash(self.seed, history)
        generator = torch.Generator().manual_seed(int(key[:15], 16))
        return torch.rand(self.n_items + 1, generator=generator).numpy()[items]


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

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Counts of the candidates."""
        return self.counts[candidates]


@dataclass(eq=False, kw_only=True)
class MeanCosine(Control):
    """Cosine to the mean of the history."""

    name: ClassVar[str] = "Mean cosine"

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Cosines in [-1, 1]."""
        mean = F.normalize(history_means(histories, self.vectors), dim=1)
        return inner(mean, candidates, self.vectors)


@dataclass(eq=False, kw_only=True)
class MaxCosine(UserControl):
    """Largest cosine to an item of the history (Eq. 8, relevance)."""

    name: ClassVar[str] = "Max cosine"

    def rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Cosines in [-1, 1]."""
        known = self.vectors[history]
        known = known[has_vector(known)]
        if not len(known):
            known = self.vectors[:1]  # zeros: all are alike
        return (self.vectors[items] @ known.T).amax(dim=1).numpy()


@dataclass(eq=False, kw_only=True)
class LowExpectedness(UserControl):
    """The least expected first: -log p(i | T) (Eq. 7, 14)."""

    name: ClassVar[str] = "Low expectedness"
    needs_grid: ClassVar[bool] = True

    def rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Negative log-expectedness."""
        return -self.grid.space.catalogue_scores(history)[0][items]


@dataclass(eq=False, kw_only=True)
class DenseCell(UserControl):
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
        self.pool = fold.catalogue

    def rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Shares in [0, 1]."""
        cells = self.grid.look(history).cells
        held = np.bincount(cells[self.pool], minlength=self.grid.side**2)
        return held[cells[items]] / len(self.pool)


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

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
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
        pool = fold.catalogue
        is_target = np.isin(pool, fold.train.targets.numpy())
        self.prior = torch.zeros(self.n_items + 1)
        if is_target.all() or not is_target.any():
            return  # one class only: there is nothing to tell apart
        model = LogisticRegression(class_weight="balanced", max_iter=2_000)
        vectors = self.vectors.numpy().astype(np.float64)
        model.fit(vectors[pool], is_target)
        self.prior = torch.from_numpy(model.decision_function(vectors))
        self.parameters = model.coef_.size + 1

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
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
        self.points = with_memberships(self.vectors, self.prototypes)
        inputs = history_means(fold.train.histories, self.points).numpy()
        outputs = self.points[fold.train.targets].numpy()
        outputs = outputs.astype(np.float64)
        alphas = self.alphas
        if validation is None:
            alphas = alphas[len(alphas) // 2 :][:1]
        best = -np.inf
        for alpha in alphas:
            fitted = Ridge.fit(inputs, outputs, alpha)
            self.weights = torch.from_numpy(fitted.weights).float()
            value = 0.0
            if validation is not None:
                value = validation.ndcg(self._linear)
            if value > best:
                best, kept = value, (alpha, self.weights, fitted.left_out)
        self.chosen["alpha"], self.weights, self.left_out = kept
        self.parameters = self.weights.numel()

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Inner products with the prediction."""
        return self._linear(histories, candidates)

    def _linear(self, histories: Tensor, candidates: Tensor) -> Tensor:
        predicted = self._predicted(histories)
        return inner(predicted, candidates, self.points)

    def _predicted(self, histories: Tensor) -> Tensor:
        """The regression's points of users, [B, D]."""
        means = history_means(histories, self.points)
        return means @ self.weights[:-1] + self.weights[-1]


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
        check_choice("negatives", self.draw, NEGATIVES, self.name)

    def learn(self, fold: FoldData, generator: torch.Generator) -> None:
        """Fit the map, then the logit; choose how the map's score enters."""
        validation = Validation.of(fold)
        self.learn_map(fold, validation)
        self.parameters += self.grid.side**2 + 5
        items, cells, counts = self._choices(fold, generator)
        self.log_frequency = torch.from_numpy(
            cell_log_frequency(counts)
        ).float()
        own = np.arange(len(items)), cells[:, 0]
        without = np.repeat(counts[None], len(items), axis=0)
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
        items = targets_and_negatives(
            self.grid,
            fold,
            fold.train,
            fold.training_items.__getitem__,
            self.negatives,
            self.draw,
            generator,
        )
        placed = self.grid.place_training(fold, fold.train, items)
        cells = self.grid.cells_of(placed)
        counts = np.bincount(cells[:, 0], minlength=self.grid.side**2)
        return torch.from_numpy(items), cells, counts.astype(float)

    def _features(
        self,
        histories: Tensor,
        items: Tensor,
        predicted: Tensor,
        log_frequency: Tensor,
        match: str,
    ) -> Tensor:
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

    def rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Utilities of the logit."""
        features = self._features(
            histories,
            candidates,
            self._predicted(histories),
            self.log_frequency[self.grid.cells(histories, candidates)],
            self.chosen["match"],
        )
        return features @ self.logit


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
    "nearest-users": NearestUsers,
    "oracle-cell": OracleCell,
    "oracle": Oracle,
    "oracle-portrait": OraclePortrait,
    "oracle-protocol": OracleProtocol,
}
