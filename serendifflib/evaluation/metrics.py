"""Hit ratio and NDCG of one positive among C candidates (Section 5.2).

A rank is 1 for the best place and C for the last. All metrics are vectors
with one value for each of M cases, so that a mean, an interval and a test
are taken from the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serendifflib.errors import ConfigError, DataError, ModelError

CUTOFFS_HIT = (1, 5, 10)
CUTOFFS_NDCG = (5, 10)
METRICS = ("H@1", "H@5", "H@10", "N@5", "N@10")


def rank_counts(
    scores: Tensor,
    positive: Tensor,
    *,
    model_name: str = "the model",
    first_case: int = 0,
) -> tuple[Tensor, Tensor]:
    """Count the candidates above the positive and those level with it.

    Args:
        scores: [M, C], higher is better; infinities are allowed.
        positive: [M], column of the positive, 0..C-1.
        model_name: named in the error.
        first_case: number of the first row, for the error.

    Returns:
        Of each case, [M]: candidates with a strictly higher score, and other
        candidates with the very same score.

    Raises:
        ModelError: a score is NaN.
        DataError: the shapes do not fit, or a column lies outside 0..C-1.
    """
    positive = positive.to(scores.device)
    if scores.ndim != 2 or positive.shape != scores.shape[:1]:
        raise DataError(
            f"scores {tuple(scores.shape)} and positive columns "
            f"{tuple(positive.shape)} do not fit: expected [M, C] and [M]"
        )
    width = scores.shape[1]
    if bool(((positive < 0) | (positive >= width)).any()):
        raise DataError(
            f"a positive column lies outside 0..{width - 1}: draw the "
            "candidates again"
        )
    bad = scores.isnan().any(dim=1)
    if bool(bad.any()):
        row = first_case + int(bad.nonzero()[0, 0])
        raise ModelError(
            f"{model_name}: NaN among the scores of case {row}; "
            "look for a diverged training or a zero vector"
        )
    own = scores.gather(1, positive[:, None])
    above = (scores > own).sum(dim=1)
    ties = (scores == own).sum(dim=1) - 1
    return above, ties


def place_among_ties(above: Tensor, ties: Tensor, uniform: Tensor) -> Tensor:
    """Ranks, int64 [M], by lot from ``above + 1`` to ``above + ties + 1``.

    Takes the counts of :func:`rank_counts` and float64 draws [M] in [0, 1).
    """
    # u <= 1 - 2**-53: the product never rounds up to ties + 1
    return above + 1 + (uniform * (ties + 1)).floor().to(torch.int64)


def ranks(
    scores: Tensor, positive: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Rank of the positive in each case, int64 [M] on the CPU.

    Ties are broken at random, so that a constant scorer hits the top k with
    chance k / C. Counting them as wins would give it H@1 = 100%.

    >>> scores = torch.tensor([[0.2, 0.9, 0.5], [0.2, 0.9, 0.5]])
    >>> ranks(scores, torch.tensor([1, 0]), generator=torch.Generator())
    tensor([1, 3])
    """
    above, ties = rank_counts(scores, positive)
    uniform = torch.rand(len(above), dtype=torch.float64, generator=generator)
    return place_among_ties(above.cpu(), ties.cpu(), uniform)


def hit_ratio(ranks: Tensor, k: int) -> Tensor:
    """Hit ratio per case, ``H@k = [rank <= k]``: float64 [M], 0 or 1.

    Its mean is the paper's :math:`H_{seren}@k` (Section 5.2).

    >>> hit_ratio([1, 4, 6], k=5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_checked_ranks(ranks) <= _checked_k(k)).to(torch.float64)


def ndcg(ranks: Tensor, k: int) -> Tensor:
    """NDCG per case with a single positive (Eq. 12), float64 [M] in [0, 1].

    The ideal DCG is 1, so ``N@k = [rank <= k] / log2(rank + 1)``.

    >>> ndcg([1, 3, 6], k=5).tolist()
    [1.0, 0.5, 0.0]
    """
    places = _checked_ranks(ranks)
    discount = torch.log2(places.to(torch.float64) + 1)
    return hit_ratio(places, k) / discount


def ndcg_at_k(gains: Tensor, k: int) -> Tensor:
    r"""NDCG of graded lists, Eq. 12 as printed, any number of positives.

    .. math::
        N@k = \frac{\sum_{i \le k} (2^{g_i} - 1) / \log_2(i + 1)}
                   {\sum_{i \le k} (2^{g^*_i} - 1) / \log_2(i + 1)}

    where :math:`g_i` is the serendipity of the item in place i, [M, C] or [C],
    and :math:`g^*` the same values in descending order. (By descending model
    score, as the text says, every ranking would be its own ideal.) The result
    is float64 [M] or a scalar, 0 where nothing has a gain.

    >>> float(ndcg_at_k([0, 0, 1, 0], k=3))
    0.5
    """
    values = torch.as_tensor(gains, dtype=torch.float64)
    if not bool((values >= 0).all()):
        raise DataError("gains must be zero or more, and not NaN")
    places = torch.arange(values.shape[-1], dtype=torch.float64)
    weights = (places < _checked_k(k)) / torch.log2(places + 2)
    ideal = values.sort(dim=-1, descending=True).values
    best = ((torch.exp2(ideal) - 1) * weights).sum(dim=-1)
    reached = ((torch.exp2(values) - 1) * weights).sum(dim=-1)
    return torch.where(best > 0, reached / best.clamp(min=1e-300), 0.0)


def case_metrics(ranks: Tensor) -> dict[str, Tensor]:
    """All five :data:`METRICS` of every case, each float64 [M]."""
    places = _checked_ranks(ranks)
    values = {f"H@{k}": hit_ratio(places, k) for k in CUTOFFS_HIT}
    values |= {f"N@{k}": ndcg(places, k) for k in CUTOFFS_NDCG}
    return values


def summary(ranks: Tensor) -> dict[str, float]:
    """Means of the five metrics over the cases; a DataError without any.

    >>> summary([1, 3])
    {'H@1': 0.5, 'H@5': 1.0, 'H@10': 1.0, 'N@5': 0.75, 'N@10': 0.75}
    """
    places = _checked_ranks(ranks)
    if len(places) == 0:
        raise DataError("no test case: a metric needs at least one rank")
    return {
        name: float(values.mean())
        for name, values in case_metrics(places).items()
    }


def _checked_ranks(ranks: Tensor) -> Tensor:
    places = torch.as_tensor(ranks)
    if places.is_floating_point() and len(places):
        raise DataError("ranks must be whole numbers from 1 on")
    if bool((places < 1).any()):
        raise DataError(f"rank {int(places.min())}: ranks start at 1")
    return places


def _checked_k(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"cut-off k={k!r}: give a whole number from 1 on")
    return k
