"""User portraits: positions, cells and the image-like tensor (Sec. 4.2).

A history item sits at (expectedness, relevance), both as quantile positions
in [0, 1]; the first one at the anchor (1, 1). An L x L grid cuts the plane
into cells; the mean vector of a cell's items is its "colour", so that a
portrait is a tensor [B, d, L, L], first grid axis expectedness, second
relevance (index L-1 = high).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import Isotropy
from serendifflib.portrait.scores import (
    CoOccurrence,
    MinMax,
    Own,
    QuantileMap,
    find,
    has_vector,
    history_weights,
    item_keys,
    largest_cosines,
    relevance_catalogue,
    relevance_prefix,
)

BINS = ("interactions", "catalogue")
SAMPLE = 8_192  # items whose scores stand for those of the catalogue
CHAIN = 32  # histories that are placed in one pass, at most


def cell_of(positions, side: int):
    """Grid indices 0..L-1 of positions in [0, 1], arrays or tensors [...].

    Position 1 is in the last cell.
    """
    if isinstance(positions, Tensor):
        return (positions * side).floor().long().clamp(0, side - 1)
    cells = np.floor(np.asarray(positions) * side).astype(np.int64)
    return np.clip(cells, 0, side - 1)


def cell_number(cells, side: int):
    """Cells [..., 2] as one number: expectedness index * L + relevance."""
    return cells[..., 0] * side + cells[..., 1]


@dataclass(frozen=True)
class Placement:
    """Where users see the items of their histories, and some other items.

    Attributes:
        past: positions of each history's items, M times [n_m, 2].
        scores: log-expectedness and cosine of the other items, [M, K, 2].
        positions: the same as positions in [0, 1], [M, K, 2].
    """

    past: list[np.ndarray]
    scores: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Columns:
    """Some items of the catalogue, with what their scores need.

    Ascending numbers [K], vectors [K, d], their rows of
    ``CoOccurrence.owners``, and which have no vector, bool [K].
    """

    items: np.ndarray
    vectors: Tensor
    owners: scipy.sparse.csr_array
    without_vector: np.ndarray


@dataclass(frozen=True)
class View:
    """The plane as one user sees it.

    Attributes:
        past: positions of the history items in [0, 1], [n, 2].
        positions: of every item, [N + 1, 2].
        scores: log-expectedness and relevance of every item, [N + 1, 2].
    """

    past: np.ndarray
    positions: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class PortraitSpace:
    """Everything that turns a history into positions on the plane.

    Fitted on the training users of a fold; any user is known only by the
    history.

    Attributes:
        co_occurrence: counts behind expectedness.
        vectors: unit item vectors after the isotropy step, [N + 1, d].
        bins: ``interactions``: one pair of quantile maps, fitted on the
            scores of all training interactions; ``catalogue``: quantiles of
            this user's scores over all items.
        weights: p(i_h | T), see ``scores.history_weights``.
        relevance_range: min-max scaling of Eq. 8, fitted on training.
        expectedness_map, relevance_map: maps of ``interactions`` bins.
    """

    co_occurrence: CoOccurrence
    vectors: Tensor
    bins: str
    weights: str
    relevance_range: MinMax
    expectedness_map: QuantileMap
    relevance_map: QuantileMap

    @classmethod
    def fit(
        cls,
        fold: FoldData,
        *,
        bins: str = "interactions",
        isotropy: str = "center",
        weights: str = "uniform",
        mu: float = 1.0,
    ) -> PortraitSpace:
        """Count, transform and bin on the training users of ``fold``.

        The fold keeps the space for models with the same options.
        """
        key = ("space", bins, isotropy, weights, mu)
        if key not in fold.store:
            transform = Isotropy.fit(
                fold.raw_vectors, fold.train_items, isotropy
            )
            fold.store[key] = cls.from_histories(
                fold.training_histories(),
                transform.apply(fold.raw_vectors),
                bins=bins,
                weights=weights,
                mu=mu,
            )
        return fold.store[key]

    @classmethod
    def from_histories(
        cls,
        histories: Sequence[np.ndarray],
        vectors: Tensor,
        *,
        bins: str = "interactions",
        weights: str = "uniform",
        mu: float = 1.0,
    ) -> PortraitSpace:
        """The same from plain arrays: item numbers of each training user."""
        check_choice("bins", bins, BINS)
        nothing = QuantileMap(np.zeros(0))
        space = cls(
            CoOccurrence.fit(histories, len(vectors) - 1, mu=mu),
            vectors,
            bins,
            weights,
            MinMax(0.0, 1.0),
            nothing,
            nothing,
        )
        pairs = [space.scores(history, own=history) for history in histories]
        expectedness, relevance = np.concatenate(
            [np.zeros((2, 0)), *map(np.stack, pairs)], axis=1
        )
        return replace(
            space,
            relevance_range=MinMax.fit(relevance),
            expectedness_map=QuantileMap.fit(expectedness),
            relevance_map=QuantileMap.fit(relevance),
        )

    def scores(
        self, history: np.ndarray, *, own: Own = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw scores of each history item given the items before it.

        Log-expectedness [n] and cosine relevance [n]; the first is NaN.
        """
        weights = None  # uniform weights need no table of all pairs
        if self.weights != "uniform":
            weights = self._history_weights(history)[:-1]
        return (
            self.co_occurrence.log_prefix(history, own=own, weights=weights),
            relevance_prefix(history, self.vectors),
        )

    def catalogue_scores(
        self, history: np.ndarray, *, own: Own = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-expectedness and cosine of each item given a history [N + 1]."""
        weights = self._history_weights(history, [len(history)])[0]
        return (
            self.co_occurrence.log_catalogue(
                history, own=own, weights=weights
            ),
            relevance_catalogue(history, self.vectors),
        )

    def positions(self, history: np.ndarray, *, own: Own = None) -> np.ndarray:
        """Positions of the history items, [n, 2]; the first is (1, 1)."""
        none = np.zeros((1, 0), dtype=np.int64)
        return self.place([history], none, own=[own]).past[0]

    def view(self, history: np.ndarray, *, own: Own = None) -> View:
        """Where a history [n] puts its items and the whole catalogue."""
        catalogue = self.catalogue_scores(history, own=own)
        maps = self._maps([score[self.known] for score in catalogue])
        everything = _positions(maps, catalogue, np.arange(len(self.vectors)))
        past = self._place(self.scores(history, own=own), history, maps)
        return View(past, everything, np.stack(catalogue, axis=1))

    def catalogue_positions(
        self, history: np.ndarray, *, own: Own = None
    ) -> np.ndarray:
        """Positions of all items for this history, [N + 1, 2]."""
        return self.both_positions(history, own=own)[1]

    def both_positions(
        self, history: np.ndarray, *, own: Own = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the history [n, 2] and of the catalogue [N + 1, 2]."""
        seen = self.view(history, own=own)
        return seen.past, seen.positions

    def place(
        self,
        histories: Sequence[np.ndarray],
        items: np.ndarray,
        *,
        own: Sequence[Own] | None = None,
        sample: bool = False,
        device: torch.device | str = "cpu",
    ) -> Placement:
        """Positions of histories and of a few items, for many users.

        What :meth:`both_positions` says of these items. Histories that are
        prefixes of the next one share one pass over the catalogue.

        Args:
            histories: item numbers in time order, M arrays, none empty.
            items: item numbers that each user is asked about, [M, K].
            own: all items of each training user, whose rows do not count.
            sample: the quantiles of catalogue bins come from :data:`SAMPLE`
                fixed items; positions move by a standard error below 0.006.
            device: computes the cosines.
        """
        own = own or [None] * len(histories)
        past: list[np.ndarray] = []
        scores = np.empty((*items.shape, 2))
        positions = np.empty_like(scores)
        reference = self._columns(self.known[:0])
        if self.bins == "catalogue":
            reference = self._sample if sample else self._catalogue
        reference = replace(reference, vectors=reference.vectors.to(device))
        for rows in _chains(histories, own):
            history, its = histories[rows[-1]], own[rows[-1]]
            lengths = [len(histories[row]) for row in rows]
            prefix = self.scores(history, own=its)
            known, found = self._look(
                history, lengths, items[rows], its, reference
            )
            for place, row in enumerate(rows):
                cut = lengths[place]
                maps = self._maps(known[:, place])
                past.append(
                    self._place([s[:cut] for s in prefix], history[:cut], maps)
                )
                scores[row] = found[:, place].T
                positions[row] = _positions(maps, scores[row].T, items[row])
        return Placement(past, scores, positions)

    def _look(
        self, history, lengths, items, own, reference
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw scores of the reference, [2, B, S], and of items, [2, B, K]."""
        weights = self._history_weights(history, lengths).T
        given = self.vectors[torch.from_numpy(history)]
        given = given.to(reference.vectors.device)

        def ask(columns: Columns) -> np.ndarray:
            expected = self.co_occurrence.log_items(
                history,
                weights,
                items=columns.items,
                owners=columns.owners,
                own=own,
            )
            vectors = columns.vectors.to(given.device)
            close = largest_cosines(given, lengths, vectors)
            close[:, columns.without_vector] = np.nan
            return np.stack([expected.T, close])

        known = ask(reference)
        distinct, where = np.unique(items, return_inverse=True)
        # an item of the reference has the very score that it has there
        place, there = find(reference.items, distinct)
        found = np.empty((2, len(lengths), len(distinct)))
        found[:, :, there] = known[:, :, place[there]]
        found[:, :, ~there] = ask(self._columns(distinct[~there]))
        where = np.stack([where.reshape(items.shape)] * 2)
        return known, np.take_along_axis(found, where, axis=2)

    @cached_property
    def placed(self) -> dict[str, Placement]:
        """What ``portrait.grid.place_training`` found, for all who ask."""
        return {}

    @cached_property
    def known(self) -> np.ndarray:
        """Numbers of the items that have a vector, ascending."""
        return np.flatnonzero(has_vector(self.vectors).numpy())

    @cached_property
    def _catalogue(self) -> Columns:
        return self._columns(self.known)

    @cached_property
    def _sample(self) -> Columns:
        if len(self.known) <= SAMPLE:
            return self._catalogue
        chosen = np.random.default_rng(0).permutation(len(self.known))
        return self._columns(np.sort(self.known[chosen[:SAMPLE]]))

    def _columns(self, items: np.ndarray) -> Columns:
        vectors = self.vectors[1:]
        if len(items) < len(vectors):  # all of them need not be copied
            vectors = self.vectors[torch.from_numpy(items)]
        owners = self.co_occurrence.owners[items]
        return Columns(items, vectors, owners, ~has_vector(vectors).numpy())

    def _history_weights(
        self, history: np.ndarray, rows: Sequence[int] | None = None
    ) -> np.ndarray:
        known = None
        if self.weights == "similarity":
            known = self.vectors[torch.as_tensor(history)].numpy()
        return history_weights(len(history), self.weights, known, rows)

    def _maps(self, known: Iterable[np.ndarray]) -> list[QuantileMap]:
        """Quantile maps of both axes, given scores of the reference."""
        if self.bins != "catalogue":
            return [self.expectedness_map, self.relevance_map]
        # all of them, not a thinned reference: with the whole catalogue
        # rows and columns of the grid hold the same number of items, but
        # for ties
        return [QuantileMap.whole(score) for score in known]

    @staticmethod
    def _place(scores, history, maps) -> np.ndarray:
        placed = _positions(maps, scores, history)
        placed[:1] = 1.0  # the first item is the anchor (Sec. 4.2)
        return placed


def _positions(maps, scores, items: np.ndarray) -> np.ndarray:
    """Positions [K, 2] of items, from both maps and both scores."""
    keys = item_keys(items)
    return np.stack(
        [
            quantiles.positions(score, keys)
            for quantiles, score in zip(maps, scores, strict=True)
        ],
        axis=1,
    )


def _chains(
    histories: Sequence[np.ndarray], own: Sequence[Own]
) -> Iterator[list[int]]:
    """Runs of rows of one user in which each history begins the next one."""
    rows: list[int] = []
    for row, history in enumerate(histories):
        if rows:
            last = histories[rows[-1]]
            same = own[row] is own[rows[-1]]
            begins = np.array_equal(history[: len(last)], last)
            if not (same and begins) or len(rows) == CHAIN:
                yield rows
                rows = []
        rows.append(row)
    if rows:
        yield rows


def rasterise(
    items: Tensor, cells: Tensor, vectors: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """Dense portraits of a batch from the sparse form (App. B).

    Of items [B, n], 0 is padding, in cells (expectedness, relevance)
    [B, n, 2] those of one cell are averaged; items whose vector, [N + 1, d],
    is zero are left out.

    Returns:
        portraits [B, d, L, L] and counts of items per cell [B, L, L].
    """
    batch = len(items)
    given = vectors[items]
    real = ((items > 0) & has_vector(given)).to(vectors.dtype)
    offset = torch.arange(batch, device=items.device)[:, None] * side * side
    places = (cell_number(cells, side) + offset).reshape(-1)
    sums = vectors.new_zeros(batch * side * side, vectors.shape[1])
    sums.index_add_(0, places, (given * real[..., None]).flatten(0, 1))
    counts = vectors.new_zeros(batch * side * side)
    counts.index_add_(0, places, real.reshape(-1))
    means = sums / counts.clamp(min=1.0)[:, None]
    grid = means.view(batch, side, side, -1).permute(0, 3, 1, 2)
    return grid.contiguous(), counts.view(batch, side, side)


@dataclass(frozen=True)
class Portraits:
    """Portraits of many users, stored sparsely.

    Attributes:
        items: item numbers, left-padded with 0, [M, n].
        positions: in [0, 1], float64, [M, n, 2]; padding has 0.
    """

    items: Tensor
    positions: Tensor

    def __len__(self) -> int:
        """Number of portraits M."""
        return len(self.items)

    def part(self, index: Tensor, device: torch.device | str) -> Portraits:
        """The portraits of the rows ``index``, on ``device``."""
        return Portraits(
            self.items[index].to(device), self.positions[index].to(device)
        )

    def cells(self, side: int) -> Tensor:
        """Grid indices on an L x L grid, int64, [M, n, 2]."""
        return cell_of(self.positions, side)

    def dense(
        self, index: Tensor, vectors: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """Dense portraits of the rows ``index``: see :func:`rasterise`."""
        cells = cell_of(self.positions[index], side)
        return rasterise(self.items[index], cells, vectors, side)
