"""Expectedness (Eq. 7, 13, 14) and relevance (Eq. 8) of items, and scales.

Expectedness is p(i | T), the likelihood of seeing item i after history T. It
mixes p(i | j) over the items j of the history; p(i | j) is a co-occurrence
share, smoothed with the popularity of i (Dirichlet, mass ``mu``), because
most pairs never occur together. It is a logarithm in float64: only the order
matters later. No N x N table is made: with X the users x items matrix of the
training users, the counts of a history are two sparse products with X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from serendifflib.errors import ConfigError, check_choice
from serendifflib.portrait.encoding import unit_rows

# Items of a training user, whose own row is not counted; None of others.
Own = np.ndarray | None
WEIGHTS = ("uniform", "recency", "similarity")
RECENCY = 0.9  # weight of an item falls by this factor per step into the past
TEMPERATURE = 0.1  # of the softmax over cosines
BLOCK = 1024  # catalogue items compared at a time: they stay in the cache
LONG = 4096  # items of a history up to which its cosines are in float64
ROWS = 512  # of a history that are compared with what came before
GOLDEN = 0.6180339887498949
REFERENCE = 10_001  # quantiles that stand for the training scores
DECIMALS = 9  # scores that differ by less differ by rounding: they are tied


@dataclass(frozen=True)
class CoOccurrence:
    """Co-occurrence of items in the histories of training users.

    Attributes:
        matrix: X, users x (N + 1), 1 where the user has the item.
        users_of: number of training users that have the item, [N + 1].
        pairs: n(., j), co-occurrences of j with any other item, [N + 1].
        mu: mass of the popularity background in p(i | j); 0 is the plain
            Eq. 14.
    """

    matrix: scipy.sparse.csr_array
    users_of: np.ndarray
    pairs: np.ndarray
    mu: float = 1.0

    @classmethod
    def fit(
        cls, histories: Sequence[np.ndarray], n_items: int, *, mu: float = 1.0
    ) -> CoOccurrence:
        """Count over the whole histories of the training users.

        ``histories`` are item numbers 1..N of each; ``mu`` is the Dirichlet
        mass, at least 0 (else a ConfigError).
        """
        if mu < 0:
            raise ConfigError(f"mu must not be negative, got {mu}")
        sizes = np.array([len(h) for h in histories], dtype=np.int64)
        items = np.concatenate([*histories, np.zeros(0, dtype=np.int64)])
        users = np.repeat(np.arange(len(histories)), sizes)
        matrix = scipy.sparse.csr_array(
            (np.ones(len(items)), (users, items.astype(np.int64))),
            shape=(len(histories), n_items + 1),
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1.0  # "has the item", however often
        return cls.from_matrix(matrix, mu)

    @classmethod
    def from_matrix(
        cls, matrix: scipy.sparse.csr_array, mu: float
    ) -> CoOccurrence:
        """The counts that follow from the users x items matrix X."""
        others = np.asarray(matrix.sum(axis=1)).ravel() - 1.0
        return cls(
            matrix,
            np.asarray(matrix.sum(axis=0)).ravel(),
            np.asarray(matrix.T @ others).ravel(),
            mu,
        )

    def part(self, rows: np.ndarray) -> CoOccurrence:
        """The counts among some items: ascending numbers, first the 0."""
        return self.from_matrix(self.matrix[:, rows], self.mu)

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return self.matrix.shape[1] - 1

    @cached_property
    def owners(self) -> scipy.sparse.csr_array:
        """Who has each item: X by items, [N + 1, users]."""
        return self.matrix.T.tocsr()

    @property
    def popularity(self) -> np.ndarray:
        """Background p_bg(i), sums to 1, shape [N + 1] (padding has 0)."""
        return self._popularity(None)

    def _popularity(self, own: Own) -> np.ndarray:
        # one is added to every count: an item that no training user has
        # must not get probability zero, its logarithm is needed
        counts = self.users_of + 1.0
        counts[0] = 0.0
        if own is not None:
            counts[own] -= 1.0
        return counts / counts.sum()

    def _denominator(self, history: np.ndarray, own: Own) -> np.ndarray:
        """n(., j) + mu of each history item, without the user's own rows."""
        totals = self.pairs[history].copy()
        if own is not None:
            totals -= np.isin(history, own) * (len(own) - 1.0)
        return totals + self.mu

    def log_catalogue(
        self,
        history: np.ndarray,
        *,
        own: Own = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log p(i | T) of every catalogue item (Eq. 14), float64 [N + 1].

        Args:
            history: item numbers of T, shape [n], n >= 1.
            own: all items of a training user, whose own row is then not
                counted (leave one out).
            weights: p(i_h | T), shape [n], sums to 1; None is uniform.

        Returns:
            -inf for padding and, with ``mu=0``, for what never co-occurs.
        """
        if weights is None:
            weights = np.full(len(history), 1.0 / max(1, len(history)))
        return self.log_items(history, weights[:, None], own=own)[:, 0]

    def log_items(
        self,
        history: np.ndarray,
        weights: np.ndarray,
        *,
        items: np.ndarray | None = None,
        owners: scipy.sparse.csr_array | None = None,
        own: Own = None,
    ) -> np.ndarray:
        """Log p(i | T) of some items for B histories of one user, [K, B].

        Args:
            history: item numbers of the longest T, shape [n].
            weights: p(i_h | T), a column per history, [n, B]; what is not
                in a history weighs 0.
            items: the items i, ascending, [K]; None is all of 0..N.
            owners: rows ``items`` of :attr:`owners`, where they are at hand.
            own: see :meth:`log_catalogue`.
        """
        history = np.asarray(history, dtype=np.int64)
        own = None if own is None else np.unique(own)
        if items is None:
            items, owners = np.arange(self.n_items + 1), self.owners
        elif owners is None:
            owners = self.owners[items]
        weights = np.asarray(weights, dtype=np.float64)
        share = _divide(weights, self._denominator(history, own)[:, None])
        # sum_j share_j n(i, j): first to the users, then back to the items
        gross = owners @ (self.owners[history].T @ share)
        sums = gross.copy()
        # an item does not co-occur with itself
        place, asked = find(items, history)
        itself = share * self.users_of[history][:, None]
        np.subtract.at(sums, place[asked], itself[asked])
        if own is not None:
            mine = np.isin(history, own)
            rows, known = find(items, own)
            sums[rows[known]] -= share[mine].sum(axis=0)
            np.add.at(sums, place[asked & mine], share[asked & mine])
        sums[sums < 1e-11 * gross] = 0.0  # what rounding leaves of nothing
        background = self._popularity(own)[items] * self.mu
        with np.errstate(divide="ignore"):
            return np.log(sums + background[:, None] * share.sum(axis=0))

    def log_prefix(
        self,
        history: np.ndarray,
        *,
        own: Own = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log p(i_m | T[1:m-1]) of every history item (Eq. 13, 14), [n].

        ``weights`` are the first n rows of :func:`history_weights`; None is
        uniform. The first item has no past: NaN.
        """
        history = np.asarray(history, dtype=np.int64)
        if weights is None:
            with np.errstate(divide="ignore"):
                scores = np.log(self._uniform_prefix(history, own))
        else:
            items, place = np.unique(history, return_inverse=True)
            table = self.log_items(history, weights.T, items=items, own=own)
            scores = table[place, np.arange(len(history))]
        scores[:1] = np.nan
        return scores

    def _uniform_prefix(self, history: np.ndarray, own: Own) -> np.ndarray:
        """Mean of p(i_m | i_h) over the earlier h, without all pairs, [n].

        n(i_m, i_h) sums over the users who have both, so the sum over h is a
        running total per user: n log n instead of n^2.
        """
        own = None if own is None else np.unique(own)
        share = _divide(np.ones(len(history)), self._denominator(history, own))
        part = self.owners[history]
        place = np.repeat(np.arange(len(history)), np.diff(part.indptr))
        before = _running(part.indices, share[place])
        gross = np.bincount(place, before, minlength=len(history))
        # an item does not co-occur with itself, nor within the user's rows
        sums = gross - _running(history, share) * self.users_of[history]
        if own is not None:
            mine = np.isin(history, own)
            total = np.cumsum(share * mine) - share * mine
            again = _running(history, share * mine)
            sums -= mine * (total - again)
        sums[sums < 1e-11 * gross] = 0.0  # what rounding leaves of nothing
        earlier = np.cumsum(share) - share
        background = self._popularity(own)[history] * self.mu
        return _divide(sums + background * earlier, np.arange(len(history)))


def history_weights(
    n: int,
    kind: str = "uniform",
    vectors: np.ndarray | None = None,
    rows: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """p(i_h | T) for every prefix T of a history of n items.

    Args:
        n: length of the history.
        kind: ``uniform`` (``1 / |T|``, what the authors' own script does),
            ``recency`` (falls by 0.9 per step into the past) or
            ``similarity`` (softmax, temperature 0.1, of the cosine between
            i_h and the mean of T).
        vectors: of the history items, [n, d], for ``similarity``.
        rows: lengths m of the prefixes that are asked for; None is 0..n.

    Returns:
        [n + 1, n], or the rows asked for; row m weighs the first m items
        and sums to 1 (row 0 is zero).
    """
    check_choice("weights", kind, WEIGHTS)
    rows = np.arange(n + 1) if rows is None else np.asarray(rows)
    rows, columns = rows[:, None], np.arange(n)[None, :]
    if kind == "uniform":
        logits = np.zeros((len(rows), n))
    elif kind == "recency":
        logits = (columns - rows) * -np.log(RECENCY)
    else:
        known = np.asarray(vectors, dtype=np.float64)
        totals = np.cumsum(known, axis=0)
        totals = np.concatenate([np.zeros((1, known.shape[1])), totals])
        means = unit_rows(totals[rows[:, 0]])
        logits = means @ unit_rows(known).T / TEMPERATURE
    past = columns < rows
    logits = np.where(past, logits, -np.inf)
    peak = logits.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(peak), peak, 0.0))
    return _divide(weights, weights.sum(axis=1, keepdims=True))


