"""Bounds and multiples: by brute force, by hand, on the paper's tables."""

import doctest
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serendifflib.errors import ConfigError, DataError
from serendifflib.evaluation import audit, metrics
from serendifflib.evaluation.paper import load_paper_table


def hits_of(ranks):
    places = torch.tensor(ranks)
    return {k: float(metrics.hit_ratio(places, k).mean()) for k in (1, 5, 10)}


@settings(max_examples=100, deadline=None)
@given(
    folds=st.lists(
        st.lists(st.integers(1, 15), min_size=4, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_ranks_never_break_the_bounds_even_averaged_over_folds(folds):
    hits = {k: np.mean([hits_of(f)[k] for f in folds]) for k in (1, 5, 10)}
    for k in (5, 10):
        low, high = audit.ndcg_bounds(hits, k)
        mean = np.mean(
            [float(metrics.ndcg(torch.tensor(f), k).mean()) for f in folds]
        )
        assert low - 1e-12 <= mean <= high + 1e-12


def test_bounds_are_reached():
    # all ranks of two cases: the extremes must touch the bounds
    seen = {}
    for ranks in itertools.product(range(1, 12), repeat=2):
        key = tuple(hits_of(ranks).values())
        value = float(metrics.ndcg(torch.tensor(ranks), 10).mean())
        seen.setdefault(key, []).append(value)
    for key, values in seen.items():
        low, high = audit.ndcg_bounds(
            dict(zip((1, 5, 10), key, strict=True)), 10
        )
        assert min(values) == pytest.approx(low)
        assert max(values) == pytest.approx(high)


def test_bounds_by_hand():
    low, high = audit.ndcg_bounds({1: 0.1, 5: 0.3, 10: 0.4}, 5)
    assert low == pytest.approx(0.1 + 0.2 / math.log2(6))
    assert high == pytest.approx(0.1 + 0.2 / math.log2(3))
    low, high = audit.ndcg_bounds({1: 0.1, 5: 0.3, 10: 0.4}, 10)
    assert low == pytest.approx(0.1 + 0.2 / math.log2(6) + 0.1 / math.log2(11))
    assert high == pytest.approx(0.1 + 0.2 / math.log2(3) + 0.1 / math.log2(7))


def test_bounds_refuse():
    with pytest.raises(ConfigError, match="need H@10"):
        audit.ndcg_bounds({1: 0.1, 5: 0.2}, 10)
    with pytest.raises(DataError, match="never"):
        audit.ndcg_bounds({1: 0.3, 5: 0.2}, 5)
    with pytest.raises(DataError):
        audit.ndcg_bounds({1: 30.0, 5: 40.0}, 5)


def test_rounding_widens_the_range_just_enough():
    hits = {1: 0.1, 5: 0.3}
    high = audit.ndcg_bounds(hits, 5).high
    room = audit.HALF_RATE + audit.HALF_NDCG
    assert audit.check_ndcg(hits, high + 0.9 * room, 5)[1] == "possible"
    assert audit.check_ndcg(hits, high + 1.1 * room, 5)[1] == "too high"
    low = audit.ndcg_bounds(hits, 5).low
    assert audit.check_ndcg(hits, low - 0.9 * room, 5)[1] == "possible"
    assert audit.check_ndcg(hits, low - 1.1 * room, 5)[1] == "too low"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=40))
def test_honest_tables_pass_after_rounding(ranks):
    hits = {k: round(rate, 4) for k, rate in hits_of(ranks).items()}
    places = torch.tensor(ranks)
    n5, n10 = (
        round(float(metrics.ndcg(places, k).mean()), 3) for k in (5, 10)
    )
    assert audit.check_ndcg(hits, n5, 5)[1] == "possible"
    assert audit.check_ndcg(hits, n10, 10)[1] == "possible"
    assert audit.check_step(hits[5], hits[10], n10 - n5)[1] == "possible"


def test_table_4_has_three_impossible_rows_in_the_serendipity_half():
    table = audit.audit_ndcg(load_paper_table(4))
    assert len(table) == 4 * 10 * 3
    part = table[(table["task"] == "serendipity")]
    books = part[part["data"] == "serenlens-books"]
    for metric in ("N@5", "N@10"):
        high = books[(books.metric == metric) & (books.verdict != "possible")]
        assert set(high["row"]) == {"SerenEnhance", "SerenPrompt", "SerenDiff"}
        assert set(high["verdict"]) == {"too high"}
    crude = books[books["above_hit_ratio"]]
    assert set(crude["row"]) == {"SerenEnhance", "SerenDiff"}
    movies = part[part["data"] == "serenlens-movies"]
    movies = movies[movies["metric"] != "N@10 - N@5"]
    assert set(movies["verdict"]) == {"possible"}


def test_step_between_the_two_ndcgs():
    # H@5 and H@10 of PURS in the movies half: .0487 of the users at 6..10
    bounds, verdict = audit.check_step(0.0667, 0.1154, 0.057 - 0.044)
    assert bounds.low == pytest.approx(0.0486 / math.log2(11))
    assert bounds.high == pytest.approx(0.0488 / math.log2(7))
    assert verdict == "too low"
    table = audit.audit_ndcg(load_paper_table(4))
    steps = table[table["metric"] == "N@10 - N@5"]
    assert int((steps["verdict"] != "possible").sum()) == 22
    assert len(steps) == 40


def test_table_5_compares_a_possible_with_an_impossible_metric():
    table = audit.audit_ndcg(load_paper_table(5))
    broken = table[table["metric"].isin(["N@5", "N@10"])].set_index("row")
    assert set(broken.loc["user-portrait", "verdict"]) == {"too high"}
    assert set(broken.loc["user-embedding", "verdict"]) == {"possible"}
    assert set(broken.loc["user-sequence", "verdict"]) == {"possible"}


def test_multiples_by_hand():
    # 86/256 = .33594: printed .3359; 26/256 = .10156: cut off to .1015
    assert audit.multiples_of(0.3359)[:2] == (True, 86)
    assert audit.multiples_of(0.1015)[:2] == (True, 26)
    assert not audit.multiples_of(0.1015, rounding="nearest").fits
    assert audit.multiples_of(0.1016, rounding="nearest").fits
    assert not audit.multiples_of(0.1016, rounding="down").fits
    # sevenths print as 0, 1428|9, 2857, 4285|6, 5714, 7142|3, 8571, 10000
    assert audit.multiples_of(0.0, n=7) == (True, 0, 11 / 10_001)
    assert audit.multiples_of(1.0, n=7)[:2] == (True, 7)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 600), share=st.floats(0, 1))
