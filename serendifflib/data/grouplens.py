"""Read GroupLens' folders: MovieLens of any age, Serendipity 2018.

None of them holds reviews. The text of a row describes the film by title,
genres, people and tags, the same in all rows of the film.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from serendifflib.data.interactions import Interactions
from serendifflib.data.layouts import warnings_of, without_labels
from serendifflib.data.reading import read_columns, reading
from serendifflib.data.schema import (
    check_rows,
    row_error,
    shown,
    tidy,
    validate,
)
from serendifflib.errors import DataError

LABEL_COLUMNS = tuple(
    f"{kind}_ser_{reading}"
    for kind in ("s", "m")
    for reading in ("rel", "find", "imp", "rec")
)
TAGS_IN_TEXT = 10
_ARTICLES = (
    "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Den|Det|De|"
    "Het|Un|Une|Una|Ein|Eine|O|Os|As|En|Ett"
)
_TRAILING_ARTICLE = re.compile(
    rf"^(?P<title>.+), (?P<article>{_ARTICLES})(?P<rest>(?: \(.*)?)$"
)


def plain_title(title: str) -> str:
    """A MovieLens title as people write it, the article in front.

    >>> plain_title("American President, The (1995)")
    'The American President (1995)'
    """
    found = _TRAILING_ARTICLE.match(title.strip())
    if not found:
        return title.strip()
    gap = "" if found["article"].endswith("'") else " "
    return f"{found['article']}{gap}{found['title']}{found['rest']}"


def describe(
    title: str, genres: str, people: str = "", tags: Counter | None = None
) -> str:
    """Text of a film: title, genres, people, its commonest tags.

    >>> describe("Heat (1995)", "Action|Crime", tags=Counter(["heist"]))
    'Heat (1995). Action, Crime. heist.'
    """
    parts = [title]
    if "no genres" not in genres:
        parts.append(", ".join(re.split(r"\s*[|,]\s*", genres.strip())))
    parts.append(people)
    if tags:
        # Most frequent first; equally frequent ones by the alphabet.
        ranked = sorted(tags, key=lambda tag: (-tags[tag], tag))
        parts.append(", ".join(ranked[:TAGS_IN_TEXT]))
    parts = [part.strip().rstrip(".") for part in parts]
    return ". ".join(part for part in parts if part) + "."


# Of each release: ratings, films, and what else may be there.
RELEASES = {
    "latest": ("ratings.csv", "movies.csv", "tags.csv"),
    "1M or 10M": ("ratings.dat", "movies.dat"),
    "100k": ("u.data", "u.item"),
}
PLAIN = ("userId", "movieId", "timestamp", "rating")
GENRES_100K = (
    "Action Adventure Animation Children Comedy Crime Documentary Drama "
    "Fantasy Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War "
    "Western"
).split()


def release_of(names: Container[str]) -> str | None:
    """Which release of MovieLens has these files, if any."""
    for release, (ratings, films, *_) in RELEASES.items():
        if ratings in names and films in names:
            return release
    return None


def read_movielens(folder: Path | str, *, name: str = "") -> Interactions:
    """Read MovieLens of any age: 100k, 1M, 10M, or a newer one.

    Without a ``name`` it is taken for the small release.
    """
    folder = Path(folder)
    release = release_of([path.name for path in folder.glob("*")]) or "latest"
    path, films = (folder / file for file in RELEASES[release][:2])
    if release == "latest":
        titles, texts = _films(folder, people=())
        ratings = read_columns(path, PLAIN)
    else:
        titles, texts = _described(_old_films(films), films)
        ratings = _old_ratings(path)
    rows = _table(ratings, texts, path)
    frame, notes = validate(rows, where=str(path))
    told = "MovieLens by GroupLens: real ratings with titles and genres."
    if not name:
        told = (
            "MovieLens latest-small by GroupLens: real ratings with titles, "
            "genres and tags. It has no serendipity labels."
        )
    return Interactions(
        name=name or "movielens-small",
        frame=frame,
        source=told,
        has_labels=False,
        titles=titles,
        notes=(*warnings_of(frame), *notes, *without_labels(frame)),
        texts_describe_items=True,
    )


# These files are from the time before UTF-8.
def _old_ratings(path: Path) -> pd.DataFrame:
    """Lines such as ``1::7::5::978300760``, or with tabs in ``u.data``."""
    is_new = path.suffix == ".dat"
    mark, places = (":", range(0, 7, 2)) if is_new else ("\t", range(4))
    with reading(path):
        rows = pd.read_csv(
            path,
            sep=mark,
            usecols=places,
            header=None,
            dtype=object,
            na_filter=False,
            encoding="latin-1",
        )
    return rows.set_axis(["userId", "movieId", "rating", "timestamp"], axis=1)


def _old_films(path: Path) -> Iterator[Sequence[str]]:
    """Id, title and genres from ``movies.dat`` or ``u.item``."""
    is_new = path.name == "movies.dat"
    mark, count = ("::", 3) if is_new else ("|", 6 + len(GENRES_100K))
    with reading(path), open(path, encoding="latin-1") as stream:
        for number, line in enumerate(stream, 1):
            fields = line.rstrip("\n").split(mark)
            if len(fields) != count:
                raise DataError(
                    f"{path}: line {number} has {len(fields)} fields, not "
                    f"{count}"
                )
            if not is_new:
                flags = zip(GENRES_100K, fields[6:], strict=True)
                fields[2] = "|".join(name for name, on in flags if on == "1")
            yield fields[:3]


def read_serendipity_2018(folder: Path | str) -> Interactions:
    """Read Serendipity 2018: the users of a survey, and their ratings.

    A row of ``answers.csv`` has label 1 where any definition of serendipity
    (:data:`LABEL_COLUMNS`: strict or motivational; relevant, find, implicit,
    recommend) holds. Rows of ``training.csv`` have label 0: nobody asked.

    Raises:
        DataError: a file is missing or breaks its format.
    """
    folder = Path(folder)
    path = folder / "answers.csv"
    answers = read_columns(path, (*PLAIN, *LABEL_COLUMNS))
    labels = [_truth(answers[column], path) for column in LABEL_COLUMNS]
    holds, said = np.logical_or.reduce(labels)
    titles, texts = _films(folder, people=("directedBy", "starring"))
    asked = _table(answers, texts, path)
    asked["label"] = holds.astype(int)
    tables = [check_rows(asked, where=str(path))]
    path = folder / "training.csv"
    past = read_columns(path, PLAIN)  # ten million rows
    answered = answers["userId"].str.strip()
    past = past[past["userId"].str.strip().isin(answered)]
    if len(past):
        past = _table(past, texts, path)
        tables.append(check_rows(past, where=str(path)))
    frame, notes = tidy(pd.concat(tables, ignore_index=True))
    if silent := int((~said).sum()):
        what = f"{silent:,} answers say nothing; they count as label 0."
        notes = (what, *notes)
    return Interactions(
        name="serendipity-2018",
        frame=frame,
        source="Serendipity 2018 by GroupLens (Kotkov et al., 2018): ratings, "
        "and survey answers of real users; label 1 is any definition.",
        has_labels=bool((frame["label"] == 1).any()),
        titles=titles,
        notes=notes,
        texts_describe_items=True,
    )


def _films(
    folder: Path, *, people: tuple[str, ...]
) -> tuple[dict[str, str], dict[str, str]]:
    """Titles and texts of all films by id."""
    movies = read_columns(
        folder / "movies.csv", ("movieId", "title", "genres", *people)
    )
    words: dict[str, Counter] = {}
    if (folder / "tags.csv").exists():
        tags = read_columns(folder / "tags.csv", ("movieId", "tag"))
        for item, tag in zip(tags["movieId"], tags["tag"], strict=True):
            if tag := " ".join(tag.lower().split()):
                words.setdefault(item.strip(), Counter())[tag] += 1
    films = movies.itertuples(index=False)
    return _described(films, folder / "movies.csv", words)


def _described(
    films: Iterable[Sequence[str]],
    path: Path,
    words: dict[str, Counter] | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Titles and texts by id from rows of id, title, genres and people."""
    titles, texts = {}, {}
    for movie, title, genres, *names in films:
        if (item := movie.strip()) in titles:
            raise DataError(f"{path}: film {shown(item)} stands twice")
        titles[item] = plain_title(title)
        tags = (words or {}).get(item)
        texts[item] = describe(titles[item], genres, ". ".join(names), tags)
    return titles, texts


def _table(
    ratings: pd.DataFrame, texts: dict[str, str], path: Path
) -> pd.DataFrame:
    """Rows in our columns; refuses a film that has no description."""
    items = ratings["movieId"].str.strip()
    unknown = ~items.isin(list(texts)).to_numpy()
    if unknown.any():
        problem = "does not occur among the films"
        raise row_error(str(path), items, unknown, problem)
    return pd.DataFrame(
        {
            "user_id": ratings["userId"],
            "item_id": items,
            "timestamp": ratings["timestamp"],
            "review": items.map(texts),
            "rating": ratings["rating"],
            "label": 0,
        }
    )


def _truth(values: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """TRUE/FALSE or 1/0 as booleans, and which rows say anything at all."""
    words = values.str.strip().str.lower()
    is_true = words.isin(["true", "1", "1.0"]).to_numpy()
    is_false = words.isin(["false", "0", "0.0"]).to_numpy()
    silent = words.isin(["", "na", "nan", "null"]).to_numpy()
    strange = ~(is_true | is_false | silent)
    if strange.any():
        problem = "is neither TRUE nor FALSE"
        raise row_error(str(path), values, strange, problem)
    return is_true, ~silent
