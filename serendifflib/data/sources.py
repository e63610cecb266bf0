"""Load a data set by id or path."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from serendifflib.data.interactions import Interactions
from serendifflib.data.reading import read_columns, read_csv, validate
from serendifflib.errors import DataError, UnknownDatasetError
from serendifflib.paths import data_dir
from serendifflib.profiles import Profile, current_profile

WORLDS = {
    "synthetic": "strong",
    "synthetic-weak": "weak",
    "synthetic-null": "null",
    "synthetic-like-serenlens-books": "serenlens-books",
    "synthetic-like-serenlens-movies": "serenlens-movies",
}
REAL = (
    "movielens-small",
    "serenlens-books",
    "serenlens-movies",
    "serendipity-2018",
)


def load_dataset(
    name_or_path: str | Path,
    *,
    seed: int = 0,
    profile: Profile | str | None = None,
    **options: object,
) -> Interactions:
    """Load interactions by data id or from a CSV file.

    Raises:
        UnknownDatasetError: neither an id nor an existing file.
    """
    name = str(name_or_path)
    if name in WORLDS:
        return _world(name, seed, profile, options)
    if name == "movielens-small":
        return read_movielens(data_dir() / "ml-latest-small")
    if Path(name).is_file() or name.endswith(".csv") or os.sep in name:
        return read_csv(name)
    known = [*WORLDS, *REAL]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UnknownDatasetError(
        f"unknown data set {name!r}: give the path of a CSV file or one of "
        f"{', '.join(known)}{hint}"
    )


def _world(
    name: str,
    seed: int,
    profile: Profile | str | None,
    options: dict[str, object],
) -> Interactions:
    from serendifflib.data.world import World

    if name.startswith("synthetic-like-"):
        return World.like(WORLDS[name], seed=seed, **options).interactions()
    if not isinstance(profile, Profile):
        profile = current_profile(profile)
    sizes = {"n_users": profile.world_users, "n_items": profile.world_items}
    return World(WORLDS[name], seed=seed, **(sizes | options)).interactions()


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


def read_movielens(folder: Path) -> Interactions:
    """Read MovieLens' ``ratings.csv``, ``movies.csv`` and ``tags.csv``."""
    ratings = read_columns(
        folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp")
    )
    movies = read_columns(
        folder / "movies.csv", ("movieId", "title", "genres")
    )
    tags = read_columns(folder / "tags.csv", ("movieId", "tag"))
    titles = {
        item: plain_title(title)
        for item, title in zip(movies["movieId"], movies["title"], strict=True)
    }
    genres = dict(zip(movies["movieId"], movies["genres"], strict=True))
    words: dict[str, Counter] = {}
    for item, tag in zip(tags["movieId"], tags["tag"], strict=True):
        words.setdefault(item, Counter())[tag.strip().lower()] += 1
    texts = {
        item: describe(title, genres[item], words.get(item))
        for item, title in titles.items()
    }
    unknown = ~ratings["movieId"].isin(list(titles))
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise DataError(
            f"{folder / 'ratings.csv'}: row {row + 1}, column 'movieId': "
            f"{ratings['movieId'].iloc[row]!r} does not occur in movies.csv"
        )
    table = pd.DataFrame(
        {
            "user_id": ratings["userId"],
            "item_id": ratings["movieId"],
            "timestamp": ratings["timestamp"],
            "review": ratings["movieId"].map(texts),
            "rating": ratings["rating"],
            "label": 0,
        }
    )
    frame, notes = validate(table, where=str(folder / "ratings.csv"))
    return Interactions(
        name="movielens-small",
        frame=frame,
        source=(
            "MovieLens latest-small (GroupLens): real ratings with titles, "
            "genres and tags; it has no serendipity labels."
        ),
        has_labels=False,
        titles=titles,
        notes=notes,
        texts_describe_items=True,
    )


def describe(title: str, genres: str, tags: Counter | None) -> str:
    """Text of a film: title, genres, and up to ten of its commonest tags."""
    parts = [title.rstrip(".")]
    if genres and genres != "(no genres listed)":
        parts.append(", ".join(genres.split("|")))
    if tags:
        # Most frequent first; equally frequent ones by the alphabet.
        ranked = sorted(tags, key=lambda tag: (-tags[tag], tag))
        parts.append(", ".join(tag for tag in ranked[:10] if tag))
    return ". ".join(part for part in parts if part) + "."
