"""What each table consists of, as data, and how to run one.

A table is a list of rows for a profile; a row is an id, a label and the
recipe that ``recipes`` follows. ``run_table`` makes one unit of work per row
and fold and leaves resuming, parallel work and failures to ``runner``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serendifflib.baselines import registry
from serendifflib.baselines.trainer import Budget
from serendifflib.data import sources
from serendifflib.data.interactions import Interactions
from serendifflib.data.law import ForkedLaw
from serendifflib.errors import ConfigError
from serendifflib.evaluation.paper import row_key
from serendifflib.experiments import recipes
from serendifflib.experiments.records import RecordStore, Unit, recorded
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
PROTOTYPES = 100  # what SerenDiff sees of the catalogue, for everybody
ANSWERS = 8  # heads, components


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        id: names its records and is what ``--models`` selects by.
        label: how it prints.
        model, name: see :class:`serendifflib.experiments.recipes.Recipe`.
        recipe: its other settings, those that differ from the defaults.
        needs_world: whether it makes sense on simulated data alone.
        needs_places: whether it makes sense in a forked world alone.
        tasks: what it can be judged on.
    """

    id: str
    label: str
    model: str
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    needs_world: bool = False
    needs_places: bool = False
    tasks: tuple[str, ...] = ("serendipity", "relevance")

    def applies(self, data: Interactions, tasks: Sequence[str]) -> bool:
        """Whether the row can be computed on these data."""
        law = data.world and data.world.law
        if self.needs_world and law is None:
            return False
        if self.needs_places and not isinstance(law, ForkedLaw):
            return False
        return bool(set(tasks) & set(self.tasks))


@dataclass(frozen=True)
class Table:
    """A table: its rows depend on the profile, for sizes do.

    Attributes:
        id: names its records.
        title: one line.
        rows: profile -> rows.
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


# ------------------------------------------------------------------- rows


def _control(name: str, label: str, **options: Any) -> Row:
    recipe = {"options": options} if options else {}
    row_id = "-".join([name, *map(str, options.values())])
    oracle = name in ("oracle", "oracle-portrait", "oracle-protocol")
    return Row(
        row_id,
        label,
        "control",
        name,
        recipe,
        needs_world=oracle,
        tasks=("serendipity",) if oracle else ("serendipity", "relevance"),
    )


CONTROL_ROWS = (
    _control("random", "Random"),
    _control("popularity", "Popularity"),
    _control("mean-cosine", "Mean cosine"),
    _control("max-cosine", "Max cosine"),
    _control("low-expectedness", "Low expectedness"),
    _control("dense-cell", "Dense cell"),
    _control("label-cell", "Label cell"),
    _control("item-prior", "Item prior"),
    _control("linear-map", "Linear map"),
    _control("linear-radius", "Linear map + radius"),
    _control(
        "linear-radius", "Linear map + radius, cell negatives", draw="cells"
    ),
)
CEILING_ROWS = (
    _control("oracle-cell", "Oracle cell"),
    _control("oracle", "Oracle"),
    _control("oracle-protocol", "Oracle + protocol"),
)


def _ranker_rows(profile: Profile) -> tuple[Row, ...]:
    """The ranker on SerenDiff's targets and at most its steps."""
    budget = ranker_budget(profile)
    return (
        Row("ranker", "Set ranker", "ranker", "ranker", {"budget": budget}),
        Row(
            "ranker-cells",
            "Set ranker, cell negatives",
            "ranker",
            "ranker",
            {"budget": budget, "options": {"draw": "cells"}},
        ),
    )


def ranker_budget(profile: Profile) -> dict[str, Any]:
    """Steps, batches and patience (in steps) of SerenDiff."""
    return asdict(
        Budget(
            pretrain_steps=profile.pretrain_steps,
            max_steps=profile.steps,
            batch_size=profile.batch_size,
            eval_every=50,
            patience=10,
        )
    )


def _serendiff(row: str, label: str, preset: str, **recipe: Any) -> Row:
    return Row(row, label, "serendiff", preset, recipe)


