"""The denoising error as a score: who knows the user denoises better.

A diffusion model bounds the likelihood of an item by how well it finds the
item again under noise (a *diffusion classifier*, Li et al. 2023). What the
same network achieves without the user is the item's own likelihood; the
difference is log p(item | user) - log p(item), up to constants. All
candidates of a user get the same noise, so that its chance cancels.

Letters: B users, C candidates, D numbers of a point, K times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serendifflib.diffusion.sampling import Noise, ddim_times
from serendifflib.diffusion.schedule import DDPMSchedule

HIDDEN = 0.1  # share of training rows that do not show the user
POWERS, WEIGHTS = (0.0, 0.5, 1.0), (1.0, 10.0, 100.0)


def denoising_gains(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    x0: Tensor,
    user: Tensor,
    noise: Noise,
    schedule: DDPMSchedule,
    calls: int,
    axes: int,
) -> tuple[Tensor, Tensor]:
    """How much smaller the error is for knowing the user.

    Args:
        denoise: x_t [M, D], t [M] and the user [M, F] -> x_0 [M, D]; zeros
            for the user mean nobody.
        x0: points of the candidates, [B, C, D].
        user: what is known of the users, [B, F].
        noise: draws N(0, 1) of a shape.
        schedule: of the noise.
        calls: K, evenly spaced.
        axes: how many of the last numbers are the place.

    Returns:
        Differences of squared errors, of the vectors and of the places,
        both [B, K, C]; positive where the user helps.
    """
    flat = x0.flatten(0, 1)
    known = user.repeat_interleave(x0.shape[1], dim=0)
    parts = []
    for step in ddim_times(schedule.timesteps, calls):
        t = torch.full((len(flat),), step, device=flat.device)
        shared = noise(x0[:, 0].shape)[:, None].expand_as(x0)
        x_t = schedule.q_sample(flat, t, shared.flatten(0, 1))
        nobody, somebody = (
            (denoise(x_t, t, told) - flat).square()
            for told in (torch.zeros_like(known), known)
        )
        gain = (nobody - somebody).unflatten(0, x0.shape[:2])
        sizes = [gain.shape[2] - axes, axes]
        parts.append([part.sum(2) for part in gain.split(sizes, dim=2)])
    vectors, places = zip(*parts, strict=True)
    return torch.stack(vectors, dim=1), torch.stack(places, dim=1)


def density_ratio(
    vectors: Tensor,
    places: Tensor,
    power: float,
    weight: float,
    schedule: DDPMSchedule,
) -> Tensor:
    """Gains [B, K, C] as one score per candidate, [B, C].

    The sum over times of (vectors + weight places) g^power, where g is by how
    much the signal-to-noise ratio grows until the next time. Power 1 weighs
    errors as the bound of the likelihood does, power 0 as training did.
    """
    times = ddim_times(schedule.timesteps, vectors.shape[1])
    kept = schedule.alpha_bar[[*times, 0]].cpu()
    growth = (kept / (1.0 - kept)).diff().float()
    gains = vectors + weight * places
    return torch.einsum("bkc,k->bc", gains, growth**power)
