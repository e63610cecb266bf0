"""The two axes against people: four readers and their surprises.

Somebody read along with four readers of Goodreads and said of each book
whether it surprised. Do relevance (Eq. 8) and expectedness (Eq. 7), as the
library computes them, know that? Everything that is fitted is fitted on the
*other* three readers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serendifflib.evaluation.stats import percentile_bounds, resample_counts
from serendifflib.portrait.encoding import ReviewEncoder, TfidfEncoder
from serendifflib.portrait.items import Isotropy
from serendifflib.portrait.scores import (
    WEIGHTS,
    CoOccurrence,
    history_cosines,
    history_weights,
    relevance_prefix,
)

SPACES = (
    ("sentences", "none"),
    ("sentences", "center"),
    ("tfidf", "none"),
    ("tfidf", "center"),
    ("words", "none"),
)
SCORES = (
    "position",
    "relevance",
    "top three",
    *(f"mean, {kind}" for kind in WEIGHTS),
    *(f"expectedness, {kind}" for kind in WEIGHTS),
)
NEAR = 15  # books: how far apart two compared positions may lie
RESAMPLES = 2000


def vectors_for(
    books: pd.DataFrame, reader: str, encoder: str, isotropy: str
) -> torch.Tensor:
    """Unit vectors of all books, fitted without one reader, [M + 1, d].

    The encoder is ``"sentences"``, ``"tfidf"`` (the library's, which knows the
    words of the other readers' books), or ``"words"`` (plain TF-IDF over the
    words of all books); it reads title and summary. Row m + 1 is that of row m
    of ``books``, row 0 padding.
    """
    words = (books["title"] + ". " + books["summary"]).str.strip().tolist()
    others = np.flatnonzero((books["user_id"] != reader).to_numpy())
    if encoder == "sentences":
        found = ReviewEncoder().encode(words)
    elif encoder == "words":
        table = TfidfVectorizer(stop_words="english").fit_transform(words)
        found = table.toarray().astype(np.float32)
    else:
        fitted = TfidfEncoder.fit([words[row] for row in others])
        found = fitted.encode(words)
    padded = torch.from_numpy(np.pad(found, ((1, 0), (0, 0))))
    return Isotropy.fit(padded, others + 1, isotropy).apply(padded)


def reader_scores(
    books: pd.DataFrame, reader: str, encoder: str, isotropy: str
) -> pd.DataFrame:
    """Every score of every book of one reader, given the books before it.

    Returns:
        One row per book: ``position``, ``surprising`` (NaN: nobody said),
        ``relevance`` (Eq. 8), ``top three`` (mean of the three largest
        cosines), ``mean, KIND`` (cosines mixed by the weights of Eq. 14) and
        ``expectedness, KIND`` (Eq. 7, counts of the other readers). All have
        the sign of something familiar: high is expected.
    """
    vectors = vectors_for(books, reader, encoder, isotropy)
    own = np.flatnonzero((books["user_id"] == reader).to_numpy())
    history = own + 1
    cosines = history_cosines(history, vectors)
    past = np.tri(len(own), k=-1, dtype=bool)
    largest = -np.sort(-np.where(past, cosines, -np.inf), axis=1)[:, :3]
    found = np.isfinite(largest)
    table = {
        "position": np.arange(len(own)),
        "surprising": books["surprising"].to_numpy()[own],
        "relevance": relevance_prefix(history, vectors),
        "top three": np.where(found, largest, 0).sum(1)
        / np.maximum(found.sum(1), 1),
    }
    items = np.unique(books["item_id"], return_inverse=True)[1] + 1
    others = books["user_id"].to_numpy()
    histories = [
        np.unique(items[others == one])
        for one in np.unique(others)
        if one != reader
    ]
    counts = CoOccurrence.fit(histories, int(items.max()))
    for kind in WEIGHTS:
        weights = history_weights(len(own), kind, vectors[history].numpy())
        mixed = (weights[:-1] * cosines).sum(axis=1)
        table[f"mean, {kind}"] = mixed
        table[f"expectedness, {kind}"] = counts.log_prefix(
            items[own], weights=weights[:-1]
        )
    return pd.DataFrame(table)


def wins(surprising: np.ndarray, familiar: np.ndarray) -> np.ndarray:
    """Which of two books has the lower score: 1 the surprising one, 0 not.

    ``familiar`` is high for what is expected. A tie is one half; the mean over
    [surprising books, other books] is the area under the ROC curve (AUC).
    """
    yes, no = familiar[surprising == 1], familiar[surprising == 0]
    gap = yes[:, None] - no[None, :]
    return np.where(gap == 0, 0.5, gap < 0)


def summarise(books: pd.DataFrame) -> dict[str, Any]:
    """All that the chapter shows of the judged books, ready for JSON.

    Returns:
        ``readers`` (books, judged, surprising of each), ``auc``
        (:func:`auc_rows` by ``encoder`` and ``isotropy``; reader "all" is the
        mean over the readers) and ``held_out`` (:func:`held_out_aucs`).
    """
    readers = list(dict.fromkeys(books["user_id"]))
    generator = torch.Generator().manual_seed(0)
    rows, frames = [], {}
    for encoder, isotropy in SPACES:
        space = frames[encoder, isotropy] = {
            reader: reader_scores(books, reader, encoder, isotropy)
            for reader in readers
        }
        rows += [
            {"encoder": encoder, "isotropy": isotropy} | row
            for row in auc_rows(space, generator)
        ]
    judged = books.groupby("user_id", sort=False)["surprising"]
    counts = {
        "books": judged.size(),
        "judged": judged.count(),
        "surprising": judged.sum().astype(int),
    }
    tables = {
        "readers": pd.DataFrame(counts).reset_index(),
        "auc": pd.DataFrame(rows).round(4),
        "held_out": held_out_aucs(frames["sentences", "center"]).round(4),
    }
    return {name: t.to_dict("records") for name, t in tables.items()}


def auc_rows(
    space: dict[str, pd.DataFrame], generator: torch.Generator
) -> list[dict[str, Any]]:
    """AUC of every score by reader and on average, with 95% intervals.

    Books are resampled within a reader, surprising and other ones apart. So
    the interval of the mean holds for *these* readers, not for new ones.
    ``near`` is the AUC over pairs at most :data:`NEAR` books apart: late
    books have more past to be similar to, neighbours hardly.
    """
    judged = {name: t[t["surprising"].notna()] for name, t in space.items()}
    drawn = {
        name: [
            resample_counts(
                int((t["surprising"] == kind).sum()),
                n=RESAMPLES,
                generator=generator,
            )
            for kind in (1, 0)
        ]
        for name, t in judged.items()
    }
    rows = []
    for score in SCORES:
        mine = []
        for name, table in judged.items():
            y = table["surprising"].to_numpy()
            won = wins(y, table[score].to_numpy(dtype=float))
            place = table["position"].to_numpy()
            apart = np.abs(place[y == 1][:, None] - place[y == 0][None, :])
            yes, no = drawn[name]
            values = ((yes @ won) * no).sum(axis=1) / won.size
            near = won[apart <= NEAR].mean()
            mine.append((name, won.mean(), near, values))
        together = np.mean([values for *_, values in mine], axis=0)
        mean, near = (np.mean([row[k] for row in mine]) for k in (1, 2))
        mine.append(("all", mean, near, together))
        for name, value, close, values in mine:
            low, high = percentile_bounds(values, 0.95)
            rows.append(
                {"score": score, "reader": name, "value": float(value)}
                | {"low": low, "high": high, "near": float(close)}
            )
    return rows


def held_out_aucs(space: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Leave one reader out: a law learnt from three readers, asked of one.

    Logistic regressions on the logarithm of the position, on relevance, and on
    both: does relevance add to the position? Rows ``features, reader, value``
    (AUC); reader "all" is the mean.
    """
    tables = {}
    for name, table in space.items():
        rows = table[table["surprising"].notna()]
        columns = [np.log1p(rows["position"]), rows["relevance"]]
        tables[name] = np.column_stack(columns), rows["surprising"].to_numpy()
    found = []
    laws = {"position": [0], "relevance": [1], "both": [0, 1]}
    for features, columns in laws.items():
        values = []
        for name, (x, y) in tables.items():
            rest = [pair for other, pair in tables.items() if other != name]
            many, judged = (np.concatenate(p) for p in zip(*rest, strict=True))
            law = make_pipeline(
                StandardScaler(), LogisticRegression(C=np.inf, max_iter=1000)
            ).fit(many[:, columns], judged)
            said = law.decision_function(x[:, columns])
            values.append(float(wins(y, -said).mean()))
            found.append((features, name, values[-1]))
        found.append((features, "all", float(np.mean(values))))
    return pd.DataFrame(found, columns=["features", "reader", "value"])


