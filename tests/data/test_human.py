"""Surveys and judged readers, from small files of our own making."""

import csv
import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
from taobao import TAOBAO_PEOPLE, TAOBAO_SURPRISED

from serendifflib.data import sources
from serendifflib.data.human import (
    read_beliefs,
    read_goodreads_surprise,
    read_judgements,
    read_personality,
    read_taobao,
    serendipity_counts,
    verdict,
)
from serendifflib.data.sources import SOURCES, SURVEYS, check, load_survey
from serendifflib.errors import ConfigError, DataError, UnknownDatasetError

ROOT = Path(__file__).resolve().parents[2]
PLACES = [os.environ.get("SERENDIFF_DATA"), ROOT.parent / "shared/data"]


@pytest.fixture
def real(request, monkeypatch):
    """$SERENDIFF_DATA of a real set, where a copy is at hand."""
    name = request.param
    for place in filter(None, PLACES):
        monkeypatch.setenv("SERENDIFF_DATA", str(place))
        if sources.find_source(SOURCES[name]) is not None:
            return SOURCES[name]
    pytest.skip(f"{name} is not in $SERENDIFF_DATA")


def write(path, header, rows, mark=False):
    encoding = "utf-8-sig" if mark else "utf-8"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


# --- Taobao --------------------------------------------------------------

HEADER = (
    "UserId,ItemId,CategoryId,Clicked,Purchased,Relevance,Novelty,"
    "Pur_diversity,Rec_diversity,Unexpectedness,Serendipity,Timeliness,"
    "User satisfaction,Purchase intention,C1,C2,C3,C4,C5,C6,C7,C8,C9,C10,"
    "P1,P2,P3,P4,P5,P6,P7,P8,P9,P10"
).split(",")


def person(user, relevance=3, unexpected=3, serendipity=3, **answers):
    row = dict.fromkeys(HEADER, 3) | {"UserId": user, "Clicked": 0}
    row |= {"Relevance": relevance, "Unexpectedness": unexpected}
    row |= {"Serendipity": serendipity, "Purchased": 1} | answers
    return [row[name] for name in HEADER]


def test_taobao_by_hand(tmp_path):
    rows = [
        person(1, 5, 4, 4),
        person(2, 5, 4, 3),
        person(3, 1, 5, 5, C1=5, P5=7, P10=1, P1=6, P6=5),
    ]
    path = write(tmp_path / "a.csv", HEADER, rows, mark=True)
    answers = read_taobao(path)
    assert answers["user_id"].tolist() == ["1", "2", "3"]
    assert answers["surprised"].tolist() == [True, False, True]
    assert answers["curiosity"].tolist() == [3.0, 3.0, 3.2]
    last = answers.iloc[2]
    assert last["openness"] == (7 + 8 - 1) / 2
    assert last["extraversion"] == (6 + 8 - 5) / 2
    people, surprised = serendipity_counts(answers)
    assert people[4, 3] == 2 and surprised[4, 3] == 1
    assert people[0, 4] == 1 and surprised[0, 4] == 1
    assert people.sum() == 3 and surprised.sum() == 2


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Relevance", 6, r"row 2, column 'relevance': '6' is not within 1"),
        ("Relevance", "", r"row 2, column 'relevance'.*is empty"),
        ("Timeliness", 2.5, r"row 2, column 'timeliness': '2.5' is no whole"),
        ("P3", "often", r"row 2, column 'p3': 'often' is no number"),
        ("UserId", 1, r"row 2, column 'UserId': '1' stands there twice"),
    ],
)
def test_an_answer_off_its_scale(tmp_path, column, value, message):
    rows = [person(1), person(2, **{})]
    rows[1][HEADER.index(column)] = value
    path = write(tmp_path / "a.csv", HEADER, rows)
    with pytest.raises(DataError, match=message):
        read_taobao(path)


def test_a_survey_without_a_column(tmp_path):
    path = write(tmp_path / "a.csv", HEADER[:-1], [person(1)[:-1]])
    with pytest.raises(DataError, match="'P10' is missing"):
        read_taobao(path)


@pytest.mark.parametrize("real", ["taobao-serendipity"], indirect=True)
def test_the_stored_counts_are_those_of_the_file(real):
    people, surprised = serendipity_counts(load_survey(real.id))
    np.testing.assert_array_equal(people, TAOBAO_PEOPLE)
    np.testing.assert_array_equal(surprised, TAOBAO_SURPRISED)
    assert people.sum() == real.n_users