TUNED = _serendiff("tuned", "SerenDiff (tuned)", "tuned")
PRESET_ROWS = (
    _serendiff("paper", "SerenDiff (paper, literal)", "paper"),
    _serendiff("corrected", "SerenDiff (corrected)", "corrected"),
    TUNED,
)


POINTS_ROWS = (
    _serendiff("points", "SerenDiff (points)", "points"),
    _serendiff(
        "points-start",
        "SerenDiff (points), regression alone",
        "points",
        options={"steps": 0},
    ),
)


def _ours(profile: Profile) -> tuple[Row, ...]:
    """What the tables of single questions compare (labels, protocols)."""
    return (TUNED, POINTS_ROWS[0])


def _controls(profile: Profile) -> tuple[Row, ...]:
    return (
        *CONTROL_ROWS,
        *_ranker_rows(profile),
        *_presets(profile),
        *POINTS_ROWS,
        *CEILING_ROWS,
    )


def _generating(profile: Profile) -> tuple[Row, ...]:
    """One answer or several, drawn or not; the same inputs and steps.

    Whoever can read memberships in prototypes reads them.
    """
    tokens = make_settings("tokens", profile)
    budget = asdict(
        Budget(
            pretrain_steps=0,
            max_steps=tokens.steps,
            batch_size=tokens.batch_size,
            eval_every=tokens.validate_every,
            patience=tokens.patience,
        )
    )

    def ranker(row: str, label: str, name: str, **options: Any) -> Row:
        options = {"prototypes": PROTOTYPES} | options
        recipe = {"budget": budget, "options": options}
        return Row(row, label, "ranker", name, recipe)

    several = {"answers": ANSWERS}
    # draws need the clean end of the noise as well, and a few steps each
    drawn = {
        "aggregate": "draws",
        "earliest": 0.0,
        "ema": True,
        "learning_rate": 1e-3,
        "sampler": "ddim",
        "calls": 12,
        "samples": 32,
        "steps": tokens.steps,
        "validate_every": 2 * tokens.validate_every,
    }
    return (
        *(
            row
            for row in CONTROL_ROWS
            if row.id in ("random", "popularity", "mean-cosine", "label-cell")
        ),
        replace(
            _control(
                "linear-radius",
                "Linear map + radius, memberships",
                prototypes=PROTOTYPES,
            ),
            id="linear-radius",
        ),
        _control("nearest-users", "Nearest users"),
        POINTS_ROWS[1],
        POINTS_ROWS[0],
        # one network, read in two ways
        _serendiff("points-draws", "Points, draws", "points", options=drawn),
        _serendiff(
            "points-mean",
            "Points, the same draws averaged",
            "points",
            options=drawn,
            sampling={"aggregate": "mean"},
        ),
        ranker("ranker", "Set ranker, one answer", "ranker"),
        ranker("mmr", "Set ranker + MMR", "mmr"),
        ranker("sog", "Set ranker + SOG", "sog"),
        ranker("ranker-heads", "Set ranker, 8 answers", "ranker", **several),
        ranker("mixture-density", "Mixture density", "mixture-density"),
        ranker("explicit-mixture", "Explicit mixture", "explicit-mixture"),
        _serendiff("tokens", "SerenDiff (tokens)", "tokens"),
        replace(
            _control("oracle-portrait", "Oracle on the portrait"),
            needs_places=True,
        ),
        CEILING_ROWS[1],
    )


def _presets(profile: Profile) -> tuple[Row, ...]:
    if profile.name != "smoke":
        return PRESET_ROWS
    # 1,000 network calls per user are minutes; the literal preset as a
    # whole is a matter for the larger profiles
    return tuple(_with_calls(row, 10) for row in PRESET_ROWS)


def _with_calls(row: Row, calls: int) -> Row:
    """A preset sampled by DDIM in few calls instead of T ancestral ones."""
    if row.name == "tuned":
        return row
    return replace(
        row,
        label=f"{row.label}, {calls} calls",
        recipe={"sampling": {"sampler": "ddim", "calls": calls}},
    )


def _painter(row: str, label: str, **recipe: Any) -> Row:
    """``tuned`` without its linear shortcut.

    Where the shortcut decides, samplers and readings change nothing.
    """
    return _serendiff(row, label, "painter", **recipe)


