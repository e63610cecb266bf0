"""The CSV reader: what it accepts, what it refuses, what it does to rows."""

import csv
import io
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendifflib.data import reading
from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.data.layouts import read_table
from serendifflib.data.schema import shown, validate
from serendifflib.errors import DataError, SerenDiffError

ROW = ("u1", "i1", "1300000000", "good", "4.0", "1")
HEADER = ",".join(COLUMNS)


def text_file(tmp_path, content):
    path = tmp_path / "data.csv"
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    return path


def refusal(path):
    """The message of the DataError that reading must end with."""
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- what works ----------------------------------------------------------


def test_plain_file(write_csv):
    data = read_table(write_csv([ROW, ("u0", "i9", "5", "fine", "3.5", "0")]))
    assert data.name == "data.csv"
    assert data.has_labels
    assert data.frame.to_dict("list") == {
        "user_id": ["u0", "u1"],
        "item_id": ["i9", "i1"],
        "timestamp": [5, 1300000000],
        "review": ["fine", "good"],
        "rating": [3.5, 4.0],
        "label": [0, 1],
    }
    assert data.frame["timestamp"].dtype == np.int64
    assert data.frame["label"].dtype == np.int8
    assert data.frame["rating"].dtype == np.float64


def test_columns_in_any_order_and_extra_ones(write_csv):
    header = ["x", *reversed(COLUMNS), "x"]
    path = write_csv([["?", *reversed(ROW), "!"]], header=header)
    assert read_table(path).frame.equals(read_table(write_csv([ROW])).frame)


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = text_file(tmp_path, f"\ufeff{HEADER}\r\nu,i,1,hey,5,0\r\n")
    assert read_table(path).frame["review"].tolist() == ["hey"]


@pytest.mark.parametrize(
    "review",
    [
        'he said "wow", twice',
        "two\nlines",
        "two\r\nlines",
        "<script>alert(1)</script><b>",
        "\U0001f600 \u00e9 \u4e2d",
        "x" * 100_000,
        "NA",
        "nan",
        "=1+1",
        " led and followed by spaces ",
    ],
)
def test_reviews_stay_as_they_are(write_csv, review):
    row = ("u", "i", "1", review, "5", "0")
    assert read_table(write_csv([row])).frame["review"].tolist() == [review]


def test_empty_review_is_empty_text_and_counted(write_csv):
    rows = [("u", "i", "1", "", "5", "0"), ("u", "j", "2", "  ", "5", "0")]
    data = read_table(write_csv(rows))
    assert data.frame["review"].tolist() == ["", ""]
    assert any(note.startswith("2 rows have no review") for note in data.notes)


def test_zero_bytes_in_a_review_are_replaced(tmp_path):
    path = text_file(tmp_path, f"{HEADER}\nu,i,1,a\0b\u00e9,5,0\n")
    assert read_table(path).frame["review"].tolist() == ["a\ufffdb\u00e9"]


def test_ids_lose_surrounding_spaces_but_not_their_case(write_csv):
    data = read_table(write_csv([(" U ", "I\t", "1", "x", "5", "0")]))
    assert data.frame["user_id"].tolist() == ["U"]
    assert data.frame["item_id"].tolist() == ["I"]


def test_missing_rating_is_unknown_and_counted(write_csv):
    rows = [("u", "i", "1", "x", "", "0"), ("u", "j", "2", "x", "NaN", "0")]
    data = read_table(write_csv(rows))
    assert data.frame["rating"].isna().all()
    assert "2 rows have no rating." in data.notes


def test_no_positive_label_still_loads(write_csv):
    data = read_table(write_csv([("u", "i", "1", "x", "5", "0")]))
    assert not data.has_labels
    assert any("next items" in note for note in data.notes)


