"""Tables and tests that the paper does not have."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup

from serendifflib.errors import DataError
from serendifflib.evaluation import comparison, metrics, stats, tables
from serendifflib.evaluation.paper import Column

HITS = Column("H@10", "%", 2)
ORIGIN = {
    "profile": "smoke",
    "seed": "0",
    "commit": "0123456789",
    "dirty": False,
    "device": "cpu (test)",
    "created": "2026-11-23T10:00:00+00:00",
    "current": True,
}


def collected(values, *, data="toy", folds=(0, 1)):
    """Lines as ``collect`` makes them: a line per fold, and their mean."""
    return pd.DataFrame(
        {
            "row": row,
            "label": f"label of {row}",
            "data": data,
            "task": "serendipity",
            "fold": fold,
            "metric": "H@10",
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "n": 100,
            **ORIGIN,
        }
        for row, value in values.items()
        for fold in (*folds, "mean")
    )


def cases(ranks, *, fold=0, profile="smoke", users=None):
    """Cases of several rows: row -> ranks of the same users."""
    parts = []
    for row, found in ranks.items():
        values = metrics.case_metrics(torch.tensor(found))
        parts.append(
            pd.DataFrame(
                {
                    "row": row,
                    "profile": profile,
                    "fold": fold,
                    "user": users or list(range(len(found))),
                    "target": 7,
                    "rank": found,
                    **{k: v.numpy() for k, v in values.items()},
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


# tables


def test_own_tables_keep_the_order_and_name_the_gaps():
    table = tables.own_table(
        "Controls",
        {"b": "Bee", "a": "Ant", "c": "Cat"},
        collected({"a": 0.2, "b": 0.3}),
        collected({"a": 0.25}),
        data="toy",
        columns={"H@10": HITS},
        unranked=["b"],
    )
    assert list(table.frame.index) == ["Bee", "Ant", "Cat"]
    assert list(table.frame.columns) == [
        ("H@10", "recorded"),
        ("H@10", "live"),
    ]
    assert table.frame.loc["Bee"].tolist() == [
        "30.0% [20.0, 40.0]",
        tables.ABSENT["live"],
    ]
    assert table.frame.loc["Cat", ("H@10", "recorded")] == "not recorded"
    assert table.values.loc["Ant", ("H@10", "live")] == 0.25
    # the oracle is never best, and a lone row has beaten nobody
    assert not table.places.to_numpy().any()
    assert table.caption.startswith("Controls (serendipity).")
    assert "paper" not in table.caption and "code 0123456789" in table.caption
    assert "Not in the paper" not in table.to_html()


def test_own_tables_without_any_record():
    table = tables.own_table(
        "Controls",
        {"a": "Ant"},
        None,
        data="toy",
        columns={"H@10": HITS},
    )
    assert table.frame.to_numpy().tolist() == [["not recorded"]]
    assert "nothing of this table and data" in table.caption


def test_means_come_in_the_order_that_is_asked_for():
    frame = pd.concat([
        collected({"a": 0.2, "b": 0.3, "c": 0.1}),
        collected({"a": 0.9}, data="other"),
    ])  # fmt: skip
    means = tables.row_means(frame, data="toy", rows={"c": "Cat", "a": "Ant"})
    assert means["label"].to_dict() == {"c": "Cat", "a": "Ant"}
    assert means["value"].tolist() == [0.1, 0.2]
    assert means["folds"].tolist() == [2, 2]
    assert set(tables.row_means(frame, data="toy").index) == {"a", "b", "c"}
    assert tables.row_means(frame, data="nowhere").empty
    assert tables.row_means(frame, data="toy", metric="N@5").empty
    assert tables.row_means(None, data="toy").columns.equals(means.columns)


# pairs


def test_differences_by_hand():
    frame = cases({"base": [1, 20, 20, 20], "x": [1, 1, 1, 20]})
    table = comparison.paired_differences(frame, "base")
    assert table.index.tolist() == ["x"]
    one = table.loc["x"]
    assert one["difference"] == 0.5 and one["users"] == 4
    assert one["low"] <= 0.5 <= one["high"] and one["folds"] == 1
    reference = stats.paired_t([1, 1, 1, 0], [1, 0, 0, 0]).p
    assert one["p"] == reference == one["p_holm"]
    # "a quarter more": 3/4 - 1.25 * 1/4
    quarter = comparison.paired_differences(frame, "base", factor=1.25)
    assert quarter.loc["x", "difference"] == pytest.approx(0.4375)


def test_differences_are_corrected_for_their_number():
    rng = np.random.default_rng(0)
    ranks = {"base": [15] * 80}
    for row in "abc":
        ranks[row] = rng.choice([5, 15], 80, p=[0.1, 0.9]).tolist()
    table = comparison.paired_differences(cases(ranks), "base")
    assert table["p_holm"].tolist() == stats.holm(table["p"]).tolist()
    assert (table["p_holm"] > table["p"]).any()
    few = comparison.paired_differences(cases(ranks), "base", ["b", "unknown"])
    assert few.index.tolist() == ["b"]
    assert few.loc["b", "p_holm"] == few.loc["b", "p"]


def test_the_interval_of_a_difference_covers_it():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        easy = rng.random(150)
        ranks = {
            "base": np.where(easy < 0.2, 5, 50).tolist(),
            "x": np.where(easy + rng.normal(0, 0.1, 150) < 0.3, 5, 50)
            .astype(int)
            .tolist(),
        }
        one = comparison.paired_differences(cases(ranks), "base").loc["x"]
        # P(u + 0.1 z < 0.3) - 0.2 = 0.1, to 0.0003
        covered += one["low"] <= 0.1 <= one["high"]
    assert covered >= 50


def test_only_common_folds_are_paired_and_gaps_are_no_error():
    one = cases({"base": [1, 20, 3], "x": [20, 20, 1]})
    two = cases({"base": [1, 1, 1]}, fold=1, users=[3, 4, 5])
    both = pd.concat([one, two])
    assert comparison.paired_differences(both, "base").loc["x", "users"] == 3
    assert comparison.paired_differences(both, "nobody").empty
    assert comparison.paired_differences(both[:0], "base").empty
    with pytest.raises(DataError, match="same cases"):
        other = cases({"x": [1, 1, 1]}, users=[7, 8, 9])
        comparison.paired_differences(pd.concat([two, other, one[:3]]), "base")


def test_the_largest_profile_of_a_row():
    frame = pd.concat([
        cases({"a": [1], "b": [2]}),
        cases({"a": [3]}, profile="laptop"),
    ])  # fmt: skip
    assert comparison.same_profile(frame, "a")["rank"].tolist() == [3]
    assert set(comparison.same_profile(frame, "b")["row"]) == {"a", "b"}
    assert comparison.same_profile(frame, "nobody").empty


# chance


def test_chance_by_hand():
    frame = cases({"some": [1] * 3 + [50] * 7, "all": [1] * 10})
    table = comparison.against_chance(frame, 0.1)
    assert table.loc["some", ["hits", "n"]].tolist() == [3, 10]
    # P(3 or more of 10) at 0.1
    upper = 1 - sum(math.comb(10, k) * 0.1**k * 0.9 ** (10 - k)
                    for k in range(3))  # fmt: skip
    assert table.loc["some", "p"] == pytest.approx(2 * upper)
    assert table["inside"].to_dict() == {"some": True, "all": False}


def test_nobody_who_guesses_is_called_a_leak():
    """The chance of any false alarm among 20 rows stays below alpha."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(100):
        ranks = {
            f"row{row}": rng.integers(1, 101, 150).tolist()
            for row in range(20)
        }
        table = comparison.against_chance(cases(ranks), 0.1)
        alarms += not table["inside"].all()
    assert alarms <= 12  # 5 expected at most, 12 has probability 0.002


