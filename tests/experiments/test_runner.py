"""Runs: records, stores, resuming, failures, kills, two at once, tracing."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import joblib
import numpy as np
import pandas as pd
import pytest
from toy_units import make_unit

from serendifflib.errors import CacheError, ConfigError, DataError
from serendifflib.experiments import records, results, versions
from serendifflib.experiments import runner as runs
from serendifflib.io import content_hash
from serendifflib.profiles import PROFILES

SMOKE = PROFILES["smoke"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SERENDIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path):
    return records.RecordStore(tmp_path / "results")


def make_cases(seed=0, n=20):
    rng = np.random.default_rng(seed)
    return records.Cases(
        users=tuple(range(n)),
        targets=tuple(int(i) for i in rng.integers(1, 99, n)),
        ranks=tuple(int(r) for r in rng.integers(1, 21, n)),
    )


def seed_of(unit):
    return 100 * unit.fold + sum(map(ord, unit.row))


def compute(unit):
    return records.Outcome(
        cases={"serendipity": make_cases(seed_of(unit))},
        extra={"train_seconds": 0.5 + unit.fold},
        candidates="c" * 64,
    )


def compute_or_fail(unit):
    if unit.row == "bad":
        raise ValueError("exploded <loudly>")
    return compute(unit)


def compute_or_die(unit):
    if unit.row == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(unit)


def grid(rows=("alpha", "beta"), folds=(0, 1), **changes):
    return [make_unit(r, f, **changes) for r in rows for f in folds]


# records


def lines_of(store, table="table4"):
    return store.path(table).read_text().splitlines()


def test_record_round_trip(store):
    unit = make_unit(settings={"width": 32, "steps": [1, 2]}, label="Alpha")
    assert runs.run_units([unit], compute, store).ok
    (run,) = store.runs("table4")
    assert run.cases == compute(unit).cases
    assert run.label == "Alpha" and run.settings == unit.settings
    assert run.extra == {"train_seconds": 0.5}
    assert run.key == unit.key() and not run.outdated
    assert run.versions["torch"] and run.threads >= 1 and run.device
    assert run.sizes == dataclasses.asdict(SMOKE)
    again = records.RecordStore(store.root / "again")
    again.save(run)
    assert again.runs("table4") == [run]
    assert lines_of(again) == lines_of(store)


def test_users_and_targets_are_written_once(store):
    def same(unit):
        cases = records.Cases((0, 1), (7, 8), (1, 2 + unit.fold))
        return records.Outcome(cases={"serendipity": cases})

    runs.run_units(grid(), same, store)
    kinds = [json.loads(line)["record"] for line in lines_of(store)]
    assert sorted(kinds) == ["cases", "run", "run", "run", "run"]
    assert [p.name for p in store.root.iterdir()] == ["table4.jsonl"]
    ranks = [run.cases["serendipity"].ranks for run in store.runs("table4")]
    assert ranks == [(1, 2), (1, 3), (1, 2), (1, 3)]


def test_an_edited_number_is_noticed(store):
    runs.run_units([make_unit()], compute, store)
    path = store.path("table4")
    text = path.read_text()
    rank = store.runs("table4")[0].cases["serendipity"].ranks[0]
    path.write_text(text.replace(f'"ranks": [{rank},', '"ranks": [99,'))
    assert path.read_text() != text
    with pytest.raises(DataError, match="line 2.*checksum"):
        store.runs("table4")


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "null", "{}", '{"schema": 2}', "\xff", "[" * 9999]
)
def test_rubbish_is_refused_with_its_line(store, line):
    runs.run_units([make_unit()], compute, store)
    with open(store.path("table4"), "ab") as stream:
        stream.write(line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match="table4.jsonl: line 3"):
        store.runs("table4")
    # the other units are still known
    assert store.finished(make_unit())


def test_every_damaged_byte_is_noticed_or_harmless(store):
    runs.run_units([make_unit()], compute, store)
    path, sound = store.path("table4"), store.runs("table4")
    content = path.read_bytes()
    luck = random.Random(3)
    for _ in range(300):
        place = luck.randrange(len(content))
        damaged = bytearray(content)
        damaged[place] ^= 1 << luck.randrange(8)
        path.write_bytes(bytes(damaged))
        records._parse.cache_clear()
        try:
            assert store.runs("table4") in (sound, [])
        except DataError:
            continue
        # white space between values means nothing; a lost last line break
        # makes the last record an unfinished one
        assert store.runs("table4") == sound or place == len(content) - 1


@pytest.mark.parametrize("schema", [0, 1, 99])
def test_another_schema_is_refused(store, schema):
    runs.run_units([make_unit()], compute, store)
    content = json.loads(lines_of(store)[1])
    content["schema"] = schema
    del content["checksum"]
    content["checksum"] = content_hash(content)[:16]
    with open(store.path("table4"), "a") as stream:
        stream.write(json.dumps(content) + "\n")
    with pytest.raises(DataError, match=f"schema version {schema}"):
        store.runs("table4")


def test_an_unfinished_last_line_is_cut_off(store):
    runs.run_units([make_unit()], compute, store)
    whole = store.path("table4").read_bytes()
    with open(store.path("table4"), "ab") as stream:
        stream.write(b'{"record": "run", "ro')  # a killed writer
    assert len(store.runs("table4")) == 1
    runs.run_units([make_unit("beta")], compute, store)
    assert len(store.runs("table4")) == 2
    assert store.path("table4").read_bytes().startswith(whole)


def test_cases_refuse():
    with pytest.raises(DataError, match="length"):
        records.Cases((1, 2), (3, 4), (5,))
    for rank in (0, 1.5):
        with pytest.raises(DataError, match="ranks"):
            records.Cases((1,), (3,), (rank,))


def test_cases_from_the_protocol():
    table = pd.DataFrame(
        {"user_id": [3, 1], "target": [7, 8], "rank": [2, 900], "H@1": [0, 0]}
    )
    assert records.Cases.of(table) == records.Cases((3, 1), (7, 8), (2, 900))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "é"])
def test_names_that_name_no_results(name):
    with pytest.raises(ConfigError, match="cannot name results"):
        make_unit(row=name)


def test_nan_never_reaches_a_record(store):
    def bad(unit):
        return records.Outcome(extra={"loss": float("nan")})

    report = runs.run_units([make_unit()], bad, store)
    assert "loss is nan" in report.text()
    assert store.runs("table4") == []


# resuming


def test_a_second_call_computes_nothing(store):
    assert len(runs.run_units(grid(), compute, store).computed) == 4
    before = lines_of(store)

    def never(unit):
        raise AssertionError("computed again")

    report = runs.run_units(grid(), never, store)
    assert report.ok and len(report.skipped) == 4 and not report.computed
    assert before == lines_of(store)


CHANGES = [
    {"data_checksum": "e" * 64},
    {"seed": 1},
    {"settings": {"width": 64}},
    {"parts": {"portrait": versions.PARTS["portrait"], "encoder": "other"}},
    {"profile": dataclasses.replace(SMOKE, steps=SMOKE.steps + 1)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: next(iter(c)))
def test_any_change_computes_again_and_keeps_the_old(store, change):
    unit, changed = make_unit(), make_unit(**change)
    assert unit.key() != changed.key()
    runs.run_units([unit], compute, store)
    old = lines_of(store)
    report = runs.run_units([changed], compute, store)
    assert len(report.computed) == 1
    (run,) = store.runs("table4")
    assert run.key == changed.key()
    assert lines_of(store)[: len(old)] == old  # append-only


@pytest.mark.parametrize("part", sorted(versions.PARTS))
def test_a_raised_version_makes_records_of_it_outdated(
    store, monkeypatch, part
):
    parts = {name: versions.PARTS[name] for name in versions.PARTS}
    unit = make_unit(parts=parts)
    runs.run_units([unit], compute, store)
    now = versions.PARTS[part] + 1
    monkeypatch.setitem(versions.PARTS, part, now)
    (run,) = store.runs("table4")
    assert run.outdated == (f"{part} {now - 1}, now {now}",)
    assert store.finished(unit) is None
    assert not results.collect("table4", store=store)["current"].any()
    raised = make_unit(parts={**parts, part: now})
    assert len(runs.run_units([raised], compute, store).computed) == 1
    assert not store.runs("table4")[0].outdated


def test_a_raised_version_of_a_model_leaves_the_others_alone(
    store, monkeypatch
):
    models = [("rival", "SASRec"), ("control", "random")]
    one, other = (versions.of_model(*model) for model in models)
    first = make_unit("alpha", parts={"model": one})
    second = make_unit("beta", parts={"model": other})
    runs.run_units([first, second], compute, store)
    monkeypatch.setitem(versions.ROWS, "SASRec", 2)
    outdated, current = store.runs("table4")
    assert outdated.outdated == (
        f"model SASRec {one[2]}, now {versions.of_model(*models[0])[2]}",
    )
    assert not current.outdated


def test_other_libraries_compute_again_and_say_so(store, monkeypatch):
    runs.run_units([make_unit()], compute, store)
    others = {**versions.libraries(), "torch": "99.0"}
    monkeypatch.setattr(versions, "libraries", lambda: others)
    (run,) = store.runs("table4")
    assert "now 99.0" in run.outdated[0]
    assert "now 99.0" in results.trace("table4", "toy/alpha/H@10", store=store)
    assert len(runs.run_units([make_unit()], compute, store).computed) == 1


def test_profiles_do_not_overwrite_each_other(store):
    runs.run_units([make_unit()], compute, store)
    runs.run_units([make_unit(profile=PROFILES["laptop"])], compute, store)
    assert [r.profile for r in store.runs("table4")] == ["laptop", "smoke"]
    assert len(store.runs("table4", profile="smoke")) == 1


def test_two_units_of_one_name_are_refused(store):
    with pytest.raises(ConfigError, match="two different units"):
        runs.run_units([make_unit(), make_unit(seed=1)], compute, store)


# failures


def test_a_failing_unit_leaves_its_neighbours_alone(store):
    units = grid(("alpha", "bad", "beta"))
    report = runs.run_units(units, compute_or_fail, store)
    assert len(report.computed) == 4 and not report.ok
    assert [f.error for f in report.failures] == ["ValueError"] * 2
    assert "4 computed, 0 already there, 2 failed" in report.text()
    assert "table4 toy bad fold 1: ValueError: exploded" in report.text()
    assert [f.unit for f in report.failures] == [
        "table4 toy bad fold 0",
        "table4 toy bad fold 1",
    ]
    assert {r.row for r in store.runs("table4")} == {"alpha", "beta"}
    # repaired: only the failed ones are computed
    report = runs.run_units(units, compute, store)
    assert len(report.computed) == 2 and len(report.skipped) == 4
    assert report.ok


def test_a_failure_does_not_destroy_an_earlier_record(store):
    runs.run_units([make_unit("bad")], compute, store)
    before = lines_of(store)
    runs.run_units([make_unit("bad", seed=1)], compute_or_fail, store)
    assert [r.seed for r in store.runs("table4")] == [0]
    assert lines_of(store) == before


def test_failure_names_library_lines(store, capsys):
    def bad(unit):
        return records.Outcome(
            cases={"serendipity": records.Cases((1,), (), ())}
        )

    report = runs.run_units([make_unit()], bad, store, progress=True)
    (failure,) = report.failures
    assert failure.error == "DataError"
    assert failure.where[-1] in capsys.readouterr().err
    assert any(
        line.startswith("experiments/records.py:") for line in failure.where
    )


def test_processes(store):
    report = runs.run_units(
        grid(("alpha", "bad", "beta")), compute_or_fail, store, n_jobs=2
    )
    assert len(report.computed) == 4 and len(report.failures) == 2
    for run in store.runs("table4"):
        unit = make_unit(run.row, run.fold)
        assert run.cases == compute(unit).cases


def test_a_killed_worker_is_one_failure(store):
    """The others go on, those that ran beside it too; it can be repeated."""
    units = [*grid(("alpha",)), make_unit("deadly"), *grid(("beta", "gamma"))]
    report = runs.run_units(units, compute_or_die, store, n_jobs=2)
    assert len(report.computed) == 6
    (failure,) = report.failures
    assert (
        "deadly" in failure.unit and "worker process died" in failure.message
    )
    assert len(store.runs("table4")) == 6
    report = runs.run_units(units, compute, store, n_jobs=2)
    assert len(report.computed) == 1 and len(report.skipped) == 6
    assert report.ok


ORPHANS = """
import pathlib, sys, time
from toy_units import make_unit
from serendifflib.experiments import records, runner as runs

