"""Hit ratio and NDCG of one positive among C candidates (Section 5.2).

Letters: M cases, C candidates. A rank is 1 for the best place and C for the
last. All metrics are vectors with one value per case, so that a mean, an
interval and a test are taken from the same numbers.
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

    Both counts ignore the order in which the candidates are listed.

    Args:
        scores: [M, C], higher is better; infinities are allowed.
        positive: [M], column of the positive, 0..C-1.
        model_name: named in the error.
        first_case: number of the first row, for the error.

    Returns:
        ``above`` [M] in 0..C-1: candidates with a strictly higher score.
        ``ties`` [M] in 0..C-1: other candidates with the very same score.

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
    """Turn the counts of :func:`rank_counts` into ranks, by lot among ties.

    Args:
        above: [M].
        ties: [M].
        uniform: [M] float64 draws in [0, 1).

    Returns:
        int64 [M], from ``above + 1`` to ``above + ties + 1``.
    """
    # u <= 1 - 2**-53: the product never rounds up to ties + 1
    return above + 1 + (uniform * (ties + 1)).floor().to(torch.int64)


def ranks(
    scores: Tensor, positive: Tensor, *, generator: torch.Generator
) -> Tensor:
    """Rank of the positive in each case, ties broken at random.

    A constant scorer therefore hits the top k with chance k / C. Counting
    ties as wins would give it H@1 = 100%, as losses H@C-1 = 0.

    Args:
        scores: [M, C], higher is better.
        positive: [M], column of the positive.
        generator: source of the tie breaks (CPU).

    Returns:
        int64 [M] on the CPU, 1..C.

    Raises:
        ModelError, DataError: see :func:`rank_counts`.

    >>> scores = torch.tensor([[0.2, 0.9, 0.5], [0.2, 0.9, 0.5]])
    >>> ranks(scores, torch.tensor([1, 0]), generator=torch.Generator())
    tensor([1, 3])
    """
    above, ties = rank_counts(scores, positive)
    uniform = torch.rand(len(above), dtype=torch.float64, generator=generator)
    return place_among_ties(above.cpu(), ties.cpu(), uniform)


def hit_ratio(ranks: Tensor, k: int) -> Tensor:
    r"""Hit ratio per case: ``H@k = [rank <= k]``.

    Its mean is the share of cases whose positive stands in the top k
    (Section 5.2, :math:`H_{seren}@k`).

    Args:
        ranks: [M], 1-based.
        k: cut-off, at least 1.

    Returns:
        float64 [M] of zeros and ones.

    >>> hit_ratio([1, 4, 6], k=5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_checked_ranks(ranks) <= _checked_k(k)).to(torch.float64)


def ndcg(ranks: Tensor, k: int) -> Tensor:
    r"""NDCG per case with a single positive (Eq. 12).

    With one positive the ideal DCG is 1 and the formula becomes
    ``N@k = [rank <= k] / log2(rank + 1)``.

    Args:
        ranks: [M], 1-based.
        k: cut-off, at least 1.

    Returns:
        float64 [M] in [0, 1].

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

    where :math:`g_i` is the serendipity of the item in place i and
    :math:`g^*` the same values in the ideal order. The ideal order is by
    descending gain; the paper's text says by descending model score s,
    which would make every ranking its own ideal and every NDCG 1.

    Args:
        gains: [M, C] or [C], non-negative gains in the order of the ranking.
        k: cut-off, at least 1; beyond C it counts as C.

    Returns:
        float64 [M] (or a scalar) in [0, 1]; 0 where nothing has a gain.

    Raises:
        DataError: a gain is negative or NaN.

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
    """Means of the five metrics over the cases.

    Raises:
        DataError: there is no case at all.

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
