"""Table 1: the paper's numbers, and ours beside them."""

from pathlib import Path

import pandas as pd
import pytest

from serendifflib.data.table1 import (
    counts,
    paper_shape,
    paper_table1,
    shape,
    statistics,
)
from serendifflib.errors import DataError


@pytest.fixture
def data(make_data):
    return make_data(
        [
            ("u", "a", 1, 0),
            ("u", "b", 2, 1),
            ("u", "c", 3, 1),
            ("v", "b", 1, 1),
            ("w", "a", 1, 0),
        ]
    )


def test_every_line_of_the_paper_is_there():
    paper = paper_table1()
    assert len(paper) == 14
    assert paper["label"].is_unique
    assert paper.loc["reviews"].tolist()[-2:] == [265037, 74967]
    assert paper.loc["initial_agreement", "unit"] == "%"
    assert paper["group"].unique().tolist() == [
        "HITs (Tasks)",
        "Worker Judgements",
        "SerenCDRLens Dataset",
    ]


@pytest.mark.parametrize("column", ["serenlens-books", "serenlens-movies"])
def test_the_papers_own_sums(column):
    table = paper_table1()[column]
    assert table["judgements_collected"] == 5 * table["hits_assigned"]
    assert table["judgements_accepted"] == 5 * table["hits_accepted"]
    judged = table["reviews_serendipity"] + table["reviews_non_serendipity"]
    assert judged == table["reviews_judged"]
    agreement = table["judgements_agreed"] / table["judgements_accepted"]
    assert table["initial_agreement"] == pytest.approx(
        100 * agreement, abs=0.01
    )


def test_the_sum_that_does_not_come_out():
    # The note of the file says so; if the paper's numbers were retyped and
    # now agree, the note is wrong.
    table = paper_table1()["serenlens-books"]
    parts = table["judgements_agreed"] + table["judgements_third_opinion"]
    assert parts == 20_000
    assert table["judgements_accepted"] == 21_980


def test_counts_by_hand(data):
    assert counts(data) == {
        "reviews_serendipity": 3,
        "users_serendipity": 2,
        "reviews": 5,
        "items_serendipity": 2,
        "items": 3,
    }


def test_statistics_stand_beside_the_papers(data):
    table = statistics(data)
    assert table.loc["items", "recomputed"] == 3
    assert table.loc["items", "SerenLens-Books"] == 113_876
    assert table.loc["items", "SerenLens-Movies"] == 23_950
    assert pd.isna(table.loc["hits_assigned", "recomputed"])
    assert table.loc["users", "recomputed"] == 3
    assert pd.isna(table.loc["users", "SerenLens-Books"])
    assert table.loc["per_user", "recomputed"] == 1
    assert table.loc["per_item", "recomputed"] == pytest.approx(5 / 3)
    assert table.loc["initial_agreement", "statistic"].endswith("(%)")


def test_shape_of_histories_by_hand(data):
    """Users have 3, 1 and 1 rows; items a, b and c have 2, 2 and 1."""
    found = shape(data)
    assert found.pop("Rows per user, mean") == 1.6667
    assert found.pop("Rows per user, median") == 1
    assert found.pop("Rows per item, mean") == 1.6667
    # differences of pairs of items: 0, 1, 1 among three pairs, mean 5 / 3
    gini = "Gini coefficient of items"
    assert found.pop(gini) == pytest.approx(2 * 2 / 9 / 2 / (5 / 3), abs=1e-4)
    assert found.pop("Share of rows, top 10% of items") == 0.4
    assert found.pop("Items with one reader") == 0.3333
    assert found == {"Labels per labelled user": 1.5}


def test_shape_of_the_paper_is_its_totals():
    found = paper_shape(paper_table1())
    assert found.loc["Rows per user, mean", "serenlens-books"] == 265037 / 2346
    assert (
        found.loc["Rows per item, mean", "serenlens-movies"] == 74967 / 23950
    )


def test_missing_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("serendifflib.data.table1.project_root", Path)
    with pytest.raises(DataError, match=r"table1\.json: the paper's"):
        paper_table1()
