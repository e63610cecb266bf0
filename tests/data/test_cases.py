"""Kinds of input that once failed, and the right result for each.

The small inputs are made here. Where the collection of given files is at
hand (``../shared/cases``), those are read as well.
"""

import pandas as pd
import pytest
from given_cases import given

from serendifflib.data.layouts import read_table
from serendifflib.data.sources import load_dataset
from serendifflib.errors import DataError
from serendifflib.portrait.fold import outlook


def rows(**columns):
    """A table of as many rows as the longest column has values."""
    count = max(
        len(value) for value in columns.values() if isinstance(value, list)
    )
    default = {
        "user_id": [f"u{n}" for n in range(count)],
        "item_id": [f"i{n}" for n in range(count)],
        "timestamp": [1600000000 + n for n in range(count)],
        "review": [f"own words {n}" for n in range(count)],
        "rating": 4,
        "label": 0,
    }
    return pd.DataFrame({**default, **columns})


def noted(data, words):
    assert any(words in note for note in data.notes), data.notes


# --- times that are no seconds ---------------------------------------------


@pytest.mark.parametrize(
    ("times", "hint"),
    [
        ([1588687, 1588774, 1588860], ""),  # pandas 3: seconds / 1000
        ([20180701, 20180702], "; write dates as 2018-07-01"),
        (["2016", "2017"], ""),
    ],
)
def test_times_in_1970_are_doubted(times, hint):
    with pytest.warns(UserWarning, match="all in 1970") as said:
        data = load_dataset(rows(timestamp=times))
    assert f"seconds since 1970{hint}." in str(said[0].message)
    noted(data, "Warning: the times run from 1970-")
    assert dict(outlook(data)[0])["times"].startswith("1970-")


def test_times_far_in_the_future_are_doubted():
    with pytest.warns(UserWarning, match="are they seconds since 1970"):
        load_dataset(rows(timestamp=[1600000000, 5000000000]))


@pytest.mark.parametrize("name", ["amazon2023-int.csv", "yyyymmdd.csv"])
def test_given_times_in_1970(name):
    with pytest.warns(UserWarning, match="all in 1970"):
        load_dataset(given(name))


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1700000000),
        ("2023-11-14 22:13:20", 1700000000),
        ("2023-11-14 23:13:20.9+01:00", 1700000000),
        ("2023-11-14", 1699920000),
        ("Fri Jan 01 10:11:12 -0800 2016", 1451671872),
        ("2016/01/02", 1451692800),
        ("01 2, 2016", 1451692800),
        ("1700000000123", 1700000000),
        ("1700000000123456", 1700000000),
        ("1700000000123456789", 1700000000),
    ],
)
def test_times_in_other_forms_are_read_with_a_note(time, seconds):
    data = read_table(rows(timestamp=[time, "1700000009"]))
    assert data.frame["timestamp"].tolist() == [seconds, 1700000009]
    noted(data, "1 times were")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("amazon2023-by-hand.csv", 1588687728),
        ("iso-timestamp.csv", 1700000000),
        ("goodreads-1.csv", 1451671872),
    ],
)
def test_given_dates(name, first):
    data = read_table(given(name))
    assert data.frame["timestamp"].min() == first
    noted(data, "times were dates")


# --- ratings, labels, ids ---------------------------------------------------


@pytest.mark.parametrize("zero", [0, "0", "0.0"])
def test_a_rating_of_0_is_unrated(zero):
    data = read_table(rows(rating=[zero, 3]))
    assert data.frame["rating"].isna().tolist() == [True, False]
    noted(data, "1 ratings of 0 were read as unrated")


@pytest.mark.parametrize("name", ["goodreads-2.csv", "rating-0.csv"])
def test_given_ratings_of_0(name):
    noted(read_table(given(name)), "ratings of 0 were read as unrated")


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        (["True", "False"], [1, 0]),
        (["TRUE", "0"], [1, 0]),
        ([True, False], [1, 0]),
        (["1.0", " false "], [1, 0]),
    ],
)
def test_true_and_false_are_1_and_0(labels, read):
    data = read_table(rows(label=labels))
    assert data.frame["label"].tolist() == read


@pytest.mark.parametrize("name", ["bool.csv", "label-True.csv"])
def test_given_truth(name):
    assert read_table(given(name)).frame["label"].tolist() == [1]


def test_ids_with_a_point_are_whole_numbers():
    data = read_table(rows(user_id=["196.0", "12", "12.0", "v1.0", "0.5"]))
    assert list(data.users) == ["0.5", "12", "196", "v1.0"]
    noted(data, "2 ids were written like 12.0")
    for name in ("196", 196, 196.0, "196.0"):
        assert data.user_number(name) == 2
    plain = read_table(rows(user_id=[196.0, 12.0]))  # a column with gaps
    assert list(plain.users) == ["12", "196"]