TIMESTEPS = (5, 10, 50, 100, 500, 1000)


def _table2(profile: Profile) -> tuple[Row, ...]:
    rows = []
    for rescaled in (False, True):
        for steps in TIMESTEPS:
            if rescaled and steps == 1000:
                continue  # the factor is 1000 / T: nothing changes
            # early stopping looks at one call; the T calls of the paper
            # are made when the test cases are scored
            recipe = {
                "options": {"timesteps": steps, "rescale_betas": rescaled},
                "sampling": {"sampler": "ancestral", "calls": steps},
            }
            name = f"{steps}-rescaled" if rescaled else str(steps)
            label = f"{steps:,}, rescaled betas" if rescaled else f"{steps:,}"
            rows.append(_serendiff(name, label, "tuned", **recipe))
            if steps in (5, 50):
                # nothing but the noisy grid and the portrait to go by
                painted = f"painter, {label}"
                rows.append(_painter(f"painter-{name}", painted, **recipe))
    return tuple(rows)


CALLS = {
    "smoke": (1, 2, 5, 10, 20, 50, 100),
    "laptop": (1, 2, 5, 10, 20, 50, 100),
    "paper": (1, 2, 5, 10, 20, 50, 100, 1000),
}


def _calls(profile: Profile) -> tuple[Row, ...]:
    """One trained network each of ``tuned`` and the painter, many samplers.

    A row's id is ``SAMPLER-CALLS``, of the painter ``painter-SAMPLER-CALLS``.
    """
    pairs = [("one-call", 1)]
    pairs += [("ddim", calls) for calls in CALLS[profile.name]]
    # a multistep solver of second order needs two calls at least
    pairs += [("dpm-solver", c) for c in CALLS[profile.name] if 1 < c < 1000]
    pairs.append(("ancestral", 1000))
    rows, painted = [], []
    for sampler, calls in pairs:
        name = f"{sampler}-{calls}" if sampler != "one-call" else sampler
        words = f"{sampler}, {calls:,} call{'s' if calls > 1 else ''}"
        how = {"sampler": sampler, "calls": calls}
        rows.append(_serendiff(name, words, "tuned", sampling=how))
        painted.append(
            _painter(f"painter-{name}", f"painter, {words}", sampling=how)
        )
    return (*rows, *painted)


SIDES = (5, 10, 20, 50, 100)


def _table3(profile: Profile) -> tuple[Row, ...]:
    return tuple(
        _serendiff(
            f"{side}x{side}",
            f"{side}\u00d7{side}",
            "tuned",
            options={"side": side},
        )
        for side in SIDES
    )


def _readings(profile: Profile) -> tuple[Row, ...]:
    changed = [
        ("match-own-cell", "Matching: own cell", "match", "own-cell"),
        ("match-zone", "Matching: zone", "match", "zone"),
        ("bins-interactions", "Bins: interactions", "bins", "interactions"),
        ("weights-recency", "p(h|T): recency", "weights", "recency"),
        ("weights-similarity", "p(h|T): similarity", "weights", "similarity"),
        ("mu-0", "Expectedness without smoothing", "mu", 0.0),
        ("isotropy-none", "Raw item vectors", "isotropy", "none"),
        ("isotropy-whiten", "Whitened item vectors", "isotropy", "whiten"),
        ("prototypes-0", "Without prototypes", "prototypes", 0),
    ]
    rows = [TUNED]
    for row, label, option, value in changed:
        # matching is read off the same trained network
        place = "sampling" if option == "match" else "options"
        rows.append(
            _serendiff(row, label, "tuned", **{place: {option: value}})
        )
    rows.append(
        _serendiff(
            "encoder-tfidf", "TF-IDF + SVD vectors", "tuned", encoder="tfidf"
        )
    )
    # the shortcut of tuned leaves little to the grid; the painter has none
    rows += [
        _painter(
            f"painter-{match}",
            f"Painter, matching: {match.replace('-', ' ')}",
            sampling={"match": match},
        )
        for match in ("field", "own-cell", "zone")
    ]
    return tuple(rows)


