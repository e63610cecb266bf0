"""The one protocol of all tables: rank one positive among C candidates."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from serendifflib.errors import DataError, ModelError
from serendifflib.evaluation.metrics import (
    case_metrics,
    place_among_ties,
    rank_counts,
)

if TYPE_CHECKING:
    from serendifflib.data.splits import Examples
    from serendifflib.evaluation.candidates import Candidates
    from serendifflib.recommender import Recommender


def evaluate(
    model: Recommender,
    examples: Examples,
    candidates: Candidates,
    *,
    generator: torch.Generator,
    batch_size: int = 64,
    top: int = 0,
) -> pd.DataFrame:
    """Let a model rank the stored candidates of every case (Section 5.4).

    The model sees histories [B, n] and candidates [B, C], never the users
    or the positives. Ties are broken by a draw that depends on the
    generator's state, the user and the target row, so that neither the
    batch size nor the order of the M cases changes a rank.

    Returns:
        One row per case: ``user_id`` and ``target`` (numbers), ``rank``
        (1..C), the columns
        :data:`~serendifflib.evaluation.metrics.METRICS`, and with ``top`` the
        column ``top`` of so many items, best first.

    Raises:
        DataError: candidates and examples do not belong together.
        ModelError: the scores have a wrong shape or hold a NaN.
    """
    _check_belong_together(examples, candidates)
    counts = [
        _score_batch(model, examples, candidates, first, batch_size, top)
        for first in range(0, len(examples), batch_size)
    ]
    nothing = torch.zeros(0, dtype=torch.int64)  # M may be 0
    counts.append((nothing, nothing, nothing.reshape(0, top)))
    above, ties, best = (
        torch.cat(parts) for parts in zip(*counts, strict=True)
    )
    ranks = place_among_ties(above, ties, _tie_draws(examples, generator))
    columns = {
        "user_id": np.asarray(examples.users),
        "target": examples.targets.numpy(),
        "rank": ranks.numpy(),
        **{k: v.numpy() for k, v in case_metrics(ranks).items()},
    }
    if top:
        columns["top"] = list(best.numpy())
    return pd.DataFrame(columns)


def _score_batch(
    model: Recommender,
    examples: Examples,
    candidates: Candidates,
    first: int,
    batch_size: int,
    top: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts above and level with the positive, each [B], and [B, top]."""
    part = slice(first, first + batch_size)
    items = candidates.items[part]
    with torch.no_grad():
        scores = model.score(examples.histories[part], items)
    if tuple(scores.shape) != tuple(items.shape):
        raise ModelError(
            f"{model.name}: scores have shape {tuple(scores.shape)} for "
            f"candidates {tuple(items.shape)}; return one score each"
        )
    above, ties = rank_counts(
        scores,
        candidates.positive[part],
        model_name=model.name,
        first_case=first,
    )
    order = scores.cpu().argsort(dim=1, descending=True, stable=True)
    best = items.gather(1, order[:, :top].to(items.device)).cpu()
    return above.cpu(), ties.cpu(), best


def _check_belong_together(examples: Examples, candidates: Candidates) -> None:
    if len(candidates.items) != len(examples):
        raise DataError(
            f"{len(candidates.items)} candidate lists for {len(examples)} "
            "cases: draw the candidates for these examples"
        )
    listed = candidates.items.gather(1, candidates.positive[:, None])[:, 0]
    wrong = (listed != examples.targets).nonzero()
    if len(wrong):
        case = int(wrong[0, 0])
        raise DataError(
            f"case {case}: the candidates hold item {int(listed[case])} as "
            f"the positive, the case has {int(examples.targets[case])}: "
            "draw the candidates for these examples"
        )


def _tie_draws(examples: Examples, generator: torch.Generator) -> Tensor:
    """One number in [0, 1) per case, from the user and the target row."""
    seed = torch.randint(2**62, (1,), generator=generator).item()
    draws = np.empty(len(examples), dtype=np.float64)
    pairs = zip(examples.users, examples.rows, strict=True)
    for case, (user, row) in enumerate(pairs):
        key = f"{seed}:{int(user)}:{int(row)}".encode()
        digest = hashlib.sha256(key).digest()[:8]
        # 53 bits: every such integer over 2**53 is a float64 below 1
        draws[case] = (int.from_bytes(digest, "big") >> 11) / 2**53
    return torch.from_numpy(draws)
