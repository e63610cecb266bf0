"""The mathematics of diffusion: noise schedule, forward process, posterior.

No network in here. Steps are numbered t = 0 .. T-1 in code (as in diffusers)
and 1 .. T in the paper and the book. Coefficients are computed in float64.
Data are *not* clamped: channels are item vectors, not pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from serendifflib.errors import ConfigError, check_choice

BETA_START, BETA_END = 1e-4, 0.02  # Ho et al. (2020), for T = 1000
PREDICT = ("noise", "x0", "v")


@dataclass(frozen=True)
class DDPMSchedule:
    """Variances of a diffusion with T steps (Eq. 1).

    Attributes:
        betas: variance of each step, float64, [T].
    """

    betas: Tensor

    @classmethod
    def linear(
        cls, timesteps: int = 1000, *, rescale_betas: bool = False
    ) -> DDPMSchedule:
        """Linear betas from 1e-4 to 0.02 (Ho et al. 2020; Sec. 5.4).

        ``rescale_betas`` multiplies them by 1000 / T (to at most 0.999), so
        that the last step is close to pure noise for a small T too. The paper
        does not say that it does.

        Raises:
            ConfigError: T is not positive.
        """
        _check_positive(timesteps)
        scale = 1000 / timesteps if rescale_betas else 1.0
        betas = torch.linspace(
            BETA_START, BETA_END, timesteps, dtype=torch.float64
        )
        return cls((betas * scale).clamp(max=0.999))

    @classmethod
    def cosine(cls, timesteps: int = 1000) -> DDPMSchedule:
        """Cosine alpha-bar (Nichol & Dhariwal 2021), offset 0.008."""
        _check_positive(timesteps)
        steps = np.arange(timesteps + 1) / timesteps
        bar = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - bar[1:] / bar[:-1], 0.999)
        return cls(torch.from_numpy(betas))

    @classmethod
    def make(
        cls, kind: str, timesteps: int, *, rescale_betas: bool = False
    ) -> DDPMSchedule:
        """The schedule called ``kind`` (``linear`` or ``cosine``)."""
        check_choice("schedule", kind, ("linear", "cosine"))
        if kind == "linear":
            return cls.linear(timesteps, rescale_betas=rescale_betas)
        return cls.cosine(timesteps)

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)

    @property
    def alphas(self) -> Tensor:
        """1 - beta_t, [T]."""
        return 1.0 - self.betas

    @property
    def alpha_bar(self) -> Tensor:
        """Product of the alphas up to t, [T]."""
        return torch.cumprod(self.alphas, dim=0)

    @property
    def alpha_bar_before(self) -> Tensor:
        """alpha-bar of the step before t; 1 for the first step, [T]."""
        return torch.cat([torch.ones(1).double(), self.alpha_bar[:-1]])

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t in closed form: sqrt(a-bar) x_0 + sqrt(1 - a-bar) noise.

        Of x_0 and N(0, 1) noise [B, ...], at the step t of each row, [B].
        """
        signal, spread = self._levels(t, x0)
        return signal * x0 + spread * noise

    def target(
        self, predict: str, x0: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """What the network has to output: the noise, x_0, or v.

        v = sqrt(a-bar) noise - sqrt(1 - a-bar) x_0 (Salimans & Ho 2022).
        """
        check_choice("target", predict, PREDICT)
        signal, spread = self._levels(t, x0)
        if predict == "noise":
            return noise
        return x0 if predict == "x0" else signal * noise - spread * x0

    def to_x0(
        self, predict: str, output: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """The x_0 that an output stands for; the inverse of :meth:`target`."""
        check_choice("target", predict, PREDICT)
        signal, spread = self._levels(t, x_t)
        if predict == "noise":
            return (x_t - spread * output) / signal
        return output if predict == "x0" else signal * x_t - spread * output

    def to_noise(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that leads from ``x0`` to ``x_t``."""
        signal, spread = self._levels(t, x_t)
        return (x_t - signal * x0) / spread

    def posterior(
        self, x0: Tensor, x_t: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0) (Ho et al., Eq. 6-7)."""
        before, beta = self.alpha_bar_before, self.betas
        noisy = 1.0 - self.alpha_bar
        of_x0 = before.sqrt() * beta / noisy
        of_x_t = self.alphas.sqrt() * (1.0 - before) / noisy
        variance = beta * (1.0 - before) / noisy
        mean = _per_row(of_x0, t, x_t) * x0 + _per_row(of_x_t, t, x_t) * x_t
        return mean, _per_row(variance, t, x_t)

    def mean_from_noise(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The same mean, written with the noise: what Eq. 3 and 9 mean.

        mu = (x_t - beta / sqrt(1 - a-bar) noise) / sqrt(alpha). The paper
        prints the noise outside the bracket and alpha instead of alpha-bar
        under the root (see the page *Deviations*).
        """
        weight = _per_row(self.betas / (1.0 - self.alpha_bar).sqrt(), t, x_t)
        return (x_t - weight * noise) / _per_row(self.alphas.sqrt(), t, x_t)

    def mean_as_printed(self, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Eq. 3 and 9 letter by letter, for comparison only."""
        shift = _per_row(self.betas / self.betas.sqrt(), t, x_t)
        return (x_t - shift) * noise / _per_row(self.alphas.sqrt(), t, x_t)

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a-bar) and sqrt(1 - a-bar) of each row."""
        bar = self.alpha_bar
        return (
            _per_row(bar.sqrt(), t, like),
            _per_row((1.0 - bar).sqrt(), t, like),
        )


def _per_row(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """values[t] as a column that broadcasts over ``like``.

    Only here float64 ends: in float32, 1 - a-bar of the first steps would
    keep four digits.
    """
    chosen = values.to(like.device)[t].to(like.dtype)
    return chosen.view(-1, *[1] * (like.dim() - 1))


def _check_positive(timesteps: int) -> None:
    if timesteps < 1:
        raise ConfigError(f"timesteps must be at least 1, got {timesteps}")
