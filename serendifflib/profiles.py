"""Sizes of an execution: the same code path as a smoke test or a full run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

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


_SIZES = json.loads(Path(__file__).with_name("profiles.json").read_text())
PROFILES = {name: Profile(name, **sizes) for name, sizes in _SIZES.items()}


def current_profile(name: str | None = None) -> Profile:
    """The profile called ``name``, else ``$SERENDIFF_PROFILE``, else smoke."""
    chosen = name or os.environ.get("SERENDIFF_PROFILE") or "smoke"
    check_choice("profile", chosen, PROFILES)
    return PROFILES[chosen]
