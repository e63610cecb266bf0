"""Fitting at the size of SerenLens-Books; a history of 10,000 items.

Everything but the network's own steps: sentence vectors are given (random
ones around some themes), and each preset trains ten steps of a narrow
network. What is measured is preparing a fold, placing every training
example, memberships, controls, candidate lists and one answer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.measure import Setting, once, peak_gib, say, timed
from serendifflib.baselines.controls import CONTROLS
from serendifflib.data.splits import user_folds
from serendifflib.data.world import World
from serendifflib.evaluation.candidates import fold_candidates
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.settings import PRESETS
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.fold import FoldData, prepare_fold
from serendifflib.portrait.portrait import PortraitSpace

THEMES, SPREAD = 300, 0.7
LONG = 10_000  # items of the long history
LIMITS = {
    "prepare": ("preparing a fold of Books, s", 60.0),
    "portraits": ("all histories of Books, s", 30.0),
    **{
        name: (f"fit of {name} on Books beside the network's steps, s", 600.0)
        for name in PRESETS
    },
    "linear-radius": ("fit of linear map + radius on Books, s", 600.0),
    "long": ("placing a history of 10,000 items, s", 2.0),
}


class ThemeEncoder:
    """Random unit vectors around themes, the n-th text always the same."""

    fingerprint = "themes"

    def encode(self, texts) -> np.ndarray:
        """[len(texts), 384]."""
        random = np.random.default_rng(0)
        themes = random.standard_normal((THEMES, 384), np.float32)
        vectors = random.standard_normal((len(texts), 384), np.float32)
        vectors *= SPREAD
        vectors += themes[random.integers(THEMES, size=len(texts))]
        return unit_rows(vectors)


def bench_fit(setting: Setting) -> dict:
    """Seconds of each part, by both clocks, and the peak of memory."""
    result: dict = {}
    world = World("strong", n_users=60, n_items=300)
    if not setting.quick:
        world = World.like("serenlens-books")
    data = world.interactions()
    split = user_folds(data, 5, seed=0)[0]
    folds: list[FoldData] = []

    def prepare(**options):
        folds.append(
            prepare_fold(data, split, encoder=ThemeEncoder(), **options)
        )

    result["prepare"] = once(prepare)
    fold = folds[0]
    result |= {
        "users": data.n_users,
        "items": data.n_items,
        "rows": len(data.frame),
        "examples": len(fold.train),
    }
    result["portraits"] = once(lambda: _portraits(fold))
    models = {}
    for preset in PRESETS:
        models[preset] = made = SerenDiff(
            preset, progress=False, steps=10, width=8, batch_size=8,
            device="cpu", patience=0,
            pretrain_steps=10 if preset == "tuned" else 0,
        )  # fmt: skip
        # a fresh fold: presets must not profit from each other here
        result[preset] = once(lambda m=made: m.fit(replace(fold)))
        say(f"fit of {preset}, 10 steps, s", result[preset]["seconds"], 600)
    control = CONTROLS["linear-radius"]()
    generator = torch.Generator().manual_seed(0)
    result["linear-radius"] = once(
        lambda: control.fit(replace(fold), generator=generator)
    )
    say("fit of linear map + radius, s", result["linear-radius"]["seconds"])
    count = 100 if setting.quick else 1_000
    result["candidates"] = once(lambda: _candidates(fold, count))
    tuned, user = models["tuned"], data.users[0]
    answer = timed(lambda: tuned.recommend(user))
    result["recommend"] = answer | {"seconds": answer["median_s"]}
    say("one answer over all items, s", answer["median_s"])
    result["peak_gib"] = peak_gib()
    result["long"] = once(lambda: _long(400 if setting.quick else LONG))
    say("peak memory, GiB", result["peak_gib"], 4.0)
    say("a history of 10,000 items, s", result["long"]["seconds"], 2.0)
    return result


def _portraits(fold: FoldData) -> None:
    """Positions of all training interactions."""
    space = PortraitSpace.fit(replace(fold))
    for history in fold.training_histories():
        space.positions(history, own=history)


def _candidates(fold: FoldData, count: int) -> None:
    """Lists for the validation users."""
    space = PortraitSpace.fit(fold, bins="catalogue")
    fold_candidates(fold, space, part="valid", n_candidates=count)


def _long(length: int) -> None:
    """Place all items of a long history among those of others."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((length + 1, 384), np.float32)
    vectors[0] = 0.0
    history = random.permutation(length) + 1
    others = [random.permutation(length)[:50] + 1 for _ in range(200)]
    space = PortraitSpace.from_histories(
        others, torch.from_numpy(unit_rows(vectors)), bins="catalogue"
    )
    space.positions(history)
