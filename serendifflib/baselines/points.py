"""Diffusion over points: where and what at once, without an image.

The paper's U-Net paints a whole portrait to say one thing: a place on it and
an item vector there. Here that point itself is diffused,

    x_0 = [item vector, memberships in prototypes, place] of the label,

the place being log-expectedness and relevance. Everything else follows the
book: DDPM's forward process, a network that predicts x_0, few calls, points
matched to items.

What is known of a user is the *typical mean* (the history's mean, items near
its centre weighing more) and seven statistics of the portrait. The network
starts as the ridge regression from these to the points; training may only
improve on it, for the state with the best validation is kept.

Shapes: B users, n history length, C candidates, N items, d width of the item
vectors, P prototypes, D = d + P, M training examples, K negatives, T steps.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.baselines.controls import (
    Ridge,
    conditional_logit,
    draw_negatives,
    history_means,
    inner,
    reaches,
)
from serendifflib.baselines.draws import mean_of_draws
from serendifflib.baselines.loop import Stage
from serendifflib.baselines.sequences import catalogue_items
from serendifflib.baselines.trainer import TorchRival
from serendifflib.diffusion.sampling import SAMPLERS
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.unet import TYPICAL, sinusoid
from serendifflib.errors import ConfigError
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import memberships

if TYPE_CHECKING:
    from serendifflib.data.splits import Examples
    from serendifflib.portrait.fold import FoldData
    from serendifflib.portrait.portrait import Placement

AXES = 2  # log-expectedness and relevance
STATISTICS = 7
SHRINK_VECTOR, SHRINK_PLACE = 3.0, 10.0  # of the ridge regressions


def typical_means(
    histories: torch.Tensor, vectors: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """Mean of the history's points, typical items weighing more.

    An item's weight is exp(cosine to the plain mean / 0.1), as for the cells
    in :func:`serendifflib.diffusion.unet.typical_mean`.

    Args:
        histories: item numbers, left-padded with 0, [B, n].
        vectors: unit item vectors, [N + 1, d].
        points: what is averaged, [N + 1, D].

    Returns:
        [B, D].
    """
    mean = F.normalize(history_means(histories, vectors), dim=1)
    cosines = torch.einsum("bnd,bd->bn", vectors[histories], mean)
    logits = (cosines / TYPICAL).masked_fill(histories == 0, -1e9)
    return torch.einsum("bn,bnd->bd", logits.softmax(dim=1), points[histories])


class PointNetwork(nn.Module):
    """Estimate x_0 of a point from x_t, t and what is known of the user.

    Args:
        vectors: unit item vectors, [N + 1, d].
        shares: memberships, [N + 1, P].
        hidden: width of the correction.
        dropout: of the correction and of what it sees of the user.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        shares: torch.Tensor,
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        points = torch.cat([vectors, shares], dim=1)
        size = points.shape[1]
        # rows have squared length 2: coordinates of the size of the noise
        self.scale = (size / 2) ** 0.5
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("points", points, persistent=False)
        for name in ("middle", "spread"):
            zeros = torch.zeros(STATISTICS)
            self.register_buffer(f"statistics_{name}", zeros)
            self.register_buffer(f"place_{name}", torch.zeros(AXES))
        self.register_buffer("utility", torch.zeros(2 + 3 * AXES))
        self.start_vector = nn.Linear(size, size)
        self.start_place = nn.Linear(STATISTICS, AXES)
        self.user = nn.Linear(size + STATISTICS, hidden)
        self.state = nn.Linear(size + AXES, hidden)
        self.time = nn.Linear(64, hidden)
        self.drop = nn.Dropout(dropout)
        self.block = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(hidden, size + AXES)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def condition(
        self, histories: torch.Tensor, statistics: torch.Tensor
    ) -> torch.Tensor:
        """What is known of users: histories [B, n] -> [B, D + 7]."""
        typical = typical_means(histories, self.vectors, self.points)
        middle, spread = self.statistics_middle, self.statistics_spread
        return torch.cat(
            [typical * self.scale, (statistics - middle) / spread], dim=1
        )

    def start(self, user: torch.Tensor) -> torch.Tensor:
        """The linear estimate of x_0, [B, D + 7] -> [B, D + 2]."""
        size = self.points.shape[1]
        return torch.cat(
            [
                self.start_vector(user[:, :size]),
                self.start_place(user[:, size:]),
            ],
            dim=1,
        )

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, user: torch.Tensor
    ) -> torch.Tensor:
        """x_t [B, D + 2], t [B], user [B, D + 7] -> x_0 [B, D + 2]."""
        hidden = F.silu(
            self.state(x)
            + self.time(sinusoid(t, 64))
            + self.user(self.drop(user))
        )
        return self.start(user) + self.out(hidden + self.block(hidden))

    def features(
        self, made: torch.Tensor, items: torch.Tensor, place: torch.Tensor
    ) -> torch.Tensor:
        """What decides between candidates, given generated points.

        Per candidate: inner product with the generated vector and with the
        generated memberships; per axis of the place p, with p' generated:
        p, p^2 and p p' - a preferred place that follows the generated one.

        Args:
            made: [B, D + 2].
            items: candidates, [B, C].
            place: their log-expectedness and relevance, [B, C, 2].

        Returns:
            [B, C, 8].
        """
        width = self.vectors.shape[1]
        place = (place - self.place_middle) / self.place_spread
        size = self.points.shape[1]
        parts = [
            inner(made[:, part], items, self.points[:, part])
            for part in (slice(0, width), slice(width, size))
        ]
        for axis in range(AXES):
            p = place[..., axis]
            parts += [p, p.square(), p * made[:, None, size + axis]]
        return torch.stack(parts, dim=2)


