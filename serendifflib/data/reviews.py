"""The rows that people see: when, how many stars, and in which words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from serendifflib.data import vocabulary as words
from serendifflib.data.law import NORM, PRIMARY, SECONDARY, THEMES_PER_GENRE
from serendifflib.data.population import Population, stream

START = 1_262_304_000  # 2010-01-01
DAY = 86_400
TOUCH_SHARE = 0.03  # of ordinary rows, whose review holds a surprise
TEXTS_PER_ITEM = 3  # distinct ordinary reviews; the last one criticises


def draw_frame(people: Population) -> pd.DataFrame:
    """All rows of a world in the schema's columns, [R]."""
    seed, digits = people.seed, max(5, len(str(people.n_items)))
    users, items = (
        np.array([f"{kind}{k:0{digits}d}" for k in range(n)], dtype=object)
        for kind, n in (("u", people.n_users), ("i", people.n_items + 1))
    )
    rating = draw_ratings(people, stream(seed, 6))
    return pd.DataFrame(
        {
            "user_id": users[people.row_user],
            "item_id": items[people.row_item],
            "timestamp": draw_times(people, stream(seed, 7)),
            "review": draw_reviews(people, stream(seed, 8), rating),
            "rating": rating,
            "label": people.row_label,
        }
    )


def draw_times(people: Population, rng: np.random.Generator) -> np.ndarray:
    """Seconds, rising within a user by more than a day per row.

    One row in ten keeps only its date, as many shops do: some rows of
    different users are tied.
    """
    lengths = np.diff(people.row_start)
    scale = np.minimum(8.0, 1500.0 / lengths)[people.row_user]
    tail = (1 - 0.999 * rng.random(len(people.row_user))) ** -0.5 - 1
    gap = DAY + 1 + np.floor(np.round(DAY * scale * tail, 3))
    begin = START + rng.integers(0, 6 * 365 * DAY, people.n_users)
    gap = gap.astype(np.int64)
    total = np.cumsum(gap)
    zero = total[people.row_start[:-1]]
    times = begin[people.row_user] + total - zero[people.row_user]
    whole = rng.random(len(times)) < 0.1
    return np.where(whole, times - times % DAY, times)


def draw_ratings(people: Population, rng: np.random.Generator) -> np.ndarray:
    """Ratings 1..5 that rise with affinity; labels get 4 or 5."""
    affinity = np.empty(len(people.row_item))
    for user in range(people.n_users):
        span = slice(people.row_start[user], people.row_start[user + 1])
        items = people.row_item[span]
        taste, norm = people.taste(items[people.row_label[span] == 0])
        dot = (
            PRIMARY * taste[people.primary[items]]
            + SECONDARY * taste[people.secondary[items]]
        )
        affinity[span] = dot / np.sqrt(NORM * norm)
    u = rng.random((2, len(affinity)))
    noise = 2.4 * (u[0] + u[1] - 1)
    value = np.round(2.7 + 1.8 * affinity + noise, 6)
    rating = np.clip(np.rint(value), 1, 5)
    liked = 4 + (u[0] < 0.6)
    return np.where(people.row_label == 1, liked, rating).astype(float)


def draw_reviews(
    people: Population, rng: np.random.Generator, rating: np.ndarray
) -> np.ndarray:
    """Review of every row, object [R]; few distinct ordinary texts."""
    n_rows, pool = len(rating), TEXTS_PER_ITEM
    u = rng.random((2, n_rows))
    variant = np.floor(u[0] * (pool - 1)).astype(np.int64)
    variant[rating <= 2] = pool - 1
    touched = (u[1] < TOUCH_SHARE) & (people.row_label == 0)
    variant[touched] = pool
    key = people.row_item * (pool + 1) + variant
    keys, inverse = np.unique(key, return_inverse=True)
    pick = rng.integers(0, 1 << 30, people.n_items + 1).tolist()
    genre = (people.primary // THEMES_PER_GENRE).tolist()
    pairs = (divmod(k, pool + 1) for k in keys.tolist())
    texts = [
        words.make_review(people.terms[i - 1], genre[i], v, pool, pick[i])
        for i, v in pairs
    ]
    reviews = np.array(texts, dtype=object)[inverse]
    picks = rng.integers(0, 1 << 30, (len(people.label_row), 4)).tolist()
    for row, parts in zip(people.label_row, picks, strict=True):
        i = people.row_item[row]
        reviews[row] = words.make_label_review(
            people.terms[i - 1], genre[i], parts
        )
    return reviews
