"""From raw scores to [0, 1]: min-max scaling, and quantile positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GOLDEN = 0.6180339887498949
REFERENCE = 10_001  # quantiles that stand for the training scores
DECIMALS = 9  # scores that differ by less differ by rounding: they are tied


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
    they are spread evenly over the positions that they fill, by the fixed
    ``key`` of the item.

    Attributes:
        reference: sorted finite scores, shape [R].
    """

    reference: np.ndarray

    @classmethod
    def fit(cls, scores: np.ndarray) -> QuantileMap:
        """Take the finite ``scores`` as the reference."""
        finite = np.sort(_rounded(scores[np.isfinite(scores)]))
        if len(finite) > REFERENCE:
            places = np.linspace(0, len(finite) - 1, REFERENCE).round()
            finite = finite[places.astype(np.int64)]
        return cls(finite)

    @classmethod
    def whole(cls, scores: np.ndarray) -> QuantileMap:
        """All ``scores`` but NaN are the reference, however many."""
        return cls(np.sort(_rounded(scores[~np.isnan(scores)])))

    def positions(self, scores: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Positions in [0, 1] of ``scores``, [n]; NaN is put in the middle."""
        if not len(self.reference):
            return np.full(len(scores), 0.5)
        order = np.argsort(scores, kind="stable")  # neighbours are found fast
        ordered = _rounded(scores[order])
        low = np.searchsorted(self.reference, ordered, side="left")
        high = np.searchsorted(self.reference, ordered, side="right")
        found = np.empty(len(scores))
        found[order] = low + keys[order] * (high - low)
        return np.where(np.isnan(scores), 0.5, found / len(self.reference))


def _rounded(scores: np.ndarray) -> np.ndarray:
    return np.round(scores, DECIMALS)


def item_keys(items: np.ndarray) -> np.ndarray:
    """A fixed number in [0, 1) per item number, evenly spread."""
    return np.mod(np.asarray(items) * GOLDEN, 1.0)
