"""The reverse process: from noise to a portrait (Eq. 2, 6, 9).

A sampler knows no network: it gets ``denoise(x_t, t) -> output`` and the
schedule. All randomness comes from noise that the caller draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from serendifflib.diffusion.devices import keep_large_blocks, mixed_precision
from serendifflib.diffusion.schedule import PREDICT, DDPMSchedule
from serendifflib.errors import ConfigError, check_choice
from serendifflib.io import content_hash

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[torch.Size], Tensor]
PREDICTION_TYPES = dict(
    zip(PREDICT, ("epsilon", "sample", "v_prediction"), strict=True)
)
SAMPLERS = ("ancestral", "ddim", "one-call", "dpm-solver")


def sample(
    denoise: Denoise,
    start: Tensor,
    schedule: DDPMSchedule,
    *,
    sampler: str,
    predict: str,
    calls: int,
    noise: Noise,
) -> Tensor:
    """Run the reverse process and return the generated x_0.

    On CUDA the network computes in bfloat16, as in training; states, mean
    and variance stay in float32.

    Args:
        denoise: the network, (x_t [B, ...], t [B]) -> output [B, ...].
        start: pure noise x_T, [B, ...].
        schedule: the schedule that the network was trained with.
        sampler: ``ancestral`` (Ho et al. 2020), ``ddim`` (Song et al. 2021,
            eta 0), ``one-call`` (the network's first estimate of x_0 from
            pure noise) or ``dpm-solver`` (of diffusers).
        predict: what the network outputs: ``noise``, ``x0`` or ``v``.
        calls: network calls; ``ancestral`` always makes T.
        noise: draws N(0, 1) of a shape, for the ancestral steps.
    """
    check_sampler(sampler, calls, schedule.timesteps)
    keep_large_blocks()
    if start.is_cuda:
        denoise = in_mixed_precision(denoise)
    if sampler == "dpm-solver":
        solver = diffusers_scheduler(schedule, sampler, predict)
        return sample_with_diffusers(solver, denoise, start, calls)
    if sampler == "ancestral":
        steps = ancestral_steps(denoise, start, schedule, predict, noise)
    else:  # the one call is the first of DDIM
        calls = 1 if sampler == "one-call" else calls
        steps = ddim_steps(denoise, start, schedule, predict, calls)
    x = start
    for state in steps:
        x = state
    return x


def in_mixed_precision(denoise: Denoise) -> Denoise:
    """The same network in mixed precision; what it returns is as precise."""

    def denoise_mixed(x: Tensor, t: Tensor) -> Tensor:
        with mixed_precision(x.device):
            return denoise(x, t).to(x.dtype)

    return denoise_mixed


def check_sampler(sampler: str, calls: int, timesteps: int) -> None:
    """Refuse what :func:`sample` cannot do, before anything is trained.

    Raises:
        ConfigError: unknown sampler, or calls outside 1..T where they count
            (``ancestral`` always makes T).
    """
    check_choice("sampler", sampler, SAMPLERS)
    if sampler != "ancestral" and not 1 <= calls <= timesteps:
        raise ConfigError(
            f"calls must be between 1 and T={timesteps}, got {calls}"
        )


def ancestral_steps(
    denoise: Denoise,
    start: Tensor,
    schedule: DDPMSchedule,
    predict: str,
    noise: Noise,
) -> Iterator[Tensor]:
    """Yield x_{T-1}, ..., x_0 of the ancestral sampler (Eq. 2, 9)."""
    x = start
    for step in reversed(range(schedule.timesteps)):
        t = torch.full((len(x),), step, device=x.device)
        # 1. the network's estimate of x_0
        x0 = schedule.to_x0(predict, denoise(x, t), x, t)
        # 2. mean and variance of the step back, Eq. 3 with DDPM's repair
        mean, variance = schedule.posterior(x0, x, t)
        # 3. add noise, but not in the last step
        if step > 0:
            x = mean + variance.sqrt() * noise(x.shape)
        else:
            x = mean
        yield x


def ddim_steps(
    denoise: Denoise,
    start: Tensor,
    schedule: DDPMSchedule,
    predict: str,
    calls: int,
) -> Iterator[Tensor]:
    """Yield the states of DDIM with eta = 0 (Song et al. 2021, Eq. 12)."""
    times = ddim_times(schedule.timesteps, calls)
    x = start
    for step, following in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x),), step, device=x.device)
        x0 = schedule.to_x0(predict, denoise(x, t), x, t)
        if following < 0:
            x = x0
        else:
            direction = schedule.to_noise(x0, x, t)
            x = schedule.q_sample(x0, torch.full_like(t, following), direction)
        yield x


def ddim_times(timesteps: int, calls: int) -> list[int]:
    """Decreasing steps from T-1, evenly spaced, ``calls`` of them."""
    places = torch.linspace(timesteps, 0, calls + 1, dtype=torch.float64)
    return [int(place) - 1 for place in places[:-1].round()]


def diffusers_scheduler(
    schedule: DDPMSchedule, kind: str, predict: str
) -> SchedulerMixin:
    """A scheduler of diffusers with the same betas.

    Of the kind ``ancestral``, ``ddim`` or ``dpm-solver``; ``predict`` is what
    the network outputs, as in :func:`sample`.
    """
    import diffusers  # takes seconds, and few ask for it

    last, free = {"timestep_spacing": "trailing"}, {"clip_sample": False}
    kinds = {
        "ancestral": (diffusers.DDPMScheduler, free),
        "ddim": (diffusers.DDIMScheduler, free | last),
        "dpm-solver": (diffusers.DPMSolverMultistepScheduler, last),
    }
    check_choice("scheduler of diffusers", kind, kinds)
    check_choice("target", predict, PREDICT)
    make, options = kinds[kind]
    scheduler = make(  # type: ignore
        trained_betas=schedule.betas.numpy(),
        num_train_timesteps=schedule.timesteps,
        prediction_type=PREDICTION_TYPES[predict],
        **options,
    )
    # theirs is float32, in which 1 - a-bar of the first steps keeps only
    # four digits
    scheduler.alphas_cumprod = schedule.alpha_bar
    return scheduler


def sample_with_diffusers(
    scheduler: SchedulerMixin,
    denoise: Denoise,
    start: Tensor,
    calls: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run any scheduler of diffusers with our network."""
    scheduler.set_timesteps(calls)
    x = start
    options = {"generator": generator} if generator is not None else {}
    for step in scheduler.timesteps:
        t = torch.full((len(x),), int(step), device=x.device)
        x = scheduler.step(denoise(x, t), step, x, **options).prev_sample
    return x


