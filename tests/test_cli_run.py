"""`python -m serendifflib run`: exit codes, messages, where records go."""

import dataclasses
import subprocess
import sys

import pytest

from serendifflib import profiles
from serendifflib.__main__ import main
from serendifflib.baselines import controls
from serendifflib.errors import ModelError
from serendifflib.experiments import recipes, records

REAL_LOAD = recipes.load


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tiny_data, word_encoder, empty_cache, tmp_path):
    """A tiny world under every id, and a results folder of the test's."""
    monkeypatch.setenv("SERENDIFF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(recipes, "load", lambda source, profile: tiny_data)
    monkeypatch.setattr(
        "serendifflib.portrait.encoding.reference_encoder",
        lambda: word_encoder,
    )
    small = dataclasses.replace(
        profiles.PROFILES["smoke"], folds=2, test_users=6
    )
    monkeypatch.setitem(profiles.PROFILES, "smoke", small)
    monkeypatch.delenv("SERENDIFF_PROFILE", raising=False)
    recipes._open.cache_clear()
    yield
    recipes._open.cache_clear()


def test_runs_and_resumes(capsys):
    assert main(["run", "controls", "--models", "random,popularity"]) == 0
    first = capsys.readouterr()
    assert "4 computed, 0 already there, 0 failed" in first.out
    assert "controls synthetic popularity fold 1: " in first.err
    again = ["run", "controls", "--models", "random,oracle", "--folds", "1"]
    assert main(again) == 0
    assert "1 computed, 1 already there" in capsys.readouterr().out
    rows = {(run.row, run.fold) for run in records.recorded().runs("controls")}
    assert rows == {
        ("random", 0), ("random", 1), ("popularity", 0), ("popularity", 1),
        ("oracle", 1),
    }  # fmt: skip


def test_a_csv_of_ones_own(tmp_path, tiny_data, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "load", REAL_LOAD)
    path = tmp_path / "my möbel 本.csv"  # no name of a record
    tiny_data.frame.to_csv(path, index=False)
    arguments = ["run", "controls", "--data", str(path), "--folds", "0"]
    assert main([*arguments, "--models", "random,popularity"]) == 0
    assert "2 computed" in capsys.readouterr().out
    for record in records.recorded().runs("controls"):
        assert record.data.startswith("my_m_bel__.csv-")
        assert str(tmp_path) not in str(record.settings)
    assert main([*arguments, "--models", "oracle"]) == 2
    assert "needs a simulated world" in capsys.readouterr().err


def test_live_keeps_recorded_runs_alone(capsys):
    arguments = ["run", "controls", "--models", "random", "--folds", "0"]
    assert main([*arguments, "--live"]) == 0
    assert len(records.live().runs("controls")) == 1
    assert records.recorded().runs("controls") == []


def test_a_failure_is_reported_at_the_end(capsys, monkeypatch):
    class Broken(controls.Popularity):
        def _learn(self, fold, generator):
            raise ModelError("Popularity: exploded")

    monkeypatch.setitem(controls.CONTROLS, "popularity", Broken)
    models = "random,popularity,mean-cosine"
    arguments = ["run", "controls", "--models", models, "--folds", "0"]
    assert main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "2 computed, 0 already there, 1 failed"
    assert lines[-1].startswith("failed: controls synthetic popularity fold 0")
    assert lines[-1].endswith("ModelError: Popularity: exploded")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "unknown table 'nope': choose one of controls, table2"),
        (["controls", "--models", "rndom"], "unknown row 'rndom' of controls"),
        (["controls", "--folds", "7"], "unknown fold 7: choose 0 to 4"),
        (["controls", "--folds", "a"], "--folds is 'a': write numbers"),
        (["controls", "--jobs", "0"], "--jobs is 0: choose at least 1"),
    ],
)
def test_what_the_user_can_mend(capsys, arguments, message):
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1


def test_unknown_data_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "serendifflib", "run", "controls"]
    done = subprocess.run(
        [*command, "--data", "sythetic-weak"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert "did you mean 'synthetic-weak'?" in done.stderr
