"""Intervals and tests over users and folds, and the paper's star rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from serendifflib.errors import ConfigError, DataError

CHUNK = 4_000_000  # resampled values held at once: about 32 MB
ALPHA = 0.05  # level of significance of the paper's stars
NEEDED = 6  # of nine rivals must differ


class Interval(NamedTuple):
    """A value with its bounds, NaN where there is no interval (one user)."""

    value: float
    low: float
    high: float


class TTest(NamedTuple):
    """A two-tailed t-test: mean difference, t, degrees of freedom, p."""

    difference: float
    statistic: float
    df: float
    p: float


def resample_counts(
    users: int, *, n: int = 2000, generator: torch.Generator
) -> np.ndarray:
    """How often each of U users is drawn in ``n`` resamples, float [n, U]."""
    drawn = torch.randint(users, (n, users), generator=generator).numpy()
    flat = (drawn + np.arange(n)[:, None] * users).ravel()
    counts = np.bincount(flat, minlength=n * users)
    return counts.reshape(n, users).astype(np.float64)


def bootstrap_means(
    values: ArrayLike,
    *,
    n: int = 2000,
    generator: torch.Generator,
    groups: ArrayLike | None = None,
) -> np.ndarray:
    """Means of ``n`` resamples of the users, with replacement, float64 [n].

    ``values`` [M] are one number per case, ``groups`` [M] the user of each;
    all cases of a user are drawn together. Without, each is a user.
    """
    cases = _finite(values, "values")
    number = group_numbers(groups, len(cases))
    sums = np.bincount(number, weights=cases)
    sizes = np.bincount(number).astype(np.float64)
    users = len(sums)
    means = np.empty(n)
    step = max(1, CHUNK // users)
    for first in range(0, n, step):
        size = min(step, n - first)
        counts = resample_counts(users, n=size, generator=generator)
        means[first : first + size] = (counts @ sums) / (counts @ sizes)
    return means


def bootstrap_interval(
    values: ArrayLike,
    *,
    n: int = 2000,
    generator: torch.Generator,
    groups: ArrayLike | None = None,
) -> Interval:
    """Mean over users and its 95% percentile bootstrap interval.

    See :func:`bootstrap_means`. The bounds are NaN with a single user.

    Raises:
        DataError, ConfigError: no value or a NaN; ``n`` below 1.
    """
    if n < 1:
        raise ConfigError(f"n={n} resamples: at least one is needed")
    cases = _finite(values, "values")
    value = float(cases.mean())
    if group_numbers(groups, len(cases)).max() == 0:
        return Interval(value, float("nan"), float("nan"))
    means = bootstrap_means(cases, n=n, generator=generator, groups=groups)
    return Interval(value, *percentile_bounds(means, 0.95))


def percentile_bounds(means: ArrayLike, level: float) -> tuple[float, float]:
    """The central ``level`` of resampled means, as (low, high)."""
    _check_level(level)
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(means), [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(hits: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a hit rate.

    It has a width even at 0 or n hits, where the bootstrap has none.

    Raises:
        DataError: ``hits`` outside 0..n or no case.

    >>> tuple(round(float(x), 4) for x in wilson_interval(10, 100))
    (0.1, 0.0552, 0.1744)
    """
    _check_level(level)
    if n < 1 or not 0 <= hits <= n:
        raise DataError(f"{hits} hits in {n} cases: expected 0 <= hits <= n")
    found = scipy_stats.binomtest(hits, n).proportion_ci(level, "wilson")
    return Interval(hits / n, float(found.low), float(found.high))


