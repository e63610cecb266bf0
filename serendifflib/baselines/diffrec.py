"""DiffRec (Wang et al., SIGIR 2023): denoise a user's interaction vector.

The variant is T-DiffRec (later items weigh more). At its published noise
levels, a standard deviation of 0.003 to 0.01, the model is in effect a
denoising auto-encoder with input dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.layers import ItemEncoder
from serendifflib.baselines.sampling import windows
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.diffusion.unet import sinusoid
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData

TIME_WIDTH = 10  # of the time embedding, as released
STEPS = 5  # T
VARIANCES = 0.01 * 0.001, 0.01 * 0.01  # s a_min and s a_max
REMEMBERED = 10  # losses per step that importance sampling looks at
UNIFORM = 1e-3  # share of uniform draws in importance sampling


class LightNoise:
    """The ``linear-var`` schedule: 1 - abar grows linearly in t.

    1 - abar_t = s (a_min + (t - 1)/(T - 1) (a_max - a_min)) for T ``steps``
    from s a_min to s a_max; then beta_1 is overwritten by 1e-5, as released
    (for tiny s that is more than the rest of the schedule). Both are float64
    [T], for SNR weights reach 1e5.
    """

    def __init__(self, steps: int, low: float, high: float):
        kept = 1.0 - np.linspace(low, high, steps)
        self.beta = 1.0 - kept / np.append(1.0, kept[:-1])
        self.beta[0] = 1e-5
        self.alpha_bar = np.cumprod(1.0 - self.beta)

    def posterior(self, t: int) -> tuple[float, float]:
        """c1, c2 of x_{t-1} = c1 x0 + c2 x_t, for t = 0..T-1; (1, 0) at 0."""
        before = self.alpha_bar[t - 1] if t else 1.0
        rest = 1.0 - self.alpha_bar[t]
        return (
            float(np.sqrt(before) * self.beta[t] / rest),
            float(np.sqrt(1.0 - self.beta[t]) * (1.0 - before) / rest),
        )

    def weights(self) -> np.ndarray:
        """SNR(t - 1) - SNR(t), and 1 for the first step; [T]."""
        snr = self.alpha_bar / (1.0 - self.alpha_bar)
        return np.append(1.0, snr[:-1] - snr[1:])


class StepSampler:
    """Draws diffusion steps in proportion to their recent losses.

    p_t is proportional to the root of the mean of the last ten squared
    losses, mixed with a little uniform; uniform until every step has ten.
    """

    def __init__(self, steps: int):
        self.losses = np.zeros((steps, REMEMBERED))
        self.seen = np.zeros(steps, dtype=np.int64)

    def probabilities(self) -> np.ndarray:
        """p_t, sums to 1, [T]."""
        steps = len(self.seen)
        if (self.seen < REMEMBERED).any():
            return np.full(steps, 1.0 / steps)
        size = np.sqrt((self.losses**2).mean(axis=1))
        return size / size.sum() * (1.0 - UNIFORM) + UNIFORM / steps

    def update(self, t: np.ndarray, losses: np.ndarray) -> None:
        """Remember the losses of drawn steps, both [B]."""
        for step, loss in zip(t, losses, strict=True):
            self.losses[step, self.seen[step] % REMEMBERED] = loss
            self.seen[step] += 1


class DiffRecNetwork(nn.Module):
    """Estimate x0 from x_t and t; items by id or by text.

    With ids, the published perceptron N + 10 -> hidden -> N. With text (an
    adaptation of ours, for items that were never trained on) the input is
    the text vector sum_j x_j t_j, normalised, and the output h(u) (T W)'.
    """

    def __init__(
        self,
        vectors: Tensor,
        width: int,
        hidden: int,
        inputs: str,
        dropout: float,
    ):
        super().__init__()
        self.n_items = len(vectors) - 1
        self.time = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.drop = nn.Dropout(dropout)
        self.by_text = inputs != "id"
        if self.by_text:
            self.register_buffer("vectors", vectors, persistent=False)
            self.norm = nn.LayerNorm(vectors.shape[1])
            self.encoder = ItemEncoder(vectors, width, inputs)
            sizes = vectors.shape[1], width
        else:
            sizes = self.n_items + 1, self.n_items + 1
        self.inner = nn.Linear(sizes[0] + TIME_WIDTH, hidden)
        self.outer = nn.Linear(hidden, sizes[1])
        for layer in (self.time, self.inner, self.outer):
            fan = layer.in_features + layer.out_features
            nn.init.normal_(layer.weight, std=(2.0 / fan) ** 0.5)
            nn.init.normal_(layer.bias, std=1e-3)
        if self.by_text:
            # inner products with item vectors start near 0, where nearly
            # all of x0 is; else the first hundred steps only shrink them
            nn.init.normal_(self.outer.weight, std=0.02 * hidden**-0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Estimate of x0 [B, N + 1] from x [B, N + 1] and t [B]."""
        shown = self.drop(x)
        if self.by_text:
            shown = self.norm(shown @ self.vectors)
        # cosines, then sines, as released
        time = sinusoid(t, TIME_WIDTH).roll(TIME_WIDTH // 2, dims=1)
        state = torch.cat([shown, self.time(time)], dim=1)
        out = self.outer(torch.tanh(self.inner(state)))
        return out @ self.encoder.table().T if self.by_text else out


@dataclass(eq=False, kw_only=True)
class DiffRec(TorchRival):
    """T-DiffRec with text input and output.

    First it learns to restore whole histories, as published. Then, with
    labels, it learns the labelled item's vector from the noised history (an
    adaptation: DiffRec itself knows no target). What it estimates is then
    no longer what it is given, so the estimate cannot be fed back: scores
    are the estimates from the history, averaged over the T steps. With the
    chain kept it stays near chance on labels.

    Attributes:
        dropout: of the input; 0.5 as released, 0.2 as in App. B here.
        hidden: width of the hidden layer.
        label_loss: of the labelled stage: ``softmax`` over the catalogue, or
            ``squared``, DiffRec's own, which learns more slowly.
    """

    name = "DiffRec"
    warmup = 50  # large first steps would blow up the output
    max_history: int = 100
    dropout: float = 0.2
    hidden: int = 200
    label_loss: str = "softmax"

    def __post_init__(self):
        known = ("softmax", "squared")
        check_choice("label_loss", self.label_loss, known, "DiffRec")
        self.noise = LightNoise(STEPS, *VARIANCES)

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        return DiffRecNetwork(
            vectors, self.width, self.hidden, self.inputs, self.dropout
        )

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Restore histories, then estimate the labelled item."""
        self.restores = fold.kind != "serendipity"
        rows = windows(fold.training_histories(), self.max_history)
        sampler = StepSampler(STEPS)

        def restore(index: Tensor) -> Tensor:
            given = interaction_vector(rows[index], self.n_items)
            given = given.to(self.place)
            return self._loss(given, given, sampler, generator)

        def labelled(index: Tensor) -> Tensor:
            histories, targets = self.batch(fold.train, index)
            given = interaction_vector(histories, self.n_items)
            if self.label_loss == "squared":
                wanted = F.one_hot(targets, self.n_items + 1).to(given)
                return self._loss(given, wanted, sampler, generator)
            t = torch.randint(STEPS, (len(given),), generator=generator)
            logits = self._estimate(given, t, generator)
            return F.cross_entropy(logits[:, 1:], targets - 1)

        return self.two_stages(fold, len(rows), restore, labelled)

    def _loss(
        self,
        given: Tensor,
        wanted: Tensor,
        sampler: StepSampler,
        generator: Generator,
    ) -> Tensor:
        """Weighted squared error of the estimate from a noised x [B, N+1]."""
        probabilities = sampler.probabilities()
        t = torch.multinomial(
            torch.from_numpy(probabilities),
            len(given),
            replacement=True,
            generator=generator,
        )
        estimate = self._estimate(given, t, generator)
        error = (estimate - wanted)[:, 1:].square().mean(1)
        # only ratios matter to Adam; a mean of 1 keeps the clipping sane
        weights = self.noise.weights() / self.noise.weights().mean()
        factor = torch.from_numpy(weights[t])
        losses = error * factor.to(error)
        sampler.update(t.numpy(), losses.detach().cpu().double().numpy())
        chance = torch.from_numpy(probabilities)[t] * STEPS
        return (losses / chance.to(error)).mean()

    def _estimate(self, x: Tensor, t: Tensor, generator: Generator) -> Tensor:
        """Estimate x0 = x from the forward process at steps t [B]."""
        noise = torch.randn(x.shape, generator=generator).to(x)
        kept = torch.from_numpy(self.noise.alpha_bar)[t].unsqueeze(1).to(x)
        noised = kept.sqrt() * x + (1.0 - kept).sqrt() * noise
        return self.network(noised, t.to(self.place))

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Restore the clean history, as published, in T steps; [B, C]."""
        x = interaction_vector(histories, self.n_items)
        total = torch.zeros_like(x)
        for step in reversed(range(STEPS)):
            now = torch.full((len(x),), step, device=x.device)
            estimate = self.network(x, now)
            total = total + estimate / STEPS
            if self.restores:
                c1, c2 = self.noise.posterior(step)
                x = c1 * estimate + c2 * x
        return (x if self.restores else total).gather(1, candidates)


def interaction_vector(histories: Tensor, n_items: int) -> Tensor:
    """Histories [B, n] as vectors over items, [B, N + 1]; column 0 is zero.

    Weights rise linearly from 0.1 (oldest) to 1 (newest); the newest
    occurrence of a repeated item counts.
    """
    real = histories != 0
    length = real.sum(1, keepdim=True)
    place = real.cumsum(1) - 1
    weight = 0.1 + 0.9 * place / (length - 1).clamp(min=1)
    weight = torch.where(length == 1, 1.0, weight) * real
    x = histories.new_zeros((len(histories), n_items + 1), dtype=weight.dtype)
    return x.scatter_reduce(1, histories, weight, "amax")
