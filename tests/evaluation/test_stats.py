"""Intervals and tests: by hand, against references, coverage."""

import doctest
import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation import stats


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04 -> .06
    found = stats.holm([0.01, 0.04, 0.03, 0.005])
    assert found.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [[-0.1], [1.1], [math.nan]])
def test_holm_refuses(bad):
    with pytest.raises(DataError):
        stats.holm(bad)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.randoms())
def test_holm_properties(p, random):
    found = stats.holm(p)
    assert (found >= p).all() and (found <= 1).all()
    assert (found <= np.minimum(np.array(p) * len(p), 1) + 1e-15).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert stats.holm(np.array(p)[order]).tolist() == found[order].tolist()


def test_bootstrap_agrees_with_theory_and_scipy():
    rng = np.random.default_rng(1)
    values = (rng.random(400) < 0.3).astype(float)
    found = stats.bootstrap_interval(values, generator=seeded(), n=4000)
    known = inspect.signature(scipy_stats.bootstrap).parameters
    seed = {"rng" if "rng" in known else "random_state": 2}  # scipy 1.15
    reference = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", **seed
    ).confidence_interval
    assert found.value == values.mean()
    assert found.low == pytest.approx(reference.low, abs=0.006)
    assert found.high == pytest.approx(reference.high, abs=0.006)
    half = 1.96 * values.std() / 20
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_bootstrap_covers():
    rng = np.random.default_rng(2)
    inside = 0
    for trial in range(200):
        values = (rng.random(150) < 0.4).astype(float)
        low, high = stats.bootstrap_interval(
            values, generator=seeded(trial), n=400
        )[1:]
        inside += low <= 0.4 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_bootstrap_is_seeded_and_chunks_do_not_matter(monkeypatch):
    values = np.random.default_rng(0).random(30)
    one = stats.bootstrap_means(values, generator=seeded(7), n=50)
    again = stats.bootstrap_means(values, generator=seeded(7), n=50)
    assert (one == again).all()
    other = stats.bootstrap_means(values, generator=seeded(8), n=50)
    assert (one != other).any()
    monkeypatch.setattr(stats, "CHUNK", 301)
    parts = stats.bootstrap_means(values, generator=seeded(7), n=50)
    assert parts.shape == (50,)
    assert abs(parts.mean() - values.mean()) < 0.05


def test_bootstrap_over_users_is_wider_when_cases_repeat():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(50), 8)
    values = np.repeat(rng.random(50) < 0.5, 8).astype(float)
    single = stats.bootstrap_interval(values, generator=seeded())
    grouped = stats.bootstrap_interval(
        values, generator=seeded(), groups=users
    )
    assert grouped.value == single.value
    ratio = (grouped.high - grouped.low) / (single.high - single.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.25)


def test_group_means_weigh_cases_not_users():
    found = stats.bootstrap_means(
        [1.0, 1.0, 1.0, 0.0],
        groups=["a", "a", "a", "b"],
        n=500,
        generator=seeded(),
    )
    assert set(found) == {0.0, 0.75, 1.0}


def test_one_user_has_no_interval():
    found = stats.bootstrap_interval([0.5], generator=seeded())
    assert found.value == 0.5
    assert math.isnan(found.low) and math.isnan(found.high)
    same = stats.bootstrap_interval(
        [0.0, 1.0], groups=[4, 4], generator=seeded()
    )
    assert math.isnan(same.low)