def chance_interval(n: int, chance: float, *, level: float = 0.95) -> Interval:
    """Where the hit ratio of n lots lies, exact: the binomial range.

    The probability is known, the hits are not. At least the share ``level`` of
    all draws lies inside: whoever does not knows something, or was lucky.

    >>> tuple(round(float(x), 3) for x in chance_interval(600, 0.01))
    (0.01, 0.003, 0.018)
    """
    _check_level(level)
    if n < 1 or not 0 < chance < 1:
        raise DataError(
            f"{n} cases, chance {chance}: expected at least one case and a "
            "probability between 0 and 1"
        )
    tail = (1 - level) / 2
    low, high = scipy_stats.binom.ppf([tail, 1 - tail], n, chance) / n
    return Interval(chance, float(low), float(high))


def chance_p(hits: int, n: int, chance: float) -> float:
    """Two-sided p-value of ``hits`` among ``n`` lots: twice the exact tail."""
    if n < 1 or not 0 <= hits <= n:
        raise DataError(f"{hits} hits in {n} cases: expected 0 <= hits <= n")
    lots = scipy_stats.binom(n, chance)
    return float(min(1.0, 2 * min(lots.cdf(hits), lots.sf(hits - 1))))


def paired_t(ours: ArrayLike, theirs: ArrayLike) -> TTest:
    """Two-tailed paired t-test of two [M], the same users or folds.

    Equal pairs give p = 1, a constant difference p = 0.
    """
    one, two = _finite(ours, "ours"), _finite(theirs, "theirs")
    if len(one) != len(two):
        raise DataError(
            f"{len(one)} and {len(two)} values: a paired test needs the same "
            "users in the same order"
        )
    gaps = one - two
    return _t_test(scipy_stats.ttest_rel, one, two, gaps.mean(), gaps)


def two_tailed_t(ours: ArrayLike, theirs: ArrayLike) -> TTest:
    """Student's two-tailed t-test of two independent samples.

    The paper says "two-tailed t-test" and no more; over its five folds this is
    the plain reading.
    """
    one, two = _finite(ours, "ours"), _finite(theirs, "theirs")
    mean = one.mean() - two.mean()
    return _t_test(scipy_stats.ttest_ind, one, two, mean, one, two)


def _t_test(
    test: Any, one: np.ndarray, two: np.ndarray, mean: Any, *varies: np.ndarray
) -> TTest:
    """A test of scipy, or its limit where nothing of ``varies`` varies."""
    if min(len(one), len(two)) < 2:
        raise DataError("a t-test needs at least two values on each side")
    if all(np.ptp(values) == 0 for values in varies):
        df = sum(len(values) - 1 for values in varies)
        t = float(np.copysign(np.inf, mean)) if mean else 0.0
        return TTest(float(mean), t, df, float(mean == 0))
    found = test(one, two)
    t, df, p = found.statistic, found.df, found.pvalue
    return TTest(float(mean), float(t), float(df), float(p))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction of m p-values, float64 [m].

    Sorted p-values are multiplied by m, m-1, ..., 1, made non-decreasing
    and cut at 1; below alpha, the chance of any false discovery is below it.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def stars(
    ours: Sequence[float] | np.ndarray,
    rivals: Mapping[str, Sequence[float] | np.ndarray],
    *,
    corrected: bool = False,
) -> bool:
    """The star of the paper's Table 4, for values per fold.

    Its caption: "statistically significant differences with at least six
    of the nine baseline models under a two-tailed t-test with p < 0.05",
    in either direction. ``corrected`` uses Holm's p-values over all rivals.
    """
    p = np.array([two_tailed_t(ours, theirs).p for theirs in rivals.values()])
    return int(((holm(p) if corrected else p) < ALPHA).sum()) >= NEEDED


def group_numbers(groups: ArrayLike | None, cases: int) -> np.ndarray:
    """Number 0.. of the group of each of M cases; None: each its own."""
    if groups is None:
        return np.arange(cases)
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(number) != cases:
        raise DataError(
            f"{len(number)} groups for {cases} values: give one each"
        )
    return number


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise DataError(f"{name}: expected a list with at least one number")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: a value is NaN or infinite")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: choose a number between 0 and 1")
