"""A discriminative ranker over the same portrait: is generating needed?

It sees what SerenDiff sees - the vectors of the history and where they lie
on the portrait - and learns from the same labels, but it scores candidates
directly. Two greedy re-rankers of its list bring variety without several
answers.

Shapes: B users, n history length, C candidates, N items, d width of the item
vectors, D numbers per item, M examples, K negatives, L side of the grid, A
answers, P prototypes, T items that are picked anew.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.base import NEGATIVES, targets_and_negatives
from serendifflib.baselines.layers import Blocks, masked_mean
from serendifflib.baselines.trainer import Batch, Stage, TorchRival
from serendifflib.data.splits import Examples
from serendifflib.diffusion.base import (
    PlacedItems,
    pad_positions,
    training_placement,
)
from serendifflib.diffusion.linear import history_means
from serendifflib.errors import check_choice
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.grid import Grid
from serendifflib.portrait.items import shares, with_memberships
from serendifflib.portrait.portrait import cell_number, cell_of

POOL = 400  # negatives kept per example; each step samples among them
PER_USER = 5  # next-item targets per user, as SerenDiff's pre-training


class PortraitEncoder(nn.Module):
    """A set transformer over a history on the portrait.

    A token is the item's vector (unit rows, [N + 1, d]), the cell of its
    position and the position itself; time is not used, as in a portrait.
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
        self.blocks = Blocks(layers, width, heads, 2 * width, dropout)
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
        x = self.last(self.blocks(x, real))
        mean = history_means(items, self.vectors)
        return masked_mean(x, real), self.drop(mean)


