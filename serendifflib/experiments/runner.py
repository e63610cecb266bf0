"""Computing the units of a table: resumable, parallel, safe from failures.

A killed grid loses at most the unit it was in; a unit that fails leaves the
others alone. ``records`` holds what is stored, ``results`` reads it back; the
names that a caller needs are all here.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock
import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from serendifflib.errors import ConfigError, DataError
from serendifflib.experiments import provenance
from serendifflib.experiments.records import (
    Cases,
    Failure,
    Outcome,
    RecordStore,
    Run,
    Unit,
    live,
    recorded,
)
from serendifflib.experiments.results import case_frame, collect, trace
from serendifflib.io import locked

__all__ = [
    "Cases",
    "Failure",
    "Outcome",
    "RecordStore",
    "Report",
    "Run",
    "Unit",
    "case_frame",
    "collect",
    "live",
    "recorded",
    "run_units",
    "trace",
]


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
        lines = [
            f"{len(self.computed)} computed, {len(self.skipped)} already "
            f"there, {len(self.failures)} failed"
        ]
        lines += [
            f"failed: {one.unit}: {one.error}: {one.message}"
            for one in self.failures
        ]
        return "\n".join(lines)


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
    done. A unit that fails is recorded as a failure and leaves the others
    alone. Two calls at once, also from two programs on one machine, share
    the work: a unit that another one is computing is awaited, not repeated.

    Args:
        units: what to compute.
        compute: the computation; for several processes it must be a
            function that joblib can send to them.
        store: where the records go.
        n_jobs: processes; None takes joblib's active configuration, so
            that ``joblib.parallel_config("dask")`` uses a cluster.
        progress: print a line per unit to the standard error.

    Returns:
        What was computed, skipped and failed.

    Raises:
        ConfigError: two different units have the same place.
    """
    _check_distinct(units)
    states: dict[int, str | Failure] = {
        i: "there" for i, unit in enumerate(units) if store.finished(unit)
    }
    waiting = [i for i in range(len(units)) if i not in states]
    for wait in (False, True):  # first what nobody else is computing
        try:
            found = joblib.Parallel(n_jobs=n_jobs)(
                joblib.delayed(_run_unit)(
                    units[i], compute, store, wait, progress
                )
                for i in waiting
            )
        except TerminatedWorkerError:
            found = [_after_a_death(units[i], store) for i in waiting]
        states |= dict(zip(waiting, found, strict=True))
        waiting = [i for i in waiting if states[i] == "busy"]
        if not waiting:
            break
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


def _run_unit(
    unit: Unit,
    compute: Callable[[Unit], Outcome],
    store: RecordStore,
    wait: bool,
    progress: bool,
) -> str | Failure:
    """One unit in one process: "there", "busy", "done" or the failure."""
    try:
        with locked(store.root / str(unit) / unit.profile.name, wait=wait):
            if store.finished(unit):  # by another program, meanwhile
                return "there"
            return _compute_unit(unit, compute, store, progress)
    except filelock.Timeout:
        return "busy"


def _compute_unit(
    unit: Unit,
    compute: Callable[[Unit], Outcome],
    store: RecordStore,
    progress: bool,
) -> str | Failure:
    commit = provenance.commit()  # of the code that starts, not that ends
    start = time.perf_counter()
    try:
        outcome = compute(unit)
        run = _record(unit, outcome, commit, time.perf_counter() - start)
        store.save(run)
    # a model may fail in any way; the other units must not suffer
    except Exception as error:
        failure = _failure(unit, error)
        store.save_failure(unit, failure)
        if progress:
            print(
                f"{unit}: {failure.error}: {failure.message}", file=sys.stderr
            )
        return failure
    if progress:
        print(f"{unit}: {run.seconds:.1f} s", file=sys.stderr)
    return "done"


def _record(
    unit: Unit, outcome: Outcome, commit: tuple[str, bool], seconds: float
) -> Run:
    for name, value in outcome.extra.items():
        if not math.isfinite(value):
            raise DataError(f"{unit}: {name} is {value}")
    return Run(
        table=unit.table,
        data=unit.data,
        row=unit.row,
        label=unit.label or unit.row,
        fold=unit.fold,
        key=unit.key(),
        data_checksum=unit.data_checksum,
        source=unit.source,
        profile=unit.profile.name,
        sizes=asdict(unit.profile),
        seed=unit.seed,
        settings=dict(unit.settings),
        commit=commit[0],
        dirty=commit[1],
        parts=dict(unit.parts),
        device=outcome.device or provenance.device_name(),
        threads=torch.get_num_threads(),
        versions=provenance.versions(),
        seconds=round(seconds, 3),
        created=_now(),
        candidates=outcome.candidates,
        cases=dict(outcome.cases),
        extra={name: float(v) for name, v in outcome.extra.items()},
    )


def _failure(unit: Unit, error: Exception) -> Failure:
    frames = traceback.extract_tb(error.__traceback__)
    package = provenance.PACKAGE
    return Failure(
        unit=str(unit),
        error=type(error).__name__,
        message=str(error),
        where=tuple(
            f"{Path(frame.filename).relative_to(package)}:{frame.lineno}"
            for frame in frames
            if Path(frame.filename).is_relative_to(package)
        ),
        created=_now(),
        place=unit.place,
    )


def _after_a_death(unit: Unit, store: RecordStore) -> str | Failure:
    """State of a unit after a worker process was killed."""
    if store.finished(unit):
        return "done"
    return Failure(
        unit=str(unit),
        error="TerminatedWorkerError",
        message="a worker process died (killed, or out of memory) before "
        "this unit was done: run again, with fewer jobs",
        created=_now(),
        place=unit.place,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