def example(books: pd.DataFrame) -> dict[str, Any]:
    """Numbers of the reader with the most surprises, without any title.

    Returns:
        ``reader``; per book ``relevance`` (Eq. 8, centred sentence vectors),
        ``nearest`` (place of the most similar earlier book), ``surprising``
        and ``positions`` [n, 2]: expectedness and relevance as quantiles among
        the reader's own books, the first book at (1, 1).
    """
    total = books.groupby("user_id", sort=False)["surprising"].sum()
    reader = str(total.idxmax())
    table = reader_scores(books, reader, "sentences", "center")
    own = np.flatnonzero((books["user_id"] == reader).to_numpy()) + 1
    vectors = vectors_for(books, reader, "sentences", "center")
    cosines = history_cosines(own, vectors)
    past = np.tri(len(own), k=-1, dtype=bool)
    nearest = np.where(past, cosines, -np.inf).argmax(axis=1)
    places = np.ones((len(own), 2))
    for axis, score in enumerate(("expectedness, uniform", "relevance")):
        later = table[score].iloc[1:]
        places[1:, axis] = (later.rank() - 0.5) / len(later)
    said = table["surprising"]
    return {
        "reader": reader,
        "relevance": [0.0, *table["relevance"].iloc[1:].round(3)],
        "nearest": nearest.tolist(),
        "surprising": [None if np.isnan(v) else int(v) for v in said],
        "positions": places.round(3).tolist(),
    }