def relevance_prefix(history: np.ndarray, vectors: Tensor) -> np.ndarray:
    """Largest cosine of each item to the items before it (Eq. 8), float64 [n].

    Of unit item vectors [N + 1, d], where zeros are no vector; NaN where the
    item, or everything before it, has none.
    """
    history = torch.as_tensor(np.asarray(history), dtype=torch.long)
    known = vectors[history]
    if len(known) <= LONG:  # so that rounding follows no shape of a matrix
        known = known.double()
    real = has_vector(known)
    best = known.new_full((len(known),), -torch.inf)
    for start in range(0, len(known), ROWS):
        rows = slice(start, start + ROWS)
        cosines = known[rows] @ known[: start + ROWS].T
        past = torch.ones_like(cosines, dtype=torch.bool).tril(start - 1)
        cosines.masked_fill_(~(past & real[: start + ROWS]), -torch.inf)
        best[rows] = cosines.amax(dim=1)
    best[~real | torch.isinf(best)] = torch.nan
    return best.double().numpy()


def history_cosines(history: np.ndarray, vectors: Tensor) -> np.ndarray:
    """Cosines between the items of a history, float64, [n, n]."""
    known = vectors[torch.as_tensor(np.asarray(history), dtype=torch.long)]
    known = known.double()  # so that rounding follows no shape of a matrix
    return (known @ known.T).numpy()


