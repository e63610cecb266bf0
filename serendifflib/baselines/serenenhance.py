"""SerenEnhance (Fu et al., SIGIR 2023): three towers, pairwise learning.

The design follows the published one. The released code does not run as it
stands, and one of its faults decides the result: it stacks positives and
negatives side by side, reshapes and halves them, so that no positive is ever
compared with a negative. :func:`released_pairs` shows it; the model here
compares each positive with a negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.baselines.item_encoder import (
    ItemEncoder,
    inner_products,
)
from serendifflib.baselines.layers import Block, attention_mask, masked_mean
from serendifflib.baselines.sampling import Unexpectedness, own_items, pick
from serendifflib.baselines.sequences import catalogue_items, draw_unseen
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.errors import ConfigError
from serendifflib.portrait.scores import CoOccurrence

if TYPE_CHECKING:
    from serendifflib.portrait.fold import FoldData

TOWERS = ("serendipity", "relevance", "unexpectedness")
PAIRS = 50  # positives and as many negatives per objective
POOL = 200  # of each tail of unexpectedness that is kept per example


class Tower(nn.Module):
    """Transformer over a history, pooled to one user vector."""

    def __init__(self, width: int, blocks: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, 2, width // 4, 0.5 * dropout, norm="post")
            for _ in range(blocks)
        )
        self.dense = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """History [B, n, d] and its real places [B, n] to [B, d]."""
        mask = attention_mask(real, causal=False)
        for block in self.blocks:
            x = block(x, mask)
        return self.drop(F.relu(self.dense(masked_mean(x, real))))


class SerenEnhanceNetwork(nn.Module):
    """One item encoder, one tower per objective."""

    def __init__(self, encoder: ItemEncoder, blocks: int, dropout: float):
        super().__init__()
        self.encoder = encoder
        self.towers = nn.ModuleDict(
            {name: Tower(encoder.width, blocks, dropout) for name in TOWERS}
        )

    def forward(self, histories: torch.Tensor) -> dict[str, torch.Tensor]:
        """User vectors [B, d] of histories [B, n], by objective."""
        real = histories != 0
        n, width = histories.shape[1], self.encoder.width
        x = self.encoder(histories) * width**0.5
        x = x + sinusoids(n, width, x.device).flip(0)
        return {name: tower(x, real) for name, tower in self.towers.items()}


def sinusoids(n: int, width: int, device: torch.device) -> torch.Tensor:
    """Fixed position vectors of Vaswani et al., [n, d]."""
    place = torch.arange(n, device=device).unsqueeze(1)
    even = torch.arange(0, width, 2, device=device)
    angle = place * torch.exp(even * (-math.log(10_000.0) / width))
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]


@dataclass(eq=False, kw_only=True)
class SerenEnhance(TorchRival):
    """SerenEnhance, repaired.

    The user vector is u_serendipity + a u_relevance + (1 - a)
    u_unexpectedness, the score its inner product with the item. Each tower
    learns from pairs of its own: labelled items against the same user's
    unlabelled ones, read items against unread ones, unexpected items
    against expected ones.

    Attributes:
        blocks: Transformer blocks per tower.
        relevance_weight: a, 0.6 as released.
        faithful_sigmoid: compare sigmoids of the scores, as released. Their
            difference lies in (-1, 1), so the loss stays between 0.313 and
            1.313 and its gradient fades; without, this is BPR.
        pairing: ``repaired`` or ``released``, see :func:`released_pairs`.
    """

    name: ClassVar[str] = "SerenEnhance"
    width: int = 128
    max_history: int = 20
    blocks: int = 1
    relevance_weight: float = 0.6
    faithful_sigmoid: bool = False
    pairing: str = "repaired"

    def __post_init__(self):
        if self.pairing not in ("repaired", "released"):
            raise ConfigError(
                f"SerenEnhance: unknown pairing {self.pairing!r}: choose "
                "repaired or released"
            )

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """The network of :class:`SerenEnhanceNetwork`."""
        encoder = ItemEncoder(vectors, self.width, self.inputs)
        return SerenEnhanceNetwork(encoder, self.blocks, self.dropout)

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """All three objectives at once, on the fold's own targets."""
        sampler = PairSampler.of(fold, generator)

        def loss(index: torch.Tensor) -> torch.Tensor:
            histories, _ = self.batch(fold.train, index)
            users = self.network(histories)
            pairs = sampler.draw(index, generator)
            items = torch.stack([torch.stack(pairs[k]) for k in TOWERS])
            if self.pairing == "released":
                items = torch.stack(
                    [torch.stack(released_pairs(*two)) for two in items]
                )
            states = torch.stack([users[name] for name in TOWERS])
            # [o, p, b, k] to [o, b, p k]: one row of items per user vector
            rows = items.transpose(1, 2).flatten(2).to(self.place)
            scores = inner_products(
                states.flatten(0, 1), rows.flatten(0, 1), self.network.encoder
            ).unflatten(1, (2, PAIRS))
            if self.faithful_sigmoid:
                scores = scores.sigmoid()
            # mean over pairs, sum over the three objectives
            difference = scores[:, 0] - scores[:, 1]
            return len(TOWERS) * F.softplus(-difference).mean()

        return self.one_stage(fold, loss)

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Inner product of the summed user vectors with each candidate."""
        users = self.network(histories)
        a = self.relevance_weight
        user = (
            users["serendipity"]
            + a * users["relevance"]
            + (1 - a) * users["unexpectedness"]
        )
        return inner_products(user, candidates, self.network.encoder)


@dataclass(frozen=True)
class PairSampler:
    """Positives and negatives of the three objectives.

    Attributes:
        fold: the data.
        own: all items of each example's user, [M, n].
        unlabelled: those with label 0, [M, n'].
        tails: expected and unexpected items of each example.
        pool: items to draw random negatives from, [P].
    """

    fold: FoldData
    own: torch.Tensor
    unlabelled: torch.Tensor
    tails: Unexpectedness
    pool: torch.Tensor

    @classmethod
    def of(cls, fold: FoldData, generator: torch.Generator) -> PairSampler:
        """Prepare the pools of all training examples."""
        counts = CoOccurrence.fit(
            fold.training_histories(), fold.interactions.n_items
        )
        own = own_items(fold, fold.train)
        unlabelled = own.new_zeros(len(own), 1)
        if fold.kind == "serendipity":
            unlabelled = own_items(fold, fold.train, label=0)
        return cls(
            fold=fold,
            own=own,
            unlabelled=unlabelled,
            tails=Unexpectedness.of(
                fold, fold.train, counts, kept=POOL, generator=generator
            ),
            pool=torch.from_numpy(catalogue_items(fold)),
        )

    def draw(
        self, index: torch.Tensor, generator: torch.Generator
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Positives and negatives [B, 50] of each objective.

        Serendipity: the target against the user's unlabelled items, filled
        up with random items that the user does not have. Relevance: items
        of the history against such random items.
        """
        examples = self.fold.train
        user = self.tails.owner[index]
        own = self.own[index]
        targets = examples.targets[index].unsqueeze(1).expand(-1, PAIRS)
        unread = draw_unseen(own, 2 * PAIRS, self.pool, generator)
        known = self.unlabelled[index]
        order = torch.rand(known.shape, generator=generator)
        known = known.gather(1, order.masked_fill(known == 0, 2.0).argsort(1))
        known = F.pad(known, (0, PAIRS))[:, :PAIRS]
        return {
            "serendipity": (
                targets,
                torch.where(known == 0, unread[:, :PAIRS], known),
            ),
            "relevance": (
                pick(examples.histories[index], PAIRS, generator),
                unread[:, PAIRS:],
            ),
            "unexpectedness": (
                pick(self.tails.unexpected[user], PAIRS, generator),
                pick(self.tails.expected[user], PAIRS, generator),
            ),
        }


def released_pairs(
    positive: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs that the released code compares, for [B, K] items each.

    Stacking side by side and reshaping re-interleaves both lists; halving
    then gives pairs (p_i, p_{i + K/2}) and (n_i, n_{i + K/2}), never a
    positive with a negative.
    """
    mixed = torch.stack([positive, negative], dim=2).flatten(1)
    first, second = mixed.chunk(2, dim=1)
    return first, second