def user_seed(history: Tensor, *parts: int) -> int:
    """A seed that derives from a history [n] (padding aside) and numbers."""
    items = history[history > 0].numpy().astype(np.int64)
    return int(content_hash(items, *parts)[:15], 16)


def user_noise(
    histories: Tensor,
    seed: int,
    device: torch.device | str = "cpu",
    draws: int = 1,
) -> Noise:
    """Noise that derives from each user's history and the seed alone.

    Order and batch size of the histories [B, n] change no number of it. On
    CUDA it is drawn there, where the same seed gives other numbers than on the
    processor. The draws of a user are neighbours (``repeat_interleave``).

    Returns:
        a function from a shape [B * draws, ...] to noise of that shape;
        every call draws anew.
    """
    device = torch.device(device)
    sources = []
    for row in histories.cpu():
        for draw in range(draws):
            source = torch.Generator(device)
            sources.append(source.manual_seed(user_seed(row, seed, draw)))

    def noise(shape: torch.Size) -> Tensor:
        return torch.stack(
            [
                torch.randn(shape[1:], generator=source, device=device)
                for source in sources
            ]
        )

    return noise


def draw_vectors(
    denoise: Denoise,
    histories: Tensor,
    width: int,
    schedule: DDPMSchedule,
    *,
    draws: int,
    sampler: str,
    calls: int,
    seed: int = 0,
) -> Tensor:
    """Vectors of width D per history, [B, draws, D], on its device.

    From a network that predicts x_0, of x_t [B * draws, D] and t [B * draws],
    and :func:`user_noise` of the histories [B, n]; see also :func:`sample`.
    """
    noise = user_noise(histories, seed, histories.device, draws)
    made = sample(
        denoise,
        noise(torch.Size([len(histories) * draws, width])),
        schedule,
        sampler=sampler,
        predict="x0",
        calls=calls,
        noise=noise,
    )
    return made.unflatten(0, (len(histories), draws))
