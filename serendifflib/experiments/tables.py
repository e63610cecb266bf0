"""All tables by id, and how to run one.

A table is a list of rows for a profile. ``run_table`` makes one unit of work
per row and fold and leaves resuming, parallel work and failures to
``runner``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serendifflib.data import sources
from serendifflib.data.interactions import Interactions
from serendifflib.errors import ConfigError, check_choice
from serendifflib.evaluation.paper import row_key
from serendifflib.experiments import questions, recipes
from serendifflib.experiments.records import RecordStore, Unit, recorded
from serendifflib.experiments.rows import Row
from serendifflib.experiments.runner import Report, run_units
from serendifflib.experiments.versions import parts_of
from serendifflib.io import content_hash
from serendifflib.model.settings import Settings, make_settings
from serendifflib.portrait import encoding
from serendifflib.profiles import Profile, current_profile

N_CANDIDATES = 1000
WORLDS = ("synthetic", "synthetic-weak", "synthetic-null")
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
        world_users: profile name -> users of a simulated world, where the
            table needs more than the profile has.
    """

    id: str
    title: str
    rows: Callable[[Profile], tuple[Row, ...]]
    data: tuple[str, ...] = WORLDS
    tasks: tuple[str, ...] = ("serendipity",)
    world_users: dict[str, int] = field(default_factory=dict)


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
            ("synthetic",),
        ),
        Table(
            "labels",
            "How many labels?",
            questions.labels,
            WORLDS[:2],
            # 8,000 labels are 70% of the users of a fold
            world_users=dict.fromkeys(("smoke", "laptop", "paper"), 12_000),
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
    )
}


def find_table(table: str) -> Table:
    """A table by its id.

    Raises:
        ConfigError: there is no such table.
    """
    check_choice("table", table, TABLES)
    return TABLES[table]


def choose_rows(
    table: Table, profile: Profile, models: Sequence[str] | None = None
) -> tuple[Row, ...]:
    """The rows of a table, or those that ``models`` names.

    Capitals, signs and "-style" do not matter in a name.

    Raises:
        ConfigError: a name is no row's.
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
    if profile.name in chosen.world_users:
        users = chosen.world_users[profile.name]
        profile = replace(profile, world_users=users)
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
            "a simulated world with labels"
        )
    return [
        _unit(chosen, row, fold, loaded, profile, tasks, seed)
        for fold in folds
        for row in applying
        # there is one split by time, whatever the folds
        if row.recipe.get("fold") != "temporal" or fold == folds[0]
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
    settings = {
        "model": row.model,
        "name": row.name,
        "options": {},
        "sampling": {},
        "n_candidates": _n_candidates(data),
        "tasks": [task for task in tasks if task in row.tasks],
    } | row.recipe
    temporal = row.recipe.get("fold") == "temporal"
    parts = parts_of(
        row.model,
        row.name,
        simulated=data.world is not None,
        encoder=encoding.reference_encoder().fingerprint,
    )
    if row.model == "serendiff":
        chosen = make_settings(row.name, profile, **settings["options"])
        decisive = chosen.as_dict()
        if chosen.aggregate == Settings.aggregate:
            # it came later, and records from before are as valid
            decisive.pop("aggregate")
        parts["settings"] = content_hash(decisive)[:16]
    return Unit(
        table=table.id,
        data=data_id(data),
        row=row.id if seed == 0 else f"{row.id}.seed{seed}",
        label=row.label if seed == 0 else f"{row.label} (seed {seed})",
        fold=0 if temporal else fold,
        data_checksum=data.checksum,
        source=data.source,
        profile=profile,
        seed=seed,
        settings=settings,
        parts=parts,
    )


def _n_candidates(data: Interactions) -> int:
    """1,000, or four fifths of what every user lacks if that is less."""
    longest = int((data.row_start[1:] - data.row_start[:-1]).max())
    return min(N_CANDIDATES, (data.n_items - longest) * 4 // 5)


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

    Args:
        table: id of a table.
        data: data id or CSV path; None is the table's first.
        n_jobs: processes; None takes joblib's active configuration.
        store: where the records go; default the project's.
        progress: print a line per unit to the standard error.
        **which: profile, models, folds and seed, see :func:`make_units`.

    Returns:
        What was computed, skipped and failed; one model's failure leaves
        the others alone.

    Raises:
        ConfigError: see :func:`make_units`.
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
