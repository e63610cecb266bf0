"""What all controls share, and the items that models learn against.

Shapes: B users in a batch, C candidates, N items, K negatives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch

from serendifflib.baselines.sequences import item_vectors
from serendifflib.errors import ConfigError, ModelError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.grid import Grid
from serendifflib.recommender import check_request, check_scores

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
