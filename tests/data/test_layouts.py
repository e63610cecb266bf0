"""Files from common places, each in a small copy made by hand."""

import bz2
import gzip
import json
import lzma
import zipfile

import pandas as pd
import pytest

from serendifflib.data.layouts import read_table
from serendifflib.data.sources import load_dataset
from serendifflib.errors import ConfigError, DataError

AMAZON_2018 = [
    {
        "reviewerID": f"A{n % 2}",
        "asin": f"000{n}",
        "reviewText": f"own words {n}",
        "overall": 1.0 + n,
        "summary": "headline",
        "unixReviewTime": 1387670400 + n,
        "reviewTime": "12 22, 2013",
    }
    for n in range(4)
]
del AMAZON_2018[0]["reviewText"]  # it may be absent, even in the first
AMAZON_2023 = [
    {
        "rating": 5.0,
        "title": "headline",
        "text": f"own words {n}",
        "asin": f"B{n}-red",
        "parent_asin": f"B{n}",
        "user_id": "U0",
        "timestamp": 1588687728923 + 1000 * n,
    }
    for n in range(3)
]
GOODREADS = [
    {
        "user_id": "u0",
        "book_id": str(100 + n),
        "rating": n,
        "review_text": f"own words {n}",
        "date_added": f"Fri Jan 0{n + 1} 10:11:12 -0800 2016",
        "read_at": "",
    }
    for n in range(3)
]
YELP = [
    {
        "review_id": "r",
        "user_id": "u0",
        "business_id": f"b{n}",
        "stars": 4.0,
        "useful": 0,
        "text": f"own words {n}",
        "date": f"2018-07-07 22:09:1{n}",
    }
    for n in range(3)
]
LIBRARY = """Book Id,Title,Author,My Rating,Date Read,Date Added,\
Exclusive Shelf,My Review
7,Dune,Frank Herbert,5,2020/05/01,2020/04/01,read,own words
8,Emma,Jane Austen,0,,2020/04/03,read,
9,Ulysses,James Joyce,0,,2020/04/05,to-read,
"""


def lines(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def noted(data, words):
    assert any(words in note for note in data.notes), data.notes


@pytest.mark.parametrize("layout", [None, "amazon-2014", "amazon-2018"])
def test_amazon_2018(tmp_path, layout):
    data = read_table(lines(tmp_path / "r.json", AMAZON_2018), layout=layout)
    rows = data.frame.to_dict("list")
    assert rows["user_id"] == ["A0", "A0", "A1", "A1"]
    assert rows["item_id"] == ["0000", "0002", "0001", "0003"]
    assert rows["timestamp"][0] == 1387670400
    assert rows["review"] == ["", *(f"own words {n}" for n in (2, 1, 3))]
    assert rows["rating"] == [1, 3, 2, 4]
    noted(data, "user_id from 'reviewerID'")
    noted(data, "no column for label")
    assert not data.has_labels


@pytest.mark.parametrize("layout", [None, "amazon-2023"])
def test_amazon_2023(tmp_path, layout):
    data = read_table(lines(tmp_path / "r.jsonl", AMAZON_2023), layout=layout)
    assert list(data.items) == ["B0", "B1", "B2"]
    assert data.frame["timestamp"].tolist() == [
        1588687728,
        1588687729,
        1588687730,
    ]
    noted(data, "3 times were in milliseconds")
    assert data.title(1) == "B0"  # the headline of a review names no item


@pytest.mark.parametrize("layout", [None, "goodreads"])
def test_goodreads(tmp_path, layout):
    data = read_table(lines(tmp_path / "g.json", GOODREADS), layout=layout)
    assert data.frame["timestamp"].tolist() == [
        1451671872 + 86400 * n for n in range(3)
    ]
    assert data.frame["rating"].isna().tolist() == [True, False, False]
    noted(data, "1 ratings of 0 were read as unrated")
    noted(data, "3 times were dates")


@pytest.mark.parametrize("layout", [None, "goodreads-library"])
def test_goodreads_library(tmp_path, layout):
    path = tmp_path / "goodreads_library_export.csv"
    path.write_text(LIBRARY)
    data = read_table(path, layout=layout)
    assert list(data.items) == ["7", "8"]
    assert data.frame["review"].tolist() == ["own words", "Emma"]
    assert data.frame["timestamp"].tolist() == [1585699200, 1585872000]
    assert data.title(1) == "Dune"
    noted(data, "1 books that are still to be read were left out")


@pytest.mark.parametrize("layout", [None, "yelp"])
def test_yelp(tmp_path, layout):
    data = read_table(lines(tmp_path / "y.json", YELP), layout=layout)
    assert data.frame["timestamp"].tolist() == [
        1531001350,
        1531001351,
        1531001352,
    ]
    assert list(data.items) == ["b0", "b1", "b2"]


CSV = """user_id,item_id,timestamp,review,rating,label
u0,i0,1600000000,own words,4,0
u0,i1,1600000001,"more, with a comma",5,1
"""


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.csv.gz", gzip.compress),
        ("x.csv.bz2", bz2.compress),
        ("x.csv.xz", lzma.compress),
        ("misnamed.csv", gzip.compress),
    ],
)
def test_packed(tmp_path, name, pack):
    plain = tmp_path / "plain.csv"
    plain.write_text(CSV)
    packed = tmp_path / name
    packed.write_bytes(pack(CSV.encode()))
    assert read_table(packed).frame.equals(read_table(plain).frame)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(damaged)


