"""Two processes on one cache, or one folder of results, at one moment.

Downloads, review vectors and one grid of units have such tests beside the
code; here are candidates, models, and grids that overlap.
"""

import multiprocessing
import os
import time

import pytest
import torch
from toy_units import make_unit

from serendifflib.diffusion.checkpoints import read_state
from serendifflib.diffusion.training import train
from serendifflib.experiments import prepared as workbench
from serendifflib.experiments import records
from serendifflib.experiments import runner as runs
from serendifflib.model import fitting
from serendifflib.model.storage import FILE
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import PROFILES

FORK = multiprocessing.get_context("fork")


def together(jobs, folder):
    """Run all jobs at once, each in a process of its own."""
    barrier = FORK.Barrier(len(jobs))

    def body(job):
        os.environ["SERENDIFF_CACHE"] = str(folder / "cache")
        torch.set_num_threads(1)
        barrier.wait(60)
        job()

    processes = [FORK.Process(target=body, args=(job,)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(jobs)


def files(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("other_seed", [0, 1])
def test_candidates(tiny_fold, tmp_path, other_seed):
    """The same lists, or two kinds of lists, into one folder."""
    space = PortraitSpace.fit(tiny_fold, bins="catalogue")

    def draw(seed):
        workbench._candidates(tiny_fold, space, "test", 50, seed)

    asked = [lambda: draw(0), lambda: draw(other_seed), lambda: draw(0)]
    together(asked, tmp_path / "both")
    for one in asked[:2]:
        together([one], tmp_path / "alone")
    found = files(tmp_path / "both")
    assert found == files(tmp_path / "alone")
    assert len(found) == 1 + other_seed


def test_one_model_is_trained_once(tiny_fold, tiny_settings, tmp_path):
    log = tmp_path / "log"

    def counted(*arguments, **options):
        with open(log, "a") as stream:
            stream.write("trained\n")
        return train(*arguments, **options)

    def fit():
        fitting.train = counted  # in this process alone
        changes = {**tiny_settings, "steps": 6}
        workbench._load_or_fit(
            tiny_fold,
            PROFILES["smoke"],
            "tuned",
            progress=False,
            device="cpu",
            **changes,
        )

    together([fit, fit], tmp_path / "both")
    assert log.read_text() == "trained\n"
    together([fit], tmp_path / "alone")
    both, alone = files(tmp_path / "both"), files(tmp_path / "alone")
    assert both.keys() == alone.keys() == {FILE}
    one, other = (
        read_state(next((tmp_path / name).rglob(FILE)), "")[1]
        for name in ("both", "alone")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_grids_that_overlap(tmp_path):
    """Nothing is lost, nothing computed twice."""
    log, store = tmp_path / "log", records.RecordStore(tmp_path / "results")

    def compute(unit):
        with open(log, "a") as stream:
            stream.write(f"{unit.row}\n")
        time.sleep(0.02)
        cases = records.Cases((1, 2), (3, 4), (1, ord(unit.row)))
        return records.Outcome(cases={"serendipity": cases})

    def grid(rows):
        report = runs.run_units([make_unit(r) for r in rows], compute, store)
        assert report.ok
        assert len(report.computed) + len(report.skipped) == len(rows)

    together(
        [lambda: grid("abcdef"), lambda: grid("fedcxy"), lambda: grid("xaz")],
        tmp_path,
    )
    found = {run.row: run.cases for run in store.runs("table4")}
    assert sorted(found) == sorted("abcdefxyz")
    for row, cases in found.items():
        assert cases["serendipity"].ranks == (1, ord(row))
    assert sorted(log.read_text().split()) == sorted(found)
    names = {path.name for path in store.root.rglob("*.*")}
    assert names == {"table4.jsonl"}
