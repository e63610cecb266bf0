"""Axes against people, on readers whose surprises we know."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from serendifflib.errors import ConfigError
from serendifflib.experiments import axes, human
from serendifflib.io import results_dir

COOKING = "bread soup oven flour kitchen recipe salt butter"
SPACE = "rocket orbit moon planet crew engine star comet"


def readers(surprise="new topic"):
    """Two readers of cooking, one book about space in the middle of each."""
    random = np.random.default_rng(0)
    rows = []
    for reader in ("one", "two", "three"):
        for position in range(12):
            odd = position == 8
            words = random.permutation((SPACE if odd else COOKING).split())
            rows.append(
                {
                    "user_id": reader,
                    "position": position,
                    "item_id": f"{reader}{position}" if odd else f"{position}",
                    "title": words[0],
                    "summary": " ".join(words[1:6]),
                    "surprising": np.nan if position < 3 else float(odd),
                }
            )
    return pd.DataFrame(rows)


def test_wins_by_hand_and_by_another_library():
    y = np.array([1, 0, 0, 1])
    x = np.array([0.2, 0.3, 0.2, 0.1])
    np.testing.assert_array_equal(axes.wins(y, x), [[1, 0.5], [1, 1]])
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 60)
    x = random.integers(0, 9, 60).astype(float)
    assert axes.wins(y, x).mean() == pytest.approx(roc_auc_score(y, -x))


@pytest.mark.parametrize("encoder", ["tfidf", "words"])
def test_scores_of_a_reader(encoder):
    table = axes.reader_scores(readers(), "one", encoder, "none")
    assert len(table) == 12
    assert np.isnan(table["relevance"][0])
    judged = table[table["surprising"].notna()]
    odd = judged["surprising"] == 1
    for score in ("relevance", "top three", "mean, uniform"):
        assert judged[score][odd].max() < judged[score][~odd].min(), score
    # nobody else has the odd book; the others share the cooking
    score = judged["expectedness, uniform"]
    assert score[odd].max() < score[~odd].min()


def test_top_three_and_mixture_by_hand():
    books = readers()
    table = axes.reader_scores(books, "two", "words", "none")
    own = np.flatnonzero(books["user_id"] == "two")
    vectors = axes.vectors_for(books, "two", "words", "none")[1:].numpy()
    cosines = vectors[own[6]] @ vectors[own[:6]].T
    assert table["relevance"][6] == pytest.approx(cosines.max(), abs=1e-6)
    three = np.sort(cosines)[-3:].mean()
    assert table["top three"][6] == pytest.approx(three, abs=1e-6)
    assert table["mean, uniform"][6] == pytest.approx(cosines.mean(), abs=1e-6)


def test_nothing_is_fitted_on_the_reader():
    """Other words in this reader's books leave the vectors of all others."""
    books = readers()
    changed = books.copy()
    mine = changed["user_id"] == "one"
    changed.loc[mine, "summary"] = "whale ship sea harpoon"
    one = axes.vectors_for(books, "one", "tfidf", "center")
    two = axes.vectors_for(changed, "one", "tfidf", "center")
    rest = np.flatnonzero(~mine) + 1
    assert torch.equal(one[rest], two[rest])


def test_intervals_and_neighbours():
    space = {
        name: axes.reader_scores(readers(), name, "words", "none")
        for name in ("one", "two", "three")
    }
    rows = pd.DataFrame(
        axes.auc_rows(space, torch.Generator().manual_seed(0))
    ).set_index(["score", "reader"])
    assert rows.loc[("relevance", "one"), "value"] == 1
    assert rows.loc[("relevance", "all"), "near"] == 1
    # book 8 of 3..11: five of eight others stand before it
    assert rows.loc[("position", "two"), "value"] == pytest.approx(3 / 8)
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    held = axes.held_out_aucs(space).set_index(["features", "reader"])["value"]
    assert held["relevance", "all"] == 1


def test_an_example_has_no_title():
    books = readers()
    found = axes.example(books)
    assert found["reader"] == "one"
    assert found["positions"][0] == [1.0, 1.0]
    assert found["surprising"][:3] == [None] * 3
    assert found["surprising"][8] == 1
    assert all(n < max(k, 1) for k, n in enumerate(found["nearest"]))
    text = json.dumps(found)
    assert not any(word in text for word in (COOKING + SPACE).split())


# --- totals: computed, else recorded -------------------------------------


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A machine without any copy of the data sets."""
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_totals_are_recorded_and_read(no_data, monkeypatch):
    made = {"premise": human.Totals("taobao-serendipity", lambda: {"n": 3})}
    monkeypatch.setattr(human, "TOTALS", made)
    monkeypatch.setattr(human, "results_dir", lambda: no_data / "results")
    human.record_totals("premise", "2026-01-02")
    totals, origin = human.human_totals("premise")  # no data are here
    assert totals == {"n": 3}
    assert "recorded on 2026-01-02" in origin and "data fetch" in origin
    monkeypatch.setattr(human, "find_source", lambda source: "here")
    assert "computed on this page" in human.human_totals("premise")[1]
    with pytest.raises(ConfigError, match="unknown totals 'x'"):
        human.human_totals("x")


def test_what_is_stored_are_totals():
    for name in human.TOTALS:
        path = results_dir() / "human" / f"{name}.json"
        assert path.stat().st_size < 100_000
    stored = json.loads((results_dir() / "human/premise.json").read_text())
    people = np.array(stored["totals"]["people"])
    assert people.shape == (5, 5)


def test_titles_or_numbers(no_data):
    assert human.reader_titles("reader 4", 2) == ["book 1", "book 2"]