def endless(unit):
    print(unit, flush=True)
    time.sleep(600)

units = [make_unit("alpha", fold) for fold in (0, 1)]
store = records.RecordStore(pathlib.Path(sys.argv[1]))
runs.run_units(units, endless, store, n_jobs=2)
"""


def test_workers_end_with_their_program(store):
    """Killed, it cannot tell them; their locks are free soon after."""
    program = subprocess.Popen(
        [sys.executable, "-c", ORPHANS, store.root],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    begun = {program.stdout.readline().strip() for _ in range(2)}
    program.kill()
    program.wait()
    assert begun == {str(unit) for unit in grid(("alpha",))}
    report = []

    def again():
        report.append(runs.run_units(grid(("alpha",)), compute, store))

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    thread.join(60)
    assert report and len(report[0].computed) == 2


def test_same_call_on_a_dask_cluster(store):
    distributed = pytest.importorskip(
        "distributed", reason="the dask extra is not installed"
    )
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        report = runs.run_units(grid(("alpha", "bad")), compute_or_fail, store)
    assert len(report.computed) == 2 and len(report.failures) == 2
    assert len(store.runs("table4")) == 2


def test_results_that_cannot_be_written_give_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(CacheError, match="cannot write"):
        runs.run_units([make_unit()], compute, records.RecordStore(blocked))


def test_a_cache_that_cannot_be_written_gives_one_line(
    store, tmp_path, monkeypatch
):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SERENDIFF_CACHE", str(blocked))
    with pytest.raises(CacheError, match="SERENDIFF_CACHE"):
        runs.run_units([make_unit()], compute, store)


# kills, and two at once, with real processes

UNITS = [("alpha", "beta", "gamma"), range(4)]
FORK = multiprocessing.get_context("fork")


def fill(root, log):
    """One program that fills the store and notes what it computes."""

    def slow(unit):
        with open(log, "a") as stream:
            stream.write(f"{unit}\n")
        time.sleep(0.03)
        return compute(unit)

    runs.run_units(grid(*UNITS), slow, records.RecordStore(root))


def start(root, log):
    process = FORK.Process(target=fill, args=(root, log))
    process.start()
    return process


def check_whole(store):
    for run in store.runs("table4"):
        assert run.cases == compute(make_unit(run.row, run.fold)).cases


def test_killed_at_random_moments(store, tmp_path):
    log = tmp_path / "log"
    luck = random.Random(11)
    kills = 0
    while len(store.runs("table4")) < 12:
        process = start(store.root, log)
        process.join(luck.uniform(0.01, 0.1))
        kills += process.exitcode is None
        process.kill()
        process.join()
        check_whole(store)
    fill(store.root, log)
    check_whole(store)
    assert len(store.runs("table4")) == 12 and kills >= 5
    # each kill costs at most the unit it interrupted
    assert 12 <= len(log.read_text().splitlines()) <= 12 + kills


def test_two_programs_share_the_work(store, tmp_path):
    log = tmp_path / "log"
    programs = [start(store.root, log) for _ in range(3)]
    for process in programs:
        process.join(60)
        assert process.exitcode == 0
    check_whole(store)
    assert len(store.runs("table4")) == 12
    lines = log.read_text().splitlines()
    assert sorted(lines) == sorted(str(unit) for unit in grid(*UNITS))


# reading back


def test_collect_by_hand(store):
    ranks = {0: (1, 3, 11, 20), 1: (1, 1, 6, 7)}

    def fixed(unit):
        cases = records.Cases((0, 1, 2, 3), (9, 9, 9, 9), ranks[unit.fold])
        return records.Outcome(
            cases={"serendipity": cases}, extra={"speed": 2.0 + unit.fold}
        )

    runs.run_units(grid(("alpha",), label="Alpha!"), fixed, store)
    frame = results.collect("table4", store=store)
    value = frame.set_index(["fold", "metric"])["value"]
    assert value[0, "H@1"] == 0.25 and value[1, "H@1"] == 0.5
    assert value["mean", "H@1"] == 0.375
    assert value[0, "N@5"] == pytest.approx((1 + 0.5) / 4)
    assert value["mean", "speed"] == 2.5
    assert set(frame["label"]) == {"Alpha!"}
    assert set(frame[frame.fold == "mean"]["n"]) == {8, 0}
    means = frame[(frame.fold == "mean") & (frame["n"] == 8)]
    assert (means.low <= means.value).all()
    assert (means.value <= means.high).all()
    wide = means.set_index("metric")
    assert wide.loc["H@10", "low"] < wide.loc["H@10", "value"]
    assert frame["current"].all()


def test_collected_interval_agrees_with_the_bootstrap(store):
    import torch

    from serendifflib.evaluation.stats import bootstrap_interval

    def many(unit):
        return records.Outcome(
            cases={"serendipity": make_cases(unit.fold, 400)}
        )

    runs.run_units(grid(("alpha",)), many, store)
    frame = results.collect("table4", store=store).set_index(
        ["fold", "metric"]
    )
    cases = results.case_frame("table4", store=store)
    part = cases[cases["fold"] == 1]
    expected = bootstrap_interval(
        part["H@10"], generator=torch.Generator().manual_seed(5)
    )
    found = frame.loc[(1, "H@10")]
    assert found["value"] == pytest.approx(expected.value)
    assert found["low"] == pytest.approx(expected.low, abs=0.01)
    assert found["high"] == pytest.approx(expected.high, abs=0.01)
    # two folds of the same size: the mean's interval is sqrt(2) narrower
    mean = frame.loc[("mean", "H@10")]
    ratio = (found["high"] - found["low"]) / (mean["high"] - mean["low"])
    assert ratio == pytest.approx(2**0.5, rel=0.15)


def test_collect_never_mixes_profiles(store):
    """A larger profile that is half recorded waits until it is whole."""
    runs.run_units(grid(("alpha", "beta")), compute, store)
    laptop = PROFILES["laptop"]
    for row, expected in (("alpha", "smoke"), ("beta", "laptop")):
        runs.run_units([make_unit(row=row, profile=laptop)], compute, store)
        frame = results.collect("table4", store=store)
        assert set(frame["profile"]) == {expected}
        assert set(frame["row"]) == {"alpha", "beta"}
    frame = results.collect("table4", store=store, profile="smoke")
    assert set(frame["profile"]) == {"smoke"}


def test_collect_reads_profiles_that_it_does_not_know(store):
    """Records may be older than the name of their profile."""
    old = dataclasses.replace(PROFILES["smoke"], name="full")
    runs.run_units([make_unit(profile=old)], compute, store)
    assert set(results.collect("table4", store=store)["profile"]) == {"full"}


def test_collect_of_nothing_is_empty(store):
    assert results.collect("table4", store=store).empty
    assert results.case_frame("table4", store=store).empty


def test_one_user_gives_no_interval(store):
    def single(unit):
        return records.Outcome(
            cases={"serendipity": records.Cases((1,), (2,), (3,))}
        )

    runs.run_units([make_unit()], single, store)
    frame = results.collect("table4", store=store)
    assert frame["low"].isna().all() and frame["value"].notna().all()


def test_trace_tells_everything(store):
    unit = make_unit(settings={"width": 32})
    runs.run_units([unit, make_unit(fold=1)], compute, store)
    text = results.trace("table4", "toy/alpha/H@10", store=store)
    frame = results.collect("table4", store=store).set_index(
        ["fold", "metric"]
    )
    assert f"mean: {frame.loc[('mean', 'H@10'), 'value']:.6g} [" in text
    for part in (
        "table4.jsonl, line 4, fold 1",
        "Invented for a test. SHA-256 " + "d" * 64,
        "c" * 64,
        '{"width": 32}',
        f"commit: {versions.commit()[0]}",
        "since then: all as now",
        "threads",
        f"torch {versions.installed()['torch']}",
    ):
        assert part in text, part
    assert "train_seconds" in results.trace(
        "table4", "toy/alpha/serendipity/train_seconds", store=store
    )


def test_trace_says_what_there_is(store):
    runs.run_units([make_unit()], compute, store)
    with pytest.raises(DataError, match="rows: alpha;"):
        results.trace("table4", "toy/omega/H@10", store=store)
    with pytest.raises(DataError, match="metrics: .*N@5"):
        results.trace("table4", "toy/alpha/H@7", store=store)
    for cell in ("H@10", "toy//H@10", "a/b/c/d/e", ""):
        with pytest.raises(ConfigError, match="DATA/ROW/METRIC"):
            results.trace("table4", cell, store=store)


def test_trace_finds_rows_as_printed_and_refuses_to_guess(store):
    runs.run_units([make_unit("desr", label="DESR-style")], compute, store)
    full = results.trace("table4", "toy/desr/serendipity/H@1", store=store)
    for cell in ("desr/H@1", "DESR-style/H@1", "DESR/H@1", "toy/DESR/H@1"):
        assert results.trace("table4", cell, store=store) == full
    runs.run_units([make_unit("desr", data="other")], compute, store)
    with pytest.raises(ConfigError, match="data: other, toy"):
        results.trace("table4", "desr/H@1", store=store)
    assert results.trace("table4", "toy/desr/H@1", store=store) == full


# the commit behind a number


def git(folder, *arguments):
    subprocess.run(
        [
            "git",
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.org",
            *arguments,
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_commit_and_uncommitted_changes(tmp_path):
    code = tmp_path / "serendifflib"
    code.mkdir()
    (code / "a.py").write_text("A = 1\n")

    def state(folder=tmp_path):
        versions.commit.cache_clear()
        return versions.commit(folder)

    assert state() == ("unknown", True)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head, dirty = state()
    assert len(head) == 40 and not dirty
    (tmp_path / "notes.txt").write_text("not code")
    assert state() == (head, False)
    (code / "a.py").write_text("A = 2\n")
    assert state() == (head, True)
    # a folder inside somebody else's repository is not a checkout of ours
    assert state(code) == ("unknown", True)
    versions.commit.cache_clear()
