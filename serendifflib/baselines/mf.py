"""Matrix factorisation with fold-in: the user embedding of Table 5.

Two models: ``implicit`` (weighted alternating least squares; Hu, Koren &
Volinsky 2008) and ``ratings`` (biased factorisation of the ratings). Both fit
on training users alone; any user is embedded from the history by one
least-squares solve, so no table is indexed by user.

Shapes: U users, N items, k factors, B users in a batch, n history length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from sklearn.linear_model import Ridge
from torch import Generator, Tensor

from serendifflib.baselines.base import Control
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData

MODES = ("implicit", "ratings")
CONFIDENCE = 10.0  # c: entries, 0 or 1 here, weigh 1 + c (40 for counts)
RIDGE = 10.0  # strength of the regression from texts to factors
BLOCK = 2_000  # users solved at once: BLOCK x k x k numbers in memory


@dataclass(eq=False, kw_only=True)
class MatrixFactorization(Control):
    """User and item factors by alternating least squares.

    An item that no training user has gets its factors by ridge regression
    from its text vector; without that it would be scored at chance.

    Attributes:
        mode: ``implicit`` or ``ratings``.
        factors: k.
        sweeps: alternations over users and items.
        regularization: lambda of the factors (and biases); None is 10 for
            ``implicit``, whose errors are summed over the whole catalogue
            with weights up to 1 + c, and 2 for ``ratings``.
    """

    name = "MF"
    mode: str = "implicit"
    factors: int = 64
    sweeps: int = 15
    regularization: float | None = None

    def __post_init__(self):
        check_choice("mode", self.mode, MODES, "MF")
        if self.regularization is None:
            self.regularization = 10.0 if self.mode == "implicit" else 2.0

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        """Factorise the rows of the training users, and no others.

        The generator draws the start values alone.
        """
        data, rows = fold.interactions, fold.training_rows
        users, compact = np.unique(data.user_index[rows], return_inverse=True)
        ratings = data.frame["rating"].to_numpy(dtype=np.float64)[rows]
        shape = (len(users), self.n_items + 1)
        places = (compact, data.item_index[rows])
        start = torch.randn(
            (self.n_items + 1, self.factors),
            generator=generator,
            dtype=torch.float64,
        )
        start = 0.1 * start.numpy()
        start[0] = 0.0
        counts = scipy.sparse.csr_array((np.ones(len(rows)), places), shape)
        sums = scipy.sparse.csr_array((ratings, places), shape)
        # of an item that a user rated twice the mean counts
        sums.data /= counts.data
        self.item_ratings = item_means(sums)
        self.item_bias = np.zeros(self.n_items + 1)
        self.mean = float(sums.data.mean())
        if self.mode == "implicit":
            sums.data[:], self.mean = 1.0, 0.0
        self.item_factors = start
        turned = scipy.sparse.csr_array(sums.T)
        for _ in range(self.sweeps):
            found = self._solve(sums, self.item_bias, self.item_factors)
            self.item_bias, self.item_factors = self._solve(turned, *found)
        self.known = np.asarray(counts.sum(axis=0)).ravel() > 0
        self._warm_up(self.vectors.double().numpy())
        embedded = self._users(sums)
        spread = np.maximum(embedded.std(axis=0), 1e-9)
        self.standard = embedded.mean(axis=0), spread
        self.parameters = self.n_items * (self.factors + 1)

    def _solve(
        self,
        matrix: scipy.sparse.csr_array,
        biases: np.ndarray,
        factors: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Biases [M] and factors [M, k] of the rows, given the columns'."""
        strength = self.regularization
        if self.mode == "implicit":
            found = solve_implicit(matrix, factors, CONFIDENCE, strength)
            return np.zeros(len(found)), found
        found = solve_rows(matrix, factors, biases + self.mean, strength)
        return found[:, 0], found[:, 1:]

    def _users(self, matrix: scipy.sparse.csr_array) -> np.ndarray:
        """Factors of users by their rows, [M, k]."""
        return self._solve(matrix, self.item_bias, self.item_factors)[1]

    def _warm_up(self, texts: np.ndarray) -> None:
        """Factors of items without training rows, from their text."""
        outputs = np.column_stack([self.item_factors, self.item_bias])
        known, cold = texts[self.known], ~self.known
        found = Ridge(alpha=RIDGE).fit(known, outputs[self.known])
        outputs[cold] = found.predict(texts[cold])
        outputs[0] = 0.0
        self.item_factors, self.item_bias = outputs[:, :-1], outputs[:, -1]

    def embed(self, histories: Tensor) -> Tensor:
        """User factors [B, k] of histories [B, n] by fold-in, standardised.

        p_u = (Q_T' Q_T + lambda I)^-1 Q_T' (r_T - mu - b_i - b_u), with the
        user's bias solved jointly. A history carries no ratings, so in mode
        ``ratings`` an item counts with the mean rating that it got. Without
        the standardisation the norm would tell a user's activity.
        """
        mean, spread = self.standard
        factors = (self._fold_in(histories) - mean) / spread
        return torch.from_numpy(factors.astype(np.float32))

    def _fold_in(self, histories: Tensor) -> np.ndarray:
        """User factors of histories [B, n], float64 [B, k]."""
        items = histories.numpy()
        rows, columns = np.nonzero(items)
        chosen = items[rows, columns]
        shape = (len(items), self.n_items + 1)
        matrix = scipy.sparse.csr_array(
            (np.ones(len(rows)), (rows, chosen)), shape
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        if self.mode == "ratings":
            matrix.data[:] = self.item_ratings[matrix.indices]
        return self._users(matrix)

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """<p_u, q_i> + b_i of candidates, [B, C]."""
        users = self._fold_in(histories)
        items = candidates.numpy()
        scores = np.einsum("bk,bck->bc", users, self.item_factors[items])
        scores += self.item_bias[items]
        return torch.from_numpy(scores.astype(np.float32))


def item_means(matrix: scipy.sparse.csr_array) -> np.ndarray:
    """Mean rating of each item [N + 1]; where none, the overall mean."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    sums = np.bincount(matrix.indices, matrix.data, minlength=matrix.shape[1])
    means = np.full(matrix.shape[1], matrix.data.mean())
    return np.divide(sums, counts, out=means, where=counts > 0)


def solve_implicit(
    matrix: scipy.sparse.csr_array,
    factors: np.ndarray,
    confidence: float,
    regularization: float,
) -> np.ndarray:
    """Implicit ALS, one side: x of every row, [rows, k].

    Minimises ``sum_i c_i (r_i - x'y_i)^2 + lambda |x|^2`` per row, over ALL
    columns with factors Y [columns, k], with r = 1, c = 1 + conf on entries
    of ``matrix`` and r = 0, c = 1 elsewhere:
    x = (Y'Y + conf Y_s'Y_s + lambda I)^-1 (1 + conf) Y_s'1.
    """
    k = factors.shape[1]
    common = factors.T @ factors + regularization * np.eye(k)

    def system(
        columns: np.ndarray, _: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        own = factors[columns]
        left = common + confidence * (own.T @ own)
        return left, (1.0 + confidence) * own.sum(axis=0)

    return _solve_each(matrix, k, system)


def solve_rows(
    matrix: scipy.sparse.csr_array,
    factors: np.ndarray,
    offsets: np.ndarray,
    regularization: float,
) -> np.ndarray:
    """Explicit ALS, one side: (b, x) of every row, [rows, 1 + k].

    Minimises, per row, the sum over the ratings r of ``(r_i - o_i - b -
    x'y_i)^2``, plus ``lambda (b^2 + |x|^2)``, for column factors Y
    [columns, k] and offsets o [columns].
    """
    extended = np.concatenate([np.ones((len(factors), 1)), factors], axis=1)
    k = extended.shape[1]
    common = regularization * np.eye(k)

    def system(
        columns: np.ndarray, ratings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        own = extended[columns]
        return common + own.T @ own, own.T @ (ratings - offsets[columns])

    return _solve_each(matrix, k, system)


def _solve_each(
    matrix: scipy.sparse.csr_array,
    k: int,
    system: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Solve one k x k system per row, in blocks that fit in memory."""
    n_rows = matrix.shape[0]
    solved = np.zeros((n_rows, k))
    for start in range(0, n_rows, BLOCK):
        stop = min(start + BLOCK, n_rows)
        left = np.empty((stop - start, k, k))
        right = np.empty((stop - start, k, 1))
        for row in range(start, stop):
            part = slice(matrix.indptr[row], matrix.indptr[row + 1])
            left[row - start], right[row - start, :, 0] = system(
                matrix.indices[part], matrix.data[part]
            )
        solved[start:stop] = np.linalg.solve(left, right)[..., 0]
    return solved