def test_chance_of_no_cases_is_an_empty_table():
    table = comparison.against_chance(cases({"a": [1]})[:0], 0.1)
    assert table.empty and "inside" in table


def test_orders_that_agree_and_orders_that_turn():
    values = pd.DataFrame(
        {"one": [1, 2, 3], "same": [0.1, 0.2, 0.9], "turned": [3, 2, 1]}
    )
    tau = comparison.rank_agreement(values.assign(unknown=math.nan))
    assert tau.loc["one", "same"] == 1 and tau.loc["one", "turned"] == -1
    assert math.isnan(tau.loc["one", "unknown"])


def test_differences_in_words():
    frame = cases({"base": [1, 20, 20, 20], "x": [1, 1, 1, 20]})
    (line,) = comparison.difference_lines(
        comparison.paired_differences(frame, "base"), {"x": "Cells"}
    )
    assert line.startswith("- Cells: +50.0 points [")
    assert line.endswith("4 users")
    none = comparison.paired_differences(frame[:0], "base")
    assert comparison.difference_lines(none) == []


# verdicts

BEATEN = ["map", "radius"]


def judged(frame, controls=(*BEATEN, "start"), **options):
    return comparison.verdict(frame, "ours", controls, **options)


def three_controls():
    return cases(
        {
            "ours": [1] * 60 + [50] * 40,
            "map": [1] * 20 + [50] * 80,
            "radius": [1] * 30 + [50] * 70,
            "start": [1] * 90 + [50] * 10,
        }
    )


