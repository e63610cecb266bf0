"""The grid of cells as users see it, for many models at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from serendifflib.data.splits import Examples
from serendifflib.io import content_hash
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.portrait import PortraitSpace, cell_of

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

    Several controls look at the same users; give them one grid and each
    user is placed once.

    Attributes:
        space: the portrait space; the candidate lists are spread in one
            with catalogue bins.
        side: L.
    """

    space: PortraitSpace
    side: int = 10
    _memo: dict[str, Look] = field(default_factory=dict, repr=False)
    _bytes: int = field(default=0, repr=False)

    @classmethod
    def of(cls, fold: FoldData, side: int = 10) -> Grid:
        """The grid in which the candidates of ``fold`` are spread."""
        return cls(PortraitSpace.fit(fold, bins="catalogue"), side)

    def look(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> Look:
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

    def _look(self, history: np.ndarray, own: np.ndarray | None) -> Look:
        past, everything = self.space.both_positions(history, own=own)
        cells = cell_of(everything, self.side)
        flat = cells[:, 0] * self.side + cells[:, 1]
        small = np.uint8 if self.side <= 16 else np.uint16
        return Look(past, flat.astype(small))

    def cells(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Flat cells of candidates [B, C] for unknown users, int64."""
        rows = [
            self.look(history).cells[wanted].astype(np.int64)
            for history, wanted in zip(
                histories.numpy(), candidates.numpy(), strict=True
            )
        ]
        return torch.from_numpy(np.array(rows).reshape(candidates.shape))

    def view(
        self, history: np.ndarray, *, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where a history [n] puts its items, and what it says of all.

        Returns:
            positions of the history items in [0, 1], [n, 2], and the raw
            log-expectedness and relevance of every item, [2, N + 1].
        """
        history = history[history > 0]
        scores = self.space.catalogue_scores(history, own=own)
        past = self.space.positions(history, own=own, catalogue=scores)
        return past, np.stack(scores)

    def training_views(
        self, fold: FoldData, examples: Examples
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Views of training examples; their users' own rows do not count."""
        own = fold.training_items
        for row in range(len(examples)):
            yield self.view(
                examples.histories[row].numpy(),
                own=own.get(int(examples.users[row])),
            )

    def training_looks(
        self, fold: FoldData, examples: Examples
    ) -> Iterator[Look]:
        """Looks of training examples; their users' own rows do not count."""
        own = fold.training_items
        for row in range(len(examples)):
            yield self.look(
                examples.histories[row].numpy(),
                own=own.get(int(examples.users[row])),
            )
