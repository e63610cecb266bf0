"""What all controls share, and the items that models learn against.

Shapes: B users in a batch, C candidates, N items, M examples, K negatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor

from serendifflib.baselines.sampling import item_vectors
from serendifflib.data.splits import Examples
from serendifflib.errors import ModelError
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
    """K items of a pool to learn against, with replacement, int64 [K].

    None is in ``avoid`` (the user's own). ``how``: ``uniform`` over the pool,
    or ``cells``: first a cell that is not empty, then an item of it, as
    candidate lists are made; that needs the flat cell of every item for the
    user, [N + 1].
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


def targets_and_negatives(
    grid: Grid,
    fold: FoldData,
    examples: Examples,
    own: Callable[[int], np.ndarray],
    count: int,
    how: str,
    generator: Generator,
) -> np.ndarray:
    """The target of each training example, then its negatives, [M, 1 + K].

    ``own`` gives, by user number, the items that are no negatives beside the
    target; for the rest see :func:`draw_negatives`.
    """
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    random = np.random.default_rng(seed)
    rows = []
    for row, (user, target) in enumerate(
        zip(examples.users.tolist(), examples.targets.tolist(), strict=True)
    ):
        cells = None
        if how == "cells":
            cells = grid.training_look(fold, examples, row).cells
        avoid = np.append(own(user), target)
        drawn = draw_negatives(
            cells, fold.catalogue, avoid, count, how, random
        )
        rows.append(np.append(target, drawn))
    return np.array(rows, dtype=np.int64).reshape(-1, 1 + count)


@dataclass(eq=False, kw_only=True)
class Control(ABC):
    """A control says what to ``_learn`` and how to ``_rate``.

    Attributes:
        grid: looks to share with other controls of the same fold.
        parameters: numbers that the last fit learned.
        chosen: options that the last fit chose on validation users.
    """

    name: ClassVar[str] = "a control"
    needs_grid: ClassVar[bool] = False
    grid: Grid | None = None
    parameters: int = field(default=0, init=False)
    chosen: dict[str, float | str] = field(default_factory=dict, init=False)
    n_items: int = field(default=0, init=False)

    def fit(self, fold: FoldData, *, generator: Generator) -> Self:
        """Learn from ``fold``; see the protocol."""
        self.n_items = fold.interactions.n_items
        self.vectors, self.pool = item_vectors(fold), fold.catalogue
        if self.needs_grid and self.grid is None:
            self.grid = Grid.of(fold)
        self._learn(fold, generator)
        return self

    def _learn(self, fold: FoldData, generator: Generator) -> None:
        """Nothing, unless a control says otherwise."""
        self.parameters = 0

    @abstractmethod
    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C] of a checked request."""

    def score(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C]; see the protocol.

        Raises:
            ModelError: not fitted, or a bad request.
        """
        if not self.n_items:
            raise ModelError(f"{self.name}: not fitted; call fit first")
        check_request(self.name, histories, candidates, self.n_items)
        return check_scores(self.name, self._rate(histories, candidates))


class UserControl(Control):
    """A control that rates one user at a time."""

    @abstractmethod
    def _rate_user(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores [C] of items [C], given a history without padding."""

    def _rate(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Scores [B, C], user by user."""
        rows = [
            self._rate_user(history[history > 0], items)
            for history, items in zip(
                histories.numpy(), candidates.numpy(), strict=True
            )
        ]
        return torch.from_numpy(np.array(rows))