def test_given_float_ids():
    assert "196" in read_table(given("float-ids2.csv")).users


def test_how_many_rows_are_bad():
    with pytest.raises(DataError, match=r"row 2, .*: '9' .*\(and 1 more"):
        read_table(rows(rating=["3", "9", "4", "8"]))
    with pytest.raises(DataError, match=r"row 1, .*'noon' .*\(and 2 more"):
        read_table(rows(timestamp=["noon", "7", "soon", "then"]))
    with pytest.raises(DataError, match=r"row 3, .*is not an id$"):
        read_table(rows(item_id=["a", "b", ""]))


# --- formats ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["amazon2014.json", "amazon2023.jsonl", "gz.csv.gz", "zip.zip"],
)
def test_given_formats(name):
    assert len(read_table(given(name)).frame) >= 1


def test_given_damaged_parquet():
    pytest.importorskip("pyarrow", reason="pyarrow reads Parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(given("data.parquet"))


# --- what can never be fitted -----------------------------------------------


def grid(**changes):
    """20 users with 6 rows each of 12 items; the last row has label 1."""
    table = rows(
        user_id=[f"u{n // 6:02}" for n in range(120)],
        item_id=[f"i{(n + n // 6) % 12}" for n in range(120)],
        label=[int(n % 6 == 5) for n in range(120)],
    )
    return read_table(table.assign(**changes))


def test_what_can_be_fitted():
    found, reason = outlook(grid())
    assert reason == ""
    assert dict(found)["labels with a history"] == "20 of 20"
    assert dict(found)["items without a vector"] == "0 of 12"
    assert dict(found)["longest history"] == "6 items"
    assert dict(found)["share of label 1"] == "16.67%"
    assert dict(found)["ratings"] == "4 to 4, 0 without"


@pytest.mark.parametrize(
    ("changes", "what", "count", "why"),
    [
        (
            {"timestamp": 1600000000},
            "labels with a history",
            "0 of 20",
            "none of their 18 labels has a history, because the user's rows "
            "all have the same time",
        ),
        (
            {"label": 1},
            "items without a vector",
            "12 of 12",
            "so no item gets one: all 120 rows that have one are labelled",
        ),
        (
            {"review": ""},
            "items without a vector",
            "12 of 12",
            "so no item gets one: no row has one",
        ),
        (
            {"item_id": [f"i{n}" for n in range(120)]},
            "labels with a history",
            "20 of 20",
            "18 left out because their item has no other review; if the texts "
            "describe items, and are no reviews, say",
        ),
        (
            {"label": [int(n % 6 == 0) for n in range(120)]},
            "labels with a history",
            "0 of 20",
            "none of their 18 labels has a history, a row of the same user "
            "at an earlier time",
        ),
        ({"review": "good"}, "items without a vector", "0 of 12", "same text"),
    ],
)
def test_what_can_never_be_fitted_says_why(changes, what, count, why):
    found, reason = outlook(grid(**changes))
    assert dict(found)[what] == count
    assert why in reason
    assert "time to encode here" not in dict(found)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fit-all-same-ts.csv", "all have the same time"),
        ("fit-all-label.csv", "are labelled or held out"),
        ("fit-no-reviews.csv", "no row has one"),
        ("descriptions-once.csv", "--texts-describe-items"),
    ],
)
def test_given_files_that_can_never_be_fitted(name, why):
    assert why in outlook(read_table(given(name)))[1]


def test_given_descriptions():
    path = given("descriptions-once.csv")
    data = read_table(path, texts_describe_items=True)
    assert outlook(data)[1] == ""


def test_the_estimate_leaves_out_what_is_cached(tmp_path, monkeypatch):
    from serendifflib.portrait.encoding import ReviewEncoder

    encoder = ReviewEncoder(cache=tmp_path)
    encoder.__dict__["fingerprint"] = "f" * 64
    given_to = []

    def encoded(self, texts):
        import numpy as np

        given_to.append(list(texts))
        return np.zeros((len(texts), 384), dtype=np.float32)

    monkeypatch.setattr(ReviewEncoder, "_encoded", encoded)
    encoder.encode(["a", "b"])
    given_to.clear()
    assert encoder.seconds_for(["a", "b"]) == 0.0
    assert given_to == []
    assert encoder.seconds_for(["a", "b", "c", "d"]) >= 0.0
    assert given_to == [["c"], ["c", "d"]]
