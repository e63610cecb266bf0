"""Controls: simple scorers that keep a table honest.

What the model must beat: chance, popularity, cosines, the frequency of grid
cells, an item prior without any user, linear maps, nearest users. All look at
the same centred unit vectors and the same grid as the candidate lists.

Shapes: B users in a batch, n history length, C candidates, N items, d width,
D numbers per item, M training examples, K negatives, L side of the grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor
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
from serendifflib.diffusion.linear import (
    Ridge,
    conditional_logit,
    history_means,
    inner,
    reaches,
)
from serendifflib.diffusion.validation import Validation, mean_ndcg
from serendifflib.errors import check_choice
from serendifflib.io import content_hash
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import with_memberships
from serendifflib.portrait.scores import has_vector

ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


# ------------------------------------------------------------ no learning


class Random(UserControl):
    """A random order per user: chance, and nothing but chance."""

    name = "Random"

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        self.seed = int(torch.randint(2**31 - 1, (1,), generator=generator))

    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        key = content_hash(self.seed, history)
        generator = torch.Generator().manual_seed(int(key[:15], 16))
        return torch.rand(self.n_items + 1, generator=generator).numpy()[items]


class Popularity(Control):
    """How many training users have the item."""

    name = "Popularity"

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        met = [np.unique(history) for history in fold.training_histories()]
        counts = np.bincount(np.concatenate(met), minlength=self.n_items + 1)
        self.counts = torch.from_numpy(counts).float()
        self.parameters = self.n_items

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self.counts[candidates]


class MeanCosine(Control):
    """Cosine to the mean of the history."""

    name = "Mean cosine"

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        mean = F.normalize(history_means(histories, self.vectors), dim=1)
        return inner(mean, candidates, self.vectors)


class MaxCosine(UserControl):
    """Largest cosine to an item of the history (Eq. 8, relevance)."""

    name = "Max cosine"

    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        known = self.vectors[history]
        known = known[has_vector(known)]
        if not len(known):
            known = self.vectors[:1]  # zeros: all are alike
        return (self.vectors[items] @ known.T).amax(dim=1).numpy()


class LowExpectedness(UserControl):
    """The least expected first: -log p(i | T) (Eq. 7, 14)."""

    name = "Low expectedness"
    needs_grid = True

    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        return -self.grid.space.catalogue_scores(history)[0][items]


class DenseCell(UserControl):
    """Share of the catalogue that lies in the candidate's cell.

    It knows no label, and yet it beats chance: were labels drawn evenly over
    *items*, the positive would lie in a cell with n_k of the N items n_k / N
    of the time, but be one of only C / L^2 candidates there. The control
    measures that bias of the protocol.
    """

    name = "Dense cell"
    needs_grid = True

    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
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


class LabelCell(Control):
    """The cell where labels lie most often, whoever the user is."""

    name = "Label cell"
    needs_grid = True

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        targets = fold.train.targets.numpy()[:, None]
        placed = self.grid.place_training(fold, fold.train, targets)
        cells = self.grid.cells_of(placed).ravel()
        counts = np.bincount(cells, minlength=self.grid.side**2)
        self.log_frequency = torch.from_numpy(cell_log_frequency(counts))
        self.parameters = len(counts)

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self.log_frequency[self.grid.cells(histories, candidates)]


class ItemPrior(Control):
    """Is this item ever a target? A logistic regression without a user.

    Over all items of the catalogue, from the vector alone, classes weighted
    evenly. If it rivals the models, the item vectors carry the labels.
    """

    name = "Item prior"

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        is_target = np.isin(self.pool, fold.train.targets.numpy())
        self.prior = torch.zeros(self.n_items + 1)
        if is_target.all() or not is_target.any():
            return  # one class only: there is nothing to tell apart
        model = LogisticRegression(class_weight="balanced", max_iter=2_000)
        vectors = self.vectors.numpy().astype(np.float64)
        model.fit(vectors[self.pool], is_target)
        self.prior = torch.from_numpy(model.decision_function(vectors))
        self.parameters = model.coef_.size + 1

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self.prior[candidates]


@dataclass(eq=False, kw_only=True)
class LinearMap(Control):
    """Ridge regression from the history mean to the target's vector.

    A candidate's score is its inner product with the prediction.

    Attributes:
        alphas: strengths to choose from on the validation users.
        prototypes: memberships in so many stand beside each item vector, as
            for SerenDiff; 0 is none.
    """

    name = "Linear map"
    alphas: tuple[float, ...] = ALPHAS
    prototypes: int = 0

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        self._learn_map(fold, Validation.of(fold))

    def _learn_map(
        self, fold: FoldData, validation: Validation | None
    ) -> None:
        self.points = with_memberships(self.vectors, self.prototypes)
        inputs = history_means(fold.train.histories, self.points).numpy()
        outputs = self.points[fold.train.targets].numpy().astype(np.float64)
        middle = self.alphas[len(self.alphas) // 2]
        best = -np.inf
        for alpha in self.alphas if validation else (middle,):
            fitted = Ridge.fit(inputs, outputs, alpha)
            self.weights = torch.from_numpy(fitted.weights).float()
            value = validation.ndcg(self._linear) if validation else 0.0
            if value > best:
                best, kept = value, (alpha, self.weights, fitted.left_out)
        self.chosen["alpha"], self.weights, self.left_out = kept
        self.parameters = self.weights.numel()

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return self._linear(histories, candidates)

    def _linear(self, histories: Tensor, candidates: Tensor) -> Tensor:
        return inner(self._predicted(histories), candidates, self.points)

    def _predicted(self, histories: Tensor) -> Tensor:
        """The regression's points of users, [B, D]."""
        means = history_means(histories, self.points)
        return means @ self.weights[:-1] + self.weights[-1]


