"""SASRec (Kang & McAuley, ICDM 2018): causal self-attention, next item."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines import layers
from serendifflib.baselines.sampling import draw_unseen, last_items, windows
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData

LOSSES = ("softmax", "bce")


@dataclass(eq=False, kw_only=True)
class SASRec(TorchRival):
    """SASRec with text item vectors; trained by softmax over the catalogue.

    The released code normalises by ``norm="query"`` and has a single negative
    per position (``loss="bce"``), which makes scores overconfident (Petrov &
    Macdonald 2023); with the softmax the model is a fair rival.

    Attributes:
        blocks, heads: of the Transformer.
        loss: ``softmax`` or ``bce``.
        norm: ``pre`` or ``query``.
    """

    name = "SASRec"
    blocks: int = 2
    heads: int = 2
    loss: str = "softmax"
    norm: str = "pre"

    def __post_init__(self):
        check_choice("loss", self.loss, LOSSES, "SASRec")

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        return layers.SequenceEncoder(
            layers.ItemEncoder(vectors, self.width, self.inputs),
            self.max_history,
            self.dropout,
            blocks=self.blocks,
            heads=self.heads,
            norm=self.norm,
        )

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Next item at every position, then the labelled target."""
        rows = windows(fold.training_histories(), self.max_history + 1)
        pool = torch.from_numpy(fold.catalogue)

        def loss(states: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
            """Of states [M, d] and targets [M]; no negative is seen [M, n]."""
            encoder = self.network.encoder
            if self.loss == "softmax":
                return layers.catalogue_loss(
                    states, wanted, encoder, self.n_items, generator=generator
                )
            other = draw_unseen(seen.cpu(), 1, pool, generator)[:, 0]
            positive, negative = (
                (states * encoder(items.to(self.place))).sum(-1)
                for items in (wanted, other)
            )
            return (F.softplus(-positive) + F.softplus(negative)).mean()

        def next_item(index: Tensor) -> Tensor:
            sequence = last_items(rows[index], rows.shape[1]).to(self.place)
            given, wanted = sequence[:, :-1], sequence[:, 1:]
            where = given != 0
            seen = sequence.repeat_interleave(where.sum(1), dim=0)
            return loss(self.network(given)[where], wanted[where], seen)

        def labelled(index: Tensor) -> Tensor:
            histories, targets = self.batch(fold.train, index)
            seen = torch.cat([histories, targets.unsqueeze(1)], dim=1)
            return loss(self.network(histories)[:, -1], targets, seen)

        return self.two_stages(fold, len(rows), next_item, labelled)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Inner product of the last state with each candidate, [B, C]."""
        state = self.network(histories)[:, -1]
        return layers.inner_products(state, candidates, self.network.encoder)
