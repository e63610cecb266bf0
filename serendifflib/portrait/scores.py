"""Expectedness (Eq. 7, 13, 14) and relevance (Eq. 8) of items.

Expectedness is p(i | T), the likelihood of seeing item i after history T. It
mixes p(i | j) over the items j of the history; p(i | j) is a co-occurrence
share, smoothed with the popularity of i (Dirichlet, mass ``mu``), because
most pairs never occur together. All of it is computed in float64 and kept as
a logarithm: only the order of the values matters later.

No N x N table is ever made. With X the users x items matrix of the training
users, the counts of a history are two sparse products with X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
import torch

from serendifflib.errors import ConfigError
from serendifflib.portrait.items import unit_rows

WEIGHTS = ("uniform", "recency", "similarity")
RECENCY = 0.9  # weight of an item falls by this factor per step into the past
TEMPERATURE = 0.1  # of the softmax over cosines
BLOCK = 1024  # catalogue items compared at a time


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

        Args:
            histories: item numbers 1..N of each training user.
            n_items: N.
            mu: Dirichlet mass, at least 0.

        Raises:
            ConfigError: ``mu`` is negative.
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

    @property
    def n_items(self) -> int:
        """Number of items N."""
        return self.matrix.shape[1] - 1

    @cached_property
    def _by_item(self) -> scipy.sparse.csc_array:
        # X by columns: taking the columns of a history is then quick
        return self.matrix.tocsc()

    @property
    def popularity(self) -> np.ndarray:
        """Background p_bg(i), sums to 1, shape [N + 1] (padding has 0)."""
        return self._popularity(None)

    def _popularity(self, own: np.ndarray | None) -> np.ndarray:
        # one is added to every count: an item that no training user has
        # must not get probability zero, its logarithm is needed
        counts = self.users_of + 1.0
        counts[0] = 0.0
        if own is not None:
            counts[own] -= 1.0
        return counts / counts.sum()

    def _denominator(
        self, history: np.ndarray, own: np.ndarray | None
    ) -> np.ndarray:
        """n(., j) + mu of each history item, without the user's own rows."""
        totals = self.pairs[history].copy()
        if own is not None:
            totals -= np.isin(history, own) * (len(own) - 1.0)
        return totals + self.mu

    def log_catalogue(
        self,
        history: np.ndarray,
        *,
        own: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log p(i | T) of every item of the catalogue (Eq. 14).

        Args:
            history: item numbers of T, shape [n], n >= 1.
            own: all items of this user, if the user is one of the training
                users; their own row is then not counted (leave one out).
            weights: p(i_h | T), shape [n], sums to 1; None is uniform.

        Returns:
            float64, shape [N + 1]; padding has -inf. With ``mu=0`` an item
            that never co-occurs has -inf too.
        """
        history = np.asarray(history, dtype=np.int64)
        own = None if own is None else np.unique(own)
        if weights is None:
            weights = np.full(len(history), 1.0 / len(history))
        share = _divide(weights, self._denominator(history, own))
        row = np.bincount(history, share, minlength=self.n_items + 1)
        # sum_j share_j n(i, j): first to the users, then back to the items
        gross = np.asarray(self.matrix.T @ (self.matrix @ row)).ravel()
        # an item does not co-occur with itself
        sums = gross - row * self.users_of
        if own is not None:
            mine = np.isin(history, own)
            sums[own] -= share[mine].sum()
            np.add.at(sums, history[mine], share[mine])
        sums[sums < 1e-11 * gross] = 0.0  # what rounding leaves of nothing
        background = self._popularity(own) * self.mu * share.sum()
        with np.errstate(divide="ignore"):
            return np.log(sums + background)

    def pair_probability(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> np.ndarray:
        """p(i_m | i_h) for all pairs of one history, shape [n, n].

        Row m is the item that is seen, column h the item that is given.
        """
        history = np.asarray(history, dtype=np.int64)
        own = None if own is None else np.unique(own)
        part = self._by_item[:, history]
        counts = np.asarray((part.T @ part).todense())
        if own is not None:
            mine = np.isin(history, own).astype(float)
            counts -= np.outer(mine, mine)
        counts[history[:, None] == history[None, :]] = 0.0
        background = self._popularity(own)[history]
        return _divide(
            counts + self.mu * background[:, None],
            self._denominator(history, own)[None, :],
        )

    def log_prefix(
        self,
        history: np.ndarray,
        *,
        own: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log p(i_m | T[1:m-1]) of every item of a history (Eq. 13, 14).

        Only what comes before an item counts for it.

        Args:
            history: item numbers in time order, shape [n].
            own: see :meth:`log_catalogue`.
            weights: first n rows of :func:`history_weights`, [n, n]; None
                is uniform.

        Returns:
            float64, shape [n]; the first item has no past: NaN.
        """
        if weights is None:
            weights = history_weights(len(history))[:-1]
        pairs = self.pair_probability(history, own=own)
        with np.errstate(divide="ignore"):
            scores = np.log((weights * pairs).sum(axis=1))
        scores[:1] = np.nan
        return scores


def history_weights(
    n: int, kind: str = "uniform", vectors: np.ndarray | None = None
) -> np.ndarray:
    """p(i_h | T) for every prefix T of a history of n items.

    Args:
        n: length of the history.
        kind: ``uniform`` (1 / |T|, what the authors' own script does),
            ``recency`` (falls by 0.9 per step into the past) or
            ``similarity`` (softmax, temperature 0.1, of the cosine between
            i_h and the mean of T: typical items weigh more).
        vectors: vectors of the history items, [n, d], for ``similarity``.

    Returns:
        [n + 1, n]; row m holds the weights of the first m items and sums to
        1, row 0 (nothing seen yet) is zero, row n weighs the whole history.

    Raises:
        ConfigError: ``kind`` is not known.
    """
    rows, columns = np.arange(n + 1)[:, None], np.arange(n)[None, :]
    if kind == "uniform":
        logits = np.zeros((n + 1, n))
    elif kind == "recency":
        logits = (columns - rows) * -np.log(RECENCY)
    elif kind == "similarity":
        known = np.asarray(vectors, dtype=np.float64)
        means = unit_rows(np.cumsum(known, axis=0))
        logits = np.zeros((n + 1, n))
        logits[1:] = means @ unit_rows(known).T / TEMPERATURE
    else:
        raise ConfigError(
            f"unknown weights {kind!r}: choose one of {', '.join(WEIGHTS)}"
        )
    past = columns < rows
    logits = np.where(past, logits, -np.inf)
    peak = logits.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isfinite(peak), peak, 0.0))
    return _divide(weights, weights.sum(axis=1, keepdims=True))


