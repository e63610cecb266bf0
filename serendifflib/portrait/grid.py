"""The grid of cells as users see it, for many models at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from serendifflib.data.splits import Examples
from serendifflib.io import content_hash
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.portrait import (
    Placement,
    PortraitSpace,
    cell_number,
    cell_of,
)
from serendifflib.portrait.scores import Own

MEMO_BYTES = 400_000_000  # what a grid may remember


@dataclass(frozen=True)
class Look:
    """Where one history puts its own items and the catalogue.

    Attributes:
        past: positions of the history items in [0, 1], float64 [n, 2].
        cells: flat cell of every item, e * L + r, integers [N + 1].
    """

    past: np.ndarray
    cells: np.ndarray


@dataclass(eq=False)
class Grid:
    """Cells of all items as a user sees them, remembered per history.

    Models that look at the same users share a grid: each user is placed once.
    The ``space`` has catalogue bins, as the candidates; ``side`` is L.
    """

    space: PortraitSpace
    side: int = 10
    _memo: dict[str, Look] = field(default_factory=dict, repr=False)
    _placed: dict[str, Placement] = field(default_factory=dict, repr=False)
    _bytes: int = field(default=0, repr=False)

    @classmethod
    def of(cls, fold: FoldData, side: int = 10) -> Grid:
        """The grid in which the candidates of ``fold`` are spread."""
        return cls(PortraitSpace.fit(fold, bins="catalogue"), side)

    def look(self, history: np.ndarray, *, own: Own = None) -> Look:
        """Place a history [n] (padding is dropped) and the catalogue.

        ``own``: all items of a training user, whose rows do not count.
        """
        history = history[history > 0]
        key = content_hash(history, own is None, () if own is None else own)
        found = self._memo.get(key)
        if found is None:
            found = self._look(history, own)
            size = found.cells.nbytes + found.past.nbytes
            if self._bytes + size <= MEMO_BYTES:
                self._memo[key] = found
                self._bytes += size
        return found

    def _look(self, history: np.ndarray, own: Own) -> Look:
        past, everything = self.space.both_positions(history, own=own)
        flat = cell_number(cell_of(everything, self.side), self.side)
        small = np.uint8 if self.side <= 16 else np.uint16
        return Look(past, flat.astype(small))

    def cells(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Flat cells of candidates [B, C] for unknown users, int64."""
        rows = [
            self.look(history).cells[wanted].astype(np.int64)
            for history, wanted in zip(
                histories.numpy(), candidates.numpy(), strict=True
            )
        ]
        return torch.from_numpy(np.array(rows).reshape(candidates.shape))

    def training_look(
        self, fold: FoldData, examples: Examples, row: int
    ) -> Look:
        """Look of a training example; its user's own rows do not count."""
        own = fold.training_items.get(int(examples.users[row]))
        return self.look(examples.histories[row].numpy(), own=own)

    def place(self, histories: Tensor, items: Tensor) -> Placement:
        """Histories [B, n] of unknown users, and items [B, K]; remembered."""
        key = content_hash(histories.numpy(), items.numpy())
        if key not in self._placed:
            rows = [row[row > 0] for row in histories.numpy()]
            found = self.space.place(rows, items.numpy())
            size = found.scores.nbytes + found.positions.nbytes
            if self._bytes + size > MEMO_BYTES:
                return found
            self._placed[key] = found
            self._bytes += size
        return self._placed[key]

    def place_training(
        self, fold: FoldData, examples: Examples, items: np.ndarray
    ) -> Placement:
        """Training examples and items [M, K]: their own rows do not count."""
        return place_training(self.space, fold, examples, items)

    def cells_of(self, placed: Placement) -> np.ndarray:
        """Flat cells of what was placed, [M, K]."""
        return cell_number(cell_of(placed.positions, self.side), self.side)


def place_training(
    space: PortraitSpace,
    fold: FoldData,
    examples: Examples,
    items: np.ndarray | None = None,
) -> Placement:
    """Place training examples as if their users had never been seen.

    Their own rows do not count. ``items`` are [M, K]; None is the targets,
    [M, 1], whose places the space keeps for all models of the fold.
    """
    kept = items is None
    if items is None:
        items = examples.targets.numpy()[:, None]
    histories = examples.histories.numpy()
    key = content_hash(fold.training_rows, examples.users, histories, items)
    if kept and key in space.placed:
        return space.placed[key]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed = space.place(
        [history[history > 0] for history in histories],
        items,
        own=[fold.training_items.get(int(user)) for user in examples.users],
        sample=True,
        device=device,
    )
    if kept:
        space.placed[key] = placed
    return placed
