"""Table 4 on files of the shape of real data, by the command for them."""

import csv
import dataclasses
import random

import pytest

from serendifflib.__main__ import main
from serendifflib.baselines import registry
from serendifflib.baselines.trainer import Budget
from serendifflib.data import sources
from serendifflib.errors import ConfigError, DataError
from serendifflib.experiments import recipes, records, results
from serendifflib.experiments import tables as experiments
from serendifflib.profiles import PROFILES

TINY = dataclasses.replace(
    PROFILES["smoke"], steps=2, width=4, batch_size=8, test_users=8
)
SHORT = Budget(
    pretrain_steps=1,
    max_steps=1,
    batch_size=8,
    eval_every=9,
    valid_cases=4,
    valid_candidates=20,
)
MODELS = ["random", "mean-cosine", "linear-map", "SASRec", "PURS"]


@pytest.fixture
def store(tmp_path, monkeypatch, empty_cache, word_encoder):
    """Cheap encoder, short trainings, nothing remembered."""
    monkeypatch.setattr(
        "serendifflib.portrait.encoding.reference_encoder",
        lambda: word_encoder,
    )
    monkeypatch.setitem(registry.BUDGETS, "smoke", SHORT)
    monkeypatch.setenv("SERENDIFF_DATA", str(tmp_path))
    recipes.load.cache_clear()
    recipes._open.cache_clear()
    yield records.RecordStore(tmp_path / "results")
    recipes.load.cache_clear()
    recipes._open.cache_clear()


def write_serenlens(path, data):
    """A world's rows as SerenLens writes them: quotes and broken lines."""
    frame = data.frame[
        ["user_id", "item_id", "timestamp", "review", "rating", "label"]
    ].copy()
    frame["review"] = 'Quite, "quite"\na book. ' + frame["review"].astype(str)
    frame["user_id"] = "a" + frame["user_id"].astype(str).str.lower()
    frame.to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)


def write_table(path, header, rows, encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([header, *rows])


def write_serendipity_2018(folder, users=60, films=120):
    """Its three files: milliseconds, a byte-order mark, eight answers."""
    drawn = random.Random(0)
    folder.mkdir()
    write_table(
        folder / "movies.csv",
        ["movieId", "title", "directedBy", "starring", "genres"],
        [
            (film, f"Film {film} (1999)", "A. B.", "C, D", "Action,Drama")
            for film in range(1, films + 1)
        ],
    )
    plain = ["userId", "movieId", "rating", "timestamp"]
    answers, training = [], []
    for user in range(users):
        for place, film in enumerate(drawn.sample(range(1, films + 1), 9)):
            when = (1_490_000_000 + place) * 1000 + 7
            if place < 6:
                training.append((user, film, 4.5, when))
            else:
                said = [drawn.choice(["TRUE", "FALSE", "NA"]) for _ in "8" * 8]
                answers.append((user, film, 4.0, when, *said))
    labels = [
        f"{who}_ser_{what}"
        for who in "sm"
        for what in ("rel", "find", "imp", "rec")
    ]
    write_table(
        folder / "answers.csv", [*plain, *labels], answers, "utf-8-sig"
    )
    write_table(folder / "training.csv", plain, training)


def run(store, data, models=MODELS, **options):
    return experiments.run_table(
        "table4",
        str(data),
        profile=TINY,
        models=models,
        folds=[0],
        store=store,
        **options,
    )


def check(store, name):
    records = store.runs("table4")
    assert {record.row for record in records} == set(MODELS)
    for record in records:
        assert record.data == name
        assert set(record.cases) == {"serendipity", "relevance"}
        for cases in record.cases.values():
            most = record.settings["n_candidates"]
            assert cases.ranks and max(cases.ranks) <= most
    frame = results.collect("table4", store=store, data=name)
    assert set(frame["row"]) == set(MODELS)


def test_a_csv_in_the_columns_of_serenlens(store, tmp_path, tiny_data):
    path = tmp_path / "Own Reviews.csv"
    write_serenlens(path, tiny_data)
    report = run(store, path)
    assert report.ok, report.text()
    name = experiments.data_id(recipes.load(str(path), TINY))
    assert name.startswith("Own_Reviews.csv-")
    check(store, name)
    with pytest.raises(ConfigError, match="'oracle' cannot be computed"):
        run(store, path, ["oracle"])


def test_serenlens_by_its_id(store, tmp_path, tiny_data, monkeypatch):
    path = tmp_path / "SerenLens_Books.csv"
    write_serenlens(path, tiny_data)
    # a file that is not the published one is refused, whatever it holds
    with pytest.raises(DataError, match="SerenLens_Books.csv"):
        run(store, "serenlens-books")
    known = sources.SOURCES["serenlens-books"]
    monkeypatch.setitem(
        sources.SOURCES,
        "serenlens-books",
        dataclasses.replace(known, size=None, sha256=None),
    )
    report = run(store, "serenlens-books")
    assert report.ok, report.text()
    check(store, "serenlens-books")


def test_serendipity_2018_by_its_id(store, tmp_path):
    write_serendipity_2018(tmp_path / "serendipity-sac2018")
    report = run(store, "serendipity-2018")
    assert report.ok, report.text()
    check(store, "serendipity-2018")


def test_the_command_line_runs_and_resumes_a_file(
    store, tmp_path, tiny_data, capsys, monkeypatch
):
    monkeypatch.setitem(PROFILES, "smoke", TINY)
    path = tmp_path / "own.csv"
    write_serenlens(path, tiny_data)
    command = ["run", "table4", "--data", str(path), "--profile", "smoke"]
    command += ["--models", "random,sasrec", "--folds", "0,1", "--live"]
    assert main(command) == 0
    assert "4 computed, 0 already there, 0 failed" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 computed, 4 already there, 0 failed" in capsys.readouterr().out