def test_every_true_rate_fits(n, share):
    hits = round(share * n)
    for printed in (round(hits / n, 4), math.floor(1e4 * hits / n) / 1e4):
        assert audit.multiples_of(printed, n).fits


@pytest.mark.parametrize("rounding", ["nearest", "down", "either"])
def test_chance_is_the_share_of_rates_that_fit(rounding):
    for n in (7, 256):
        fits = [
            audit.multiples_of(i / 1000, n, decimals=3, rounding=rounding)
            for i in range(1001)
        ]
        share = sum(check.fits for check in fits) / 1001
        assert fits[0].chance == pytest.approx(share)


def test_multiples_refuse():
    with pytest.raises(DataError):
        audit.multiples_of(33.59)
    with pytest.raises(ConfigError, match="rounding"):
        audit.multiples_of(0.5, rounding="up")
    with pytest.raises(ConfigError):
        audit.multiples_of(0.5, 0)


def test_six_movie_rows_are_multiples_of_256():
    table = audit.audit_multiples(load_paper_table(4), 256)
    movies = table[
        (table.task == "serendipity") & (table.data == "serenlens-movies")
    ].set_index("row")
    assert set(movies.index[movies["fits"]]) == {
        "DESR",
        "SerenEnhance",
        "SerenPrompt",
        "DiffRec",
        "DreamRec",
        "SerenDiff",
    }
    assert movies.loc["SerenDiff", "hits"] == [16, 55, 86]
    error = movies.loc["SerenDiff", "standard_error"]
    assert error == pytest.approx(math.sqrt(0.3359 * 0.6641 / 256))
    assert movies["chance"].max() < 1e-3


def test_256_stands_out_among_its_neighbours():
    scan = audit.scan_denominators(load_paper_table(4), range(240, 275))
    best = scan.sort_values("p").iloc[0]
    assert best["n"] == 256 and best["data"] == "serenlens-movies"
    assert best["fitting"] == 6 and best["p"] < 1e-15
    others = scan[scan["n"] != 256]
    assert others["fitting"].max() <= 1


def test_books_rows_that_are_counts_over_a_single_fold():
    # 469 = a fifth of the 2,346 users of SerenLens-Books
    scan = audit.scan_denominators(load_paper_table(4), [468, 469, 470])
    books = scan[scan["data"] == "serenlens-books"].set_index(["n", "task"])
    assert books["fitting"].to_dict() == {
        (468, "serendipity"): 0,
        (468, "relevance"): 0,
        (469, "serendipity"): 3,
        (469, "relevance"): 3,
        (470, "serendipity"): 0,
        (470, "relevance"): 0,
    }


def test_standard_error_refuses():
    with pytest.raises(DataError):
        audit.standard_error(0.5, 0)
    with pytest.raises(DataError):
        audit.standard_error(33.0, 10)


def test_docstring_examples():
    found = doctest.testmod(audit)
    assert found.attempted >= 5 and found.failed == 0
