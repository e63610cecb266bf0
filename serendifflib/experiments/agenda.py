"""Everything that the book records, the most important first.

One command fills all records of a profile, in sittings of a few minutes:
what is done is skipped, and a training that the clock cut off goes on from
its checkpoint.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from serendifflib.data.sources import SOURCES, find_source
from serendifflib.errors import ConfigError
from serendifflib.experiments.recipes import evaluate_row
from serendifflib.experiments.records import RecordStore, Unit, recorded
from serendifflib.experiments.runner import Report, run_units
from serendifflib.experiments.tables import TABLES, make_units
from serendifflib.profiles import Profile

# the tables that carry the verdict; the others ask single questions
FIRST = ("controls", "table4", "curve")
LIKE_BOOKS = "synthetic-like-serenlens-books"


def agenda(profile: Profile) -> list[tuple[str, str]]:
    """Pairs (table, data id), in order of importance.

    The verdict comes first: the two tables in :data:`FIRST` on SerenLens
    where it is at hand, on a world of its size at the profile ``paper``, and
    on the smaller worlds. Data that would have to be downloaded are left
    out.
    """
    pairs = []
    if profile.name == "paper":
        large = [
            name
            for name in ("serenlens-books", "serenlens-movies")
            if find_source(SOURCES[name]) is not None
        ]
        pairs += [(t, d) for d in (*large, LIKE_BOOKS) for t in FIRST]
    for one in (*FIRST, *(name for name in TABLES if name not in FIRST)):
        pairs += [(one, data) for data in TABLES[one].data if _at_hand(data)]
    return pairs


def _at_hand(data: str) -> bool:
    return data not in SOURCES or find_source(SOURCES[data]) is not None


def run_all(
    profile: Profile,
    *,
    minutes: float | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    n_jobs: int | None = 1,
    store: RecordStore | None = None,
    progress: bool = False,
) -> tuple[Report | None, Counter[str]]:
    """Compute what the records of a profile lack, in order of importance.

    It stops after some ``minutes``; the same call goes on from there. Without
    ``pairs`` of table and data they are those of :func:`agenda`.

    Returns:
        What was done, None if the time was over before the end; and how
        many units are left, by table and data.

    Raises:
        ConfigError: no time is given, or less than none.
    """
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes is {minutes}: choose more than 0")
    store = store or recorded()
    units: list[Unit] = []
    report = None
    with _within(minutes):
        if pairs is None:
            pairs = agenda(profile)
        for table, data in pairs:
            units += make_units(table, data, profile=profile)
        units.sort(key=lambda unit: unit.fold)  # stable: all of fold 0 first
        report = run_units(
            units, evaluate_row, store, n_jobs=n_jobs, progress=progress
        )
    left = Counter(
        f"{unit.table} on {unit.data}"
        for unit in units
        if not store.finished(unit)
    )
    return report, left


@contextlib.contextmanager
def _within(minutes: float | None) -> Iterator[None]:
    """Leave the block as by Ctrl-C when the time is over.

    A training then ends its step and writes its checkpoint. A shell starts
    what runs in its background deaf to Ctrl-C; the clock must be heard.
    """
    over = threading.Event()

    def ring() -> None:
        over.set()
        _thread.interrupt_main()

    clock = threading.Timer((minutes or 0) * 60, ring)
    clock.daemon = True
    heard = signal.getsignal(signal.SIGINT)
    if minutes is not None:
        if heard is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        clock.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():  # a person
            raise
    finally:
        clock.cancel()
        if heard is signal.SIG_IGN:
            signal.signal(signal.SIGINT, heard)
