"""BERT4Rec (Sun et al., CIKM 2019): bidirectional encoder, Cloze task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines import layers
from serendifflib.baselines.sampling import last_items, windows
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.portrait.fold import FoldData


class BERT4RecNetwork(nn.Module):
    """Post-norm encoder over items and MASK, with the tied output head.

    MASK is item number N + 1 here and never a candidate.
    """

    def __init__(
        self,
        encoder: layers.ItemEncoder,
        length: int,
        blocks: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.mask_number = encoder.n_items + 1
        self.mask_vector = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = layers.Positions(length, width)
        self.first = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        how = {"norm": "post", "activation": "gelu"}
        self.blocks = layers.Blocks(
            blocks, width, heads, 4 * width, dropout, **how
        )
        self.head = nn.Linear(width, width)
        self.last = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(encoder.n_items + 1))

    def forward(self, items: Tensor) -> Tensor:
        """Head outputs of sequences [B, n] with MASKs, [B, n, d]."""
        masked = items == self.mask_number
        x = self.encoder(items.masked_fill(masked, 0))
        x = x * self.encoder.width**0.5
        x = torch.where(masked.unsqueeze(-1), self.mask_vector, x)
        x = self.drop(self.first(x + self.positions(items.shape[1])))
        return self.last(F.gelu(self.head(self.blocks(x, items != 0))))


@dataclass(eq=False, kw_only=True)
class BERT4Rec(TorchRival):
    """BERT4Rec with text item vectors.

    The Cloze task hides items anywhere; at inference MASK stands last. So
    a share of the training rows hides the last item only, without which the
    model is much weaker (RecBole learned it in 2022). It needs more steps
    than SASRec (Petrov & Macdonald 2022).

    Attributes:
        blocks, heads: of the Transformer.
        masked_share: rho, share of hidden items in a Cloze row.
        last_only: share of rows that hide the last item only.
        use_bias: a learned number per item, as in the original; untrained
            for items that training never saw, so off here.
    """

    name = "BERT4Rec"
    warmup = 100  # as published
    blocks: int = 2
    heads: int = 2
    masked_share: float = 0.2
    last_only: float = 0.5
    use_bias: bool = False

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        network = BERT4RecNetwork(
            layers.ItemEncoder(vectors, self.width, self.inputs),
            self.max_history,
            self.blocks,
            self.heads,
            self.dropout,
        )
        network.bias.requires_grad_(self.use_bias)
        return network

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Cloze rows of all training users, then the labelled targets."""
        rows = windows(fold.training_histories(), self.max_history)

        def loss(states: Tensor, targets: Tensor) -> Tensor:
            return layers.catalogue_loss(
                states,
                targets.to(self.place),
                self.network.encoder,
                self.n_items,
                generator=generator,
                bias=self.network.bias,
            )

        def cloze(index: Tensor) -> Tensor:
            sequence = last_items(rows[index], rows.shape[1])
            hidden = hide(
                sequence, self.masked_share, self.last_only, generator
            )
            given = sequence.masked_fill(hidden, self.n_items + 1)
            states = self.network(given.to(self.place))
            return loss(states[hidden.to(self.place)], sequence[hidden])

        def labelled(index: Tensor) -> Tensor:
            histories, targets = self.batch(fold.train, index)
            return loss(self._state(histories), targets)

        return self.two_stages(fold, len(rows), cloze, labelled)

    def with_mask(self, histories: Tensor) -> Tensor:
        """The newest L - 1 items of [B, n], then MASK; [B, <= L]."""
        kept = histories[
            :, max(0, histories.shape[1] - self.max_history + 1) :
        ]
        mask = kept.new_full((len(kept), 1), self.n_items + 1)
        return torch.cat([kept, mask], dim=1)

    def _state(self, histories: Tensor) -> Tensor:
        """Output at MASK, [B, d]."""
        return self.network(self.with_mask(histories))[:, -1]

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Inner product of the output at MASK with each candidate."""
        state, encoder = self._state(histories), self.network.encoder
        scores = layers.inner_products(state, candidates, encoder)
        return scores + self.network.bias[candidates]


def hide(
    items: Tensor, share: float, last_only: float, generator: Generator
) -> Tensor:
    """Which places of each row to replace by MASK, bool [B, n].

    Of left-padded items [B, n] max(1, round(``share`` * length)) places are
    hidden, in the share ``last_only`` of the rows the last one alone; never
    padding.
    """
    real = items != 0
    lengths = real.sum(1)
    count = (share * lengths).round().long().clamp(min=1)
    order = torch.rand(items.shape, generator=generator)
    order = order.masked_fill(~real, 2.0)
    rank = order.argsort(dim=1).argsort(dim=1)
    hidden = rank < count.unsqueeze(1)
    last = torch.zeros_like(real)
    last[:, -1] = True
    only = torch.rand(len(items), generator=generator) < last_only
    return torch.where(only.unsqueeze(1), last, hidden)
