"""Sequences of items: padding, windows, negatives, the item vectors.

Shapes: B rows of a batch, n history length, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from serendifflib.portrait.items import Isotropy

if TYPE_CHECKING:
    from serendifflib.portrait.fold import FoldData


def item_vectors(fold: FoldData, isotropy: str = "center") -> Tensor:
    """Unit item vectors [N + 1, d], the same transform for every rival."""
    fitted = Isotropy.fit(fold.raw_vectors, fold.train_items, isotropy)
    return fitted.apply(fold.raw_vectors)


def last_items(histories: Tensor, length: int) -> Tensor:
    """The newest ``length`` columns without columns that are all padding."""
    histories = histories[:, -length:]
    return histories[:, int((histories != 0).any(dim=0).int().argmax()) :]


def pad_left(sequences: Sequence[np.ndarray], length: int) -> Tensor:
    """The newest ``length`` items of each sequence, LongTensor [M, length]."""
    table = np.zeros((len(sequences), length), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        newest = sequence[-length:]
        table[row, length - len(newest) :] = newest
    return torch.from_numpy(table)


def pad_positions(pasts: Sequence[np.ndarray], length: int) -> Tensor:
    """Positions [n, 2] of each history, left-padded, [M, length, 2]."""
    table = torch.zeros(len(pasts), length, 2)
    for row, past in enumerate(pasts):
        table[row, length - len(past) :] = torch.from_numpy(past).float()
    return table


def windows(sequences: Sequence[np.ndarray], length: int) -> Tensor:
    """Cut sequences in pieces of at most ``length`` that overlap by one.

    Pieces end at the newest item; a piece has at least two items, so each
    holds at least one step from an item to the next.

    Returns:
        LongTensor [M, length], left-padded with 0.
    """
    pieces = []
    for sequence in sequences:
        end = len(sequence)
        while end >= 2:
            start = max(0, end - length)
            pieces.append(sequence[start:end])
            end = start + 1
    return pad_left(pieces, length)


def draw_unseen(
    seen: Tensor, count: int, pool: Tensor, generator: torch.Generator
) -> Tensor:
    """Uniform items of ``pool`` [P] outside each row of ``seen`` [B, n].

    Returns:
        LongTensor [B, count]. After 20 rounds of redrawing a collision
        stays; that only happens when a user has nearly the whole pool.
    """
    shape = (len(seen), count)
    drawn = pool[torch.randint(len(pool), shape, generator=generator)]
    for _ in range(20):
        clash = (drawn.unsqueeze(2) == seen.unsqueeze(1)).any(dim=2)
        number = int(clash.sum())
        if not number:
            break
        drawn[clash] = pool[
            torch.randint(len(pool), (number,), generator=generator)
        ]
    return drawn