def relevance_catalogue(history: np.ndarray, vectors: Tensor) -> np.ndarray:
    """Largest cosine of every catalogue item to a history [n] (Eq. 8).

    Of unit vectors [N + 1, d]; float64 [N + 1]; NaN for items without a
    vector, -inf for padding.
    """
    given = vectors[torch.as_tensor(np.asarray(history), dtype=torch.long)]
    scores = largest_cosines(given, [len(given)], vectors)[0]
    scores[~has_vector(vectors).numpy()] = np.nan
    scores[0] = -np.inf
    return scores


def largest_cosines(
    given: Tensor, lengths: Sequence[int], vectors: Tensor
) -> np.ndarray:
    """Largest cosines of K vectors to prefixes of a history, float64 [B, K].

    Of the history's vectors ``given``, [n, d], zeros are left out; ``lengths``
    are those of the prefixes, ascending, 1..n; ``vectors`` are unit vectors on
    the same device, [K, d]. NaN where nothing in a prefix has a vector.
    """
    real = has_vector(given)
    ends = real.cumsum(0)[torch.as_tensor(lengths) - 1].tolist()
    given, best = given[real], given.new_empty(len(ends), len(vectors))
    width = BLOCK if given.device.type == "cpu" else len(vectors)
    for start in range(0, len(vectors), max(1, width)):
        part = slice(start, start + width)
        cosines = given @ vectors[part].T
        running, begin = cosines.new_full((cosines.shape[1],), -torch.inf), 0
        for row, end in enumerate(ends):
            if end > begin:
                latest = cosines[begin:end].amax(dim=0)
                running, begin = torch.maximum(running, latest), end
            best[row, part] = running
    best[torch.isinf(best)] = torch.nan
    return best.cpu().numpy().astype(np.float64)


