"""Rows that several tables share: controls, presets, rankers, ceilings.

A row is an id, a label and the recipe that ``recipes`` follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serendifflib.baselines.trainer import Budget
from serendifflib.data.interactions import Interactions
from serendifflib.data.law import ForkedLaw
from serendifflib.profiles import Profile

BOTH_TASKS = ("serendipity", "relevance")


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
    tasks: tuple[str, ...] = BOTH_TASKS

    def applies(self, data: Interactions, tasks: Sequence[str]) -> bool:
        """Whether the row can be computed on these data."""
        law = data.world and data.world.law
        if self.needs_world and law is None:
            return False
        if self.needs_places and not isinstance(law, ForkedLaw):
            return False
        return bool(set(tasks) & set(self.tasks))


def control(name: str, label: str, **options: Any) -> Row:
    """Row of a control; options become part of its id."""
    row_id = "-".join([name, *map(str, options.values())])
    oracle = name in ("oracle", "oracle-portrait", "oracle-protocol")
    return Row(
        row_id,
        label,
        "control",
        name,
        {"options": options} if options else {},
        needs_world=oracle,
        tasks=("serendipity",) if oracle else BOTH_TASKS,
    )


def serendiff(row: str, label: str, preset: str, **recipe: Any) -> Row:
    """Row of a preset of SerenDiff."""
    return Row(row, label, "serendiff", preset, recipe)


def painter(row: str, label: str, **recipe: Any) -> Row:
    """``tuned`` without its linear shortcut.

    Where the shortcut decides, samplers and readings change nothing.
    """
    return serendiff(row, label, "painter", **recipe)


CONTROL_ROWS = (
    control("random", "Random"),
    control("popularity", "Popularity"),
    control("mean-cosine", "Mean cosine"),
    control("max-cosine", "Max cosine"),
    control("low-expectedness", "Low expectedness"),
    control("dense-cell", "Dense cell"),
    control("label-cell", "Label cell"),
    control("item-prior", "Item prior"),
    control("linear-map", "Linear map"),
    control("linear-radius", "Linear map + radius"),
    control(
        "linear-radius", "Linear map + radius, cell negatives", draw="cells"
    ),
)
CEILING_ROWS = (
    control("oracle-cell", "Oracle cell"),
    control("oracle", "Oracle"),
    control("oracle-protocol", "Oracle + protocol"),
)
TUNED = serendiff("tuned", "SerenDiff (tuned)", "tuned")
POINTS_ROWS = (
    serendiff("points", "SerenDiff (points)", "points"),
    serendiff(
        "points-start",
        "SerenDiff (points), regression alone",
        "points",
        options={"steps": 0},
    ),
)


def chosen(rows: Iterable[Row], *ids: str) -> tuple[Row, ...]:
    """Those of some rows that have one of these ids."""
    return tuple(row for row in rows if row.id in ids)


def ranker_rows(profile: Profile) -> tuple[Row, ...]:
    """The ranker on SerenDiff's targets and at most its steps."""
    budget = {"budget": ranker_budget(profile)}
    cells = budget | {"options": {"draw": "cells"}}
    label = "Set ranker, cell negatives"
    return (
        Row("ranker", "Set ranker", "ranker", "ranker", budget),
        Row("ranker-cells", label, "ranker", "ranker", cells),
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


def presets(profile: Profile) -> tuple[Row, ...]:
    """The presets that draw portraits, in few calls at smoke."""
    words, recipe = "", {}
    if profile.name == "smoke":
        # 1,000 network calls per user are minutes; the literal preset as a
        # whole is a matter for the larger profiles
        words = ", 10 calls"
        recipe = {"sampling": {"sampler": "ddim", "calls": 10}}
    paper = serendiff("paper", "SerenDiff (paper, literal)", "paper")
    corrected = serendiff("corrected", "SerenDiff (corrected)", "corrected")
    few = (
        replace(row, label=row.label + words, recipe=recipe)
        for row in (paper, corrected)
    )
    return (*few, TUNED)
