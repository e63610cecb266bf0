"""All tables in sittings: order of importance, the clock, and going on."""

import dataclasses
import signal
import threading

import pytest
import torch

from serendifflib.baselines.sasrec import SASRec
from serendifflib.data import sources
from serendifflib.diffusion.training import train
from serendifflib.errors import ConfigError
from serendifflib.experiments import recipes, records, tables
from serendifflib.experiments import runner as runs
from serendifflib.experiments.tables import TABLES, make_units
from serendifflib.io import cache_dir
from serendifflib.profiles import PROFILES

TINY = dataclasses.replace(
    PROFILES["smoke"], steps=2, width=4, batch_size=8, test_users=8, folds=2
)
CHEAP = ("random", "popularity", "dense-cell")


@pytest.fixture
def tiny(monkeypatch, tiny_data, word_encoder, empty_cache):
    """Every data set is the tiny world, every table three cheap rows."""
    monkeypatch.setattr(recipes, "load", lambda source, profile: tiny_data)
    monkeypatch.setattr(
        "serendifflib.portrait.encoding.reference_encoder",
        lambda: word_encoder,
    )
    monkeypatch.setattr(
        tables,
        "make_units",
        lambda table, data, profile: make_units(
            table, data, profile=profile, models=CHEAP
        ),
    )
    recipes._open.cache_clear()
    yield tiny_data
    recipes._open.cache_clear()


def test_the_verdict_comes_first_and_every_table_comes():
    pairs = tables.agenda(PROFILES["paper"])
    assert pairs[0] == ("controls", tables.LIKE_BOOKS)
    assert {table for table, _ in pairs} == set(TABLES)
    small = tables.agenda(PROFILES["smoke"])
    assert small[0] == ("controls", "synthetic")
    assert len(set(small)) == len(small)
    assert not any(data.startswith("serenlens") for _, data in small)


def test_real_data_come_first_where_they_are(monkeypatch):
    monkeypatch.setattr(sources, "find_source", lambda source: source.id)
    pairs = tables.agenda(PROFILES["paper"])
    assert pairs[0] == ("controls", "serenlens-books")
    assert ("table4", "movielens-small") in pairs


@pytest.fixture(params=["as it is", "deaf to Ctrl-C"])
def listening(request):
    """A terminal, and a shell's background."""
    before = signal.getsignal(signal.SIGINT)
    if request.param != "as it is":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    now = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is now
    signal.signal(signal.SIGINT, before)


def test_the_clock_ends_a_sitting_and_the_next_goes_on(
    tiny, tmp_path, monkeypatch, listening
):
    store = records.RecordStore(tmp_path / "results")
    pairs = [("controls", "synthetic")]
    compute, turns, bells = recipes.evaluate_row, [], []

    class Bell(threading.Timer):  # rings when it is told to
        def __init__(self, seconds, ring):
            super().__init__(3600, ring)
            assert seconds in (0, 9 * 60)  # none, or nine minutes
            bells.append(ring)

    def slow(unit):
        turns.append((unit.fold, unit.row))
        if len(turns) == 3:
            threading.Thread(target=bells[0]).start()
            threading.Event().wait(60)  # until it rings
        return compute(unit)

    monkeypatch.setattr(tables.threading, "Timer", Bell)

    monkeypatch.setattr(recipes, "evaluate_row", slow)
    report, left = tables.run_all(TINY, minutes=9, pairs=pairs, store=store)
    assert report is None
    assert left == {f"controls on {tiny.name}": 4}
    assert [fold for fold, _ in turns] == [0, 0, 0]
    report, left = tables.run_all(TINY, pairs=pairs, store=store)
    assert report.ok and not left
    assert (len(report.skipped), len(report.computed)) == (2, 4)


def test_a_person_who_stops_it_is_not_taken_for_the_clock(
    tiny, tmp_path, monkeypatch
):
    def stopped(unit):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "evaluate_row", stopped)
    store = records.RecordStore(tmp_path / "results")
    with pytest.raises(KeyboardInterrupt):
        tables.run_all(
            TINY, minutes=9, pairs=[("controls", "synthetic")], store=store
        )
    assert not any(
        isinstance(thread, threading.Timer) and not thread.finished.is_set()
        for thread in threading.enumerate()
    )


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_a_sitting_takes_time(minutes):
    with pytest.raises(ConfigError, match="--minutes"):
        tables.run_all(TINY, minutes=minutes)


def short_unit():
    """SASRec with 6 steps on next items and 20 on labels."""
    (unit,) = make_units(
        "table4", "synthetic", profile=TINY, models=["SASRec"], folds=[0]
    )
    steps = {"pretrain_steps": 6, "max_steps": 20, "eval_every": 10}
    budget = unit.settings["budget"] | steps
    return dataclasses.replace(
        unit, settings=dict(unit.settings) | {"budget": budget}
    )


def test_a_rival_that_the_clock_cut_off_goes_on(tiny, tmp_path, monkeypatch):
    """The second sitting makes only the steps that the first left."""
    store = records.RecordStore(tmp_path / "results")
    unit = short_unit()
    straight = recipes.evaluate_row(unit)
    batch, steps = SASRec.batch, []

    def counted(model, examples, index):
        steps.append(index)
        return batch(model, examples, index)

    def cut(model, examples, index):
        if len(steps) == 10:
            raise KeyboardInterrupt
        return counted(model, examples, index)

    monkeypatch.setattr(SASRec, "batch", cut)
    monkeypatch.setitem(train.__kwdefaults__, "checkpoint_seconds", 0.0)
    with pytest.raises(KeyboardInterrupt):
        runs.run_units([unit], recipes.evaluate_row, store)
    assert any((cache_dir() / "rivals").rglob("*.safetensors"))
    monkeypatch.setattr(SASRec, "batch", counted)
    assert runs.run_units([unit], recipes.evaluate_row, store).ok
    labelled = unit.settings["budget"]["max_steps"]  # the second stage
    assert labelled <= len(steps) < labelled + 10  # 10 were made before
    done = store.finished(unit)
    assert done.cases["serendipity"] == straight.cases["serendipity"]
    assert not any((cache_dir() / "rivals").iterdir())


def test_a_damaged_state_of_a_rival_starts_it_again(tiny):
    unit = short_unit()
    straight = recipes.evaluate_row(unit)
    folder = cache_dir() / "rivals" / f"{unit.key()[:32]}-serendipity"
    folder.mkdir(parents=True)
    (folder / "next-item.safetensors").write_bytes(b"nonsense")
    again = recipes.evaluate_row(unit)
    assert torch.equal(
        torch.tensor(again.cases["serendipity"].ranks),
        torch.tensor(straight.cases["serendipity"].ranks),
    )
