"""What to learn from and against: cases, negatives, unexpected items.

Shapes: M examples or cases, n history length, N items, U users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from serendifflib.baselines.sequences import draw_unseen, last_items, pad_left
from serendifflib.portrait.scores import CoOccurrence

if TYPE_CHECKING:
    from serendifflib.data.splits import Examples
    from serendifflib.portrait.fold import FoldData

SHARE = 0.3  # of the catalogue that counts as expected, and as unexpected


def own_items(
    fold: FoldData, examples: Examples, *, unlabelled: bool = False
) -> Tensor:
    """All items of each example's user, or those without the label.

    Returns:
        LongTensor [M, n], padded with 0 on the right; of the unlabelled the
        example's own target is left out, and where targets are no labels
        there are none.
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
        items = np.unique(data.item_index[place])
        if unlabelled:
            items = np.unique(data.item_index[place][labels[place] == 0])
            items = items[items != target]
        rows.append(items)
    width = max((len(items) for items in rows), default=0)
    table = np.zeros((len(rows), max(width, 1)), dtype=np.int64)
    for row, items in zip(table, rows, strict=True):
        row[: len(items)] = items
    return torch.from_numpy(table)


def fill_up(
    known: Tensor, others: Tensor, generator: torch.Generator
) -> Tensor:
    """K of the known items of each row, filled up with others.

    Args:
        known: item numbers, 0 = nothing, [B, n].
        others: item numbers, [B, K].
        generator: decides which of too many known items are left out.
    """
    count = others.shape[1]
    order = torch.rand(known.shape, generator=generator)
    known = known.gather(1, order.masked_fill(known == 0, 2.0).argsort(1))
    known = F.pad(known, (0, count))[:, :count]
    return torch.where(known == 0, others, known)


@dataclass(frozen=True)
class Unexpectedness:
    """Expected and unexpected items of each example's user.

    The catalogue is sorted by p(i | T), T the history before the user's
    last target; the lowest 30% are unexpected, the highest 30% expected, as
    in SerenEnhance's released script. A sample of both is kept.

    Attributes:
        unexpected, expected: item numbers, LongTensor [U, K].
        owner: row of each example, LongTensor [M].
    """

    unexpected: Tensor
    expected: Tensor
    owner: Tensor

    @classmethod
    def of(
        cls,
        fold: FoldData,
        examples: Examples,
        counts: CoOccurrence,
        *,
        kept: int,
        generator: torch.Generator,
    ) -> Unexpectedness:
        """Sample ``kept`` items of each tail, with replacement.

        The users are training users, so their own rows are not counted
        (leave one out): else everything they read looks expected.
        """
        pool = fold.catalogue
        size = max(1, int(SHARE * len(pool)))
        users, owner = np.unique(examples.users, return_inverse=True)
        latest = np.zeros(len(users), dtype=np.int64)
        latest[owner] = np.arange(len(examples))  # the last one stays
        draws = torch.randint(
            size, (2, len(users), kept), generator=generator
        ).numpy()
        data = fold.interactions
        tails = np.zeros((2, len(users), kept), dtype=np.int64)
        for row, m in enumerate(latest):
            history = examples.histories[m].numpy()
            own = data.item_index[data.rows(int(users[row]))]
            scores = counts.log_catalogue(history[history != 0], own=own)
            order = pool[np.argsort(scores[pool], kind="stable")]
            tails[0, row] = order[:size][draws[0, row]]
            tails[1, row] = order[len(order) - size :][draws[1, row]]
        unexpected, expected = torch.from_numpy(tails)
        return cls(unexpected, expected, torch.from_numpy(owner))


def expected_share(
    counts: CoOccurrence,
    history: np.ndarray,
    items: np.ndarray,
    pool: np.ndarray,
    *,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Share of the pool that is less expected than each item, [K], 0 to 1.

    Item numbers: history [n], items [K], pool [P]; ``own`` are all items of
    a training user, whose rows are then not counted.
    """
    scores = counts.log_catalogue(history, own=own)
    return np.searchsorted(np.sort(scores[pool]), scores[items]) / len(pool)


def pick(table: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` items of each row [B, n], with replacement; [B, count].

    0 is padding and skipped; each row needs an item.
    """
    place = torch.multinomial(
        (table != 0).float(), count, replacement=True, generator=generator
    )
    return table.gather(1, place)


@dataclass(frozen=True)
class Cases:
    """Histories with their targets, and what no negative may be.

    Attributes:
        histories: LongTensor [M, n], left-padded.
        targets: LongTensor [M].
        owner: row of ``own`` for each case, LongTensor [M].
        own: items of each user, padded with 0, LongTensor [U, w].
        pool: items to draw negatives from, LongTensor [P].
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
            np.lib.stride_tricks.sliding_window_view(
                np.concatenate([np.zeros(length, dtype=np.int64), sequence]),
                length + 1,
            )[1:]
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

    def __len__(self) -> int:
        return len(self.targets)

    def draw(
        self, index: Tensor, negatives: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Histories [B, n] and items [B, 1 + K] of cases, the target first.

        The K ``negatives`` are uniform items that the user does not have.
        """
        targets = self.targets[index].unsqueeze(1)
        seen = torch.cat([self.own[self.owner[index]], targets], dim=1)
        others = draw_unseen(seen, negatives, self.pool, generator)
        histories = last_items(self.histories[index], self.histories.shape[1])
        return histories, torch.cat([targets, others], dim=1)