LABELS = {
    "smoke": (500, 1000, 2000, 4000, 8000),
    "laptop": (500, 1000, 2000, 4000, 8000),
    "paper": (500, 1000, 2000, 4000, 8000),
}


def _labels(profile: Profile) -> tuple[Row, ...]:
    learners = [
        *_ours(profile),
        _ranker_rows(profile)[0],
        *(
            row
            for row in CONTROL_ROWS
            if row.id
            in ("label-cell", "item-prior", "linear-map", "linear-radius")
        ),
    ]
    return tuple(
        replace(
            row,
            id=f"{row.id}-{count}",
            label=f"{row.label}, {count:,} labels",
            recipe=row.recipe | {"labels": count},
        )
        for row in learners
        for count in LABELS[profile.name]
    ) + (CEILING_ROWS[1],)


def _protocol(profile: Profile) -> tuple[Row, ...]:
    models = [
        *_ours(profile),
        _ranker_rows(profile)[0],
        *(
            row
            for row in (*CONTROL_ROWS, *CEILING_ROWS)
            if row.id
            in (
                "random",
                "popularity",
                "mean-cosine",
                "max-cosine",
                "dense-cell",
                "label-cell",
                "linear-map",
                "linear-radius",
                "oracle",
            )
        ),
    ]
    protocols = [
        ("cells", "candidates even over cells", {}),
        ("uniform", "uniform candidates", {"candidates": "uniform"}),
        ("all", "whole catalogue", {"candidates": "all"}),
        ("temporal", "split by time", {"fold": "temporal"}),
    ]
    return tuple(
        replace(
            row,
            id=f"{row.id}-{name}",
            label=f"{row.label}, {words}",
            recipe=row.recipe | changes,
        )
        for name, words, changes in protocols
        for row in models
    )


def _leaks(profile: Profile) -> tuple[Row, ...]:
    """Everybody among uniform candidates, where chance at 10 is 10 / C.

    Lists that are even over cells favour whoever prefers dense cells, with
    no leak at all (``dense-cell``); uniform lists favour nobody. Left out are
    two ceilings: one is told the cell of the label and has to stand above
    chance, the other knows another protocol.
    """
    return tuple(
        replace(row, recipe=row.recipe | {"candidates": "uniform"})
        for row in (*_table4(profile), *_presets(profile)[:2])
        if row.id not in ("oracle-cell", "oracle-protocol")
    )


def _table4(profile: Profile) -> tuple[Row, ...]:
    budget = registry.budget_of(profile)
    rivals = {
        name: Row(name, name, "rival", name, {"budget": asdict(budget)})
        for name in registry.RIVALS
    }
    # which language model answered is part of the record
    prompts, row = registry.affordable_prompts(budget), "SerenPrompt-style"
    rivals[row] = replace(
        rivals[row], recipe=rivals[row].recipe | {"options": prompts}
    )
    if prompts["language"] == "tiny":
        label = f"{row} (tiny random LM)"
        rivals[row] = replace(rivals[row], label=label)
    return (
        *rivals.values(),
        replace(TUNED, id="SerenDiff"),
        *POINTS_ROWS,
        *CONTROL_ROWS,
        *_ranker_rows(profile),
        *CEILING_ROWS,
    )


def _table5(profile: Profile) -> tuple[Row, ...]:
    """The portrait against what Sec. 6.3 puts in its place.

    Twice: with ``tuned`` and with the painter, which has no linear shortcut
    from the user to the point.
    """
    rows = []
    for painter in (False, True):
        first = "painter-" if painter else ""
        words = "Painter: " if painter else ""
        portrait = replace(TUNED, id="user-portrait", label="User portrait")
        if painter:
            portrait = _painter(
                "painter-user-portrait", "Painter: user portrait"
            )
        same = _size(portrait.name, profile)
        rows.append(portrait)
        for row, label, name, options in REPLACED:
            if painter and row != name:
                continue  # other readings, with tuned alone
            rows.append(
                Row(
                    first + row,
                    words + (label.lower() if words else label),
                    "rival",
                    name,
                    {
                        "budget": ranker_budget(profile),
                        "options": same | options,
                    },
                )
            )
    others = (*CONTROL_ROWS, *_ranker_rows(profile), *CEILING_ROWS)
    kept = ("random", "linear-map", "ranker", "oracle")
    return (*rows, *(row for row in others if row.id in kept))


