"""SerenDiff in tokens: a serendipity point is a cell and a kind of item.

Its string is (expectedness bin, relevance bin, prototype); masked diffusion
(:mod:`serendifflib.diffusion.masking`) learns it, given the portrait, and the
exact table p(tokens | user) scores, maps and draws.

Letters: B users, C candidates, N items, S draws, D channels of what the
network sees of an item, L side of the portrait, P prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serendifflib.diffusion.base import Diffusion, PlacedItems
from serendifflib.diffusion.masking import (
    Memory,
    Order,
    TokenNetwork,
    draw,
    log_table,
    masked_loss,
)
from serendifflib.diffusion.sampling import user_seed
from serendifflib.diffusion.training import Loss
from serendifflib.portrait.portrait import Portraits, cell_number

BATCH = 32  # users whose tables are in memory at once
# the prototype, of which there are most, comes last: few states
ORDERS: tuple[Order, ...] = ((0, 1, 2), (1, 0, 2))


@dataclass(eq=False, kw_only=True)
class TokenDiffusion(Diffusion):
    """Diffuse the tokens of the label's point; score by a look-up.

    An item lies in one cell; to prototypes k it belongs in shares s_k that
    sum to one. Its score is the log of

        sum over k of p(cell, k | user) s_k / prior_k,

    the prior being the mean share over the catalogue: how much likelier the
    item is as this user's label than as one of the catalogue. Its network
    begins with the uniform distribution, and its score has no dials.

    Attributes:
        points: what the network sees of the items, [N + 1, D], rows of mean
            square length 1.
        shares: of the items in prototypes, [N + 1, P].
        width, dropout, thinning: of the network.
    """

    points: Tensor
    shares: Tensor
    width: int
    dropout: float
    thinning: float

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of every token."""
        return self.side, self.side, self.shares.shape[1]

    def make_network(self) -> TokenNetwork:
        """A network; all strings are equally likely."""
        return TokenNetwork(
            self.sizes,
            self.points.shape[1],
            self.side,
            width=self.width,
            dropout=self.dropout,
            thinning=self.thinning,
        )

    def loss(self, network: TokenNetwork, data: PlacedItems) -> Loss:
        """The bound of :func:`masked_loss`, a prototype drawn by its share."""
        shares, points = self.shares, self._scaled()
        cells = data.target_cells(self.side)

        def loss(view, index, generator):
            drawn = torch.multinomial(
                shares[data.targets[index]], 1, generator=generator
            )
            tokens = torch.cat([cells[index], drawn], dim=1)
            seen = self._seen(data.portraits.part(index, self.device), points)
            return masked_loss(
                lambda states: view(states, *seen),
                self.sizes,
                tokens.to(self.device),
                generator,
            )

        return loss

    def score(
        self,
        network: TokenNetwork,
        seen: PlacedItems,
        draws: int | None = None,
    ) -> Tensor:
        """Log-ratios of the items to the catalogue, [B, C].

        Args:
            network: trained.
            seen: users and items.
            draws: not used, the table is exact.
        """
        weights = self.shares / self.prior
        place = cell_number(seen.cells(self.side), self.side)
        scores = []
        for rows in torch.arange(len(seen)).split(BATCH):
            tables = self.table(network, seen.portraits.part(rows, "cpu"))
            for row, table in zip(rows, tables.flatten(1, -2), strict=True):
                found = table[place[row]] * weights[seen.items[row]]
                scores.append(found.sum(dim=1))
        return torch.stack(scores).clamp(min=1e-30).log()

    @property
    def prior(self) -> Tensor:
        """Mean share of every prototype over the catalogue, [P]."""
        known = self.shares[self.shares.sum(dim=1) > 0]
        return known.mean(dim=0).clamp(min=1e-6)

    def zone(self, network: TokenNetwork, seen: PlacedItems) -> Tensor:
        """Exact p(cell | user), [B, L, L]; sums to one."""
        return self.table(network, seen.portraits).sum(dim=-1)

    def draw_cells(
        self, network: TokenNetwork, seen: PlacedItems, draws: int
    ) -> Tensor:
        """Cells of drawn strings, [B, S, 2]."""
        return self.generate(network, seen.portraits, draws)[..., :2].cpu()

    @torch.no_grad()
    def table(self, network: TokenNetwork, portraits: Portraits) -> Tensor:
        """Exact p(tokens | user) on the processor, [B, L, L, P]."""
        memory = self.remember(network, portraits)
        return log_table(network, memory, ORDERS).exp().cpu()

    @torch.no_grad()
    def generate(
        self, network: TokenNetwork, portraits: Portraits, draws: int = 1
    ) -> Tensor:
        """Draw tokens with random numbers of each user's own.

        Order and batch size change the probabilities by rounding alone.

        Args:
            network: trained.
            portraits: of B users.
            draws: S per user.

        Returns:
            [B, S, 3].
        """
        uniform = [
            torch.rand(
                draws,
                2 * len(self.sizes),
                generator=torch.Generator().manual_seed(
                    user_seed(row, self.seed, 0)
                ),
            )
            for row in portraits.items.cpu()
        ]
        memory = self.remember(network, portraits)
        return draw(network, memory, torch.stack(uniform).to(self.device))

    def _scaled(self) -> Tensor:
        """Points with coordinates of variance one, on the device."""
        return (self.points * self.points.shape[1] ** 0.5).to(self.device)

    def _seen(
        self, portraits: Portraits, points: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`TokenNetwork.remember` is told."""
        real = portraits.items > 0
        return points[portraits.items], portraits.cells(self.side), real

    def remember(self, network: TokenNetwork, portraits: Portraits) -> Memory:
        """What the network keeps of users, for any number of questions."""
        everybody = torch.arange(len(portraits))
        portraits = portraits.part(everybody, self.device)
        return network.remember(*self._seen(portraits, self._scaled()))
