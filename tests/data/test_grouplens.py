"""MovieLens and Serendipity 2018, from folders in their publishers' shape."""

import csv
import random
from collections import Counter

import pytest

from serendifflib.data.grouplens import (
    LABEL_COLUMNS,
    describe,
    plain_title,
    read_movielens,
    read_serendipity_2018,
)
from serendifflib.errors import DataError


def write(path, header, rows, encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture
def movielens(tmp_path):
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    write(
        folder / "movies.csv",
        ["movieId", "title", "genres"],
        [
            (1, "Toy Story (1995)", "Animation|Children"),
            (2, "American President, The (1995)", "(no genres listed)"),
            (9, "Never rated", "Drama"),
        ],
    )
    write(
        folder / "ratings.csv",
        ["userId", "movieId", "rating", "timestamp"],
        [(7, 1, 3.5, 20), (7, 2, 0.5, 10), (8, 1, 5.0, 30)],
    )
    write(
        folder / "tags.csv",
        ["userId", "movieId", "tag", "timestamp"],
        [(7, 1, "Pixar", 1), (8, 1, "pixar ", 2), (8, 1, "fun", 3)],
    )
    return folder


def test_movielens_by_hand(movielens):
    data = read_movielens(movielens)
    assert data.frame.to_dict("list") == {
        "user_id": ["7", "7", "8"],
        "item_id": ["2", "1", "1"],
        "timestamp": [10, 20, 30],
        "review": [
            "The American President (1995).",
            "Toy Story (1995). Animation, Children. pixar, fun.",
            "Toy Story (1995). Animation, Children. pixar, fun.",
        ],
        "rating": [0.5, 3.5, 5.0],
        "label": [0, 0, 0],
    }
    assert not data.has_labels
    assert data.texts_describe_items
    assert data.title(data.item_number("2")) == "The American President (1995)"
    assert "no serendipity labels" in data.source


def test_movielens_without_tags(movielens):
    (movielens / "tags.csv").unlink()
    review = read_movielens(movielens).frame["review"].tolist()[1]
    assert review == "Toy Story (1995). Animation, Children."


def test_rating_of_an_unknown_film(movielens):
    with open(movielens / "ratings.csv", "a") as stream:
        stream.write("8,77,5.0,40\n")
    with pytest.raises(DataError, match=r"ratings.csv: row 4.*'movieId'.*77"):
        read_movielens(movielens)


def test_a_film_that_stands_twice(movielens):
    with open(movielens / "movies.csv", "a") as stream:
        stream.write("2,Another,Drama\n")
    with pytest.raises(DataError, match="movies.csv: film '2' stands twice"):
        read_movielens(movielens)


def test_missing_movielens_file(movielens):
    (movielens / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"movies.csv: cannot be read"):
        read_movielens(movielens)


@pytest.mark.parametrize(
    ("printed", "plain"),
    [
        ("Heat (1995)", "Heat (1995)"),
        ("Misérables, Les (1995)", "Les Misérables (1995)"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (Cité des enfants perdus, La) (1995)",
        ),
        ("Walk in the Clouds, A", "A Walk in the Clouds"),
        ("Crouching Tiger, Hidden Dragon (2000)",) * 2,
        ("I, Robot (2004)", "I, Robot (2004)"),
        ("Me, Myself, and I", "Me, Myself, and I"),
    ],
)
def test_plain_titles(printed, plain):
    assert plain_title(printed) == plain


def test_description_takes_the_commonest_tags():
    tags = Counter({f"t{k:02}": 1 for k in range(20)} | {"z": 2})
    text = describe("Film", "A|B", "Someone", tags)
    assert text.startswith("Film. A, B. Someone. z, t00, t01,")
    assert text.count("t") == 9
    assert describe("Film.", "", "", None) == "Film."


# --- Serendipity 2018 ----------------------------------------------------


def make_serendipity(folder, *, n_users=12, n_films=30, seed=0):
    """Files in the shape of the published ones, with invented content."""
    rng = random.Random(seed)
    folder.mkdir()
    films = [
        (
            film,
            f"Film {film}, The (19{film:02})",
            "2001-01-01",
            "A. Director",
            "One Star, Other Star",
            f"tt{film}",
            film,
            "Action,Drama",
        )
        for film in range(1, n_films + 1)
    ]
    people = ["releaseDate", "directedBy", "starring", "imdbId", "tmdbId"]
    write(
        folder / "movies.csv", ["movieId", "title", *people, "genres"], films
    )
    plain = ["userId", "movieId", "rating", "timestamp"]
    start = 1_490_000_000
    answers, training = [], []
    for user in range(100, 100 + n_users):
        seen = rng.sample(range(1, n_films + 1), 8)
        for place, film in enumerate(seen):
            when = (start + place) * 1000 + 123
            if place >= 6:
                said = [rng.choice(["TRUE", "FALSE", "NA"]) for _ in range(8)]
                answers.append((user, film, 4.5, when, 3.9, *range(8), *said))
            else:
                training.append((user, film, 4.0, when))
    for user in range(500, 520):
        training.append((user, 1, 3.0, start * 1000))
    statements = [f"s{k}" for k in range(1, 9)]
    write(
        folder / "answers.csv",
        [*plain, "predictedRating", *statements, *LABEL_COLUMNS],
        answers,
        encoding="utf-8-sig",
    )
    write(folder / "training.csv", plain, training)
    return answers


@pytest.fixture
def serendipity(tmp_path):
    folder = tmp_path / "serendipity-sac2018"
    return folder, make_serendipity(folder)


def test_the_eight_label_columns():
    assert LABEL_COLUMNS == (
        "s_ser_rel",
        "s_ser_find",
        "s_ser_imp",
        "s_ser_rec",
        "m_ser_rel",
        "m_ser_find",
        "m_ser_imp",
        "m_ser_rec",
    )


def test_any_definition_makes_a_label(serendipity):
    folder, answers = serendipity
    data = read_serendipity_2018(folder)
    said = {(str(row[0]), str(row[1])): row[13:] for row in answers}
    expected = {pair: int("TRUE" in marks) for pair, marks in said.items()}
    assert sum(expected.values())
    for row in data.frame.itertuples():
        pair = (row.user_id, row.item_id)
        assert row.label == expected.get(pair, 0), pair
    assert data.has_labels


def test_milliseconds_become_seconds(serendipity):
    folder, _ = serendipity
    seconds = read_serendipity_2018(folder).frame["timestamp"]
    assert seconds.between(1_490_000_000, 1_490_000_007).all()


def test_users_of_the_survey_alone(serendipity):
    folder, _ = serendipity
    assert read_serendipity_2018(folder).n_users == 12


def test_film_texts_have_people_and_genres(serendipity):
    folder, _ = serendipity
    data = read_serendipity_2018(folder)
    text = data.frame["review"][data.frame["item_id"] == "3"].iloc[0]
    assert text == (
        "The Film 3 (1903). Action, Drama. A. Director. One Star, Other Star."
    )
    assert data.texts_describe_items


def test_marks_milliseconds_and_half_answered_forms(tmp_path):
    """What the published files have, and a mark at the head of each."""
    plain = ["userId", "movieId", "rating", "timestamp"]
    films = ["movieId", "title", "directedBy", "starring", "genres"]
    tables = {
        "movies.csv": [films, [1, "Heat (1995)", "", "", "Crime"]],
        "training.csv": [plain, [5, 1, 3.5, 1_500_000_000_999]],
        "answers.csv": [
            [*plain, *LABEL_COLUMNS],
            [6, 1, 4.0, 1_500_000_001_000, "", "TRUE", *["NA"] * 6],
            [5, 1, 4.0, 1_500_000_002_000, *[""] * 4, *["NA"] * 4],
        ],
    }
    for name, (header, *rows) in tables.items():
        write(tmp_path / name, header, rows, encoding="utf-8-sig")
    data = read_serendipity_2018(tmp_path)
    found = data.frame.set_index("user_id")
    # of user 5's two rows about one film the earlier stays
    assert found["timestamp"].to_dict() == {
        "5": 1_500_000_000,
        "6": 1_500_000_001,
    }
    assert found["label"].to_dict() == {"5": 0, "6": 1}
    assert "1 answers say nothing; they count as label 0." in data.notes


def test_bad_rows_name_their_own_file(serendipity):
    folder, answers = serendipity
    path = folder / "answers.csv"
    text = path.read_text("utf-8-sig")
    path.write_text(text.replace("TRUE", "perhaps", 1), "utf-8")
    with pytest.raises(DataError, match=r"answers.csv: row \d+.*'perhaps'"):
        read_serendipity_2018(folder)
    path.write_text(text, "utf-8")
    path = folder / "training.csv"
    lines = path.read_text().splitlines()
    wrong = lines[9].replace("4.0", "44")
    path.write_text("\n".join([*lines[:9], wrong, *lines[10:]]))
    with pytest.raises(DataError, match=r"training.csv: row 9, column 'rat"):
        read_serendipity_2018(folder)


def test_missing_label_column(serendipity):
    folder, _ = serendipity
    path = folder / "answers.csv"
    path.write_text(path.read_text("utf-8-sig").replace("m_ser_rec", "x"))
    with pytest.raises(DataError, match="'m_ser_rec' is missing"):
        read_serendipity_2018(folder)
