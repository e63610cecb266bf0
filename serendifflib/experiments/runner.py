"""Computing the units of a table: resumable, parallel, safe from failures.

A killed grid loses at most the unit it was in; a unit that fails leaves the
others alone. ``records`` holds what is stored, ``results`` reads it back.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import filelock
import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from serendifflib.errors import ConfigError, DataError
from serendifflib.experiments import versions
from serendifflib.experiments.records import Outcome, RecordStore, Run, Unit
from serendifflib.io import locked

DIED = (
    "its worker process died (killed, or out of memory): run again, with a "
    "smaller profile if memory is short"
)


class Failure(NamedTuple):
    """Why a unit has no result: type and words of the error, and ``where``.

    These are the library's lines that it passed, outermost first.
    """

    unit: str
    error: str
    message: str
    where: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What became of a list of units."""

    computed: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        """Whether every unit has a result."""
        return not self.failures

    def text(self) -> str:
        """One line of counts, then one per failure."""
        counts = (
            f"{len(self.computed)} computed, {len(self.skipped)} already "
            f"there, {len(self.failures)} failed"
        )
        failed = (
            f"failed: {f.unit}: {f.error}: {f.message}" for f in self.failures
        )
        return "\n".join([counts, *failed])


def run_units(
    units: Sequence[Unit],
    compute: Callable[[Unit], Outcome],
    store: RecordStore,
    *,
    n_jobs: int | None = None,
    progress: bool = False,
) -> Report:
    """Compute and record all units that have no current record.

    Each unit is saved by the process that computed it, the moment it is
    done. A unit that fails, or whose process dies, is reported as a failure
    and leaves the others alone. Two calls at once, also from two programs on
    one machine, share the work: a unit that another one is computing is
    awaited, not repeated.

    Args:
        units: what to compute.
        compute: the computation; joblib sends it to other processes.
        store: where the records go.
        n_jobs: processes; None takes joblib's active configuration, so
            that ``joblib.parallel_config("dask")`` uses a cluster.
        progress: print a line per unit to the standard error.

    Raises:
        ConfigError: two different units have the same place.
    """
    _check_distinct(units)
    states: dict[int, str | Failure] = {
        i: "there" for i, unit in enumerate(units) if store.finished(unit)
    }
    worker = _Worker(compute, store, progress, parent=os.getpid())
    for wait in (False, True):  # first what nobody else is computing
        waiting = [
            i for i in range(len(units)) if states.get(i, "busy") == "busy"
        ]
        work = functools.partial(worker, wait=wait)
        states |= _share_out(units, waiting, work, store, n_jobs)
    return Report(
        computed=tuple(str(units[i]) for i in states if states[i] == "done"),
        skipped=tuple(str(units[i]) for i in states if states[i] == "there"),
        failures=tuple(s for s in states.values() if isinstance(s, Failure)),
    )


def _check_distinct(units: Sequence[Unit]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for unit in units:
        place = (unit.table, *map(str, unit.place))
        if seen.setdefault(place, unit.key()) != unit.key():
            raise ConfigError(
                f"two different units are both called {unit}: give one of "
                "them another row id"
            )


def _share_out(
    units: Sequence[Unit],
    waiting: Sequence[int],
    work: Callable[[Unit], str | Failure],
    store: RecordStore,
    n_jobs: int | None,
) -> dict[int, str | Failure]:
    """States of the waiting units, also if a process dies over one of them.

    All processes end with the one that dies. Units are handed out in order,
    so one of the first that are unfinished killed it: these get a process
    each, one after the other, and the rest are shared out again.
    """
    states: dict[int, str | Failure] = {}
    waiting = list(waiting)
    while waiting:
        try:
            found = joblib.Parallel(n_jobs=n_jobs)(
                joblib.delayed(work)(units[i]) for i in waiting
            )
            return states | dict(zip(waiting, found, strict=True))
        except TerminatedWorkerError:
            done = [i for i in waiting if store.finished(units[i])]
            states |= dict.fromkeys(done, "done")
            waiting = [i for i in waiting if i not in states]
            n_suspects = joblib.effective_n_jobs(n_jobs)
            for i in waiting[:n_suspects]:
                apart = [joblib.delayed(work)(units[i])]
                try:
                    (states[i],) = joblib.Parallel(n_jobs=2)(apart)
                except TerminatedWorkerError as error:
                    states[i] = _failure(units[i], error, DIED)
            waiting = waiting[n_suspects:]
    return states


@functools.cache
def _end_with(parent: int) -> None:
    """Let a worker process end soon after the program that started it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if multiprocessing.current_process().name.startswith("LokyProcess"):
        threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class _Worker:
    """Computes one unit: "there", "busy", "done" or the failure."""

    compute: Callable[[Unit], Outcome]
    store: RecordStore
    progress: bool
    parent: int

    def __call__(self, unit: Unit, wait: bool) -> str | Failure:
        _end_with(self.parent)
        path = self.store.root / str(unit) / unit.profile.name
        try:
            with locked(path, wait=wait):
                if self.store.finished(unit):  # by another program, meanwhile
                    return "there"
                return self._compute(unit)
        except filelock.Timeout:
            return "busy"

    def _compute(self, unit: Unit) -> str | Failure:
        commit = versions.commit()  # of the code that starts, not that ends
        start = time.perf_counter()
        state: str | Failure = "done"
        try:
            outcome = self.compute(unit)
            run = _record(unit, outcome, commit, time.perf_counter() - start)
        # a model may fail in any way; the other units must not suffer
        except Exception as error:
            state = _failure(unit, error, str(error))
            passed = " > ".join(state.where)
            said = f"{state.error}: {state.message} ({passed})"
        else:  # a store that cannot be written stops them all
            self.store.save(run)
            said = f"{run.seconds:.1f} s"
        if self.progress:
            print(f"{unit}: {said}", file=sys.stderr)
        return state


def _record(
    unit: Unit, outcome: Outcome, commit: tuple[str, bool], seconds: float
) -> Run:
    for name, value in outcome.extra.items():
        if not math.isfinite(value):
            raise DataError(f"{unit}: {name} is {value}")
    same = "table data row fold seed data_checksum source settings parts"
    return Run(
        **{name: getattr(unit, name) for name in same.split()},
        label=unit.label or unit.row,
        key=unit.key(),
        profile=unit.profile.name,
        sizes=asdict(unit.profile),
        commit=commit[0],
        dirty=commit[1],
        device=outcome.device or versions.device_name(),
        threads=torch.get_num_threads(),
        versions=versions.installed(),
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        candidates=outcome.candidates,
        cases=dict(outcome.cases),
        extra={name: float(v) for name, v in outcome.extra.items()},
    )


def _failure(unit: Unit, error: Exception, message: str) -> Failure:
    package = versions.PACKAGE
    where = tuple(
        f"{Path(frame.filename).relative_to(package)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(package)
    )
    return Failure(str(unit), type(error).__name__, message, where)
