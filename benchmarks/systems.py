"""Seconds per training batch and per instance of all systems of Table 4.

Table 6 gives both for seven systems on two GPUs, without saying how long a
batch is. Here every system gets the same batches of the same fold on the
same machine, a few of them, with networks of the current profile's size.
"""

from __future__ import annotations

import torch

from benchmarks.measure import once
from serendifflib.baselines.registry import RIVALS, Budget, make_model
from serendifflib.errors import ConfigError
from serendifflib.experiments.prepared import PreparedFold
from serendifflib.model.serendiff import SerenDiff

SYSTEMS = (*RIVALS, "SerenDiff")
BATCH = 64


def time_system(
    name: str, bench: PreparedFold, *, steps: int = 4, users: int = 16
) -> dict[str, float]:
    """A short training, and the scores of a few test users.

    The model is not worth anything after so few steps; what a step and an
    answer take does not depend on that.

    Args:
        name: one of :data:`SYSTEMS`; ``SerenDiff`` is its preset ``tuned``.
        bench: the fold and its candidates.
        steps: optimiser steps per stage.
        users: test users to answer.

    Returns:
        ``train_seconds`` per batch of 64, a rival's look at the validation
        users included; ``inference_seconds`` per user and list of candidates;
        ``steps`` and ``parameters``.

    Raises:
        ConfigError: unknown system.
    """
    if name not in SYSTEMS:
        raise ConfigError(
            f"unknown system {name!r}: choose one of {', '.join(SYSTEMS)}"
        )
    generator = torch.Generator().manual_seed(0)
    if name == "SerenDiff":
        found, model = _time_serendiff(bench, steps, generator)
    else:
        model = make_model(name, _short(steps))
        model.fit(bench.fold, generator=generator)
        report = model.report
        found = {
            "train_seconds": (
                sum(stage.seconds for stage in report.stages) / report.steps
                if report.steps
                else float("nan")
            ),
            "steps": float(report.steps),
            "parameters": float(report.parameters),
        }
    few = slice(0, min(users, len(bench.test)))
    histories = bench.test.histories[few]
    candidates = bench.test_candidates.items[few]
    answered = once(lambda: model.score(histories, candidates))
    found["inference_seconds"] = answered["seconds"] / len(histories)
    return found


def _time_serendiff(bench, steps, generator):
    model = SerenDiff(
        "tuned",
        profile=bench.profile,
        progress=False,
        steps=steps,
        pretrain_steps=0,
        patience=0,
        batch_size=BATCH,
        device="cpu",
    ).fit(bench.fold, generator=generator)
    numbers = sum(p.numel() for p in model.network.parameters())
    return {
        "train_seconds": step_seconds(model),
        "steps": float(steps),
        "parameters": float(numbers),
    }, model


def step_seconds(model: SerenDiff) -> float:
    """Seconds of a training step, the first ones included."""
    report = model.reports[-1]
    return report.seconds / len(report.losses)


def _short(steps: int) -> Budget:
    return Budget(
        pretrain_steps=steps,
        max_steps=steps,
        batch_size=BATCH,
        eval_every=steps,
        patience=1,
        valid_cases=8,
        valid_candidates=100,
    )
