"""Sizes of an execution: the same code path as a smoke test or a full run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from serendifflib.errors import check_choice


@dataclass(frozen=True)
class Profile:
    """Everything that differs between a laptop's minute and a GPU's night.

    Attributes:
        name: ``smoke``, ``laptop`` or ``paper``.
        world_users, world_items: size of the synthetic world.
        steps: optimiser steps of one training run.
        pretrain_steps: steps on next-item targets before the labels.
        batch_size: examples per optimiser step.
        width: channels of the first U-Net stage (the paper has 384).
        folds: how many of the five folds a table computes.
        test_users: at most this many test users per fold (0 = all).
        samples: generated portraits averaged per user.
        valid_users: at most this many validation users per fold (0 = all).
        valid_candidates: items ranked per validation user.
    """

    name: str
    world_users: int
    world_items: int
    steps: int
    pretrain_steps: int
    batch_size: int
    width: int
    folds: int
    test_users: int
    samples: int
    valid_users: int = 0
    valid_candidates: int = 1_000


PROFILES = {
    "smoke": Profile(
        name="smoke",
        world_users=2_000,
        world_items=2_000,
        steps=150,
        pretrain_steps=0,
        batch_size=64,
        width=32,
        folds=1,
        test_users=200,
        samples=1,
        valid_candidates=300,
    ),
    "laptop": Profile(
        name="laptop",
        world_users=3_000,
        world_items=4_000,
        steps=1_200,
        pretrain_steps=1_200,
        batch_size=64,
        width=64,
        folds=5,
        test_users=0,
        samples=4,
    ),
    "paper": Profile(
        name="paper",
        world_users=10_000,
        world_items=10_000,
        steps=20_000,
        pretrain_steps=20_000,
        batch_size=128,
        width=384,
        folds=5,
        test_users=0,
        samples=8,
    ),
}


def current_profile(name: str | None = None) -> Profile:
    """The profile called ``name``, else ``$SERENDIFF_PROFILE``, else smoke.

    Raises:
        ConfigError: no profile has that name.
    """
    chosen = name or os.environ.get("SERENDIFF_PROFILE") or "smoke"
    check_choice("profile", chosen, PROFILES)
    return PROFILES[chosen]
