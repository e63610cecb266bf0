"""Several generated vectors per history, each from noise of its own.

Shapes: B users, n history length, D width of what is generated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from serendifflib.diffusion.sampling import sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.io import content_hash


def mean_of_draws(
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    histories: torch.Tensor,
    width: int,
    schedule: DDPMSchedule,
    *,
    draws: int,
    sampler: str,
    calls: int,
) -> torch.Tensor:
    """The mean over draws of what a network that predicts x_0 generates.

    The noise of a draw derives from the history: order and batch size
    change nothing.

    Args:
        denoise: x_t [B * draws, D] and t [B * draws] -> x_0; the draws of a
            history are neighbours (``repeat_interleave``).
        histories: item numbers, left-padded with 0, [B, n].
        width: D.
        schedule: of the noise.
        draws: generated vectors per history.
        sampler: see :func:`serendifflib.diffusion.sampling.sample`.
        calls: network calls per draw.

    Returns:
        [B, D], on the device of ``histories``.
    """
    sources = [
        torch.Generator().manual_seed(seed_of(row, draw))
        for row in histories.cpu()
        for draw in range(draws)
    ]

    def noise(shape: torch.Size) -> torch.Tensor:
        drawn = [torch.randn(shape[1:], generator=g) for g in sources]
        return torch.stack(drawn).to(histories.device)

    made = sample(
        denoise,
        noise(torch.Size([len(sources), width])),
        schedule,
        sampler=sampler,
        predict="x0",
        calls=calls,
        noise=noise,
    )
    return made.unflatten(0, (len(histories), draws)).mean(1)


def seed_of(history: torch.Tensor, draw: int) -> int:
    """Seed of one draw for one history [n]; padding does not count."""
    items = history[history != 0].numpy().astype(np.int64)
    return int(content_hash(items, draw)[:15], 16)