def test_rows_are_sorted_and_ties_keep_their_order(write_csv):
    rows = [
        ("b", "i1", "9", "", "5", "0"),
        ("a", "i4", "7", "", "5", "0"),
        ("a", "i2", "7", "", "5", "0"),
        ("a", "i3", "1", "", "5", "0"),
    ]
    data = read_table(write_csv(rows))
    assert data.frame["item_id"].tolist() == ["i3", "i4", "i2", "i1"]
    assert any("not in order" in note for note in data.notes)
    assert any(note.startswith("1 rows have the same") for note in data.notes)


def test_sorted_rows_need_no_note(write_csv):
    assert read_table(write_csv([ROW])).notes == ()


def test_repeated_pairs_merge_into_the_earliest(write_csv):
    rows = [
        ("u", "i", "30", "third", "1", "0"),
        ("u", "i", "20", "second, labelled", "2", "1"),
        ("u", "i", "10", "first", "3", "0"),
        ("u", "j", "15", "other", "4", "0"),
        ("v", "i", "10", "another user", "5", "0"),
    ]
    data = read_table(write_csv(rows))
    first = data.frame.iloc[0]
    assert len(data.frame) == 3
    assert (first["timestamp"], first["review"]) == (10, "first")
    assert (first["rating"], first["label"]) == (3.0, 1)
    assert not (data.frame["review"] == "second, labelled").any()
    assert data.frame["label"].tolist() == [1, 0, 0]
    assert any(note.startswith("2 repeated rows") for note in data.notes)


def test_numbers_may_carry_a_point(write_csv):
    row = ("u", "i", "1300000000.0", "x", "4", "1.0")
    frame = read_table(write_csv([row])).frame
    assert frame["timestamp"].tolist() == [1300000000]
    assert frame["label"].tolist() == [1]


# --- what is refused -----------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("user_id", "", "is not an id"),
        ("item_id", "nan", "is not an id"),
        ("timestamp", "yesterday", "is not a number"),
        ("timestamp", "", "number is needed"),
        ("timestamp", "12.5", "whole number of seconds"),
        ("timestamp", "-1", "before 1970"),
        ("timestamp", "9" * 40, "beyond the year 5138"),
        ("timestamp", "now", "nor a date"),
        ("timestamp", "inf", "is not a number"),
        ("rating", "five", "is not a number"),
        ("rating", "0.4", "not within 0.5 to 5"),
        ("rating", "5.5", "not within 0.5 to 5"),
        ("label", "2", "neither 0 nor 1"),
        ("label", "0.5", "neither 0 nor 1"),
        ("label", "yes", "is not a number"),
        ("label", "", "number is needed"),
    ],
)
def test_bad_value_names_row_column_and_value(write_csv, column, value, words):
    bad = list(ROW)
    bad[COLUMNS.index(column)] = value
    good = ("u2", "i2", "1", "x", "5", "0")
    message = refusal(write_csv([good, good[:1] + ("i3",) + good[2:], bad]))
    assert f"row 3, column {column!r}: {value!r:.37}" in message
    assert words in message


def test_the_first_bad_row_is_reported(write_csv):
    rows = [
        ("u", "i", "1", "x", "9", "0"),
        ("u", "j", "-1", "x", "5", "7"),
    ]
    assert "row 1, column 'rating'" in refusal(write_csv(rows))


def test_row_numbers_are_not_shifted_by_line_breaks(write_csv):
    rows = [("u", "i", "1", "a\nb\n\nc", "5", "0"), (*ROW[:5], "3")]
    assert "row 2, column 'label'" in refusal(write_csv(rows))


