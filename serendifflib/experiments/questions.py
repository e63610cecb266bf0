"""The rows of the paper's tables, and of those that ask one question."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import Any

from serendifflib.baselines import registry
from serendifflib.baselines.trainer import Budget
from serendifflib.experiments.records import TINY_PROMPT
from serendifflib.experiments.rows import (
    CEILING_ROWS,
    CONTROL_ROWS,
    POINTS_ROWS,
    TUNED,
    Row,
    chosen,
    control,
    presets,
    ranker_budget,
    ranker_rows,
    serendiff,
)
from serendifflib.model.matching import MATCHES
from serendifflib.model.settings import make_settings
from serendifflib.profiles import Profile

TIMESTEPS = (5, 10, 50, 100, 500, 1000)
CALLS = (1, 2, 5, 10, 20, 50, 100)
SIDES = (5, 10, 20, 50, 100)
LABELS = (500, 1000, 2000, 4000, 8000)
PROTOTYPES = 100  # what SerenDiff sees of the catalogue, for everybody
SEEN = {"prototypes": PROTOTYPES}
HEADS = SEEN | {"answers": 8}


def controls(profile: Profile) -> tuple[Row, ...]:
    """SerenDiff among controls and ceilings."""
    return (
        *CONTROL_ROWS,
        *ranker_rows(profile),
        *presets(profile),
        *POINTS_ROWS,
        *CEILING_ROWS,
    )


def table2(profile: Profile) -> tuple[Row, ...]:
    """Table 2: diffusion steps T, betas as printed and rescaled."""
    rows = []
    for rescaled, steps in itertools.product((False, True), TIMESTEPS):
        if rescaled and steps == 1000:
            continue  # the factor is 1000 / T: nothing changes
        row = serendiff(
            f"{steps}-rescaled" if rescaled else str(steps),
            f"{steps:,}, rescaled betas" if rescaled else f"{steps:,}",
            "tuned",
            options={"timesteps": steps, "rescale_betas": rescaled},
            # early stopping looks at one call; the T calls of the paper are
            # made when the test cases are scored
            sampling={"sampler": "ancestral", "calls": steps},
        )
        rows += [row, _painted(row)] if steps in (5, 50) else [row]
    return tuple(rows)


def _painted(row: Row) -> Row:
    """The same of the painter, which is ``tuned`` without its shortcut.

    Where the shortcut decides, samplers and readings change nothing: the
    painter has nothing but the noisy grid and the portrait to go by.
    """
    row_id, label = f"painter-{row.id}", f"painter, {row.label}"
    return replace(row, id=row_id, label=label, name="painter")


def calls(profile: Profile) -> tuple[Row, ...]:
    """One trained network each of ``tuned`` and the painter, many samplers.

    A row's id is ``SAMPLER-CALLS``, of the painter ``painter-SAMPLER-CALLS``.
    """
    most = (1000,) if profile.name == "paper" else ()
    pairs = [("one-call", 1)]
    pairs += [("ddim", count) for count in CALLS + most]
    # a multistep solver of second order needs two calls at least
    pairs += [("dpm-solver", count) for count in CALLS[1:]]
    pairs.append(("ancestral", 1000))
    rows = [
        serendiff(
            f"{sampler}-{count}" if sampler != "one-call" else sampler,
            f"{sampler}, {count:,} call{'s' if count > 1 else ''}",
            "tuned",
            sampling={"sampler": sampler, "calls": count},
        )
        for sampler, count in pairs
    ]
    return (*rows, *map(_painted, rows))


def table3(profile: Profile) -> tuple[Row, ...]:
    """Table 3: sizes L of the portrait."""
    return tuple(
        serendiff(f"{n}x{n}", f"{n}\u00d7{n}", "tuned", options={"side": n})
        for n in SIDES
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
    words = "TF-IDF + SVD vectors"
    rows.append(serendiff("encoder-tfidf", words, "tuned", encoder="tfidf"))
    # the shortcut of tuned leaves little to the grid; the painter has none
    for match in ("field", "own-cell", "zone"):
        words = f"Painter, matching: {match.replace('-', ' ')}"
        how = {"match": match}
        rows.append(
            serendiff(f"painter-{match}", words, "painter", sampling=how)
        )
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
        options = {
            "steps": steps,
            "patience": 0,
            "validate_every": max(steps, 1),
        }
        row = serendiff(
            f"{preset}-{steps}",
            f"{preset}, {steps:,} steps",
            preset,
            components=narrow,
            options=options,
        )
        if preset == "points":  # no image, nothing to match
            rows.append(row)
            continue
        options = options | {"width": width, "pretrain_steps": 0}
        for match in MATCHES:
            how = fast if preset in ("paper", "corrected") else {}
            how = how | {"match": match}
            rows.append(
                _variant(row, match, match, options=options, sampling=how)
            )
    return tuple(rows)


def _ours(profile: Profile) -> tuple[Row, ...]:
    """Who is compared where the labels or the protocol change."""
    return TUNED, POINTS_ROWS[0], ranker_rows(profile)[0]


def _variant(row: Row, name: str, words: str, **changes: Any) -> Row:
    """The same row with other settings, and with them in id and label."""
    row_id, label = f"{row.id}-{name}", f"{row.label}, {words}"
    return replace(row, id=row_id, label=label, **changes)


def labels(profile: Profile) -> tuple[Row, ...]:
    """Everybody who learns from labels, with few and many of them."""
    known = ("label-cell", "item-prior", "linear-map", "linear-radius")
    rows = [
        _variant(row, str(count), f"{count:,} labels", labels=count)
        for row in (*_ours(profile), *chosen(CONTROL_ROWS, *known))
        for count in LABELS
    ]
    return (*rows, *chosen(CEILING_ROWS, "oracle"))


def protocol(profile: Profile) -> tuple[Row, ...]:
    """The same models under other candidates and another split."""
    models = _ours(profile) + chosen(
        CONTROL_ROWS + CEILING_ROWS,
        *("random", "popularity", "mean-cosine", "max-cosine", "dense-cell"),
        *("label-cell", "linear-map", "linear-radius", "oracle"),
    )
    protocols = [
        ("cells", "candidates even over cells", {}),
        ("uniform", "uniform candidates", {"candidates": "uniform"}),
        ("all", "whole catalogue", {"candidates": "all"}),
        ("temporal", "split by time", {"fold": "temporal"}),
    ]
    return tuple(
        _variant(row, name, words, **changes)
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
        replace(row, candidates="uniform")
        for row in (*table4(profile), *presets(profile)[:2])
        if row.id not in ("oracle-cell", "oracle-protocol")
    )


def table4(profile: Profile) -> tuple[Row, ...]:
    """Table 4: the nine rivals, SerenDiff, controls and ceilings."""
    budget = registry.budget_of(profile)
    spent = asdict(budget)
    rivals = {
        name: Row(name, name, "rival", name, budget=spent)
        for name in registry.RIVALS
    }
    name = "SerenPrompt-style"
    rivals[name] = replace(
        rivals[name],
        options=registry.prompt_options(budget, "packaged"),
        needs="language",
    )
    # a random language model never stands in for a real one
    tiny = replace(
        rivals[name],
        id=TINY_PROMPT,
        label=f"{name} (tiny random LM)",
        options=registry.prompt_options(budget, "tiny"),
        needs="no language",
    )
    return (
        *rivals.values(),
        replace(TUNED, id="SerenDiff"),
        *POINTS_ROWS,
        *CONTROL_ROWS,
        *ranker_rows(profile),
        *CEILING_ROWS,
        tiny,
    )


# Ends of id and label, ablation and its options.
USERS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("", "", "user-embedding", {}),
    ("-ratings", " of ratings", "user-embedding", {"mode": "ratings"}),
    ("", "", "user-sequence", {}),
    ("-grid", " as a grid", "user-sequence", {"reading": "grid"}),
)
# what a preset takes from the profile
SIZES = ("width", "samples", "steps", "validate_every", "valid_users",
         "valid_candidates")  # fmt: skip


def table5(profile: Profile) -> tuple[Row, ...]:
    """The portrait against what Sec. 6.3 puts in its place.

    Twice: with ``tuned`` and with the painter, which has no linear shortcut
    from the user to the point.
    """
    rows = []
    budget = ranker_budget(profile)
    for portrait in (
        replace(TUNED, id="user-portrait", label="User portrait"),
        serendiff(
            "painter-user-portrait", "Painter: user portrait", "painter"
        ),
    ):
        made = make_settings(portrait.name, profile)
        same = {name: getattr(made, name) for name in SIZES}
        same["preset"] = portrait.name
        rows.append(portrait)
        for end, words, name, options in USERS:
            row = f"{name}{end}"
            label = name.replace("-", " ").capitalize() + words
            if portrait.name == "painter":
                if options:
                    continue
                row, label = f"painter-{row}", f"Painter: {label.lower()}"
            told = same | options
            rows.append(Row(row, label, "rival", name, told, budget=budget))
    others = (*CONTROL_ROWS, *ranker_rows(profile), *CEILING_ROWS)
    kept = chosen(others, "random", "linear-map", "ranker", "oracle")
    return (*rows, *kept)


def generating(profile: Profile) -> tuple[Row, ...]:
    """One answer or several, drawn or not; the same inputs and steps.

    Whoever can read memberships in prototypes reads them.
    """
    words = "Linear map + radius, memberships"
    radius = control("linear-radius", words, prototypes=PROTOTYPES)
    portrait = control("oracle-portrait", "Oracle on the portrait")
    return (
        *chosen(CONTROL_ROWS, "random", "popularity"),
        *chosen(CONTROL_ROWS, "mean-cosine", "label-cell"),
        replace(radius, id="linear-radius"),
        control("nearest-users", "Nearest users"),
        *POINTS_ROWS[::-1],
        *_drawn(profile),
        *_answering(profile),
        serendiff("tokens", "SerenDiff (tokens)", "tokens"),
        replace(portrait, needs="places"),
        *chosen(CEILING_ROWS, "oracle"),
    )


def counts(profile: Profile) -> tuple[Row, ...]:
    """Do labelled rows count for expectedness? Some rows, both ways.

    Where they do, what surprised many people of a kind looks like something
    that this kind of people meets anyway.
    """
    rows = chosen(
        generating(profile),
        *("linear-radius", "nearest-users", "ranker", "ranker-heads"),
        *("explicit-mixture", "tokens", "oracle-portrait"),
    )
    # patience ends the others before their cap; tokens still gain at theirs
    made = make_settings("tokens", profile)
    longer = {
        "steps": 4 * made.steps,
        "validate_every": 4 * made.validate_every,
    }
    rows = tuple(
        replace(row, options=longer) if row.id == "tokens" else row
        for row in rows
    )
    without = (
        _variant(row, "unlabelled", "labels not counted", counted="unlabelled")
        for row in rows
    )
    return (*without, *rows, *chosen(CEILING_ROWS, "oracle"))


def _drawn(profile: Profile) -> list[Row]:
    """SerenDiff with draws; one network of each preset, read in two ways."""
    tokens = make_settings("tokens", profile)
    # draws need the clean end of the noise as well, and a few steps each
    points = {
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
    # the same question to whole portraits
    whole = dict(aggregate="draws", sampler="ddim", calls=5, samples=16)
    error = points | {"aggregate": "error"}
    mean = {"aggregate": "mean"}
    averaged = "the same draws averaged"
    return [
        Row(
            f"{preset}-{reading}",
            f"{preset.capitalize()}, {words}",
            "serendiff",
            preset,
            options,
            sampling,
        )
        for preset, reading, words, options, sampling in (
            ("points", "draws", "draws", points, {}),
            ("points", "mean", averaged, points, mean),
            ("points", "error", "denoising error", error, {}),
            ("painter", "draws", "draws", whole, {}),
            ("painter", "mean", averaged, whole, mean),
        )
    ]


def _answering(profile: Profile) -> list[Row]:
    """Rankers with one answer and with several, on the steps of tokens."""
    tokens = make_settings("tokens", profile)
    budget = Budget(
        pretrain_steps=0,
        max_steps=tokens.steps,
        batch_size=tokens.batch_size,
        eval_every=tokens.validate_every,
        patience=tokens.patience,
    )
    return [
        Row(row, label, "ranker", name, options, budget=asdict(budget))
        for row, label, name, options in (
            ("ranker", "Set ranker, one answer", "ranker", SEEN),
            ("mmr", "Set ranker + MMR", "mmr", SEEN),
            ("sog", "Set ranker + SOG", "sog", SEEN),
            ("ranker-heads", "Set ranker, 8 answers", "ranker", HEADS),
            ("mixture-density", "Mixture density", "mixture-density", SEEN),
            ("explicit-mixture", "Explicit mixture", "explicit-mixture", SEEN),
        )
    ]
