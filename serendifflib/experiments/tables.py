"""All tables by id, and how to run one or all of them.

A table is a list of rows for a profile; each row and fold is a unit of work.
``runner`` does the resuming, the parallel work, and bears failures.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serendifflib.data import sources
from serendifflib.data.interactions import Interactions
from serendifflib.errors import ConfigError, check_choice
from serendifflib.evaluation.paper import row_key
from serendifflib.experiments import questions, recipes
from serendifflib.experiments.records import RecordStore, Unit, recorded
from serendifflib.experiments.rows import NEEDS, Row
from serendifflib.experiments.runner import Report, run_units
from serendifflib.experiments.versions import parts_of
from serendifflib.io import content_hash
from serendifflib.model.settings import Settings, make_settings
from serendifflib.portrait import encoding
from serendifflib.profiles import PROFILES, Profile, current_profile

N_CANDIDATES = 1000
WORLDS = ("synthetic", "synthetic-weak", "synthetic-null")
MANY = {"world_users": 12_000}
FORKED = (
    "synthetic-forked",
    *(f"synthetic-forked-{bridges}" for bridges in (1, 2, 6)),
    "synthetic-forked-null",
)


@dataclass(frozen=True)
class Table:
    """A table: its rows depend on the profile, for sizes do.

    Attributes:
        data: the data sets that the book shows, the first by default.
        tasks: ``serendipity`` and/or ``relevance``; data without labels
            have the second alone.
        sizes: profile name -> sizes that the table needs instead of those
            of the profile.
    """

    id: str
    title: str
    rows: Callable[[Profile], tuple[Row, ...]]
    data: tuple[str, ...] = WORLDS
    tasks: tuple[str, ...] = ("serendipity",)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


ONE = WORLDS[:1]
TABLES = {
    table.id: table
    for table in (
        Table(
            "controls",
            "SerenDiff among controls and ceilings",
            questions.controls,
        ),
        Table("table2", "Diffusion steps", questions.table2, ONE),
        Table("calls", "Network calls of one model", questions.calls, ONE),
        Table("table3", "Sizes of the portrait", questions.table3, ONE),
        Table("readings", "Readings of the text", questions.readings, ONE),
        Table(
            "curve",
            "How far does training take each recipe?",
            questions.curve,
            ONE,
        ),
        Table(
            "labels",
            "How many labels?",
            questions.labels,
            WORLDS[:2],
            # 8,000 labels are 70% of the users of a fold
            sizes=dict.fromkeys(PROFILES, MANY),
        ),
        Table(
            "protocol",
            "Candidates and splits",
            questions.protocol,
            ("synthetic", "synthetic-null"),
        ),
        Table(
            "leaks",
            "Is anybody above chance where labels follow nothing?",
            questions.leaks,
            ("synthetic-null",),
        ),
        Table(
            "table4",
            "All rivals under one protocol",
            questions.table4,
            (*WORLDS, "movielens-small"),
            tasks=("serendipity", "relevance"),
        ),
        Table("table5", "What the portrait is worth", questions.table5),
        Table(
            "generating",
            "When does generating help?",
            questions.generating,
            (*FORKED, *WORLDS, "synthetic-human", "synthetic-human-null"),
        ),
        Table(
            "counts",
            "Does a surprise make its item expected?",
            questions.counts,
            ("synthetic-forked",),
            # labels enough for the places of 24 genres
            sizes=dict.fromkeys(PROFILES, MANY)
            | {"smoke": MANY | {"test_users": 1_000, "steps": 600}},
        ),
    )
}


def find_table(table: str) -> Table:
    """A table by its id, if there is one."""
    check_choice("table", table, TABLES)
    return TABLES[table]


def choose_rows(
    table: Table, profile: Profile, models: Sequence[str] | None = None
) -> tuple[Row, ...]:
    """The rows of a table, or those that ``models`` names.

    Capitals, signs and "-style" do not matter in a name.
    """
    rows = {row_key(row.id): row for row in table.rows(profile)}
    for name in models or ():
        if row_key(name) not in rows:
            known = ", ".join(row.id for row in rows.values())
            raise ConfigError(
                f"unknown row {name!r} of {table.id}: choose from {known}"
            )
    return tuple(
        rows[key] for key in map(row_key, rows if models is None else models)
    )


def make_units(
    table: str,
    data: str | None = None,
    *,
    profile: Profile | None = None,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    seed: int = 0,
) -> list[Unit]:
    """The units of work of a table, fold by fold.

    Args:
        table: id of a table.
        data: data id or CSV path; None is the table's first.
        profile: sizes; None takes ``$SERENDIFF_PROFILE``.
        models: row ids; None is every row that the data allow.
        folds: 0-based; None is as many as the profile has.
        seed: of the models. Folds, candidates and worlds keep theirs. A
            seed other than 0 makes rows of its own.

    Raises:
        ConfigError: unknown table, row or fold, or a row that cannot be
            computed on these data.
    """
    chosen = find_table(table)
    profile = profile or current_profile()
    profile = replace(profile, **chosen.sizes.get(profile.name, {}))
    rows = choose_rows(chosen, profile, models)
    folds = range(profile.folds) if folds is None else folds
    for fold in folds:
        if not 0 <= fold < 5:
            raise ConfigError(f"unknown fold {fold}: choose 0 to 4")
    loaded = recipes.load(data or chosen.data[0], profile)
    tasks = [
        task
        for task in chosen.tasks
        if task != "serendipity" or loaded.has_labels
    ] or ["relevance"]
    applying = [row for row in rows if row.applies(loaded, tasks)]
    if models and len(applying) < len(rows):
        left = next(row for row in rows if row not in applying)
        raise ConfigError(
            f"row {left.id!r} cannot be computed on {loaded.name}: it needs "
            f"{NEEDS[left.needs]}"
        )
    return [
        _unit(chosen, row, fold, loaded, profile, tasks, seed)
        for fold in folds
        for row in applying
        # there is one split by time, whatever the folds
        if row.fold == "users" or fold == folds[0]
    ]


def _unit(
    table: Table,
    row: Row,
    fold: int,
    data: Interactions,
    profile: Profile,
    tasks: Sequence[str],
    seed: int,
) -> Unit:
    # 1,000, or four fifths of what every user lacks if that is less
    longest = int((data.row_start[1:] - data.row_start[:-1]).max())
    length = min(N_CANDIDATES, (data.n_items - longest) * 4 // 5)
    settings = row.settings() | {
        "n_candidates": length,
        "tasks": [task for task in tasks if task in row.tasks],
    }
    parts = parts_of(
        row.model,
        row.name,
        simulated=data.world is not None,
        encoder=encoding.reference_encoder().fingerprint,
    )
    if row.model == "serendiff":
        parts["settings"] = _settings_hash(row, profile)
    return Unit(
        table=table.id,
        data=data_id(data),
        row=row.id if seed == 0 else f"{row.id}.seed{seed}",
        label=row.label if seed == 0 else f"{row.label} (seed {seed})",
        fold=fold if row.fold == "users" else 0,
        data_checksum=data.checksum,
        source=data.source,
        profile=profile,
        seed=seed,
        settings=settings,
        parts=parts,
    )


def _settings_hash(row: Row, profile: Profile) -> str:
    """What decides a SerenDiff row; records from before are as valid."""
    chosen = make_settings(row.name, profile, **row.options)
    decisive = chosen.as_dict()
    if chosen.aggregate == Settings.aggregate:
        decisive.pop("aggregate")  # it came later
    if row.name != "tokens":
        decisive["popularity_bins"] = 0  # only tokens had any; it is gone
    return content_hash(decisive)[:16]


def data_id(data: Interactions) -> str:
    """What the records call a data set.

    Two files may have one name; the checksum tells them apart.
    """
    if data.name in (*sources.WORLDS, *sources.SOURCES):
        return data.name
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", data.name).lstrip(".-")
    return f"{safe}-{data.checksum[:8]}"


def run_table(
    table: str,
    data: str | None = None,
    *,
    n_jobs: int | None = 1,
    store: RecordStore | None = None,
    progress: bool = False,
    **which: Any,
) -> Report:
    """Compute what a table lacks; what is there and current is skipped.

    Without ``store`` the records join the project's. For the processes see
    :func:`~serendifflib.experiments.runner.run_units`, for the rest
    :func:`make_units`. One model's failure leaves the others alone.
    """
    units = make_units(table, data, **which)
    source = data or find_table(table).data[0]
    if Path(source).exists():
        source = str(Path(source).resolve())  # for other processes
    return run_units(
        units,
        functools.partial(recipes.evaluate_row, source=source),
        store or recorded(),
        n_jobs=n_jobs,
        progress=progress,
    )


# the tables that carry the verdict; the others ask single questions
FIRST = ("controls", "table4", "curve")
LIKE_BOOKS = "synthetic-like-serenlens-books"


def agenda(profile: Profile) -> list[tuple[str, str]]:
    """Pairs (table, data id), in order of importance.

    The verdict comes first: the tables :data:`FIRST` on SerenLens where it is
    at hand, on a world of its size at the profile ``paper``, and on the
    smaller worlds. Data that would have to be downloaded are left out.
    """
    pairs = []
    if profile.name == "paper":
        large = ("serenlens-books", "serenlens-movies", LIKE_BOOKS)
        pairs += [(table, data) for data in large for table in FIRST]
    for one in (*FIRST, *(name for name in TABLES if name not in FIRST)):
        pairs += [(one, data) for data in TABLES[one].data]

    def at_hand(data: str) -> bool:
        source = sources.SOURCES.get(data)
        return source is None or sources.find_source(source) is not None

    return [(table, data) for table, data in pairs if at_hand(data)]


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

    It stops after some ``minutes``; the same call goes on from there, a
    training from its checkpoint. The default ``pairs`` are :func:`agenda`'s.

    Returns:
        What was done, None if the time was over before the end; and how
        many units are left, by table and data.
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
            units,
            recipes.evaluate_row,
            store,
            n_jobs=n_jobs,
            progress=progress,
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
