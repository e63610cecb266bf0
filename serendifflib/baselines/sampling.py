"""What rivals learn from and against: sequences, cases, negatives.

Shapes: B rows of a batch, M examples or cases, n history length, N items,
P items of a pool, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Generator, Tensor
from torch.nn import functional as F

from serendifflib.data.splits import Examples
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import Isotropy
from serendifflib.portrait.scores import CoOccurrence


def item_vectors(fold: FoldData) -> Tensor:
    """Centred unit item vectors [N + 1, d], the same for every rival."""
    fitted = Isotropy.fit(fold.raw_vectors, fold.train_items, "center")
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


def windows(sequences: Sequence[np.ndarray], length: int) -> Tensor:
    """Cut sequences in pieces of at most ``length`` that overlap by one.

    Pieces end at the newest item and have at least two, so that each holds a
    step from an item to the next. LongTensor [M, length], left-padded with 0.
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
    seen: Tensor, count: int, pool: Tensor, generator: Generator
) -> Tensor:
    """Uniform items of ``pool`` [P] outside each row of ``seen`` [B, n].

    LongTensor [B, count]. After 20 rounds of redrawing a collision stays; that
    only happens when a user has nearly the whole pool.
    """

    def draw(*shape: int) -> Tensor:
        return pool[torch.randint(len(pool), shape, generator=generator)]

    drawn = draw(len(seen), count)
    for _ in range(20):
        clash = (drawn.unsqueeze(2) == seen.unsqueeze(1)).any(dim=2)
        if not clash.any():
            break
        drawn[clash] = draw(int(clash.sum()))
    return drawn


def own_items(
    fold: FoldData, examples: Examples, *, unlabelled: bool = False
) -> Tensor:
    """All items of each example's user, or those without the label, [M, n].

    Padded with 0 on the right. Of the unlabelled the example's own target is
    left out, and where targets are no labels there are none.
    """
    if unlabelled and fold.kind != "serendipity":
        return torch.zeros(len(examples), 1, dtype=torch.long)
    data = fold.interactions
    labels = data.frame["label"].to_numpy()
    rows = []
    for user, target in zip(
        examples.users, examples.targets.tolist(), strict=True
    ):
        place = data.rows(int(user))
        items = data.item_index[place]
        if unlabelled:
            items = items[(labels[place] == 0) & (items != target)]
        rows.append(np.unique(items))
    width = max(1, *map(len, rows)) if rows else 1
    table = np.zeros((len(rows), width), dtype=np.int64)
    for row, items in zip(table, rows, strict=True):
        row[: len(items)] = items
    return torch.from_numpy(table)


def fill_up(known: Tensor, others: Tensor, generator: Generator) -> Tensor:
    """K of the known items [B, n], 0 = nothing, filled up with others [B, K].

    The generator decides which of too many known items are left out.
    """
    count = others.shape[1]
    order = torch.rand(known.shape, generator=generator)
    known = known.gather(1, order.masked_fill(known == 0, 2.0).argsort(1))
    known = F.pad(known, (0, count))[:, :count]
    return torch.where(known == 0, others, known)


def expected_share(
    counts: CoOccurrence,
    history: np.ndarray,
    items: np.ndarray,
    pool: np.ndarray,
    *,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Share of the pool [P] that is less expected than each item, [K].

    ``own`` are all items of a training user, whose rows are then not
    counted.
    """
    scores = counts.log_catalogue(history, own=own)
    return np.searchsorted(np.sort(scores[pool]), scores[items]) / len(pool)


@dataclass(frozen=True)
class Cases:
    """Histories [M, n] with targets [M], and what no negative may be.

    Attributes:
        histories, targets: item numbers; histories are left-padded.
        owner: row of ``own`` for each case, [M].
        own: items of each user, padded with 0, [U, w].
        pool: items to draw negatives from, [P].
    """

    histories: Tensor
    targets: Tensor
    owner: Tensor
    own: Tensor
    pool: Tensor

    @classmethod
    def next_items(cls, fold: FoldData, length: int) -> Cases:
        """Every item of every training user after the items before it."""
        sequences = fold.training_histories()
        parts = [
            sliding_window_view(np.pad(sequence, (length, 0)), length + 1)[1:]
            for sequence in sequences
        ]
        table = torch.from_numpy(np.concatenate(parts))
        owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        return cls(
            histories=table[:, :-1],
            targets=table[:, -1],
            owner=torch.from_numpy(owner),
            own=pad_left(sequences, max(len(s) for s in sequences)),
            pool=torch.from_numpy(fold.catalogue),
        )

    @classmethod
    def of(cls, fold: FoldData, examples: Examples, length: int) -> Cases:
        """The cases of some examples."""
        return cls(
            histories=examples.histories[:, -length:],
            targets=examples.targets,
            owner=torch.arange(len(examples)),
            own=own_items(fold, examples),
            pool=torch.from_numpy(fold.catalogue),
        )

    def draw(
        self, index: Tensor, negatives: int, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Histories [B, n] and items [B, 1 + K] of cases, the target first.

        The K ``negatives`` are uniform items that the user does not have.
        """
        targets = self.targets[index].unsqueeze(1)
        seen = torch.cat([self.own[self.owner[index]], targets], dim=1)
        others = draw_unseen(seen, negatives, self.pool, generator)
        histories = last_items(self.histories[index], self.histories.shape[1])
        return histories, torch.cat([targets, others], dim=1)