@dataclass(eq=False, kw_only=True)
class LinearRadius(LinearMap):
    """The linear map and how far to go: a conditional logit.

    Among the target and K negatives the target is chosen with probability
    softmax(w . f), f = [linear score, radius, radius^2, radius times the
    user's reach, log-frequency of labels in the cell]: a preferred radius
    may grow with the reach. Linear scores and cell counts of training rows
    are those without the row, or the logit would trust both too much.

    Attributes:
        negatives: K.
        draw: ``uniform`` or ``cells``, see :func:`draw_negatives`.
    """

    name = "Linear map + radius"
    needs_grid = True
    negatives: int = 100
    draw: str = "uniform"

    def __post_init__(self):
        check_choice("negatives", self.draw, NEGATIVES, self.name)

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        """Fit the map, then the logit; choose how the map's score enters."""
        validation = Validation.of(fold)
        self._learn_map(fold, validation)
        self.parameters += self.grid.side**2 + 5
        items, cells, counts = self._choices(fold, generator)
        self.log_frequency = torch.from_numpy(
            cell_log_frequency(counts)
        ).float()
        own = np.arange(len(items)), cells[:, 0]
        without = np.repeat(counts[None], len(items), axis=0)
        without[own] -= 1  # the row itself
        frequency = torch.from_numpy(cell_log_frequency(without)).float()
        frequency = frequency.gather(1, torch.from_numpy(cells))
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
            value = validation.ndcg(self._rate)
            if value > best:
                best, kept = value, (match, logit)
        self.chosen["match"], self.logit = kept

    def _choices(self, fold: FoldData, generator: Generator):
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

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        features = self._features(
            histories,
            candidates,
            self._predicted(histories),
            self.log_frequency[self.grid.cells(histories, candidates)],
            self.chosen["match"],
        )
        return features @ self.logit


@dataclass(eq=False, kw_only=True)
class NearestUsers(UserControl):
    """The labels of the nearest users, used as if they were draws.

    Many places and no network. Of S labelled users whose mean histories have
    the highest cosine, label m has the content t_m (item vector and
    memberships in at most ``prototypes``) and lay at the place q_m of its own
    user's plane. A candidate of content v at the place p scores::

        log sum over m of exp(cos(v, t_m) / tau - |p - q_m|^2 / (2 h^2))

    Attributes:
        users, temperatures, widths: S, tau and h to choose from on the
            validation users; a width of infinity leaves the place out.
    """

    name = "Nearest users"
    needs_grid = True
    prototypes: int = 100
    users: tuple[int, ...] = (20, 60, 200)
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.2)
    widths: tuple[float, ...] = (0.1, 0.2, np.inf)

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        train = fold.train
        points = with_memberships(self.vectors, self.prototypes)
        self.points = F.normalize(points.float(), dim=1)
        self.known = self._users(train.histories)
        self.targets = train.targets
        placed = self.grid.place_training(
            fold, train, train.targets.numpy()[:, None]
        )
        self.places = torch.from_numpy(placed.positions[:, 0]).float()
        self.parameters = self.known.numel()
        options = self.users, self.temperatures, self.widths
        middle = tuple(sorted(some)[len(some) // 2] for some in options)
        validation = Validation.of(fold)
        best = self._best(validation, options) if validation else middle
        names = ("users", "temperature", "width")
        self.chosen = dict(zip(names, best, strict=True))

    def _best(
        self, validation: Validation, options: Sequence[tuple[float, ...]]
    ) -> tuple[float, ...]:
        """The option with the best NDCG@10; all are tried user by user."""
        found: dict[tuple[float, ...], list[Tensor]] = {}
        for row in range(len(validation)):
            apart = self._apart(
                validation.histories[row : row + 1],
                validation.candidates[row : row + 1],
                max(self.users),
            )
            for option in itertools.product(*options):
                found.setdefault(option, []).append(_log_sum(*apart, *option))
        return max(found, key=lambda o: mean_ndcg(torch.stack(found[o])))

    def _users(self, histories: Tensor) -> Tensor:
        """What users are compared by, unit rows [B, D]."""
        return F.normalize(history_means(histories, self.points), dim=1)

    def _apart(
        self, histories: Tensor, candidates: Tensor, most: int
    ) -> tuple[Tensor, Tensor]:
        """Cosines and squared distances of one user's candidates, [C, S]."""
        near = (self._users(histories) @ self.known.T)[0]
        order = near.argsort(descending=True, stable=True)[:most]
        placed = self.grid.place(histories, candidates)
        place = torch.from_numpy(placed.positions[0]).float()
        cosines = (
            self.points[candidates[0]] @ self.points[self.targets[order]].T
        )
        return cosines, torch.cdist(place, self.places[order]).square()

    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        option = tuple(self.chosen.values())
        known = torch.from_numpy(history)[None], torch.from_numpy(items)[None]
        return _log_sum(*self._apart(*known, int(option[0])), *option).numpy()


def _log_sum(
    cosines: Tensor,
    apart: Tensor,
    users: float,
    temperature: float,
    width: float,
) -> Tensor:
    """The score of :class:`NearestUsers` [C] from its parts [C, S]."""
    kept = slice(int(users))
    near = cosines[:, kept] / temperature - apart[:, kept] / (2 * width**2)
    return near.logsumexp(dim=1)


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
