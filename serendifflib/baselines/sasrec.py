"""SASRec (Kang & McAuley, ICDM 2018): causal self-attention, next item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.baselines.item_encoder import (
    ItemEncoder,
    catalogue_loss,
    inner_products,
)
from serendifflib.baselines.layers import Block, Positions, attention_mask
from serendifflib.baselines.sequences import (
    catalogue_items,
    draw_unseen,
    pad_left,
    windows,
)
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.errors import ConfigError

if TYPE_CHECKING:
    from serendifflib.portrait.fold import FoldData

LOSSES = ("softmax", "bce", "gbce")
NEGATIVES = 256  # of gBCE
CALIBRATION = 0.75  # t of gBCE: 0 is plain sampled BCE


class SASRecNetwork(nn.Module):
    """Embed, add places, attend causally; tied item vectors score."""

    def __init__(
        self,
        encoder: ItemEncoder,
        length: int,
        blocks: int,
        heads: int,
        dropout: float,
        norm: str,
    ):
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.positions = Positions(length, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, width, dropout, norm=norm)
            for _ in range(blocks)
        )
        self.last = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """States of histories [B, n] after each item, [B, n, d]."""
        real = items != 0
        x = self.encoder(items) * self.encoder.width**0.5
        x = self.drop(x + self.positions(items.shape[1]))
        x = x * real.unsqueeze(-1)
        mask = attention_mask(real, causal=True)
        for block in self.blocks:
            x = block(x, mask) * real.unsqueeze(-1)
        return self.last(x)


@dataclass(eq=False, kw_only=True)
class SASRec(TorchRival):
    """SASRec with text item vectors; trained by softmax over the catalogue.

    Departures from the released code, each an option: ``norm="query"`` is
    its way of normalising (``pre`` was measured slightly better since),
    ``loss="bce"`` its single negative per position, which makes scores
    overconfident (Petrov & Macdonald 2023); with the softmax the model is a
    fair rival. ``gbce`` is the calibrated loss of gSASRec.

    Attributes:
        blocks, heads: of the Transformer.
        loss: ``softmax``, ``bce`` or ``gbce``.
        norm: ``pre`` or ``query``.
    """

    name: ClassVar[str] = "SASRec"
    blocks: int = 2
    heads: int = 2
    loss: str = "softmax"
    norm: str = "pre"

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ConfigError(
                f"SASRec: unknown loss {self.loss!r}: choose one of "
                f"{', '.join(LOSSES)}"
            )

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """The network of :class:`SASRecNetwork`."""
        return SASRecNetwork(
            ItemEncoder(vectors, self.width, self.inputs),
            self.max_history,
            self.blocks,
            self.heads,
            self.dropout,
            self.norm,
        )

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """Next item at every position, then the labelled target."""
        length = self.max_history + 1
        rows = pad_left(windows(fold.training_histories(), length), length)
        pool = torch.from_numpy(catalogue_items(fold))

        def next_item(index: torch.Tensor) -> torch.Tensor:
            sequence = rows[index]
            used = int((sequence != 0).any(0).int().argmax())
            sequence = sequence[:, used:]
            given, wanted = sequence[:, :-1], sequence[:, 1:]
            states = self.network(given.to(self.place))
            where = given != 0
            return self.position_loss(
                states[where.to(self.place)],
                wanted[where],
                sequence.repeat_interleave(where.sum(1), dim=0),
                pool,
                generator,
            )

        def labelled(index: torch.Tensor) -> torch.Tensor:
            histories, targets = self.batch(fold.train, index)
            states = self.network(histories)[:, -1]
            seen = torch.cat([histories, targets.unsqueeze(1)], dim=1)
            return self.position_loss(
                states, targets.cpu(), seen.cpu(), pool, generator
            )

        return self.two_stages(fold, (len(rows), next_item), labelled)

    def position_loss(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        seen: torch.Tensor,
        pool: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Loss of states [M, d] that should point at targets [M].

        ``seen`` [M, n] are items that no negative may be.
        """
        encoder = self.network.encoder
        if self.loss == "softmax":
            return catalogue_loss(
                states,
                targets.to(self.place),
                encoder,
                self.n_items,
                generator=generator,
            )
        count = 1 if self.loss == "bce" else NEGATIVES
        count = min(count, len(pool) - 1)
        negatives = draw_unseen(seen, count, pool, generator)
        positive = (states * encoder(targets.to(self.place))).sum(-1)
        others = torch.einsum(
            "md,mkd->mk", states, encoder(negatives.to(self.place))
        )
        if self.loss == "bce":
            return (F.softplus(-positive) + F.softplus(others[:, 0])).mean()
        beta = gbce_power(count, self.n_items, CALIBRATION)
        loss = beta * F.softplus(-positive) + F.softplus(others).sum(1)
        return (loss / (count + 1)).mean()

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Inner product of the last state with each candidate, [B, C]."""
        state = self.network(histories)[:, -1]
        return inner_products(state, candidates, self.network.encoder)


def gbce_power(negatives: int, n_items: int, calibration: float) -> float:
    """Power beta of the positive term of gBCE (Petrov & Macdonald 2023).

    With K negatives of N - 1, alpha = K / (N - 1) and
    beta = alpha (t (1 - 1/alpha) + 1/alpha): t = 0 gives 1 (plain sampled
    BCE), t = 1 gives alpha, the fully calibrated loss.
    """
    alpha = negatives / (n_items - 1)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