REPLACED = (
    ("user-embedding", "User embedding", "user-embedding", {}),
    (
        "user-embedding-ratings",
        "User embedding of ratings",
        "user-embedding",
        {"mode": "ratings"},
    ),
    ("user-sequence", "User sequence", "user-sequence", {}),
    (
        "user-sequence-grid",
        "User sequence as a grid",
        "user-sequence",
        {"reading": "grid"},
    ),
)


SIZES = ("width", "samples", "steps", "validate_every", "valid_users",
         "valid_candidates")  # fmt: skip


def _size(preset: str, profile: Profile) -> dict[str, Any]:
    """A preset and what it takes from the profile, for an ablation of it."""
    made = make_settings(preset, profile)
    return {"preset": preset} | {name: getattr(made, name) for name in SIZES}


TABLES = {
    table.id: table
    for table in (
        Table("controls", "SerenDiff among controls and ceilings", _controls),
        Table("table2", "Diffusion steps", _table2, ("synthetic",)),
        Table("calls", "Network calls of one model", _calls, ("synthetic",)),
        Table("table3", "Sizes of the portrait", _table3, ("synthetic",)),
        Table("readings", "Readings of the text", _readings, ("synthetic",)),
        Table(
            "labels",
            "How many labels?",
            _labels,
            ("synthetic", "synthetic-weak"),
            # 8,000 labels are 70% of the users of a fold
            world_users=dict.fromkeys(("smoke", "laptop", "paper"), 12_000),
        ),
        Table(
            "protocol",
            "Candidates and splits",
            _protocol,
            ("synthetic", "synthetic-null"),
        ),
        Table(
            "leaks",
            "Is anybody above chance where labels follow nothing?",
            _leaks,
            ("synthetic-null",),
        ),
        Table(
            "table4",
            "All rivals under one protocol",
            _table4,
            (*WORLDS, "movielens-small"),
            tasks=("serendipity", "relevance"),
        ),
        Table("table5", "What the portrait is worth", _table5),
        Table(
            "generating",
            "When does generating help?",
            _generating,
            (*FORKED, *WORLDS),
        ),
    )
}


# ---------------------------------------------------------------- running


def find_table(table: str) -> Table:
    """A table by its id.

    Raises:
        ConfigError: there is no such table.
    """
    if table not in TABLES:
        raise ConfigError(
            f"unknown table {table!r}: choose one of {', '.join(TABLES)}"
        )
    return TABLES[table]


def choose_rows(
    table: Table,
    profile: Profile,
    models: Sequence[str] | None = None,
) -> tuple[Row, ...]:
    """The rows of a table, or those that ``models`` names.

    Capitals, signs and "-style" do not matter in a name.

    Raises:
        ConfigError: a name is no row's.
    """
    rows = {row_key(row.id): row for row in table.rows(profile)}
    if models is None:
        return tuple(rows.values())
    for name in models:
        if row_key(name) not in rows:
            known = ", ".join(row.id for row in rows.values())
            raise ConfigError(
                f"unknown row {name!r} of {table.id}: choose from {known}"
            )
    return tuple(rows[row_key(name)] for name in models)


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
    profile: Profile | None = None,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    seed: int = 0,
    n_jobs: int | None = 1,
    store: RecordStore | None = None,
    progress: bool = False,
) -> Report:
    """Compute what a table lacks; what is there and current is skipped.

    Args:
        table: id of a table.
        data: data id or CSV path; None is the table's first.
        profile: sizes; None takes ``$SERENDIFF_PROFILE``.
        models: row ids; None is every row that the data allow.
        folds: 0-based; None is as many as the profile has.
        seed: see :func:`make_units`.
        n_jobs: processes; None takes joblib's active configuration.
        store: where the records go; default the project's.
        progress: print a line per unit to the standard error.

    Returns:
        What was computed, skipped and failed; one model's failure leaves
        the others alone.

    Raises:
        ConfigError: see :func:`make_units`.
    """
    units = make_units(
        table, data, profile=profile, models=models, folds=folds, seed=seed
    )
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
