"""A discriminative ranker over the same portrait: is generating needed?

It sees what SerenDiff sees - the vectors of the history and where they lie
on the portrait - and learns from the same labels, but it scores candidates
directly: a two-layer set transformer makes a user vector u, and

    score(c) = <W e_c, u> + bias_u[cell of c],

trained by softmax over the labelled item and random negatives. One user
vector is one answer. With ``answers`` A > 1 there are A of them, each with
its own cells, and the score is the log-sum-exp of theirs: the control for
everything that claims to help by having several answers.

Shapes: B users, n history length, C candidates, N items, d width of the item
vectors, M examples, K negatives, L side of the grid, A answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.baselines.base import check_draw, draw_negatives
from serendifflib.baselines.layers import Block, attention_mask, masked_mean
from serendifflib.baselines.sequences import catalogue_items, pad_positions
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.data.splits import make_examples
from serendifflib.diffusion.linear import history_means
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import join, memberships
from serendifflib.portrait.portrait import cell_of

if TYPE_CHECKING:
    from serendifflib.data.splits import Examples
    from serendifflib.portrait.fold import FoldData

POOL = 400  # negatives kept per example; each step samples among them
PER_USER = 5  # next-item targets per user, as SerenDiff's pre-training


class PortraitEncoder(nn.Module):
    """What a set transformer reads from a history on the portrait.

    A token is the item's vector, the cell of its position and the position
    itself; the order in time is not used, as in a portrait.

    Args:
        vectors: unit item vectors [N + 1, d].
        width: of the tokens.
        side: L.
        layers, heads, dropout: of the transformer.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        width: int,
        side: int,
        layers: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        channels = vectors.shape[1]
        self.side = side
        # rows of length sqrt(d): the linear layers see unit variance
        scaled = vectors * channels**0.5
        self.register_buffer("vectors", scaled, persistent=False)
        self.content = nn.Linear(channels, width)
        self.place = nn.Linear(2, width)
        self.row = nn.Embedding(side, width)
        self.column = nn.Embedding(side, width)
        for table in (self.row, self.column):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.ModuleList(
            Block(width, heads, 2 * width, dropout) for _ in range(layers)
        )
        self.last = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def encode(
        self, items: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read portraits.

        Args:
            items: histories [B, n], left-padded with 0.
            positions: (expectedness, relevance) in [0, 1], [B, n, 2].

        Returns:
            mean token [B, width] and mean item vector [B, d], which a
            linear map may use.
        """
        real = items != 0
        cells = cell_of(positions, self.side)
        x = self.content(self.drop(self.vectors[items]))
        x = x + self.place(2.0 * positions - 1.0)
        x = x + self.row(cells[..., 0]) + self.column(cells[..., 1])
        mask = attention_mask(real, causal=False)
        for block in self.blocks:
            x = block(x, mask)
        mean = history_means(items, self.vectors)
        return masked_mean(self.last(x), real), self.drop(mean)


class SetRankerNetwork(PortraitEncoder):
    """History tokens -> user vectors and a bias per cell.

    A user vector is a learned correction of the plain history mean, so that
    the network starts as a linear map.

    Args:
        vectors, width, side, layers, heads, dropout: of the encoder; ``u``
            has the same width.
        answers: A.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        width: int,
        side: int,
        layers: int,
        heads: int,
        dropout: float,
        answers: int = 1,
    ):
        super().__init__(vectors, width, side, layers, heads, dropout)
        channels = vectors.shape[1]
        self.answers = answers
        self.user = nn.Linear(width, answers * width)
        self.linear = nn.Linear(channels, answers * width)
        self.cell = nn.Linear(width, answers * side * side)
        nn.init.zeros_(self.cell.weight)
        nn.init.zeros_(self.cell.bias)
        self.item = nn.Linear(channels, width, bias=False)

    def forward(
        self, items: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """User vectors and cell biases of portraits (``encode``).

        Returns:
            u [B, A, width] and biases [B, A, L * L].
        """
        x, mean = self.encode(items, positions)
        users = self.user(x) + self.linear(mean)
        return (
            users.unflatten(1, (self.answers, -1)),
            self.cell(x).unflatten(1, (self.answers, -1)),
        )

    def rate(
        self,
        users: torch.Tensor,
        biases: torch.Tensor,
        items: torch.Tensor,
        cells: torch.Tensor,
    ) -> torch.Tensor:
        """Scores [B, C] of items in cells, for users from :meth:`forward`."""
        distinct, place = items.unique(return_inverse=True)
        keys = self.item(self.vectors[distinct])
        scores = [
            (user @ keys.T / keys.shape[1]).gather(1, place)
            + bias.gather(1, cells)
            for user, bias in zip(
                users.unbind(1), biases.unbind(1), strict=True
            )
        ]
        return torch.stack(scores).logsumexp(dim=0)


@dataclass(frozen=True)
class Placed:
    """Examples with what the network needs of them.

    Attributes:
        histories: LongTensor [M, n].
        positions: of the history items, FloatTensor [M, n, 2].
        items: targets, then negatives, LongTensor [M, 1 + P].
        cells: flat cells of ``items``, uint8 or int16 [M, 1 + P].
    """

    histories: torch.Tensor
    positions: torch.Tensor
    items: torch.Tensor
    cells: torch.Tensor


@dataclass(eq=False, kw_only=True)
class SetRanker(TorchRival):
    """Two-layer set transformer over the portrait, softmax on the labels.

    Attributes:
        layers, heads: of the transformer.
        answers: A; several are several heads, joined by log-sum-exp.
        prototypes: memberships in so many stand beside each item vector, as
            for SerenDiff; 0 is none.
        negatives: K, negatives per example and step.
        draw: how to draw them, ``uniform`` over the catalogue or over
            ``cells`` first (:func:`~serendifflib.baselines.base.
            draw_negatives`); with the second the model learns what the
            candidate lists favour, too.
        per_user: next-item targets per user in pre-training.
        grid: looks to share; None makes an own one.
    """

    name: ClassVar[str] = "Set ranker"
    max_history: int = 100
    lr: float = 1e-3
    weight_decay: float = 1e-2
    layers: int = 2
    heads: int = 2
    answers: int = 1
    prototypes: int = 0
    negatives: int = 200
    draw: str = "uniform"
    per_user: int = PER_USER
    grid: InitVar[Grid | None] = None

    def __post_init__(self, grid: Grid | None):
        check_draw(self.name, self.draw)
        self.grid = grid  # no field: it is shared, not a setting

    def build(self, fold: FoldData, vectors: torch.Tensor) -> nn.Module:
        """The network; also the grid, which validation needs too."""
        if self.grid is None:
            self.grid = Grid.of(fold)
        return SetRankerNetwork(
            join(vectors, memberships(vectors, self.prototypes)),
            self.width,
            self.grid.side,
            self.layers,
            self.heads,
            self.dropout,
            self.answers,
        )

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """Next items given their prefix (if asked), then the labels."""
        stages = []
        if fold.kind == "serendipity" and self.budget.pretrain_steps:
            examples = make_examples(
                fold.interactions,
                fold.split.train_users,
                "all-next",
                max_history=self.max_history,
                per_user=self.per_user,
                min_history=2,
            )
            known = ~np.isin(examples.targets.numpy(), fold.missing_items)
            known &= np.isin(examples.rows, fold.training_rows)
            stages.append(
                self._stage(
                    "next-item",
                    fold,
                    examples.subset(known),
                    self.budget.pretrain_steps,
                    generator,
                )
            )
        stages.append(
            self._stage(
                fold.kind, fold, fold.train, self.budget.max_steps, generator
            )
        )
        return stages

    def _stage(
        self,
        name: str,
        fold: FoldData,
        examples: Examples,
        steps: int,
        generator: torch.Generator,
    ) -> Stage:
        placed = self.place_examples(fold, examples, generator)
        kept = placed.items.shape[1] - 1

        def loss(index: torch.Tensor) -> torch.Tensor:
            columns = torch.randint(
                1, kept + 1, (self.negatives,), generator=generator
            )
            columns = torch.cat([columns.new_zeros(1), columns])
            items = placed.items[index][:, columns].to(self.place)
            cells = placed.cells[index][:, columns].long().to(self.place)
            state = self.network(
                placed.histories[index].to(self.place),
                placed.positions[index].to(self.place),
            )
            logits = self.network.rate(*state, items, cells)
            wrong = F.pad(items[:, 1:] == items[:, :1], (1, 0))
            logits = logits.masked_fill(wrong, -1e9)
            return F.cross_entropy(logits, torch.zeros_like(items[:, 0]))

        return Stage(name, len(examples), loss, steps, self.lr)

    def place_examples(
        self, fold: FoldData, examples: Examples, generator: torch.Generator
    ) -> Placed:
        """Place training examples and draw their pools of negatives."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        random = np.random.default_rng(seed)
        pool, data = catalogue_items(fold), fold.interactions
        m, n = examples.histories.shape
        items = np.zeros((m, 1 + POOL), dtype=np.int64)
        items[:, 0] = examples.targets.numpy()
        for row, user in enumerate(examples.users):
            own = data.item_index[data.rows(int(user))]
            cells = None
            if self.draw == "cells":
                cells = self.grid.training_look(fold, examples, row).cells
            items[row, 1:] = draw_negatives(
                cells, pool, own, POOL, self.draw, random
            )
        placed = self.grid.place_training(fold, examples, items)
        positions = np.zeros((m, n, 2), dtype=np.float32)
        for row, past in enumerate(placed.past):
            positions[row, n - len(past) :] = past
        cells = self.grid.cells_of(placed).astype(np.int16)
        return Placed(
            examples.histories,
            torch.from_numpy(positions),
            torch.from_numpy(items),
            torch.from_numpy(cells),
        )

    def _validate(
        self, fold: FoldData, stage: Stage
    ) -> Callable[[], float] | None:
        """NDCG@10 as everybody's, with users and candidates placed once."""
        validation = self._cases(fold, stage)
        if validation is None:
            return None
        positions = self._positions(validation.histories)
        cells = self.grid.cells(validation.histories, validation.candidates)

        def value(batch: int = 64) -> float:
            parts = zip(
                positions.split(batch), cells.split(batch), strict=True
            )
            return validation.ndcg(
                lambda histories, candidates: self._rate(
                    histories, candidates, *next(parts)
                ),
                batch=batch,
            )

        return value

    def score_batch(
        self, histories: torch.Tensor, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Inner product with the user vector plus the cell's bias."""
        return self._rate(
            histories.cpu(),
            candidates.cpu(),
            self._positions(histories.cpu()),
            self.grid.cells(histories.cpu(), candidates.cpu()),
        )

    def _rate(
        self,
        histories: torch.Tensor,
        candidates: torch.Tensor,
        positions: torch.Tensor,
        cells: torch.Tensor,
    ) -> torch.Tensor:
        state = self.network(
            histories.to(self.place), positions.to(self.place)
        )
        scores = self.network.rate(
            *state, candidates.to(self.place), cells.to(self.place)
        )
        return scores.cpu()

    def _positions(self, histories: torch.Tensor) -> torch.Tensor:
        """Positions [B, n, 2] of the items of unknown users."""
        pasts = [self.grid.look(history).past for history in histories.numpy()]
        return pad_positions(pasts, histories.shape[1])
