"""The mathematics of diffusion: noise schedule, forward process, posterior.

No network in here. Steps are numbered t = 0 .. T-1 in code (as in diffusers)
and 1 .. T in the paper and the book. Coefficients are computed in float64.
Data are *not* clamped: channels are item vectors, not pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from serendifflib.errors import ConfigError

BETA_START, BETA_END = 1e-4, 0.02  # Ho et al. (2020), for T = 1000
PREDICT = ("noise", "x0", "v")


@dataclass(frozen=True)
class DDPMSchedule:
    """Variances of a diffusion with T steps (Eq. 1).

    Attributes:
        betas: variance of each step, float64, [T].
    """

    betas: torch.Tensor

    @classmethod
    def linear(
        cls, timesteps: int = 1000, *, rescale_betas: bool = False
    ) -> DDPMSchedule:
        """Linear betas from 1e-4 to 0.02 (Ho et al. 2020; Sec. 5.4).

        Args:
            timesteps: T.
            rescale_betas: multiply by 1000 / T (at most 0.999), so that the
                last step is close to pure noise for a small T too. The paper
                does not say that it does.

        Raises:
            ConfigError: T is not positive.
        """
        scale = 1000 / _positive(timesteps) if rescale_betas else 1.0
        betas = torch.linspace(
            BETA_START, BETA_END, timesteps, dtype=torch.float64
        )
        return cls((betas * scale).clamp(max=0.999))

    @classmethod
    def cosine(cls, timesteps: int = 1000) -> DDPMSchedule:
        """Cosine alpha-bar (Nichol & Dhariwal 2021), offset 0.008."""
        steps = np.arange(_positive(timesteps) + 1) / timesteps
        bar = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - bar[1:] / bar[:-1], 0.999)
        return cls(torch.from_numpy(betas))

    @classmethod
    def make(
        cls, kind: str, timesteps: int, *, rescale_betas: bool = False
    ) -> DDPMSchedule:
        """The schedule called ``kind`` (``linear`` or ``cosine``)."""
        if kind == "linear":
            return cls.linear(timesteps, rescale_betas=rescale_betas)
        if kind == "cosine":
            return cls.cosine(timesteps)
        raise ConfigError(
            f"unknown schedule {kind!r}: choose linear or cosine"
        )

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)

    @property
    def alphas(self) -> torch.Tensor:
        """1 - beta_t, [T]."""
        return 1.0 - self.betas

    @property
    def alpha_bar(self) -> torch.Tensor:
        """Product of the alphas up to t, [T]."""
        return torch.cumprod(self.alphas, dim=0)

    @property
    def alpha_bar_before(self) -> torch.Tensor:
        """alpha-bar of the step before t; 1 for the first step, [T]."""
        return torch.cat([torch.ones(1).double(), self.alpha_bar[:-1]])

    def q_sample(
        self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """x_t in closed form: sqrt(a-bar) x_0 + sqrt(1 - a-bar) noise.

        Args:
            x0, noise: [B, ...].
            t: step of each row, [B], 0..T-1.
        """
        bar = _per_row(self.alpha_bar, t, x0)
        return bar.sqrt() * x0 + (1.0 - bar).sqrt() * noise

    def target(
        self,
        predict: str,
        x0: torch.Tensor,
        t: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """What the network has to output: the noise, x_0, or v.

        v = sqrt(a-bar) noise - sqrt(1 - a-bar) x_0 (Salimans & Ho 2022).

        Raises:
            ConfigError: ``predict`` is not known.
        """
        if predict == "noise":
            return noise
        if predict == "x0":
            return x0
        if predict == "v":
            bar = _per_row(self.alpha_bar, t, x0)
            return bar.sqrt() * noise - (1.0 - bar).sqrt() * x0
        raise ConfigError(
            f"unknown target {predict!r}: choose one of {', '.join(PREDICT)}"
        )

    def to_x0(
        self,
        predict: str,
        output: torch.Tensor,
        x_t: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        """The x_0 that an output of the network stands for.

        Raises:
            ConfigError: ``predict`` is not known.
        """
        bar = _per_row(self.alpha_bar, t, x_t)
        if predict == "x0":
            return output
        if predict == "noise":
            return (x_t - (1.0 - bar).sqrt() * output) / bar.sqrt()
        if predict == "v":
            return bar.sqrt() * x_t - (1.0 - bar).sqrt() * output
        raise ConfigError(
            f"unknown target {predict!r}: choose one of {', '.join(PREDICT)}"
        )

    def to_noise(
        self, x0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """The noise that leads from ``x0`` to ``x_t``."""
        bar = _per_row(self.alpha_bar, t, x_t)
        return (x_t - bar.sqrt() * x0) / (1.0 - bar).sqrt()

    def posterior(
        self, x0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0) (Ho et al., Eq. 6-7)."""
        bar = _per_row(self.alpha_bar, t, x_t)
        before = _per_row(self.alpha_bar_before, t, x_t)
        beta = _per_row(self.betas, t, x_t)
        mean = (
            before.sqrt() * beta / (1.0 - bar) * x0
            + (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - bar) * x_t
        )
        return mean, beta * (1.0 - before) / (1.0 - bar)

    def mean_from_noise(
        self, noise: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """The same mean, written with the noise: what Eq. 3 and 9 mean.

        mu = (x_t - beta / sqrt(1 - a-bar) noise) / sqrt(alpha). The paper
        prints the noise outside the bracket and alpha instead of alpha-bar
        under the root (see the page *Deviations*).
        """
        bar = _per_row(self.alpha_bar, t, x_t)
        beta = _per_row(self.betas, t, x_t)
        return (x_t - beta / (1.0 - bar).sqrt() * noise) / (1.0 - beta).sqrt()

    def mean_as_printed(
        self, noise: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Eq. 3 and 9 letter by letter, for comparison only."""
        alpha = 1.0 - _per_row(self.betas, t, x_t)
        shift = (1.0 - alpha) / (1.0 - alpha).sqrt()
        return (x_t - shift) * noise / alpha.sqrt()


def _per_row(
    values: torch.Tensor, t: torch.Tensor, like: torch.Tensor
) -> torch.Tensor:
    """values[t] as a column that broadcasts over ``like``."""
    chosen = values.to(like.device)[t].to(like.dtype)
    return chosen.view(-1, *[1] * (like.dim() - 1))


def _positive(timesteps: int) -> int:
    if timesteps < 1:
        raise ConfigError(f"timesteps must be at least 1, got {timesteps}")
    return timesteps
