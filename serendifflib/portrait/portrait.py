"""User portraits: positions, cells and the image-like tensor (Sec. 4.2).

A history item sits at (expectedness, relevance), both as quantile positions
in [0, 1]; the first item sits at the anchor (1, 1). An L x L grid cuts the
plane into cells; the items of a cell are averaged, their vector is the
"colour" of the cell, so that a portrait is a tensor [B, d, L, L] whose first
grid axis is expectedness and second is relevance (index L-1 = high).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from serendifflib.errors import ConfigError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import Isotropy
from serendifflib.portrait.scores import (
    CoOccurrence,
    MinMax,
    history_weights,
    relevance_catalogue,
    relevance_prefix,
)

BINS = ("interactions", "catalogue")
GOLDEN = 0.6180339887498949
REFERENCE = 10_001  # quantiles that stand for the training scores
DECIMALS = 9  # scores that differ by less differ by rounding: they are tied


@dataclass(frozen=True)
class QuantileMap:
    """Maps a score to its position among reference scores (App. B).

    A score that many reference values share is spread evenly over the range
    of positions that they fill, by the fixed ``key`` of the item: ties (most
    items never co-occur with a history) would otherwise collapse the bins.

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

    def positions(self, scores: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Positions in [0, 1] of ``scores``, shape [n]."""
        if not len(self.reference):
            return np.full(len(scores), 0.5)
        scores = _rounded(scores)
        low = np.searchsorted(self.reference, scores, side="left")
        high = np.searchsorted(self.reference, scores, side="right")
        return (low + keys * (high - low)) / len(self.reference)


def _rounded(scores: np.ndarray) -> np.ndarray:
    return np.round(scores, DECIMALS)


def item_keys(items: np.ndarray) -> np.ndarray:
    """A fixed number in [0, 1) per item number, evenly spread."""
    return np.mod(np.asarray(items) * GOLDEN, 1.0)


def cell_of(positions: np.ndarray, side: int) -> np.ndarray:
    """Grid indices of positions in [0, 1]; position 1 is in the last cell.

    Args:
        positions: [..., 2] or any shape.
        side: L.

    Returns:
        int64 of the same shape, values 0..L-1.
    """
    cells = np.floor(np.asarray(positions) * side).astype(np.int64)
    return np.clip(cells, 0, side - 1)


@dataclass(frozen=True)
class PortraitSpace:
    """Everything that turns a history into positions on the plane.

    Fitted on the training users of a fold; users themselves are known only
    by their histories.

    Attributes:
        co_occurrence: counts behind expectedness.
        vectors: unit item vectors after the isotropy step, [N + 1, d].
        bins: ``interactions`` - one pair of quantile maps, fitted on the
            scores of all training interactions; ``catalogue`` - quantiles of
            this user's scores over all items.
        weights: p(i_h | T), see ``scores.history_weights``.
        relevance_range: min-max scaling of Eq. 8, fitted on training.
        expectedness_map, relevance_map: maps of ``interactions`` bins.
    """

    co_occurrence: CoOccurrence
    vectors: torch.Tensor
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

        Raises:
            ConfigError: an option has an unknown value.
        """
        transform = Isotropy.fit(fold.raw_vectors, fold.train_items, isotropy)
        return cls.from_histories(
            fold.training_histories(),
            transform.apply(fold.raw_vectors),
            bins=bins,
            weights=weights,
            mu=mu,
        )

    @classmethod
    def from_histories(
        cls,
        histories: Sequence[np.ndarray],
        vectors: torch.Tensor,
        *,
        bins: str = "interactions",
        weights: str = "uniform",
        mu: float = 1.0,
    ) -> PortraitSpace:
        """The same from plain arrays: item numbers of each training user."""
        if bins not in BINS:
            raise ConfigError(
                f"unknown bins {bins!r}: choose one of {', '.join(BINS)}"
            )
        space = cls(
            CoOccurrence.fit(histories, len(vectors) - 1, mu=mu),
            vectors,
            bins,
            weights,
            MinMax(0.0, 1.0),
            QuantileMap(np.zeros(0)),
            QuantileMap(np.zeros(0)),
        )
        pairs = [space.scores(history, own=history) for history in histories]
        expectedness = np.concatenate([np.zeros(0), *(p[0] for p in pairs)])
        relevance = np.concatenate([np.zeros(0), *(p[1] for p in pairs)])
        return cls(
            space.co_occurrence,
            vectors,
            bins,
            weights,
            MinMax.fit(relevance),
            QuantileMap.fit(expectedness),
            QuantileMap.fit(relevance),
        )

    def scores(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw scores of each history item given the items before it.

        Returns:
            log-expectedness [n] and cosine relevance [n]; first is NaN.
        """
        weights = self._history_weights(history)[:-1]
        return (
            self.co_occurrence.log_prefix(history, own=own, weights=weights),
            relevance_prefix(history, self.vectors),
        )

    def catalogue_scores(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw scores of every catalogue item given the whole history.

        Returns:
            log-expectedness [N + 1] and cosine relevance [N + 1].
        """
        weights = self._history_weights(history)[-1]
        return (
            self.co_occurrence.log_catalogue(
                history, own=own, weights=weights
            ),
            relevance_catalogue(history, self.vectors),
        )

    def positions(
        self,
        history: np.ndarray,
        *,
        own: np.ndarray | None = None,
        catalogue: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Positions of the history items, [n, 2]; the first is (1, 1).

        ``catalogue``: the :meth:`catalogue_scores`, where they are at hand.
        """
        maps = (self.expectedness_map, self.relevance_map)
        if self.bins == "catalogue":
            if catalogue is None:
                catalogue = self.catalogue_scores(history, own=own)
            maps = self._catalogue_maps(catalogue)
        return self._place(self.scores(history, own=own), history, maps)

    def catalogue_positions(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> np.ndarray:
        """Positions of all items for this history, [N + 1, 2]."""
        return self.both_positions(history, own=own)[1]

    def both_positions(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the history [n, 2] and of the catalogue [N + 1, 2]."""
        catalogue = self.catalogue_scores(history, own=own)
        maps = (self.expectedness_map, self.relevance_map)
        if self.bins == "catalogue":
            maps = self._catalogue_maps(catalogue)
        items = np.arange(len(self.vectors))
        everything = np.stack(
            [
                quantiles.positions(score, item_keys(items))
                for quantiles, score in zip(maps, catalogue, strict=True)
            ],
            axis=1,
        )
        past = self._place(self.scores(history, own=own), history, maps)
        return past, everything

    def _history_weights(self, history: np.ndarray) -> np.ndarray:
        known = None
        if self.weights == "similarity":
            known = self.vectors[torch.as_tensor(history)].numpy()
        return history_weights(len(history), self.weights, known)

    @staticmethod
    def _catalogue_maps(scores) -> tuple[QuantileMap, QuantileMap]:
        # all of the catalogue, not a thinned reference: with it each row
        # and column of the grid holds the same number of items, up to ties
        return tuple(  # type: ignore
            QuantileMap(np.sort(_rounded(score[1:]))) for score in scores
        )

    @staticmethod
    def _place(scores, history, maps) -> np.ndarray:
        keys = item_keys(history)
        placed = np.stack(
            [
                quantiles.positions(score, keys)
                for quantiles, score in zip(maps, scores, strict=True)
            ],
            axis=1,
        )
        placed[:1] = 1.0  # the first item is the anchor (Sec. 4.2)
        return placed


def rasterise(
    items: torch.Tensor,
    cells: torch.Tensor,
    vectors: torch.Tensor,
    side: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense portraits of a batch from the sparse form (App. B).

    Items that share a cell are averaged.

    Args:
        items: item numbers, 0 is padding, [B, n].
        cells: grid indices (expectedness, relevance), [B, n, 2].
        vectors: item vectors, [N + 1, d].
        side: L.

    Returns:
        portraits [B, d, L, L] and counts of items per cell [B, L, L].
    """
    batch = len(items)
    real = (items > 0).to(vectors.dtype)
    flat = cells[..., 0] * side + cells[..., 1]
    offset = torch.arange(batch, device=items.device)[:, None] * side * side
    places = (flat + offset).reshape(-1)
    sums = vectors.new_zeros(batch * side * side, vectors.shape[1])
    sums.index_add_(
        0, places, (vectors[items] * real[..., None]).flatten(0, 1)
    )
    counts = vectors.new_zeros(batch * side * side)
    counts.index_add_(0, places, real.reshape(-1))
    means = sums / counts.clamp(min=1.0)[:, None]
    grid = means.view(batch, side, side, -1).permute(0, 3, 1, 2)
    return grid.contiguous(), counts.view(batch, side, side)


@dataclass(frozen=True)
class Portraits:
    """Portraits of many users, stored sparsely: items and positions.

    Attributes:
        items: item numbers, left-padded with 0, [M, n].
        positions: positions in [0, 1], float64, [M, n, 2]; padding has 0.
    """

    items: torch.Tensor
    positions: torch.Tensor

    def __len__(self) -> int:
        """Number of portraits M."""
        return len(self.items)

    def part(
        self, index: torch.Tensor, device: torch.device | str
    ) -> Portraits:
        """The portraits of the rows ``index``, on ``device``."""
        return Portraits(
            self.items[index].to(device), self.positions[index].to(device)
        )

    def cells(self, side: int) -> torch.Tensor:
        """Grid indices on an L x L grid, int64, [M, n, 2]."""
        return (self.positions * side).long().clamp(0, side - 1)

    def dense(
        self, index: torch.Tensor, vectors: torch.Tensor, side: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense portraits of the rows ``index``: see :func:`rasterise`."""
        cells = (self.positions[index] * side).long().clamp(0, side - 1)
        return rasterise(self.items[index], cells, vectors, side)
