import csv

import numpy as np
import pandas as pd
import pytest

from serendifflib.data.interactions import COLUMNS, Interactions
from serendifflib.data.schema import validate


class FakeEncoder:
    """Vectors that depend on nothing but the text: its letters counted."""

    def encode(self, texts):
        letters = "abcdefgh"
        counts = [[text.count(letter) for letter in letters] for text in texts]
        return np.array(counts, dtype=np.float32).reshape(len(texts), 8)


@pytest.fixture(scope="session")
def encoder():
    return FakeEncoder()


@pytest.fixture(scope="session")
def make_data():
    """Interactions from (user, item, time, label[, rating[, review]])."""

    def build(rows, **options):
        full = [
            (*row, *(None, None)[len(row) - 4 :]) if len(row) < 6 else row
            for row in rows
        ]
        table = pd.DataFrame(
            {
                "user_id": [row[0] for row in full],
                "item_id": [row[1] for row in full],
                "timestamp": [row[2] for row in full],
                "review": [
                    f"review a {row[1]}" if row[5] is None else row[5]
                    for row in full
                ],
                "rating": [5.0 if row[4] is None else row[4] for row in full],
                "label": [row[3] for row in full],
            }
        )
        frame, notes = validate(table, where="test")
        options.setdefault("has_labels", bool(frame["label"].any()))
        return Interactions(
            name="test", frame=frame, source="test", notes=notes, **options
        )

    return build


@pytest.fixture
def write_csv(tmp_path):
    """Write rows as a CSV file in the schema's columns; returns the path."""

    def write(rows, *, header=COLUMNS, name="data.csv"):
        path = tmp_path / name
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """An empty cache and an empty data folder for one test."""
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path
