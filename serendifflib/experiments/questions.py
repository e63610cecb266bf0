"""The rows of the paper's tables, and of those that ask one question."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import Any

from serendifflib.baselines import registry
from serendifflib.experiments.rows import (
    CEILING_ROWS,
    CONTROL_ROWS,
    POINTS_ROWS,
    TUNED,
    Row,
    ours,
    painter,
    presets,
    ranker_budget,
    ranker_rows,
    serendiff,
)
from serendifflib.model.matching import MATCHES
from serendifflib.model.settings import make_settings
from serendifflib.profiles import Profile

TIMESTEPS = (5, 10, 50, 100, 500, 1000)


def table2(profile: Profile) -> tuple[Row, ...]:
    """Table 2: diffusion steps T, betas as printed and rescaled."""
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
            rows.append(serendiff(name, label, "tuned", **recipe))
            if steps in (5, 50):
                # nothing but the noisy grid and the portrait to go by
                painted = f"painter, {label}"
                rows.append(painter(f"painter-{name}", painted, **recipe))
    return tuple(rows)


CALLS = {
    "smoke": (1, 2, 5, 10, 20, 50, 100),
    "laptop": (1, 2, 5, 10, 20, 50, 100),
    "paper": (1, 2, 5, 10, 20, 50, 100, 1000),
}


def calls(profile: Profile) -> tuple[Row, ...]:
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
        rows.append(serendiff(name, words, "tuned", sampling=how))
        painted.append(
            painter(f"painter-{name}", f"painter, {words}", sampling=how)
        )
    return (*rows, *painted)


SIDES = (5, 10, 20, 50, 100)


def table3(profile: Profile) -> tuple[Row, ...]:
    """Table 3: sizes L of the portrait."""
    return tuple(
        serendiff(
            f"{side}x{side}",
            f"{side}\u00d7{side}",
            "tuned",
            options={"side": side},
        )
        for side in SIDES
    )


def readings(profile: Profile) -> tuple[Row, ...]:
    """What the text leaves open, one reading changed at a time."""
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
        rows.append(serendiff(row, label, "tuned", **{place: {option: value}}))
    rows.append(
        serendiff(
            "encoder-tfidf", "TF-IDF + SVD vectors", "tuned", encoder="tfidf"
        )
    )
    # the shortcut of tuned leaves little to the grid; the painter has none
    rows += [
        painter(
            f"painter-{match}",
            f"Painter, matching: {match.replace('-', ' ')}",
            sampling={"match": match},
        )
        for match in ("field", "own-cell", "zone")
    ]
    return tuple(rows)


CURVE = {
    "smoke": (32, (0, 150, 600, 2_400)),
    "laptop": (64, (0, 600, 2_400, 9_600)),
    "paper": (384, (0, 1_000, 5_000, 20_000)),
}
"""Width of vectors and network, and steps, of the curve."""


def curve(profile: Profile) -> tuple[Row, ...]:
    """How far does training take each recipe, the printed one above all?

    The network is as wide as the item vectors, as the paper has it: one
    that is narrower cannot even represent the noise. Nothing stops early,
    and the last weights count. A row's id is ``PRESET-STEPS-MATCH``, and
    ``points-STEPS``; the three matchings read the same network.
    """
    width, counts = CURVE[profile.name]
    narrow = width if width < 384 else 0
    fast = {"sampler": "ddim", "calls": 10}
    rows = []
    for preset, steps in itertools.product(
        ("paper", "corrected", "painter", "tuned", "points"), counts
    ):
        name, words = f"{preset}-{steps}", f"{preset}, {steps:,} steps"
        options = {
            "steps": steps,
            "patience": 0,
            "validate_every": max(steps, 1),
        }
        if preset == "points":  # no image, nothing to match
            rows.append(
                serendiff(
                    name, words, preset, components=narrow, options=options
                )
            )
            continue
        how = fast if preset in ("paper", "corrected") else {}
        rows += [
            serendiff(
                f"{name}-{match}",
                f"{words}, {match}",
                preset,
                components=narrow,
                options=options | {"width": width, "pretrain_steps": 0},
                sampling=how | {"match": match},
            )
            for match in MATCHES
        ]
    return tuple(rows)


LABELS = {
    "smoke": (500, 1000, 2000, 4000, 8000),
    "laptop": (500, 1000, 2000, 4000, 8000),
    "paper": (500, 1000, 2000, 4000, 8000),
}


def labels(profile: Profile) -> tuple[Row, ...]:
    """Everybody who learns from labels, with few and many of them."""
    learners = [
        *ours(profile),
        ranker_rows(profile)[0],
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


def protocol(profile: Profile) -> tuple[Row, ...]:
    """The same models under other candidates and another split."""
    models = [
        *ours(profile),
        ranker_rows(profile)[0],
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


def leaks(profile: Profile) -> tuple[Row, ...]:
    """Everybody among uniform candidates, where chance at 10 is 10 / C.

    Lists that are even over cells favour whoever prefers dense cells, with
    no leak at all (``dense-cell``); uniform lists favour nobody. Left out are
    two ceilings: one is told the cell of the label and has to stand above
    chance, the other knows another protocol.
    """
    return tuple(
        replace(row, recipe=row.recipe | {"candidates": "uniform"})
        for row in (*table4(profile), *presets(profile)[:2])
        if row.id not in ("oracle-cell", "oracle-protocol")
    )


def table4(profile: Profile) -> tuple[Row, ...]:
    """Table 4: the nine rivals, SerenDiff, controls and ceilings."""
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
        *ranker_rows(profile),
        *CEILING_ROWS,
    )


def table5(profile: Profile) -> tuple[Row, ...]:
    """The portrait against what Sec. 6.3 puts in its place.

    Twice: with ``tuned`` and with the painter, which has no linear shortcut
    from the user to the point.
    """
    rows = []
    for bare in (False, True):
        first = "painter-" if bare else ""
        words = "Painter: " if bare else ""
        portrait = replace(TUNED, id="user-portrait", label="User portrait")
        if bare:
            portrait = painter(
                "painter-user-portrait", "Painter: user portrait"
            )
        same = _size(portrait.name, profile)
        rows.append(portrait)
        for row, label, name, options in REPLACED:
            if bare and row != name:
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
    others = (*CONTROL_ROWS, *ranker_rows(profile), *CEILING_ROWS)
    kept = ("random", "linear-map", "ranker", "oracle")
    return (*rows, *(row for row in others if row.id in kept))


REPLACED: tuple[tuple[str, str, str, dict[str, str]], ...] = (
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