def test_long_value_is_cut_in_the_message(write_csv):
    message = refusal(write_csv([(*ROW[:5], "z" * 500)]))
    assert "z" * 36 + "..." in message
    assert "z" * 37 not in message


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            ["user_id", "item_id", "when", "review", "rating", "label"],
            "column 'timestamp' is missing; the file has 'user_id'",
        ),
        (
            ["user_id", "item_id", "timestamp", "review", "rating", "lable"],
            "column 'label' is missing; is it 'lable'?",
        ),
        (["one", "two"], "column 'user_id' is missing"),
        ([*COLUMNS, "label"], "'label' stands twice"),
    ],
)
def test_header_errors(write_csv, header, words):
    assert words in refusal(write_csv([], header=header))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n \n\n", "is empty"),
        (HEADER + "\n", "no rows"),
        (HEADER.encode("utf-16"), "not UTF-8"),
        (HEADER.encode() + b"\nu,i,1,\xf0\x9f", "cut short"),
        (
            f'{HEADER}\nu,i,1,"never closed,5,0\n',
            "EOF inside string",
        ),
        (f"{HEADER}\nu,j,1,one, two,5,0\n", "loss of data"),
        (f"{HEADER}\nu,i,1,x,5\n", "column 'label': ''"),
        (f"{HEADER}\nu\0v,i,1,x,5,0\n", "column 'user_id'"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    assert words in refusal(text_file(tmp_path, content))


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "nowhere.csv")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"u,i,1,caf\xe9,5,0\n",
        b"u,i,1," + b"x" * (1 << 20) + b"\n\xff",
    ],
)
def test_not_utf8(tmp_path, content):
    path = text_file(tmp_path, HEADER.encode() + b"\n" + content)
    assert "'utf-8' codec can't decode byte 0x" in refusal(path)


@pytest.mark.parametrize("first", [True, False])
def test_too_many_fields(tmp_path, first):
    good, bad = "u,i,1,x,5,0\n", "u,j,1,one, two,5,0\n"
    rows = bad + good if first else good + bad
    message = refusal(text_file(tmp_path, f"{HEADER}\n{rows}"))
    assert ("loss of data" if first else "in line 3, saw 7") in message


def test_reading_changes_no_file(write_csv):
    path = write_csv([(*ROW[:5], "7")])
    before = (path.read_bytes(), sorted(os.listdir(path.parent)))
    refusal(path)
    assert (path.read_bytes(), sorted(os.listdir(path.parent))) == before


# --- tables in memory ----------------------------------------------------


def memory(**changes):
    table = pd.DataFrame(
        {
            "user_id": ["b", "a"],
            "item_id": [2, 1],
            "timestamp": [20, 10],
            "review": ["x", None],
            "rating": [np.nan, 4],
            "label": [True, False],
        }
    )
    return table.assign(**changes)


def test_table_in_memory():
    frame, _ = validate(memory(), where="memory")
    assert frame["user_id"].tolist() == ["a", "b"]
    assert frame["item_id"].tolist() == ["1", "2"]
    assert frame["review"].tolist() == ["", "x"]
    assert frame["label"].tolist() == [0, 1]


def test_float_ids_of_a_column_with_gaps_are_whole_numbers():
    frame, _ = validate(memory(item_id=[7.0, 8.0]), where="memory")
    assert sorted(frame["item_id"]) == ["7", "8"]


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
def test_missing_id_in_memory(gap):
    with pytest.raises(DataError, match="memory: row 2, column 'user_id'"):
        validate(memory(user_id=["a", gap]), where="memory")


def test_lone_surrogates_in_memory():
    # what pandas keeps in its own strings, if pyarrow is there, is UTF-8
    text = pd.Series(["a\ud800b", "x"], dtype=object)
    frame, _ = validate(memory(review=text), where="memory")
    assert frame["review"].tolist() == ["x", "a\ufffdb"]
    with pytest.raises(DataError, match="item_id"):
        validate(memory(item_id=text), where="memory")


def test_input_table_is_not_changed():
    table = memory()
    before = table.copy()
    validate(table, where="memory")
    pd.testing.assert_frame_equal(table, before)


def test_repeated_index_does_not_confuse_the_row():
    table = memory(label=[0, 5])
    table.index = [3, 3]
    with pytest.raises(DataError, match="row 2, column 'label': 5"):
        validate(table, where="memory")