def has_vector(vectors: Tensor) -> Tensor:
    """Which rows of [..., d] are vectors: zeros stand for none."""
    return (vectors != 0).any(dim=-1)


def find(items: np.ndarray, wanted: np.ndarray):
    """Places of ``wanted`` in ascending ``items``, and which are there."""
    if not len(items):
        return np.zeros(len(wanted), dtype=int), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(items, wanted), len(items) - 1)
    return place, items[place] == wanted


def _running(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of the earlier ``values`` of the same group, [n] and [n] -> [n].

    >>> _running(np.array([7, 3, 7, 7]), np.array([1.0, 5.0, 2.0, 4.0]))
    array([0., 0., 1., 3.])
    """
    order = np.argsort(groups, kind="stable")
    # extended precision: a small sum is the difference of large ones
    ordered = values[order].astype(np.longdouble)
    total = np.cumsum(ordered) - ordered
    sizes = np.unique(groups, return_counts=True)[1]
    starts = np.cumsum(sizes) - sizes
    found = np.empty(len(values))
    found[order] = total - np.repeat(total[starts], sizes)
    return found


def _divide(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Values / by, and 0 where ``by`` is 0 (an empty co-occurrence)."""
    values, by = np.broadcast_arrays(values, by)
    return np.divide(values, by, out=np.zeros(values.shape), where=by != 0)


# ------------------------------------- from raw scores to [0, 1]


@dataclass(frozen=True)
class MinMax:
    """Min-max scaling to [0, 1], fitted on training values (Sec. 4.2)."""

    low: float
    high: float

    @classmethod
    def fit(cls, values: np.ndarray) -> MinMax:
        """Smallest and largest finite value."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls(0.0, 1.0)
        return cls(float(finite.min()), float(finite.max()))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Scaled values; those outside the training range are clipped."""
        width = max(self.high - self.low, 1e-12)
        return np.clip((values - self.low) / width, 0.0, 1.0)


@dataclass(frozen=True)
class QuantileMap:
    """Maps a score to its position among reference scores (App. B).

    Ties (most items never co-occur with a history) would collapse the bins:
    they are spread evenly over the positions that they fill, by the item's
    fixed ``key``. The ``reference`` are sorted finite scores, [R].
    """

    reference: np.ndarray

    @classmethod
    def fit(cls, scores: np.ndarray) -> QuantileMap:
        """Take the finite ``scores`` as the reference."""
        finite = np.sort(scores[np.isfinite(scores)].round(DECIMALS))
        if len(finite) > REFERENCE:
            places = np.linspace(0, len(finite) - 1, REFERENCE).round()
            finite = finite[places.astype(np.int64)]
        return cls(finite)

    @classmethod
    def whole(cls, scores: np.ndarray) -> QuantileMap:
        """All ``scores`` but NaN are the reference, however many."""
        return cls(np.sort(scores[~np.isnan(scores)].round(DECIMALS)))

    def positions(self, scores: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Positions in [0, 1] of ``scores``, [n]; NaN is put in the middle."""
        if not len(self.reference):
            return np.full(len(scores), 0.5)
        order = np.argsort(scores, kind="stable")  # neighbours are found fast
        ordered = scores[order].round(DECIMALS)
        low = np.searchsorted(self.reference, ordered, side="left")
        high = np.searchsorted(self.reference, ordered, side="right")
        found = np.empty(len(scores))
        found[order] = low + keys[order] * (high - low)
        return np.where(np.isnan(scores), 0.5, found / len(self.reference))


def item_keys(items: np.ndarray) -> np.ndarray:
    """A fixed number in [0, 1) per item number, evenly spread."""
    return np.mod(np.asarray(items) * GOLDEN, 1.0)
