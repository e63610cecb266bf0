"""Totals over answers, from answers whose law is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import zscore
from taobao import TAOBAO_PEOPLE, TAOBAO_SURPRISED

from serendifflib.data.human import ASKED, TRAITS
from serendifflib.errors import ConfigError
from serendifflib.experiments import premise

PEOPLE = np.full((5, 5), 4000)
A = np.array([0.1, 0.2, 0.4, 0.7, 0.9])
B = np.array([0.2, 0.3, 0.5, 0.8, 1.0])


def answers(n=6000, seed=0):
    """People whose surprise follows a known logistic law."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {name: random.integers(1, 6, n).astype(float) for name in ASKED}
    )
    for name in ("curiosity", *TRAITS):
        table[name] = random.normal(size=n)
    z = {name: zscore(table[name]) for name in table}
    odds = -1 + 1.5 * z["relevance"] + 0.5 * z["unexpectedness"]
    odds += 0.6 * z["unexpectedness"] * z["curiosity"]
    table["surprised"] = random.random(n) < 1 / (1 + np.exp(-odds))
    return table


def test_shares_by_hand():
    people, surprised = np.full((5, 5), 10), np.zeros((5, 5), dtype=int)
    surprised[4, 0] = 5
    table = premise.shares(people, surprised).set_index(
        ["relevance", "unexpectedness"]
    )
    assert table.loc[(5, 1), "value"] == 0.5
    # Wilson, by hand: (5 + 1.92) / 13.84 -+ 0.263
    assert table.loc[(5, 1), "low"] == pytest.approx(0.2366, abs=1e-3)
    assert table.loc[(5, 1), "high"] == pytest.approx(0.7634, abs=1e-3)
    assert table.loc[(1, 5), "value"] == 0


def test_four_groups_by_hand():
    people = np.arange(25).reshape(5, 5)
    found = premise.agreed(people, people // 2)
    assert found.loc["neither", "n"] == people[:3, :3].sum()
    assert found.loc["unexpected", "n"] == people[:3, 3:].sum()
    assert found.loc["relevant", "n"] == people[3:, :3].sum()
    both = people[3:, 3:]
    assert found.loc["both", "value"] == pytest.approx(
        (both // 2).sum() / both.sum()
    )


@pytest.mark.parametrize(
    ("law", "p"),
    [
        ("sum", 0.5 * (A[:, None] + B[None, :])),
        ("product", A[:, None] * B[None, :]),
        ("odds", 1 / (1 + np.exp(-(4 * A[:, None] + 3 * B[None, :] - 4)))),
    ],
)
def test_a_law_finds_its_own_shares(law, p):
    exact = PEOPLE * p  # no noise: the law can fit it perfectly
    found, likelihood = premise.fit_law(law, PEOPLE, exact)
    np.testing.assert_allclose(found, p, atol=2e-3)
    best = premise.log_likelihood(p, PEOPLE, exact)
    assert likelihood == pytest.approx(best, abs=0.5)
    for other in ("sum", "product", "odds"):
        if other != law:
            worse = premise.fit_law(other, PEOPLE, exact)[1]
            assert worse < likelihood - 10, other


def test_laws_with_one_axis_are_means():
    surprised = PEOPLE * (A[:, None] * B[None, :])
    p, _ = premise.fit_law("relevance", PEOPLE, surprised)
    np.testing.assert_allclose(p[:, 0], A * B.mean())
    p, _ = premise.fit_law("unexpectedness", PEOPLE, surprised)
    np.testing.assert_allclose(p[0], A.mean() * B)
    with pytest.raises(ConfigError, match="unknown law 'difference'"):
        premise.fit_law("difference", PEOPLE, surprised)


def test_people_who_were_held_out():
    generator = torch.Generator().manual_seed(0)
    surprised = (PEOPLE // 10 * (A[:, None] * B[None, :])).astype(int)
    losses = premise.held_out_losses(
        PEOPLE // 10, surprised, folds=5, generator=generator
    )
    mean = {law: loss.mean() for law, loss in losses.items()}
    assert len(losses["sum"]) == 25 * 400
    assert mean["product"] < mean["sum"] < mean["constant"]
    p = surprised / (PEOPLE // 10)
    entropy = -premise.log_likelihood(p, PEOPLE // 10, surprised) / 10_000
    assert mean["product"] == pytest.approx(entropy, abs=0.01)


def test_a_likelihood_ratio_without_a_difference():
    p = 1 / (1 + np.exp(-(A[:, None] + B[None, :])))
    found = premise.extra_term(PEOPLE, PEOPLE * p)
    assert found.value == pytest.approx(0, abs=0.5)
    assert found.low == 16  # 25 cells less 9 levels
    assert found.high > 0.9


def test_weights_are_those_of_the_law():
    table = answers()
    found = premise.logit_weights(
        table, ["relevance", "unexpectedness", "unexpectedness * curiosity"]
    )
    truth = [1.5, 0.5, 0.6]
    assert (found["low"] < truth).all() and (truth < found["high"]).all()
    assert (found["high"] - found["low"] < 0.3).all()
    effects = premise.person_effects(table).set_index(["trait", "axis"])
    assert effects.loc[("curiosity", "unexpectedness"), "p_holm"] < 1e-6
    rest = effects.drop(("curiosity", "unexpectedness"))
    assert (rest["p_holm"] > 0.01).all()


def test_one_answer_to_all_questions_is_left_out():
    table = answers(200)
    table.loc[:4, list(ASKED)] = 3.0
    found = premise.summarise(table)
    people, _ = premise.counts_of(found)
    rest, _ = premise.counts_of(found["without_straight"])
    assert people.sum() == 200
    assert people[2, 2] - rest[2, 2] == people.sum() - rest.sum() == 5


def test_the_premise_in_the_stored_counts():
    """What the chapter says, from the totals that the package carries."""
    groups = premise.agreed(TAOBAO_PEOPLE, TAOBAO_SURPRISED)["value"]
    alone = groups[["unexpected", "relevant"]].max()
    assert groups["neither"] < alone < groups["both"]
    fits = {
        law: premise.fit_law(law, TAOBAO_PEOPLE, TAOBAO_SURPRISED)[1]
        for law in ("sum", "product", "odds")
    }
    assert min(fits["product"], fits["odds"]) > fits["sum"] + 100