def test_shown_is_short_and_on_one_line():
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1000)) == 40


def test_parts_are_the_whole(write_csv, monkeypatch):
    rows = [("u", f"i{k}", str(k), "x", "5", "0") for k in range(7)]
    whole = read_table(write_csv(rows)).frame
    monkeypatch.setattr(reading, "ROWS", 3)
    assert read_table(write_csv(rows)).frame.equals(whole)
    bad = [*rows, ("u", "j", "never", "x", "5", "0")]
    assert "row 8, column 'timestamp'" in refusal(write_csv(bad))


# --- properties ----------------------------------------------------------

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30
)
NAMES = st.sampled_from(["a", "B", "ab", "\u00e9", "\U0001f600", "0"])
ROWS = st.lists(
    st.tuples(
        NAMES,
        NAMES,
        st.integers(0, 5),
        TEXT,
        st.sampled_from([0.5, 1.0, 4.5, 5.0, math.nan]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=25,
)


def reference(rows):
    """Sorting and merging again, by plain loops over plain rows."""
    kept = {}
    for row in sorted(rows, key=lambda row: (row[0], row[2])):
        user, item, when, review, rating, label = row
        if (user, item) in kept:
            kept[user, item][5] = max(kept[user, item][5], label)
        else:
            review = review if review.strip() else ""
            kept[user, item] = [user, item, when, review, rating, label]
    return list(kept.values())


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, order=st.permutations(range(6)))
def test_written_and_read_again(tmp_path, rows, order):
    path = tmp_path / "round.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([COLUMNS[place] for place in order])
        for row in rows:
            text = ["" if value != value else value for value in row]
            writer.writerow([text[place] for place in order])
    found = read_table(path).frame.to_numpy(dtype=object).tolist()
    expected = reference(rows)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[:4] == other[:4]
        assert one[5] == other[5]
        assert one[4] == other[4] or (
            one[4] != one[4] and other[4] != other[4]
        )


def real_shaped():
    rows = [
        ("a1", "b1", 1300000000, 'He said "x", left', 4.0, 0),
        ("a1", "b2", 1300000001, "two\nlines", 5.0, 1),
        ("a2", "b1", 1300000002, "caf\u00e9 \U0001f600", 1.0, 0),
        ("a2", "b3", 1300000002, "", 2.0, 0),
    ]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return stream.getvalue().encode()


PIECES = [b"", b",", b'"', b"\n", b"\r", b"\x00", b"\xff", b"-", b"9" * 30]
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(real_shaped())),
        st.integers(0, 4),
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)),
    ),
    min_size=1,
    max_size=6,
)


def survive(path, content):
    """Reading ends with valid interactions or with a typed error."""
    path.write_bytes(content)
    try:
        data = read_table(path)
    except SerenDiffError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(data, Interactions)
    frame = data.frame
    assert not frame[["user_id", "item_id"]].duplicated().any()
    assert frame["label"].isin([0, 1]).all()
    assert frame["timestamp"].between(0, 10**11).all()
    assert (frame["rating"].isna() | frame["rating"].between(0.5, 5)).all()
    assert (np.diff(data.user_index) >= 0).all()
    assert len(data.checksum) == 64


def mutated(edits):
    content = real_shaped()
    for place, length, piece in edits:
        content = content[:place] + piece + content[place + length :]
    return content


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS)
def test_mutated_files_end_typed(tmp_path, edits):
    survive(tmp_path / "mutated.csv", mutated(edits))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(max_size=200))
def test_rubbish_ends_typed(tmp_path, content):
    survive(tmp_path / "rubbish.csv", content)
    survive(tmp_path / "rubbish.csv", HEADER.encode() + b"\n" + content)


@pytest.mark.slow
@settings(
    max_examples=20_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS)
def test_twenty_thousand_mutated_files(tmp_path, edits):
    survive(tmp_path / "mutated.csv", mutated(edits))