def test_zip(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._x.csv", b"\x00")
        archive.writestr("folder/x.csv", CSV)
    assert read_table(path).frame["item_id"].tolist() == ["i0", "i1"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.csv", CSV)
    with pytest.raises(DataError, match=r"holds 2 files \('folder/x.csv'"):
        read_table(path)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow reads Parquet")
    path = tmp_path / "x.parquet"
    table = pd.DataFrame(
        {
            "user_id": [196, 196],
            "item_id": ["a", "b"],
            "timestamp": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "review": ["x", None],
            "rating": [4.0, None],
            "label": [True, False],
        }
    )
    table.to_parquet(path)
    data = read_table(path)
    assert data.frame["timestamp"].tolist() == [1577836800, 1577923200]
    assert data.frame["label"].tolist() == [1, 0]
    assert list(data.users) == ["196"]
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 16 + b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path)


@pytest.mark.parametrize(
    ("mark", "word"), [("\t", "tabs"), (";", "semicolons"), ("|", "bars")]
)
def test_other_separators(tmp_path, mark, word):
    path = tmp_path / "x.txt"
    path.write_text(CSV.replace("more, with", "more with").replace(",", mark))
    assert read_table(path).frame["item_id"].tolist() == ["i0", "i1"]


def test_likely_names_and_their_correction(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "User-ID,Item,Date,Comment,Who\nu,i,2020-01-01,own words,w\n"
    )
    data = read_table(path)
    noted(data, "user_id from 'User-ID', item_id from 'Item'")
    assert data.frame["review"].tolist() == ["own words"]
    data = read_table(path, columns={"user_id": "Who"})
    assert list(data.users) == ["w"]
    with pytest.raises(DataError, match="column 'Whom' is missing"):
        read_table(path, columns={"user_id": "Whom"})
    with pytest.raises(ConfigError, match="unknown column 'user'"):
        read_table(path, columns={"user": "Who"})
    with pytest.raises(ConfigError, match="unknown layout 'amazon'"):
        read_table(path, layout="amazon")
    with pytest.raises(DataError, match="'reviewerID' is missing"):
        read_table(path, layout="amazon-2018")


def test_titles_are_read_and_headlines_are_not(tmp_path):
    path = tmp_path / "x.csv"
    header = "user_id,item_id,timestamp,review,rating,label,title\n"
    row = "u{0},i{1},160000000{0},x,4,0,{2}\n"
    pairs = [(u, i) for u in range(3) for i in range(3)]
    path.write_text(
        header + "".join(row.format(u, i, f"Title {i}") for u, i in pairs)
    )
    assert read_table(path).titles == {f"i{i}": f"Title {i}" for i in range(3)}
    path.write_text(
        header + "".join(row.format(u, i, f"I liked {u}") for u, i in pairs)
    )
    data = read_table(path)
    assert data.titles == {}
    noted(data, "'title' does not hold the titles of the items")


def test_titles_instead_of_reviews(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("user,item,time,title\nu,1,1600000000,Heat\n")
    data = read_table(path)
    assert data.texts_describe_items
    assert data.frame["review"].tolist() == ["Heat"]
    noted(data, "the title is the text of an item")


# --- what is something else ------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"user_id": 1}]', "column 'user_id' is missing"),
        (b'{"user_id": 1\n', "line 1 is no JSON object"),
        (b'{"a": 1}\n[2]\n', "line 2 is no JSON object"),
        (b"SQLite format 3\x00", "column 'user_id' is missing"),
        (b"\x89PNG\r\n\x1a\n", "can't decode byte 0x89"),
        (b"\x80\x04\x95\x00", "can't decode byte 0x80"),
        (b"1::2::5::978300760\n", "column 'user_id' is missing"),
    ],
)
def test_what_is_something_else(tmp_path, content, words):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_table(path)


def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_table(tmp_path / "pipe")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_table("/dev/null")


# --- MovieLens --------------------------------------------------------------


def movielens_latest(folder):
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,7,4.5,1000000000\n"
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n7,"Enfer, L\' (1994)",Drama|War\n'
    )


def movielens_1m(folder):
    (folder / "ratings.dat").write_text("1::7::4.5::1000000000\n")
    (folder / "movies.dat").write_text(
        "7::Enfer, L' (1994)::Drama|War\n", encoding="latin-1"
    )


def movielens_100k(folder):
    (folder / "u.data").write_text("1\t7\t4.5\t1000000000\n")
    flags = ["0"] * 19
    flags[8] = flags[17] = "1"
    (folder / "u.item").write_text(
        f"7|Enfer, L' (1994)|01-Jan-1994||http://x|{'|'.join(flags)}\n",
        encoding="latin-1",
    )


RELEASES = [movielens_latest, movielens_1m, movielens_100k]


@pytest.mark.parametrize("make", RELEASES)
@pytest.mark.parametrize("packed", [False, True])
def test_movielens_of_every_age(tmp_path, own_folders, make, packed):
    folder = path = tmp_path / "ml"
    folder.mkdir()
    make(folder)
    if packed:
        path = tmp_path / "ml.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml-x/{file.name}")
    data = load_dataset(path)
    assert data.frame.iloc[0].tolist() == [
        "1", "7", 1000000000, "L'Enfer (1994). Drama, War.", 4.5, 0,
    ]  # fmt: skip
    assert data.title(1) == "L'Enfer (1994)"
    assert data.texts_describe_items


def test_what_is_not_movielens(tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    with pytest.raises(DataError, match="no folder or zip archive"):
        load_dataset(tmp_path / "x.csv", layout="movielens")
