"""Files that are larger than the memory: counts and item vectors in parts.

The Amazon Books reviews have tens of millions of rows; their texts do not fit
in memory, but the numbers of their users and items do. A first pass over
the file keeps only those, a second one encodes the reviews part by part and
keeps only a sum per item. Both give what the in-memory path
(:func:`~serendifflib.data.layouts.read_file`,
``CoOccurrence``,
:func:`~serendifflib.portrait.items.mean_vectors`) gives for the same file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch

from serendifflib.data.layouts import checked_parts
from serendifflib.errors import DataError
from serendifflib.io import cache_dir
from serendifflib.portrait.items import Encoder, ReviewEncoder, unit_rows
from serendifflib.portrait.scores import CoOccurrence

PART = 200_000  # rows of a file that are in memory at a time


@dataclass(frozen=True)
class StreamedRows:
    """Who has what, in the order of the file, without any text.

    Attributes:
        path: the file.
        users, items: ids in sorted order, [U] and [N]; numbers are those of
            :class:`~serendifflib.data.interactions.Interactions`.
        user_index: user number of each row, int32, [R], 0..U-1.
        item_index: item number of each row, int32, [R], 1..N.
        first: bool, [R]; False where the user has the item in an earlier
            row already: the in-memory path merges such rows.
    """

    path: Path
    users: np.ndarray
    items: np.ndarray
    user_index: np.ndarray
    item_index: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        """Number of rows R of the file."""
        return len(self.user_index)


def read_rows(path: Path | str, *, part: int = PART) -> StreamedRows:
    """First pass: check every row and number users and items.

    Args:
        path: CSV file in SerenLens' columns.
        part: rows in memory at a time.

    Raises:
        DataError: the file cannot be read, or a row breaks the schema.
    """
    path = Path(path)
    users, items = _Numbers(), _Numbers()
    user_parts, item_parts, time_parts = [], [], []
    for table in _parts(path, part):
        user_parts.append(users.of(table["user_id"]))
        item_parts.append(items.of(table["item_id"]))
        time_parts.append(table["timestamp"].to_numpy(np.int64))
    if not user_parts:
        raise DataError(f"{path}: there are no rows below the header")
    user_ids, user_index = users.sorted(user_parts)
    item_ids, item_index = items.sorted(item_parts)
    pair = user_index.astype(np.int64) * len(item_ids) + item_index
    first = _earliest(pair, np.concatenate(time_parts))
    return StreamedRows(
        path, user_ids, item_ids, user_index, item_index + 1, first
    )


def streamed_counts(
    rows: StreamedRows,
    *,
    counted: np.ndarray | None = None,
    mu: float = 1.0,
) -> CoOccurrence:
    """Co-occurrence of items among users (Eq. 14).

    Args:
        rows: of :func:`read_rows`.
        counted: which rows count, bool, [R]; None is all. Leave out the
            rows of test users here.
        mu: Dirichlet mass, see ``CoOccurrence``.
    """
    chosen = rows.first if counted is None else rows.first & counted
    users, items = rows.user_index[chosen], rows.item_index[chosen]
    matrix = scipy.sparse.csr_array(
        (np.ones(len(users)), (users, items)),
        shape=(len(rows.users), len(rows.items) + 1),
    )
    return CoOccurrence.from_matrix(matrix, mu)


def streamed_vectors(
    rows: StreamedRows,
    encoder: Encoder,
    *,
    allowed: np.ndarray | None = None,
    folder: Path | None = None,
    part: int = PART,
) -> tuple[torch.Tensor, np.ndarray]:
    """Second pass: item vector = unit-length mean over its reviews.

    Args:
        rows: of :func:`read_rows`.
        encoder: turns reviews into vectors. Where it is a
            ``ReviewEncoder``, every part of the file
            has a cache folder of its own: a killed run goes on at its part,
            and no part searches through the vectors of all others.
        allowed: rows whose review may be used, bool, [R]; None is all.
            Leave out held-out reviews here.
        folder: of these caches; None is the encoder's own place.
        part: rows in memory at a time.

    Returns:
        item vectors [N + 1, d] (row 0 is padding, zero) and the numbers of
        the items that have no allowed review (their rows are zero).

    Raises:
        DataError: the file cannot be read, or has other rows by now.
    """
    sums = np.zeros((0, 0), dtype=np.float32)
    seen = np.zeros(len(rows.items) + 1, dtype=bool)
    start = 0
    for number, table in enumerate(_parts(rows.path, part)):
        stop = start + len(table)
        if stop > len(rows):
            break
        chosen = rows.first[start:stop].copy()
        if allowed is not None:
            chosen &= allowed[start:stop]
        texts = table["review"].to_numpy(dtype=object)
        chosen &= texts != ""
        items = rows.item_index[start:stop][chosen]
        index, distinct = pd.factorize(texts[chosen])
        vectors = _for_part(encoder, folder, number).encode(list(distinct))
        if not sums.size:
            width = vectors.shape[1]
            sums = np.zeros((len(rows.items) + 1, width), dtype=np.float32)
        _add(sums, items, index, vectors)
        seen[items] = True
        start = stop
    if start != len(rows):
        raise DataError(
            f"{rows.path} has changed since it was read: read it again"
        )
    missing = np.flatnonzero(~seen[1:]) + 1
    return torch.from_numpy(unit_rows(sums)), missing


def _add(sums, items, index, vectors) -> None:
    """Add the vector of each row to the sum of its item."""
    touched, place = np.unique(items, return_inverse=True)
    weights = scipy.sparse.csr_array(
        (np.ones(len(items), dtype=np.float32), (place, index)),
        shape=(len(touched), len(vectors)),
    )
    sums[touched] += weights @ vectors


def _for_part(encoder: Encoder, folder: Path | None, number: int) -> Encoder:
    if not isinstance(encoder, ReviewEncoder):
        return encoder
    own = copy.copy(encoder)
    root = folder or encoder.cache or cache_dir() / "vectors"
    own.cache = root / "parts" / f"{number:06d}"
    # the copy shares what the encoder has loaded, and loads for it
    if "model" not in encoder.__dict__:
        own.__dict__["model"] = _Lazy(encoder)
    return own


class _Lazy:
    """The model of another encoder, loaded there when it is first used."""

    def __init__(self, encoder: ReviewEncoder):
        self.encoder = encoder

    def encode(self, *texts, **options) -> np.ndarray:
        """See sentence-transformers."""
        return self.encoder.model.encode(*texts, **options)


def _parts(path: Path, part: int) -> Iterator[pd.DataFrame]:
    """Checked parts of the file; it has no rows: no part."""
    yield from checked_parts(path, layout="serendiff", rows=part)[1]


class _Numbers:
    """Ids numbered in the order in which they come."""

    def __init__(self):
        self.known: dict[str, int] = {}

    def of(self, ids: pd.Series) -> np.ndarray:
        """Numbers of ``ids``, int32; new ids get new numbers."""
        index, distinct = pd.factorize(ids.to_numpy(dtype=object))
        known = self.known
        numbers = [known.setdefault(each, len(known)) for each in distinct]
        return np.array(numbers, dtype=np.int32)[index]

    def sorted(self, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Sorted ids and the numbers of all rows in that order."""
        ids = np.array(list(self.known), dtype=object)
        order = np.argsort(ids, kind="stable")
        rank = np.empty(len(ids), dtype=np.int32)
        rank[order] = np.arange(len(ids), dtype=np.int32)
        return ids[order], rank[np.concatenate(parts)]


def _earliest(pair: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Mark, for every pair, its earliest row (ties: the first in the file)."""
    order = np.lexsort((seconds, pair))
    ordered = pair[order]
    starts = np.ones(len(pair), dtype=bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = np.zeros(len(pair), dtype=bool)
    first[order[starts]] = True
    return first
