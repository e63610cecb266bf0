"""DreamRec (Yang et al., NeurIPS 2023): generate the next item's vector.

A diffusion over one item vector, guided by an encoded history. No negatives
are used; items are ranked by their cosine to the generated vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines import layers
from serendifflib.baselines.sampling import windows
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.diffusion.sampling import SAMPLERS, draw_vectors
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.unet import sinusoid
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData

NULL_SHARE = 0.1  # p_u, share of rows trained without a guide


class DreamRecNetwork(nn.Module):
    """Encode a history to a guide g; estimate x0 from x_t, g and t."""

    def __init__(
        self, guide: layers.SequenceEncoder, targets: Tensor, steps: int
    ):
        super().__init__()
        width, d = guide.encoder.width, targets.shape[1]
        self.guide = guide
        self.register_buffer("targets", targets, persistent=False)
        times = sinusoid(torch.arange(steps), width)
        self.register_buffer("times", times, persistent=False)
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        self.time = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.denoiser = nn.Sequential(
            nn.Linear(d + 2 * width, 2 * d), nn.GELU(), nn.Linear(2 * d, d)
        )

    def forward(self, x: Tensor, guide: Tensor, t: Tensor) -> Tensor:
        """Estimate of x0 [M, d] from x_t [M, d], g [M, width], t [M]."""
        time = self.time(self.times[t])
        return self.denoiser(torch.cat([x, guide, time], dim=1))


@dataclass(eq=False, kw_only=True)
class DreamRec(TorchRival):
    """DreamRec on frozen text vectors.

    The released code diffuses trainable vectors, which squared error can
    shrink together; here the target is the item's text vector times sqrt(d),
    so that its coordinates have the noise's size. Padding is never scored, and
    dropout is off when scoring. Under a small budget it needs its own learning
    rate, for a hastened one makes the denoiser worse, and a guidance that fits
    how far it was trained (found on validation users).

    Attributes:
        heads: of the encoder's one Transformer layer.
        timesteps: T.
        schedule: ``cosine`` or ``linear``; linear betas are rescaled by
            1000 / T, else alpha-bar stays far from 0 for a small T.
        guidance: w of (1 + w) f(x, g, t) - w f(x, null, t); 0 is the plain
            conditional model.
        guidances: w to choose from on validation; none keeps ``guidance``.
        sampler, calls: see :func:`serendifflib.diffusion.sampling.sample`.
        draws: generated vectors averaged per user.
        similarity: ``cosine`` or ``dot``.
    """

    name = "DreamRec"
    hasty = False
    max_history: int = 20
    heads: int = 2
    timesteps: int = 200
    schedule: str = "cosine"
    guidance: float = 2.0
    guidances: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    sampler: str = "ddim"
    calls: int = 20
    draws: int = 4
    similarity: str = "cosine"

    def __post_init__(self):
        check_choice("sampler", self.sampler, SAMPLERS, "DreamRec")
        known = ("cosine", "dot")
        check_choice("similarity", self.similarity, known, "DreamRec")
        self.noise = DDPMSchedule.make(
            self.schedule, self.timesteps, rescale_betas=True
        )

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        guide = layers.SequenceEncoder(
            layers.ItemEncoder(vectors, self.width, self.inputs),
            self.max_history,
            self.dropout,
            heads=self.heads,
        )
        targets = vectors * vectors.shape[1] ** 0.5
        return DreamRecNetwork(guide, targets, self.timesteps)

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """The next item at every position, then the labelled target."""
        rows = windows(fold.training_histories(), self.max_history + 1)

        def loss(guides: Tensor, targets: Tensor) -> Tensor:
            """Squared error of the estimate of x0; [M, width] and [M]."""
            x0 = self.network.targets[targets]
            count = len(x0)
            t = torch.randint(self.timesteps, (count,), generator=generator)
            noise = torch.randn(x0.shape, generator=generator).to(x0)
            off = torch.rand(count, 1, generator=generator) < NULL_SHARE
            guides = torch.where(off.to(x0.device), self.network.null, guides)
            t = t.to(x0.device)
            x_t = self.noise.q_sample(x0, t, noise)
            return F.mse_loss(self.network(x_t, guides, t), x0)

        def next_item(index: Tensor) -> Tensor:
            sequence = rows[index].to(self.place)
            given, wanted = sequence[:, :-1], sequence[:, 1:]
            guides = self.network.guide(given)
            return loss(guides[given != 0], wanted[given != 0])

        def labelled(index: Tensor) -> Tensor:
            histories, targets = self.batch(fold.train, index)
            return loss(self.network.guide(histories)[:, -1], targets)

        return self.two_stages(fold, len(rows), next_item, labelled)

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """The guidance."""
        return {"guidance": self.guidances} if self.guidances else {}

    def generate(self, histories: Tensor) -> Tensor:
        """Generated vectors of histories [B, n], [B, d], scale sqrt(d)."""
        guides = self.network.guide(histories)[:, -1]
        guides = guides.repeat_interleave(self.draws, dim=0)
        null = self.network.null.expand_as(guides)
        w = self.option("guidance")

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with_guide = self.network(x, guides, t)
            if not w:
                return with_guide
            without = self.network(x, null, t)
            return (1 + w) * with_guide - w * without

        made = draw_vectors(
            denoise,
            histories,
            self.network.targets.shape[1],
            self.noise,
            draws=self.draws,
            sampler=self.sampler,
            calls=min(self.calls, self.timesteps),
        )
        return made.mean(1)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Similarity of the generated vector and each candidate, [B, C]."""
        made = self.generate(histories)
        targets = self.network.targets
        if self.similarity == "cosine":
            made = F.normalize(made, dim=1)
            targets = F.normalize(targets, dim=1)
        return layers.inner_products(made, candidates, targets.__getitem__)
