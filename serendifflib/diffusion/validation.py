"""The validation cases of a fold: one list of cases for every model.

When to stop, which options to take: everybody decides on the same users,
the same candidates and the same score.

Letters: V cases, n history length, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from serendifflib.data.splits import Examples, make_examples
from serendifflib.errors import ModelError
from serendifflib.portrait.fold import FoldData

K = 10  # of NDCG@k
BATCH = 64  # users that are scored at a time


@dataclass(frozen=True)
class Validation:
    """Histories with their candidates; the target stands in column 0.

    Where it stands tells a model nothing: ties are ranked in the middle.

    Attributes:
        histories: LongTensor [V, n], left-padded with 0.
        candidates: LongTensor [V, C].
    """

    histories: Tensor
    candidates: Tensor

    def __len__(self) -> int:
        return len(self.candidates)

    @classmethod
    def of(
        cls,
        fold: FoldData,
        *,
        kind: str | None = None,
        n_cases: int = 0,
        n_candidates: int = 1_000,
    ) -> Self | None:
        """Each target among uniform items that the user does not have.

        The same for every model of a fold. None where it has no case.

        Args:
            fold: its validation users are the cases.
            kind: ``next-item`` takes their last liked items in a fold about
                serendipity, to stop pre-training on; None the fold's own.
            n_cases: at most so many of them; 0 takes all.
            n_candidates: C, where the catalogue has as many.
        """
        drawn = np.random.default_rng(0)
        valid = _examples(fold, kind)
        chosen = np.arange(len(valid))
        if 0 < n_cases < len(chosen):
            chosen = np.sort(drawn.choice(chosen, n_cases, replace=False))
        if not len(chosen):
            return None
        data = fold.interactions
        pool = fold.catalogue
        rows = []
        for m in chosen:
            target = int(valid.targets[m])
            own = data.item_index[data.rows(int(valid.users[m]))]
            barred = np.append(own, target)
            # so many that enough are left without the user's own
            count = min(n_candidates - 1 + len(barred), len(pool))
            others = drawn.choice(pool, count, replace=False)
            others = others[~np.isin(others, barred)][: n_candidates - 1]
            rows.append(np.append(target, others))
        width = min(len(row) for row in rows)
        candidates = np.stack([row[:width] for row in rows]).astype(np.int64)
        return cls(
            valid.histories[torch.from_numpy(chosen)],
            torch.from_numpy(candidates),
        )

    def ndcg(self, score: Callable[[Tensor, Tensor], Tensor]) -> float:
        """:func:`mean_ndcg` of ``score(histories, candidates)`` [B, C]."""
        parts = zip(
            self.histories.split(BATCH),
            self.candidates.split(BATCH),
            strict=True,
        )
        return mean_ndcg(torch.cat([score(h, c).cpu() for h, c in parts]))


def mean_ndcg(scores: Tensor) -> float:
    """Mean NDCG@10 (Eq. 12) of scores [V, C]; column 0 is the target's.

    Ties are ranked in the middle, so that a constant scorer stands at
    chance. A thousandth of the untruncated gain is added: with few cases
    NDCG@10 alone ties all the time.

    Raises:
        ModelError: a score is not a number.
    """
    if bool(torch.isnan(scores).any()):
        raise ModelError(
            "NaN among the scores of the validation users: the model "
            "diverged; fit again with a smaller learning rate"
        )
    own = scores[:, :1]
    better = (scores > own).sum(dim=1)
    tied = (scores == own).sum(dim=1) - 1
    rank = 1.0 + better + 0.5 * tied
    gain = 1.0 / torch.log2(1.0 + rank)
    return float((gain * ((rank <= K) + 1e-3)).mean())


def _examples(fold: FoldData, kind: str | None) -> Examples:
    """Validation examples with targets of ``kind`` that have a vector."""
    if kind in (None, fold.kind):
        return fold.valid
    found = make_examples(
        fold.interactions,
        fold.split.valid_users,
        kind,
        max_history=fold.valid.histories.shape[1],
    )
    present = ~np.isin(found.targets.numpy(), fold.missing_items)
    return found.subset(present)