def test_a_verdict_names_who_is_above():
    text = judged(three_controls(), names={"start": "the regression"})
    assert text.startswith("ours has H@10 60.0%, surely above 2 of 3 controls")
    assert "surely below the regression" in text
    assert "the strongest, the regression: -30.0 points [" in text


def test_a_verdict_changes_when_two_rows_are_swapped():
    frame = three_controls()
    swapped = frame.assign(
        row=frame["row"].replace({"ours": "start", "start": "ours"})
    )
    assert judged(swapped) != judged(frame)
    assert "90.0%, surely above 3 of 3 controls; " in judged(swapped)


def test_a_missing_control_is_named_and_not_dropped():
    frame = three_controls()
    without = judged(frame[frame["row"] != "start"])
    assert "surely above 2 of 2" in without
    assert without.endswith("; not compared: start.")
    assert judged(frame[frame["row"] != "ours"]) == "ours is not recorded."


def test_a_quarter_more_is_harder_to_reach():
    frame = three_controls()
    assert "surely above 2 of 2" in judged(frame, BEATEN)
    assert "surely above 2 times 2" not in judged(frame, BEATEN, factor=2)
    strict = judged(frame, BEATEN, factor=2)
    # 60 against twice 30: nothing between them; twice 20 is surely less
    assert "above 2 times 1 of 2 controls" in strict
    assert "against 2 times the strongest, radius: +0.0 points" in strict


def test_one_number_is_not_shown_twice():
    table = tables.own_table(
        "Controls",
        {"a": "Ant", "b": "Bee"},
        collected({"a": 0.2, "b": 0.3}),
        collected({"a": 0.2, "b": 0.4}),
        data="toy",
        columns={"H@10": HITS},
    )
    live = table.frame["H@10", "live"]
    assert live.tolist() == [tables.AS_RECORDED, "40.0% [30.0, 50.0]"]
    assert table.values["H@10", "live"].tolist() == [0.2, 0.4]


# tables of the page: numbers in words, columns that sort

FRAME = pd.DataFrame(
    {
        "label": ["Ann & Co", "Bob"],
        "kind": ["rival", "control"],
        "value": [0.3, 0.1],
        "low": [0.2, 0.05],
        "high": [0.4, 0.12],
    }
)


def test_dots_lie_where_their_numbers_say():
    page = BeautifulSoup(
        tables.dot_table(FRAME, caption="Shares.", reference=0.01),
        "html.parser",
    )
    first = page.select("tbody tr")[0]
    assert first.th.text == "Ann & Co"
    assert [td.text for td in first.select("td")] == ["rival", "30.0%", ""]
    words = "30.0%, 95% interval 20.0% to 40.0%"
    line = first.select_one("[role=img]")
    assert line["aria-label"] == line["title"] == words
    styles = {s["class"][0]: s["style"] for s in line.select("span")}
    # the axis ends at 40%: half, three quarters, a fortieth of its length
    assert styles == {
        "dots-mark": "left:2.50%",
        "dots-range": "left:50.00%;width:50.00%",
        "dots-dot": "left:75.00%",
    }
    assert page.select("thead th")[-1].text == "0% to 40%"


def test_an_axis_ends_at_the_next_multiple_of_five():
    page = tables.dot_table(FRAME.assign(high=[0.41, 0.2]), caption="Shares.")
    assert "0% to 45%" in page and "dots-mark" not in page


def test_a_column_sorts_by_its_numbers_or_by_its_text():
    texts = pd.DataFrame({"row": ["<b>", "c"], "H@10": ["9% [8]", "30%"]})
    values = pd.DataFrame({"H@10": [0.09, 0.3]})
    page = BeautifulSoup(
        tables.sortable_table(texts, values, caption="All."),
        "html.parser",
    )
    heads = page.select("thead th")
    assert [th["data-sort"] for th in heads] == ["text", "number"]
    cells = page.select("tbody td")
    assert [float(td["data-value"]) for td in cells] == [0.09, 0.3]
    assert page.select("tbody th")[0].text == "<b>"  # escaped
    assert "sort" in page.table["class"]