def test_the_stored_counts_can_be_shares():
    assert (TAOBAO_SURPRISED <= TAOBAO_PEOPLE).all()
    assert (TAOBAO_SURPRISED > 0).all()
    assert TAOBAO_PEOPLE.sum() == SOURCES["taobao-serendipity"].n_users


# --- registry ------------------------------------------------------------


def test_a_survey_is_no_history():
    for name in SURVEYS:
        with pytest.raises(ConfigError, match=f"load_survey\\('{name}'\\)"):
            sources.load_dataset(name)
    with pytest.raises(UnknownDatasetError, match="taobao-serendipity"):
        load_survey("synthetic")


def test_check_counts_the_answers(own_folders, monkeypatch):
    folder = own_folders / "data/personality-2018"
    folder.mkdir(parents=True)
    make_personality(folder)
    monkeypatch.setenv("SERENDIFF_DATA", str(own_folders / "data"))
    report = check("personality-2018")[0].set_index("what")
    assert report.loc["answers", "found"] == 3
    assert report["ok"].all()


# --- MovieLens Beliefs, Personality: the published readmes ---------------

BELIEF_HEADER = (
    "userId,movieId,isSeen,watchDate,userElicitRating,userPredictRating,"
    "userCertainty,tstamp,month_idx,source,systemPredictRating"
).split(",")


def test_beliefs_by_the_readme(tmp_path):
    rows = [
        (7, 1, 0, "", "", 4.5, 3.0, 1680000000, 2, 1, 3.91),
        (7, 2, 1, "2020-01-01", 5.0, "", "", 1680000001, 2, 3, 4.0),
        (8, 1, -1, "", "", "", "", 1680000002, 2, 2, ""),
        (9, 1, 0, "", -1, 0.5, "NA", 1680000003, 2, 2, 1.5),
    ]
    write(tmp_path / "belief_data.csv", BELIEF_HEADER, rows)
    beliefs = read_beliefs(tmp_path)
    expected = beliefs["userPredictRating"]
    assert expected.dropna().tolist() == [4.5, 0.5]
    assert beliefs["userCertainty"].dropna().tolist() == [3.0]
    assert beliefs["userElicitRating"].dropna().tolist() == [5.0]
    assert beliefs["isSeen"].tolist() == [0, 1, -1, 0]
    rows[0] = (*rows[0][:5], 5.5, *rows[0][6:])
    write(tmp_path / "belief_data.csv", BELIEF_HEADER, rows)
    with pytest.raises(DataError, match="'userPredictRating': '5.5' is not"):
        read_beliefs(tmp_path)


def make_personality(folder, condition="high"):
    films = [
        f"{name}_{k}"
        for k in range(1, 13)
        for name in ("movie", "predicted_rating")
    ]
    header = [
        "userid",
        *("openness", "agreeableness", "emotional_stability"),
        *("conscientiousness", "extraversion"),
        *("assigned metric", "assigned condition", *films),
        *("is_personalized", "enjoy_watching "),
    ]
    lists = [1, 4.1] * 12
    rows = [
        ("ab1", 5, 2, 3, 2.5, 6.5, "serendipity", condition, *lists, 4, 4),
        ("cd2", 7, 4, 6, 5.5, 4.0, "popularity", "low", *lists, 2, 5),
        ("ef3", 1, 4, 6, 5.5, 4.0, "all", "default", *lists, 3, 3),
    ]
    lines = [", ".join(map(str, row)) for row in (header, *rows)]
    (folder / "personality-data.csv").write_text("\n".join(lines))


def test_personality_by_the_readme(tmp_path):
    make_personality(tmp_path)
    lists = read_personality(tmp_path)
    assert lists["assigned metric"].tolist() == [
        "serendipity",
        "popularity",
        "all",
    ]
    assert lists["extraversion"].tolist() == [6.5, 4.0, 4.0]
    assert lists["enjoy_watching"].tolist() == [4, 5, 3]
    make_personality(tmp_path, condition="middling")
    with pytest.raises(DataError, match="'middling' is not a word"):
        read_personality(tmp_path)


# --- Goodreads -----------------------------------------------------------


def book(number, decision="", summary="A tale.", title="Book", quote="'"):
    return (
        f"{quote}Book_number':'{number}'\n"
        f"'Book_id':'{100 + number}' (Fake review added)\n"
        f"'Book_title':'{title} {number}'\n"
        "Manually_identified_main_topic_words: war*, love\n"
        f"Summary: {summary}\n"
        f"{decision}\nReason: 1, 2\n\n"
    )