def test_bootstrap_refuses():
    for values in ([], [1.0, math.nan], [[1.0]]):
        with pytest.raises(DataError):
            stats.bootstrap_interval(values, generator=seeded())
    with pytest.raises(ConfigError, match="resamples"):
        stats.bootstrap_interval([0, 1], n=0, generator=seeded())
    with pytest.raises(DataError, match="groups"):
        stats.bootstrap_interval([0, 1], groups=[1], generator=seeded())


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_equals_scipy(n, share):
    hits = round(share * n)
    found = stats.wilson_interval(hits, n)
    reference = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found.low == pytest.approx(reference.low, abs=1e-12)
    assert found.high == pytest.approx(reference.high, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_refuses():
    for hits, n in [(-1, 5), (6, 5), (0, 0)]:
        with pytest.raises(DataError):
            stats.wilson_interval(hits, n)


def test_paired_t_by_hand():
    # differences 1 2 3: mean 2, sd 1, t = 2 sqrt(3)
    found = stats.paired_t([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.difference == 2
    assert found.statistic == pytest.approx(2 * math.sqrt(3))
    assert found.df == 2
    expected = 2 * scipy_stats.t.sf(2 * math.sqrt(3), 2)
    assert found.p == pytest.approx(expected)


def test_two_tailed_t_by_hand():
    # both variances 1, n = 3: standard error sqrt(2/3)
    found = stats.two_tailed_t([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert found.statistic == pytest.approx(-3 / math.sqrt(2 / 3))
    assert found.df == 4


def test_tests_without_spread():
    assert stats.paired_t([1, 2], [1, 2]) == (0, 0, 1, 1)
    assert stats.paired_t([1, 2], [2, 3]).p == 0
    assert stats.two_tailed_t([1, 1], [1, 1]).p == 1
    found = stats.two_tailed_t([1, 1], [2, 2])
    assert found.p == 0 and found.statistic == -math.inf


def test_tests_refuse():
    with pytest.raises(DataError, match="same users"):
        stats.paired_t([1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="at least two"):
        stats.paired_t([1], [2])
    with pytest.raises(DataError, match="each side"):
        stats.two_tailed_t([1], [2, 3])
    with pytest.raises(DataError, match="NaN"):
        stats.paired_t([1, math.nan], [2, 3])


def rivals(*shifts):
    base = np.array([-0.01, 0.0, 0.01, 0.005, -0.005])
    return {f"r{n}": base * 2.0**0.5 + shift for n, shift in enumerate(shifts)}


def test_star_rule_needs_six_of_nine():
    ours = np.array([0.30, 0.31, 0.29, 0.305, 0.295])
    far, near = 0.1, 0.3
    assert stats.stars(ours, rivals(*[far] * 6, *[near] * 3))
    assert not stats.stars(ours, rivals(*[far] * 5, *[near] * 4))
    # worse than the rivals is a difference too, as the caption words it
    assert stats.stars(ours, rivals(*[0.5] * 6, *[near] * 3))


def test_correction_can_take_the_star_away(monkeypatch):
    ours = np.array([0.30, 0.31, 0.29, 0.305, 0.295])
    close = rivals(*[0.285] * 6, *[0.3] * 3)
    weak = np.array(
        [stats.two_tailed_t(ours, one).p for one in close.values()][:6]
    )
    assert (weak > 0.05 / 9).all()
    # a level that the plain tests pass and the corrected do not
    monkeypatch.setattr(stats, "ALPHA", float(weak.max()) * 1.01)
    assert stats.stars(ours, close)
    assert not stats.stars(ours, close, corrected=True)


def test_docstring_examples():
    found = doctest.testmod(stats)
    assert found.attempted >= 3 and found.failed == 0


def test_the_interval_of_lots_is_the_binomial_one():
    n, chance = 40, 0.1
    low, high = stats.chance_interval(n, chance)[1:]
    mass = [
        math.comb(n, k) * chance**k * (1 - chance) ** (n - k)
        for k in range(n + 1)
    ]
    inside = sum(mass[round(low * n) : round(high * n) + 1])
    assert inside >= 0.95
    # and no hit that could be spared on either side
    assert sum(mass[: round(low * n) + 1]) >= 0.025
    assert sum(mass[round(high * n) :]) >= 0.025
    for bad in ((0, 0.1), (10, 0.0), (10, 1.0)):
        with pytest.raises(DataError, match="probability between"):
            stats.chance_interval(*bad)
    with pytest.raises(DataError, match="0 <= hits <= n"):
        stats.chance_p(3, 2, 0.1)


@given(st.integers(0, 30), st.floats(0.05, 0.95))
def test_p_of_lots_is_twice_the_smaller_tail(hits, chance):
    reference = min(
        scipy_stats.binomtest(hits, 30, chance, alternative=side).pvalue
        for side in ("less", "greater")
    )
    assert stats.chance_p(hits, 30, chance) == pytest.approx(
        min(1, 2 * reference)
    )
