"""Controls that give several answers without any diffusion.

Both read the portrait as the set ranker does and say a density of the
label's point in one call, trained by maximum likelihood. If they match the
draws of a diffusion, then an answer with several modes helps, and diffusion
does not.

Letters: B users, C candidates, N items, D channels of a point, P prototypes,
K components.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.ranker import PortraitEncoder, PortraitRival
from serendifflib.baselines.trainer import Stage
from serendifflib.diffusion.base import pad_positions, training_placement
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.items import centred, join, shares

AXES = 2
NARROWEST, WIDEST = 0.03, 0.5  # of a component's place, in sides of the plane


def log_normal(values: Tensor, means: Tensor, spreads: Tensor) -> Tensor:
    """Log-density of independent Gaussians, summed over the last axis."""
    off = (values - means) / spreads
    each = -0.5 * off.square() - spreads.log() - 0.5 * math.log(2 * math.pi)
    return each.sum(dim=-1)


class MixtureNetwork(PortraitEncoder):
    """Portrait -> weights of K components, and a Gaussian place for each.

    ``others`` are further numbers per component.
    """

    def __init__(
        self, vectors: Tensor, components: int, others: int = 0, **options
    ):
        super().__init__(vectors, **options)
        self.components = components
        size = components * (1 + 2 * AXES + others)
        self.deep = nn.Linear(options["width"], size)
        self.linear = nn.Linear(vectors.shape[1], size)

    def forward(
        self, items: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-weights [B, K], place means and spreads [B, K, 2], others."""
        x, mean = self.encode(items, positions)
        said = self.deep(x) + self.linear(mean)
        weight, middle, spread, others = said.unflatten(
            1, (self.components, -1)
        ).split([1, AXES, AXES, said.shape[1] // self.components - 5], dim=2)
        return (
            weight[..., 0].log_softmax(dim=1),
            middle.sigmoid(),
            NARROWEST + (WIDEST - NARROWEST) * spread.sigmoid(),
            others,
        )


@dataclass(eq=False, kw_only=True)
class ModesRival(PortraitRival):
    """What the two mixtures share: places, the likelihood, the score."""

    # log-weight of the components in the catalogue, where a mixture knows it
    log_prior = torch.zeros(())
    prototypes: int = 100

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        self.shares = shares(vectors, self.prototypes).float()
        self.points = join(vectors, centred(self.shares))
        return self._mixture(**self.encoder(fold))

    @abstractmethod
    def _mixture(self, **options) -> MixtureNetwork:
        """The network with the options of its encoder."""

    @abstractmethod
    def _log_content(self, items: Tensor, others: Tensor) -> Tensor:
        """Log-density of items [B, C] in each component, [B, C, K].

        ``others``: what the network says of the components, [B, K, others].
        """

    def log_density(
        self,
        said: tuple[Tensor, ...],
        items: Tensor,
        places: Tensor,
        *,
        ratio: bool,
    ) -> Tensor:
        """Log-density of items [B, C] at places [B, C, 2], [B, C].

        ``ratio``: over that of the catalogue, to rank by.
        """
        weight, middle, spread, others = said
        if ratio:
            weight = weight - self.log_prior.to(weight)
        there = log_normal(
            places[:, :, None], middle[:, None], spread[:, None]
        )
        content = self._log_content(items, others)
        return (weight[:, None] + content + there).logsumexp(dim=2)

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """The labels, by maximum likelihood."""
        placed = training_placement(self.grid.space, fold, fold.train)
        past = placed.portraits.positions.float()
        places = placed.positions.float()

        def loss(index: Tensor) -> Tensor:
            said = self.network(
                placed.portraits.items[index].to(self.place),
                past[index].to(self.place),
            )
            found = self.log_density(
                said,
                placed.items[index].to(self.place),
                places[index].to(self.place),
                ratio=False,
            )
            return -found.mean()

        return self.one_stage(fold, loss)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Log-ratio of each candidate's density to the catalogue's."""
        placed = self.grid.place(histories.cpu(), candidates.cpu())
        past = pad_positions(placed.past, histories.shape[1]).float()
        said = self.network(histories, past.to(self.place))
        places = torch.from_numpy(placed.positions).float().to(self.place)
        return self.log_density(said, candidates, places, ratio=True)


class ExplicitMixture(ModesRival):
    """Softmax over prototypes, a Gaussian place for each.

    The factorisation of masked tokens, in one shot.
    """

    name = "Explicit mixture"

    def _mixture(self, **options) -> MixtureNetwork:
        """One component per prototype; what they weigh in the catalogue."""
        known = self.shares[self.shares.sum(dim=1) > 0]
        self.log_prior = known.mean(dim=0).clamp(min=1e-6).log()
        return MixtureNetwork(self.points, self.shares.shape[1], **options)

    def _log_content(self, items: Tensor, others: Tensor) -> Tensor:
        return self.shares.to(others)[items].clamp(min=1e-6).log()


@dataclass(eq=False, kw_only=True)
class MixtureDensity(ModesRival):
    """K Gaussians over content and place together (Bishop 1994)."""

    name = "Mixture density"
    components: int = 8

    def _mixture(self, **options) -> MixtureNetwork:
        size = self.points.shape[1] + 1
        return MixtureNetwork(self.points, self.components, size, **options)

    def _log_content(self, items: Tensor, others: Tensor) -> Tensor:
        """Log of a Gaussian around each centre; ranked as it is."""
        centre, wide = others[..., :-1], others[..., -1]
        # coordinates of the size of a rival's noise: variance about one
        scale = centre.shape[-1] ** 0.5
        wide = 0.1 + F.softplus(wide)[:, None]
        known = self.points.to(centre)[items] * scale
        off = torch.cdist(known, centre).square()
        return -0.5 * off / wide.square() - known.shape[-1] * wide.log()


MODES: dict[str, Callable[..., ModesRival]] = {
    "explicit-mixture": ExplicitMixture,
    "mixture-density": MixtureDensity,
}
