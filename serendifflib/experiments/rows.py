"""Rows of tables as data: controls, presets, and one answer or several.

A row is an id, a label and the recipe that ``recipes`` follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serendifflib.baselines.trainer import Budget
from serendifflib.data.interactions import Interactions
from serendifflib.data.law import ForkedLaw
from serendifflib.model.settings import make_settings
from serendifflib.profiles import Profile

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


def control(name: str, label: str, **options: Any) -> Row:
    """Row of a control; options become part of its id."""
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


def ranker_rows(profile: Profile) -> tuple[Row, ...]:
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


def serendiff(row: str, label: str, preset: str, **recipe: Any) -> Row:
    """Row of a preset of SerenDiff."""
    return Row(row, label, "serendiff", preset, recipe)


TUNED = serendiff("tuned", "SerenDiff (tuned)", "tuned")
PRESET_ROWS = (
    serendiff("paper", "SerenDiff (paper, literal)", "paper"),
    serendiff("corrected", "SerenDiff (corrected)", "corrected"),
    TUNED,
)


POINTS_ROWS = (
    serendiff("points", "SerenDiff (points)", "points"),
    serendiff(
        "points-start",
        "SerenDiff (points), regression alone",
        "points",
        options={"steps": 0},
    ),
)


def ours(profile: Profile) -> tuple[Row, ...]:
    """What the tables of single questions compare (labels, protocols)."""
    return (TUNED, POINTS_ROWS[0])


def controls(profile: Profile) -> tuple[Row, ...]:
    """SerenDiff among controls and ceilings."""
    return (
        *CONTROL_ROWS,
        *ranker_rows(profile),
        *presets(profile),
        *POINTS_ROWS,
        *CEILING_ROWS,
    )


def generating(profile: Profile) -> tuple[Row, ...]:
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
    painted = {
        "aggregate": "draws",
        "sampler": "ddim",
        "calls": 5,
        "samples": 16,
    }
    return (
        *(
            row
            for row in CONTROL_ROWS
            if row.id in ("random", "popularity", "mean-cosine", "label-cell")
        ),
        replace(
            control(
                "linear-radius",
                "Linear map + radius, memberships",
                prototypes=PROTOTYPES,
            ),
            id="linear-radius",
        ),
        control("nearest-users", "Nearest users"),
        POINTS_ROWS[1],
        POINTS_ROWS[0],
        # one network, read in two ways
        serendiff("points-draws", "Points, draws", "points", options=drawn),
        serendiff(
            "points-mean",
            "Points, the same draws averaged",
            "points",
            options=drawn,
            sampling={"aggregate": "mean"},
        ),
        serendiff(
            "points-error",
            "Points, denoising error",
            "points",
            options=drawn | {"aggregate": "error"},
        ),
        # the same question to whole portraits
        serendiff(
            "painter-draws", "Painter, draws", "painter", options=painted
        ),
        serendiff(
            "painter-mean",
            "Painter, the same draws averaged",
            "painter",
            options=painted,
            sampling={"aggregate": "mean"},
        ),
        ranker("ranker", "Set ranker, one answer", "ranker"),
        ranker("mmr", "Set ranker + MMR", "mmr"),
        ranker("sog", "Set ranker + SOG", "sog"),
        ranker("ranker-heads", "Set ranker, 8 answers", "ranker", **several),
        ranker("mixture-density", "Mixture density", "mixture-density"),
        ranker("explicit-mixture", "Explicit mixture", "explicit-mixture"),
        serendiff("tokens", "SerenDiff (tokens)", "tokens"),
        replace(
            control("oracle-portrait", "Oracle on the portrait"),
            needs_places=True,
        ),
        CEILING_ROWS[1],
    )


def presets(profile: Profile) -> tuple[Row, ...]:
    """The presets that draw portraits, in few calls at smoke."""
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


def painter(row: str, label: str, **recipe: Any) -> Row:
    """``tuned`` without its linear shortcut.

    Where the shortcut decides, samplers and readings change nothing.
    """
    return serendiff(row, label, "painter", **recipe)
