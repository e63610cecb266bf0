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

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.base import NEGATIVES, targets_and_negatives
from serendifflib.baselines.layers import Block, attention_mask, masked_mean
from serendifflib.baselines.sequences import pad_positions
from serendifflib.baselines.trainer import Batch, Stage, TorchRival
from serendifflib.diffusion.base import PlacedItems, training_placement
from serendifflib.diffusion.linear import history_means
from serendifflib.errors import check_choice
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import with_memberships
from serendifflib.portrait.portrait import cell_number, cell_of

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
        vectors: Tensor,
        *,
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
        self, items: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean token [B, width] and mean item vector [B, d] of portraits.

        ``items`` are histories [B, n], left-padded with 0, at positions
        (expectedness, relevance) in [0, 1], [B, n, 2].
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
        vectors: unit item vectors [N + 1, d].
        answers: A.
        options: of the encoder; ``u`` has its width.
    """

    def __init__(self, vectors: Tensor, answers: int = 1, **options):
        super().__init__(vectors, **options)
        channels, width = vectors.shape[1], options["width"]
        self.answers = answers
        self.user = nn.Linear(width, answers * width)
        self.linear = nn.Linear(channels, answers * width)
        self.cell = nn.Linear(width, answers * self.side**2)
        nn.init.zeros_(self.cell.weight)
        nn.init.zeros_(self.cell.bias)
        self.item = nn.Linear(channels, width, bias=False)

    def forward(
        self, items: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
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
        self, users: Tensor, biases: Tensor, items: Tensor, cells: Tensor
    ) -> Tensor:
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


@dataclass(eq=False, kw_only=True)
class PortraitRival(TorchRival):
    """What rivals share that read a portrait: its grid and the encoder.

    Attributes:
        layers, heads: of the encoder.
        prototypes: memberships in so many stand beside each item vector, as
            for SerenDiff; 0 is none.
        grid: looks to share; None makes an own one.
    """

    max_history: int = 100
    weight_decay: float = 1e-2
    layers: int = 2
    heads: int = 2
    prototypes: int = 0
    grid: InitVar[Grid | None] = None

    def __post_init__(self, grid: Grid | None):
        self.grid = grid  # no field: it is shared, not a setting

    def encoder(self, fold: FoldData) -> dict[str, Any]:
        """Options of :class:`PortraitEncoder`; makes a grid, if need be."""
        if self.grid is None:
            self.grid = Grid.of(fold)
        return {
            "width": self.width,
            "side": self.grid.side,
            "layers": self.layers,
            "heads": self.heads,
            "dropout": self.dropout,
        }


@dataclass(eq=False, kw_only=True)
class SetRanker(PortraitRival):
    """Two-layer set transformer over the portrait, softmax on the labels.

    Attributes:
        answers: A; several are several heads, joined by log-sum-exp.
        negatives: K, negatives per example and step.
        draw: how to draw them, ``uniform`` over the catalogue or over
            ``cells`` first (:func:`~serendifflib.baselines.base.
            draw_negatives`); with the second the model learns what the
            candidate lists favour, too.
        per_user: next-item targets per user in pre-training.
    """

    name: ClassVar[str] = "Set ranker"
    hasty: ClassVar[bool] = False
    answers: int = 1
    negatives: int = 200
    draw: str = "uniform"
    per_user: int = PER_USER

    def __post_init__(self, grid: Grid | None):
        super().__post_init__(grid)
        check_choice("negatives", self.draw, NEGATIVES, self.name)

    def build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        """The network of :class:`SetRankerNetwork`."""
        points = with_memberships(vectors, self.prototypes)
        return SetRankerNetwork(points, self.answers, **self.encoder(fold))

    def stages(
        self, fold: FoldData, generator: torch.Generator
    ) -> list[Stage]:
        """Next items given their prefix (if asked), then the labels."""
        first, second = self.budget.pretrain_steps, self.budget.max_steps
        parts = [(fold.kind, fold.train, second)]
        if fold.kind == "serendipity" and first:
            examples = fold.next_items(self.per_user, self.max_history)
            parts.insert(0, ("next-item", examples, first))
        return [
            Stage(
                kind,
                len(examples),
                self._loss(
                    self.place_examples(fold, examples, generator), generator
                ),
                steps,
                self.rate,
            )
            for kind, examples, steps in parts
        ]

    def _loss(self, placed: PlacedItems, generator: torch.Generator) -> Batch:
        """Softmax of each target among some of its pool."""
        past, side = placed.portraits.positions.float(), self.grid.side

        def loss(index: Tensor) -> Tensor:
            columns = torch.randint(
                1, POOL + 1, (self.negatives,), generator=generator
            )
            columns = torch.cat([columns.new_zeros(1), columns])
            items = placed.items[index][:, columns].to(self.place)
            places = placed.positions[index][:, columns]
            cells = cell_number(cell_of(places, side), side).to(self.place)
            state = self.network(
                placed.portraits.items[index].to(self.place),
                past[index].to(self.place),
            )
            logits = self.network.rate(*state, items, cells)
            wrong = F.pad(items[:, 1:] == items[:, :1], (1, 0))
            logits = logits.masked_fill(wrong, -1e9)
            return F.cross_entropy(logits, torch.zeros_like(items[:, 0]))

        return loss

    def place_examples(
        self, fold: FoldData, examples: Examples, generator: torch.Generator
    ) -> PlacedItems:
        """Place training examples and draw their pools of negatives."""
        data = fold.interactions
        items = targets_and_negatives(
            self.grid,
            fold,
            examples,
            lambda user: data.item_index[data.rows(user)],
            POOL,
            self.draw,
            generator,
        )
        return training_placement(
            self.grid.space, fold, examples, torch.from_numpy(items)
        )

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Inner product with the user vector plus the cell's bias."""
        known = histories.cpu(), candidates.cpu()
        positions = self._positions(known[0]).to(self.place)
        state = self.network(histories, positions)
        cells = self.grid.cells(*known).to(self.place)
        return self.network.rate(*state, candidates, cells)

    def _positions(self, histories: Tensor) -> Tensor:
        """Positions [B, n, 2] of the items of unknown users."""
        pasts = [self.grid.look(history).past for history in histories.numpy()]
        return pad_positions(pasts, histories.shape[1])