def make_readers(folder, first=None, name="User {}.txt"):
    for reader in (1, 2, 3, 4):
        plain = [book(0), book(1, "Manual decision: Surprising ")]
        books = first if first is not None and reader == 1 else plain
        text = f"Manual annotations\nUser {reader}: abc\n\n" + "".join(books)
        path = folder / name.format(reader)
        path.write_text(text, "utf-8-sig", newline="\r\n")


@pytest.mark.parametrize("name", ["User {}.txt", "User{}.txt"])
def test_readers_by_hand(tmp_path, name):
    books = [
        book(0),
        book(1, "Manual decision: "),
        book(2, "Manual decision: surprising", quote="‘"),
        book(3, "Manual decision: Not Surprising \nMachine decision: 1, 2"),
        book(4, "Manual decision: Not surprising surprising", quote=""),
        book(5, "Manual decision:  Not surprising (as 3)", summary=""),
    ]
    make_readers(tmp_path, books, name)
    found = read_judgements(tmp_path)
    one = found[found["user_id"] == "reader 1"]
    assert one["position"].tolist() == [0, 1, 2, 3, 4, 5]
    said = [None if math.isnan(v) else v for v in one["surprising"]]
    assert said == [None, None, 1, 0, None, 0]
    assert one["title"].tolist()[2] == "Book 2"
    assert one["topics"].tolist()[0] == "war*, love"
    data = read_goodreads_surprise(tmp_path)
    assert data.n_users == 4
    rows = data.frame[data.frame["user_id"] == "reader 1"]
    assert rows["label"].tolist() == [0, 0, 1, 0, 0, 0]
    assert rows["review"].tolist()[0] == "Book 0. A tale."
    assert rows["review"].tolist()[5] == "Book 5."
    assert data.texts_describe_items
    assert "6 of 12 books carry no decision" in data.notes[0]
    assert "'Not surprising surprising'" in data.notes[0]


def test_a_reader_that_is_cut(tmp_path):
    make_readers(tmp_path, [book(0), book(2)])
    with pytest.raises(DataError, match=r"User 1.txt: book 2 stands where"):
        read_judgements(tmp_path)
    make_readers(tmp_path, [])
    with pytest.raises(DataError, match="no line 'Book_number'"):
        read_judgements(tmp_path)
    make_readers(tmp_path, [book(0).replace("'Book_id':'100'", "")])
    with pytest.raises(DataError, match="book 0 has no item_id"):
        read_judgements(tmp_path)
    (tmp_path / "User 3.txt").unlink()
    make_readers(tmp_path)
    (tmp_path / "User 3.txt").unlink()
    with pytest.raises(DataError, match="User3.txt: cannot be read"):
        read_judgements(tmp_path)


def test_members_are_compared_with_their_checksums(own_folders, monkeypatch):
    folder = own_folders / "data/goodreads-surprise"
    folder.mkdir(parents=True)
    make_readers(folder, name="User{}.txt")
    monkeypatch.setenv("SERENDIFF_DATA", str(own_folders / "data"))
    with pytest.raises(DataError, match="User1.txt: SHA-256"):
        sources.load_dataset("goodreads-surprise")
    entry = SOURCES["goodreads-surprise"]
    sums = [
        hashlib.sha256((folder / f"User{k}.txt").read_bytes()).hexdigest()
        for k in (1, 2, 3, 4)
    ]
    entry = sources.dataclasses.replace(entry, member_sha256=tuple(sums))
    monkeypatch.setitem(SOURCES, entry.id, entry)
    assert sources.load_dataset(entry.id).n_users == 4


@pytest.mark.parametrize("real", ["goodreads-surprise"], indirect=True)
def test_the_published_readers(real):
    data = sources.load_dataset(real.id)
    assert data.n_users == real.n_users
    judged = read_judgements(sources.find_source(real))
    per = judged.groupby("user_id")["surprising"]
    assert per.count().tolist() == [124, 99, 122, 103]  # counted by grep
    assert per.sum().tolist() == [10, 13, 14, 17]
    assert not judged["title"].str.contains("'$").any()


@pytest.mark.parametrize(
    ("written", "value"),
    [("", None), ("Surprising", 1), ("NOT  surprising.", 0), ("yes", None)],
)
def test_verdicts(written, value):
    found = verdict(written)
    assert math.isnan(found) if value is None else found == value