def relevance_prefix(history: np.ndarray, vectors: torch.Tensor) -> np.ndarray:
    """Largest cosine of each item to the items before it (Eq. 8).

    Args:
        history: item numbers in time order, shape [n].
        vectors: unit item vectors, shape [N + 1, d].

    Returns:
        float64, shape [n], in [-1, 1]; the first item has no past: NaN.
    """
    cosines = history_cosines(history, vectors)
    past = np.tri(len(history), k=-1, dtype=bool)
    best = np.where(past, cosines, -np.inf).max(axis=1, initial=-np.inf)
    best[:1] = np.nan
    return best


def history_cosines(history: np.ndarray, vectors: torch.Tensor) -> np.ndarray:
    """Cosines between the items of a history, float64, [n, n]."""
    known = vectors[torch.as_tensor(np.asarray(history), dtype=torch.long)]
    known = known.double()  # so that rounding follows no shape of a matrix
    return (known @ known.T).numpy()


def relevance_catalogue(
    history: np.ndarray, vectors: torch.Tensor
) -> np.ndarray:
    """Largest cosine of every catalogue item to a history (Eq. 8).

    Args:
        history: item numbers, shape [n], n >= 1.
        vectors: unit item vectors, shape [N + 1, d].

    Returns:
        float64, shape [N + 1], in [-1, 1]; padding has -inf.
    """
    given = vectors[torch.as_tensor(np.asarray(history), dtype=torch.long)]
    # in blocks that stay in the processor's cache
    best = torch.cat(
        [(given @ part.T).amax(dim=0) for part in vectors.split(BLOCK)]
    )
    scores = best.numpy().astype(np.float64)
    scores[0] = -np.inf
    return scores


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


def _divide(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Values / by, and 0 where ``by`` is 0 (an empty co-occurrence)."""
    values, by = np.broadcast_arrays(values, by)
    return np.divide(values, by, out=np.zeros(values.shape), where=by != 0)