class SetRankerNetwork(PortraitEncoder):
    """History tokens -> user vectors and a bias per cell.

    A user vector is a learned correction of the plain history mean, so that
    the network starts as a linear map.
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
        """Of portraits (``encode``): u [B, A, width], biases [B, A, L * L]."""
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
    grid: Grid | None = None

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

    It makes a user vector u, and score(c) = <W e_c, u> + bias_u[cell of c].
    With A > 1 answers there are A of both, and the score is the log-sum-exp
    of theirs: the control for all that claims to help by several answers.

    Attributes:
        answers: A.
        negatives: K, per example and step.
        draw: ``uniform`` or ``cells``, see
            :func:`~serendifflib.baselines.base.draw_negatives`; with the
            second the model learns what the candidate lists favour, too.
    """

    name = "Set ranker"
    hasty = False
    answers: int = 1
    negatives: int = 200
    draw: str = "uniform"

    def __post_init__(self):
        check_choice("negatives", self.draw, NEGATIVES, self.name)

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        points = with_memberships(vectors, self.prototypes)
        return SetRankerNetwork(points, self.answers, **self.encoder(fold))

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Next items given their prefix (if asked), then the labels."""
        first, second = self.budget.pretrain_steps, self.budget.max_steps
        parts = [(fold.kind, fold.train, second)]
        if fold.kind == "serendipity" and first:
            examples = fold.next_items(PER_USER, self.max_history)
            parts.insert(0, ("next-item", examples, first))
        stages = []
        for kind, examples, steps in parts:
            placed = self.place_examples(fold, examples, generator)
            loss = self._loss(placed, generator)
            stages.append(Stage(kind, len(examples), loss, steps, self.rate))
        return stages

    def _loss(self, placed: PlacedItems, generator: Generator) -> Batch:
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
        self, fold: FoldData, examples: Examples, generator: Generator
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
        pasts = [self.grid.look(row).past for row in known[0].numpy()]
        positions = pad_positions(pasts, histories.shape[1]).float()
        state = self.network(histories, positions.to(self.place))
        cells = self.grid.cells(*known).to(self.place)
        return self.network.rate(*state, candidates, cells)


@dataclass(eq=False, kw_only=True)
class Reranker(SetRanker):
    """A set ranker with one answer, and the greedy choice among its best.

    The first T items are picked anew, the others keep their order behind
    them. Picks go by ``(1 - trade) * relevance + trade * gain``: relevance is
    the ranker's score, scaled to 0..1 within the T, and the gain is what a
    subclass says.

    Attributes:
        prototypes: what the gain is counted in, and the ranker sees.
        length: T.
        trade: before it is chosen.
        trades: to choose from on the validation users; 0 is the ranker.
    """

    name = "a re-ranker"
    prototypes: int = 100
    length: int = 50
    trade: float = 0.0
    trades: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4)

    def tuning(self) -> dict[str, tuple[float, ...]]:
        """How much of the ranker's score to give up."""
        return {"trade": self.trades}

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """The ranker's scores, or those of the greedy choice."""
        rated = super().score_batch(histories, candidates)
        trade = self.option("trade")  # 0 while the ranker is trained
        if not trade:
            return rated
        known = (rated.cpu(), histories.cpu(), candidates.cpu())
        return self.pick(*known, trade)

    @abstractmethod
    def _begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Facts of items [B, T], and the state of a list without any.

        Returns:
            What is known of each item [B, T, D]; what it gains whatever is
            listed [B, T]; the state, what the list has already.
        """

    @abstractmethod
    def _gain(self, known: Tensor, state: Tensor) -> Tensor:
        """What each item adds to the lists, [B, T]."""

    @abstractmethod
    def _add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        """The state once items with facts ``new`` [B, D] are listed."""

    def pick(
        self,
        rated: Tensor,
        histories: Tensor,
        candidates: Tensor,
        trade: float,
    ) -> Tensor:
        """Scores [B, C] in the order of the greedy choice.

        The ranker ``rated`` the candidates; ``trade`` is the gain's weight.
        """
        length = min(self.length, candidates.shape[1])
        top, places = rated.topk(length, dim=1)
        low, high = top[:, -1:], top[:, :1]
        relevance = (top - low) / (high - low).clamp(min=1e-9)
        known, always, state = self._begin(
            histories, candidates.gather(1, places)
        )
        rows = torch.arange(len(rated))
        scores = rated - high - 1.0  # whoever is not picked stands behind
        free = torch.zeros_like(top)
        for step in range(length):
            gain = always + self._gain(known, state)
            value = (1 - trade) * relevance + trade * gain + free
            best = value.argmax(dim=1)
            scores[rows, places[rows, best]] = float(length - step)
            free[rows, best] = -torch.inf
            state = self._add(known, state, known[rows, best])
        return scores


class MMR(Reranker):
    """Maximal marginal relevance (Carbonell and Goldstein 1998).

    The gain is one minus the highest cosine with an item of the list.
    Content is the item vector and its memberships, as for SerenDiff.
    """

    name = "Set ranker + MMR"

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        points = with_memberships(vectors, self.prototypes)
        self.points = F.normalize(points.float(), dim=1)
        return super()._build(fold, vectors)

    def _begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points; the state is the highest cosine so far, [B, T]."""
        nothing = torch.zeros(items.shape)
        return self.points[items], nothing, nothing

    def _gain(self, known: Tensor, state: Tensor) -> Tensor:
        return 1.0 - state

    def _add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        return state.maximum((known @ new[:, :, None])[:, :, 0])


class SOG(Reranker):
    """After the serendipity-oriented greedy algorithm of Kotkov et al. (2020).

    It wants features that the list lacks and features that the user has not
    met. Their features are the genres of a film; ours are the shares in
    prototypes, so that a count of features becomes a sum of shares:

        gain = sum over p of s_p (1 - listed_p) + s_p (1 - met_p),

    where listed and met are the largest shares in the list and the history.
    """

    name = "Set ranker + SOG"

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        self.shares = shares(vectors, self.prototypes).float()
        return super()._build(fold, vectors)

    def _begin(
        self, histories: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shares; the state is what is listed, [B, P]."""
        known = self.shares[items]
        met = self.shares[histories].amax(dim=1, keepdim=True)
        unmet = (known * (1.0 - met)).sum(dim=2)
        return known, unmet, torch.zeros(len(items), known.shape[2])

    def _gain(self, known: Tensor, state: Tensor) -> Tensor:
        return (known * (1.0 - state[:, None])).sum(dim=2)

    def _add(self, known: Tensor, state: Tensor, new: Tensor) -> Tensor:
        return state.maximum(new)


RERANKERS: dict[str, type[Reranker]] = {"mmr": MMR, "sog": SOG}
