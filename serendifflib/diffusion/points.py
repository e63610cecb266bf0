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
vectors, P prototypes, D = d + P, M training examples, K negatives, T steps,
L side of the grid.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendifflib.data.splits import Examples
from serendifflib.diffusion import denoising, linear
from serendifflib.diffusion.base import (
    Diffusion,
    PlacedItems,
    training_placement,
)
from serendifflib.diffusion.sampling import draw_vectors, user_noise
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import Loss, draw_noise
from serendifflib.diffusion.unet import sinusoid
from serendifflib.diffusion.validation import mean_ndcg
from serendifflib.errors import ConfigError
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.portrait import Portraits, cell_of

AXES = 2  # log-expectedness and relevance
STATISTICS = 7
SHRINK_VECTOR, SHRINK_PLACE = 3.0, 10.0  # of the ridge regressions
TEMPERATURES, SPREADS = (0.02, 0.04, 0.08, 0.16), (0.3, 1.0, 3.0)
# pairs of numbers to try on validation users, by what is done with points
TRIALS: dict[str, list[tuple[float, float]]] = {
    "mean": [],
    "draws": list(itertools.product(TEMPERATURES, SPREADS)),
    "error": list(itertools.product(denoising.POWERS, denoising.WEIGHTS)),
}
AGGREGATES = tuple(TRIALS)


def log_mean_exp(
    cosines: Tensor, distances: Tensor, temperature: float, spread: float
) -> Tensor:
    """Log-density of the draws at items, up to a constant, [B, C].

    Cosines and distances are those of :meth:`PointNetwork.agreement`.
    """
    logits = cosines / temperature - distances / (2.0 * spread**2)
    return logits.logsumexp(dim=1) - math.log(logits.shape[1])