@dataclass(eq=False, kw_only=True)
class PointDiffusion(TorchRival):
    """Diffuse the label's point; match points by a calibrated utility.

    The eight weights of the utility are those of a conditional logit among
    each training label and ``negatives`` random items, with the label's
    point estimated by the starting regression without that very row.

    Attributes:
        prototypes: see :func:`serendifflib.portrait.items.memberships`.
        hidden: width of the network's correction.
        timesteps: T.
        earliest: training draws t from [earliest T, T): one call from pure
            noise decides, so the noisy end matters.
        negatives: K.
        sampler, calls: as in :func:`serendifflib.diffusion.sampling.sample`.
        draws: generated points averaged per user; the utility is linear in
            the point, so that their scores are averaged.
        grid: looks to share; None makes an own one.
    """

    name: ClassVar[str] = "SerenDiff (points)"
    max_history: int = 100
    lr: float = 3e-4
    weight_decay: float = 1e-2
    dropout: float = 0.3
    prototypes: int = 100
    hidden: int = 256
    timesteps: int = 1000
    earliest: float = 0.5
    negatives: int = 200
    sampler: str = "one-call"
    calls: int = 1
    draws: int = 4
    grid: InitVar[Grid | None] = None

    def __post_init__(self, grid: Grid | None):
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                f"{self.name}: unknown sampler {self.sampler!r}: choose one "
                f"of {', '.join(SAMPLERS)}"
            )
        if not 0.0 <= self.earliest < 1.0:
            raise ConfigError(
                f"{self.name}: earliest is a share of T from 0 to below 1, "
                f"got {self.earliest}"
            )
        self.grid = grid  # no field: it is shared, not a setting
        self.noise = DDPMSchedule.make("linear", self.timesteps)

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """The network; also the grid that places candidates."""
        if self.grid is None:
            self.grid = Grid.of(fold)
        shares = memberships(vectors, self.prototypes)
        return PointNetwork(vectors, shares, self.hidden, self.dropout)

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """Regression and utility at once, then the steps of the loop."""
        examples, network = fold.train, self.network
        items = self._choices(fold, generator)
        statistics, place = self._seen(
            examples.histories,
            self.grid.place_training(fold, examples, items.numpy()),
        )
        points = self._start(examples, statistics, place[:, 0])
        user = network.condition(
            examples.histories.to(self.place), statistics.to(self.place)
        ).detach()
        left_out = self._ridge(user, points)
        features = network.features(
            left_out, items.to(self.place), place.to(self.place)
        )
        network.utility.copy_(conditional_logit(features.cpu()))
        first = int(self.earliest * self.timesteps)

        def loss(index: torch.Tensor) -> torch.Tensor:
            x0 = points[index]
            t = torch.randint(
                first, self.timesteps, (len(index),), generator=generator
            ).to(self.place)
            noise = torch.randn(x0.shape, generator=generator).to(x0)
            x = self.noise.q_sample(x0, t, noise)
            return F.mse_loss(network(x, t, user[index]), x0)

        return self.one_stage(fold, loss)

    def _choices(
        self, fold: FoldData, generator: torch.Generator
    ) -> torch.Tensor:
        """Targets and random items that the user lacks, [M, 1 + K]."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        random = np.random.default_rng(seed)
        pool, data = catalogue_items(fold), fold.interactions
        rows = []
        for user, target in zip(
            fold.train.users, fold.train.targets.numpy(), strict=True
        ):
            own = np.append(data.item_index[data.rows(int(user))], target)
            drawn = draw_negatives(
                None, pool, own, self.negatives, "uniform", random
            )
            rows.append(np.append(target, drawn))
        return torch.from_numpy(np.array(rows).astype(np.int64))

    def _seen(self, histories: torch.Tensor, placed: Placement):
        """Statistics [M, 7] of users and places [M, C, 2] of items."""
        statistics = [_summary(past) for past in placed.past]
        vectors = self.network.vectors.cpu()
        means = history_means(histories, vectors)
        more = torch.stack(
            [reaches(histories, vectors), means.norm(dim=1)], dim=1
        )
        return (
            torch.cat([torch.tensor(np.array(statistics)), more], 1).float(),
            torch.from_numpy(np.nan_to_num(placed.scores)).float(),
        )

    def _start(
        self,
        examples: Examples,
        statistics: torch.Tensor,
        place: torch.Tensor,
    ) -> torch.Tensor:
        """Set the scales from the training labels; their x_0 [M, D + 2]."""
        network = self.network
        for name, values in (("statistics", statistics), ("place", place)):
            spread = values.std(dim=0, correction=0).clamp(min=1e-6)
            getattr(network, f"{name}_middle").copy_(values.mean(dim=0))
            getattr(network, f"{name}_spread").copy_(spread)
        targets = network.points[examples.targets.to(self.place)]
        place = place.to(self.place)
        place = (place - network.place_middle) / network.place_spread
        return torch.cat([targets * network.scale, place], dim=1)

    @torch.no_grad()
    def _ridge(self, user: torch.Tensor, points: torch.Tensor):
        """Start from the ridge; its predictions without the row itself."""
        network, size = self.network, self.network.points.shape[1]
        left_out = []
        for layer, inputs, outputs, shrink in (
            (
                network.start_vector,
                user[:, :size],
                points[:, :size],
                SHRINK_VECTOR * float(user[:, :size].square().sum(1).mean()),
            ),
            (
                network.start_place,
                user[:, size:],
                points[:, size:],
                SHRINK_PLACE,
            ),
        ):
            fitted = Ridge.fit(
                inputs.cpu().numpy(), outputs.cpu().double().numpy(), shrink
            )
            layer.weight.copy_(torch.from_numpy(fitted.weights[:-1].T))
            layer.bias.copy_(torch.from_numpy(fitted.weights[-1]))
            left_out.append(torch.from_numpy(fitted.left_out).float())
        return torch.cat(left_out, dim=1).to(self.place)

    def generate(
        self, histories: torch.Tensor, statistics: torch.Tensor
    ) -> torch.Tensor:
        """Generated points of users, the mean of the draws, [B, D + 2]."""
        user = self.network.condition(histories, statistics)
        user = user.repeat_interleave(self.draws, dim=0)
        return mean_of_draws(
            lambda x, t: self.network(x, t, user),
            histories,
            self.network.out.out_features,
            self.noise,
            draws=self.draws,
            sampler=self.sampler,
            calls=self.calls,
        )

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Utilities of candidates [B, C] given the generated points."""
        own = histories.cpu()
        statistics, place = self._seen(
            own, self.grid.place(own, candidates.cpu())
        )
        made = self.generate(histories, statistics.to(self.place))
        features = self.network.features(
            made, candidates, place.to(self.place)
        )
        return features @ self.network.utility


def _summary(past: np.ndarray) -> np.ndarray:
    """Mean and spread of both positions, and log length: [5].

    The first item is the anchor and says nothing; a history of one item has
    the middle of the plane.
    """
    rest = past[1:] if len(past) > 1 else np.full((1, AXES), 0.5)
    length = np.log(max(1, len(past)))
    return np.concatenate([rest.mean(0), rest.std(0), [length]])