class PointNetwork(nn.Module):
    """Estimate x_0 of a point from x_t, t and what is known of the user.

    It is the linear start plus a correction of width ``hidden``. Unit item
    vectors are [N + 1, d], the shares in prototypes [N + 1, P].
    """

    def __init__(
        self, vectors: Tensor, shares: Tensor, hidden: int, dropout: float
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
        # two numbers of TRIALS, chosen on validation users
        self.register_buffer("agreeing", torch.tensor([0.05, 1.0]))
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

    def condition(self, histories: Tensor, statistics: Tensor) -> Tensor:
        """What is known of users: histories [B, n] -> [B, D + 7]."""
        typical = linear.typical_means(histories, self.vectors, self.points)
        middle, spread = self.statistics_middle, self.statistics_spread
        return torch.cat(
            [typical * self.scale, (statistics - middle) / spread], dim=1
        )

    def start(self, user: Tensor) -> Tensor:
        """The linear estimate of x_0, [B, D + 7] -> [B, D + 2]."""
        size = self.points.shape[1]
        vector = self.start_vector(user[:, :size])
        return torch.cat([vector, self.start_place(user[:, size:])], dim=1)

    def forward(self, x: Tensor, t: Tensor, user: Tensor) -> Tensor:
        """x_t [B, D + 2], t [B], user [B, D + 7] -> x_0 [B, D + 2]."""
        hidden = F.silu(
            self.state(x)
            + self.time(sinusoid(t, 64))
            + self.user(self.drop(user))
        )
        return self.start(user) + self.out(hidden + self.block(hidden))

    def features(self, made: Tensor, items: Tensor, place: Tensor) -> Tensor:
        """What decides between candidates, given generated points, [B, C, 8].

        Of items [B, C] with log-expectedness and relevance ``place`` [B, C, 2]
        and points ``made`` [B, D + 2]: inner product with the generated vector
        and with the generated memberships; per axis of the place p, with p'
        generated: p, p^2 and p p' - a preferred place that follows the
        generated one.
        """
        width = self.vectors.shape[1]
        place = (place - self.place_middle) / self.place_spread
        size = self.points.shape[1]
        parts = [
            linear.inner(made[:, part], items, self.points[:, part])
            for part in (slice(0, width), slice(width, size))
        ]
        for axis in range(AXES):
            p = place[..., axis]
            parts += [p, p.square(), p * made[:, None, size + axis]]
        return torch.stack(parts, dim=2)

    def agreement(
        self, made: Tensor, items: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How well items agree with S generated points ``made`` [B, S, D + 2].

        Items and place as in :meth:`features`. Returns cosines (vector and
        memberships together, which weigh the same), and squared distances of
        the places in standard deviations of the labels' places, [B, S, C].
        """
        size, draws = self.points.shape[1], made.shape[1]
        distinct, column = items.unique(return_inverse=True)
        wanted = F.normalize(made[..., :size], dim=2)
        # mean square length of a point: 2
        found = wanted @ self.points[distinct].T / 2**0.5
        cosines = found.gather(2, column[:, None].expand(-1, draws, -1))
        place = (place - self.place_middle) / self.place_spread
        return cosines, torch.cdist(made[..., size:], place).square()


@dataclass(eq=False, kw_only=True)
class PointDiffusion(Diffusion):
    """Diffuse the label's point; match points by a calibrated utility.

    The eight weights of the utility are those of a conditional logit among
    each training label and ``negatives`` random items, with the label's
    point estimated by the starting regression without that very row.

    Attributes:
        memberships: of items in prototypes, [N + 1, P].
        schedule: noise schedule.
        hidden, dropout: of the network.
        earliest: training draws t from [earliest T, T): one call from pure
            noise decides, so the noisy end matters.
        negatives: K.
        sampler, calls: as in :func:`serendifflib.diffusion.sampling.sample`.
        samples: S, generated points per user.
        aggregate: what is done with them. ``mean``: the utility is linear in
            the point, so that the points are averaged. ``draws``: the score
            is the log of the mean over draws of exp(cosine / temperature -
            squared distance of the places / (2 spread^2)), a density of the
            draws at the item; both numbers are chosen on validation users.
            ``error``: nothing is drawn; see
            :mod:`serendifflib.diffusion.denoising`. It asks what the network
            says without the user, so training hides a few users.
    """

    memberships: Tensor
    schedule: DDPMSchedule
    hidden: int
    dropout: float
    earliest: float
    negatives: int
    sampler: str
    calls: int
    samples: int
    aggregate: str

    def __post_init__(self):
        if not 0.0 <= self.earliest < 1.0:
            words = "earliest is a share of T from 0 to below 1"
            raise ConfigError(f"points: {words}, got {self.earliest}")

    def make_network(self) -> PointNetwork:
        """A network, its scales and its utility still empty."""
        return PointNetwork(
            self.space.vectors, self.memberships, self.hidden, self.dropout
        )

    def examples(
        self, fold: FoldData, examples: Examples, seed: int
    ) -> PlacedItems:
        """Targets and random items that the user lacks, placed."""
        random, data = np.random.default_rng(seed), fold.interactions
        rows = []
        for user, target in zip(
            examples.users, examples.targets.numpy(), strict=True
        ):
            own = np.append(data.item_index[data.rows(int(user))], target)
            allowed = fold.catalogue[~np.isin(fold.catalogue, own)]
            drawn = random.integers(len(allowed), size=self.negatives)
            rows.append(np.append(target, allowed[drawn]))
        items = torch.from_numpy(np.array(rows).astype(np.int64))
        return training_placement(self.space, fold, examples, items)

    def start(self, network: PointNetwork, data: PlacedItems) -> None:
        """Regression and utility at once, from the labels."""
        statistics = self._statistics(data.portraits)
        place = data.scores.nan_to_num().float()
        known = {"statistics": statistics, "place": place[:, 0]}
        for name, values in known.items():
            spread = values.std(dim=0, correction=0).clamp(min=1e-6)
            getattr(network, f"{name}_middle").copy_(values.mean(dim=0))
            getattr(network, f"{name}_spread").copy_(spread)
        user = network.condition(data.portraits.items, statistics).detach()
        left_out = self._ridge(network, user, self._points(network, data))
        features = network.features(left_out, data.items, place)
        network.utility.copy_(linear.conditional_logit(features))

    def loss(self, network: PointNetwork, data: PlacedItems) -> Loss:
        """Squared error of the estimated points (Eq. 10, x_0 predicted)."""
        statistics = self._statistics(data.portraits).to(self.device)
        histories = data.portraits.items.to(self.device)
        users = network.condition(histories, statistics).detach()
        points = self._points(network, data)
        steps = self.schedule.timesteps
        first = int(self.earliest * steps)

        def loss(view, index, generator):
            size = (len(index),)
            t = torch.randint(first, steps, size, generator=generator)
            t, index = t.to(self.device), index.to(self.device)
            x0 = points[index]
            noise = draw_noise(x0.shape, generator, self.device)
            x_t = self.schedule.q_sample(x0, t, noise)
            told = users[index]
            if self.aggregate == "error":
                shown = (
                    torch.rand(size, generator=generator) >= denoising.HIDDEN
                )
                told = told * shown[:, None].to(self.device)
            return F.mse_loss(view(x_t, t, told), x0)

        return loss

    def score(
        self,
        network: PointNetwork,
        seen: PlacedItems,
        draws: int | None = None,
    ) -> Tensor:
        """Utilities of the items given the generated points, [B, C]."""
        if self.aggregate != "mean":
            found = self._evidence(network, seen)
            return self._join(found, *network.agreeing.tolist())
        parts = []
        for rows in torch.arange(len(seen)).split(64):
            some = seen.part(rows, self.device)
            made = self.generate(network, some.portraits, draws).mean(1)
            features = network.features(
                made, some.items, some.scores.nan_to_num().float()
            )
            parts.append((features @ network.utility).cpu())
        return torch.cat(parts)

    def _join(
        self, found: tuple[Tensor, Tensor], a: float, b: float
    ) -> Tensor:
        """What :meth:`_evidence` found and two numbers -> scores [B, C]."""
        if self.aggregate == "error":
            return denoising.density_ratio(*found, a, b, self.schedule)
        return log_mean_exp(*found, a, b)

    @torch.no_grad()
    def _evidence(
        self, network: PointNetwork, seen: PlacedItems
    ) -> tuple[Tensor, Tensor]:
        """Of vectors and of places: gains, or agreement with S draws."""
        parts = []
        for rows in torch.arange(len(seen)).split(16):
            some = seen.part(rows, self.device)
            place = some.scores.nan_to_num().float()
            if self.aggregate == "error":
                parts.append(self._gains(network, some, place))
                continue
            made = self.generate(network, some.portraits)
            parts.append(network.agreement(made, some.items, place))
        vectors, places = zip(*parts, strict=True)
        return torch.cat(vectors).cpu(), torch.cat(places).cpu()

    def _gains(
        self, network: PointNetwork, seen: PlacedItems, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """:func:`~serendifflib.diffusion.denoising.denoising_gains`."""
        histories = seen.portraits.items
        statistics = self._statistics(seen.portraits).to(self.device)
        place = (place - network.place_middle) / network.place_spread
        vectors = network.points[seen.items] * network.scale
        return denoising.denoising_gains(
            network,
            torch.cat([vectors, place], dim=2),
            network.condition(histories, statistics),
            user_noise(histories, self.seed, self.device),
            self.schedule,
            self.calls,
            AXES,
        )

    def tune(self, network: PointNetwork, cases: PlacedItems) -> None:
        """Choose the two numbers of the aggregate on validation cases."""
        trials = TRIALS[self.aggregate]
        if not trials:
            return
        found = self._evidence(network, cases)
        values = [mean_ndcg(self._join(found, *trial)) for trial in trials]
        best = trials[int(np.argmax(values))]
        network.agreeing.copy_(torch.tensor(best))

    def zone(
        self, network: PointNetwork, seen: PlacedItems, draws: int = 64
    ) -> Tensor:
        """Share of draws whose place lies in each cell, [B, L, L]."""
        cells = self.draw_cells(network, seen, draws)
        zone = torch.zeros(len(seen), self.side * self.side)
        flat = cells[..., 0] * self.side + cells[..., 1]
        zone.scatter_add_(1, flat, torch.full(flat.shape, 1 / draws))
        return zone.unflatten(1, (self.side, self.side))

    def draw_cells(
        self, network: PointNetwork, seen: PlacedItems, draws: int
    ) -> Tensor:
        """Cells in which the places of S draws lie, [B, S, 2].

        ``seen`` holds the whole catalogue, which tells where a place lies on
        the plane.
        """
        portraits = seen.part(torch.arange(len(seen)), self.device).portraits
        size = network.points.shape[1]
        made = self.generate(network, portraits, draws)[..., size:]
        made = made * network.place_spread + network.place_middle
        cells = torch.zeros(len(seen), draws, AXES, dtype=torch.long)
        for row, places in enumerate(made.cpu().double()):
            for axis in range(AXES):
                scores = seen.scores[row, :, axis].nan_to_num()
                order = scores.argsort()
                below = torch.searchsorted(
                    scores[order], places[:, axis].contiguous()
                ).clamp(max=len(order) - 1)
                position = seen.positions[row, order[below], axis]
                cells[row, :, axis] = cell_of(position, self.side)
        return cells

    @torch.no_grad()
    def generate(
        self,
        network: PointNetwork,
        portraits: Portraits,
        draws: int | None = None,
    ) -> Tensor:
        """Generated points of users, on their device, [B, S, D + 2]."""
        draws = draws or self.samples
        statistics = self._statistics(portraits).to(portraits.items.device)
        user = network.condition(portraits.items, statistics)
        user = user.repeat_interleave(draws, dim=0)
        return draw_vectors(
            lambda x, t: network(x, t, user),
            portraits.items,
            network.out.out_features,
            self.schedule,
            draws=draws,
            sampler=self.sampler,
            calls=self.calls,
            seed=self.seed,
        )

    def _statistics(self, portraits: Portraits) -> Tensor:
        """What a portrait says in seven numbers, [B, 7].

        Mean and spread of both positions, log length, reach, and the length
        of the mean vector. The first item is the anchor and says nothing; a
        history of one item has the middle of the plane.
        """
        items = portraits.items.cpu()
        positions = portraits.positions.cpu()
        real = items > 0
        length = real.sum(1, keepdim=True)
        rest = real & (real.cumsum(1) > 1)
        count = rest.sum(1, keepdim=True).clamp(min=1)
        weight = rest[..., None].double()
        mean = (positions * weight).sum(1) / count
        spread = ((positions - mean[:, None]).square() * weight).sum(1) / count
        mean = torch.where(length > 1, mean, torch.full_like(mean, 0.5))
        vectors = self.space.vectors
        return torch.cat(
            [
                mean.float(),
                spread.sqrt().float(),
                length.clamp(min=1).float().log(),
                linear.reaches(items, vectors)[:, None],
                linear.history_means(items, vectors).norm(dim=1, keepdim=True),
            ],
            dim=1,
        )

    def _points(self, network: PointNetwork, data: PlacedItems) -> Tensor:
        """x_0 of the training labels, on the network's device, [M, D + 2]."""
        device = network.points.device
        targets = network.points[data.targets.to(device)]
        place = data.scores[:, 0].nan_to_num().float().to(device)
        place = (place - network.place_middle) / network.place_spread
        return torch.cat([targets * network.scale, place], dim=1)

    @torch.no_grad()
    def _ridge(
        self, network: PointNetwork, user: Tensor, points: Tensor
    ) -> Tensor:
        """Start from the ridge; its predictions without the row itself."""
        size = network.points.shape[1]
        energy = float(user[:, :size].square().sum(1).mean())
        left_out = []
        for layer, part, shrink in (
            (network.start_vector, slice(size), SHRINK_VECTOR * energy),
            (network.start_place, slice(size, None), SHRINK_PLACE),
        ):
            fitted = linear.Ridge.fit(
                user[:, part].numpy(), points[:, part].double().numpy(), shrink
            )
            layer.weight.copy_(torch.from_numpy(fitted.weights[:-1].T))
            layer.bias.copy_(torch.from_numpy(fitted.weights[-1]))
            left_out.append(torch.from_numpy(fitted.left_out).float())
        return torch.cat(left_out, dim=1)
