"""Masked diffusion over strings of tokens, such as a serendipity point.

A point of discrete parts (a cell, a kind of item) is a string of tokens.
Diffusion with an absorbing state (Austin et al. 2021, D3PM; Sahoo et al.
2024, MDLM) hides tokens behind a mask, each for ever once it is hidden, and
learns to give them back:

    q(x_t | x_0): token r is masked with probability t, else it is x_0[r]
    loss = E_t 1/t E_q sum over masked r of -log p(x_0[r] | x_t, user)

The number m of masked tokens is then uniform on 1..R, every subset of that
size is equally likely, and the weight becomes R / m: that is what
:func:`masked_loss` draws, t being integrated out. A token may be unmasked
after any others, so the network knows p(x) by the chain rule in every order.
Where strings are short the whole table p(x | user) is exact in a few calls
(:func:`log_table`), and a draw (:func:`draw`) takes R.

Letters: B users, n history length, S states per user, R tokens per string,
V_r values of token r, D channels of what the network sees of an item, L side
of the portrait, w width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Order = tuple[int, ...]
Parts = dict[tuple[int, ...], Tensor]  # visible tokens, then the asked
Answer = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Memory:
    """What a network keeps of users while it fills in their tokens.

    Attributes:
        keys: the items of the history at their cells, [B, n, w].
        padding: where there is no item, bool [B, n].
        summary: of the whole history, [B, w].
    """

    keys: Tensor
    padding: Tensor
    summary: Tensor


class TokenNetwork(nn.Module):
    """Probabilities of every token, given those that are not masked.

    The visible tokens ask, the occupied cells of the portrait answer
    (cross-attention), and residual layers turn the answer into logits. A
    linear view of the history's mean is added, so that few labels suffice
    for what a linear map can say.

    Args:
        sizes: V_r of every token; the value V_r itself is the mask.
        channels: D.
        side: L.
        width: w.
        heads: of the attention; a divisor of w.
        layers: residual layers after the attention.
        dropout: of the layers and of what is seen of the user.
        thinning: share of the history that training hides at random; a
            portrait with fewer items is another portrait of the same user.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        channels: int,
        side: int,
        *,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.2,
        thinning: float = 0.0,
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        self.side = side
        self.thinning = thinning
        self.tokens = nn.ModuleList(
            nn.Embedding(size + 1, width) for size in self.sizes
        )
        self.content = nn.Linear(channels, width)
        self.row = nn.Embedding(side, width)
        self.column = nn.Embedding(side, width)
        self.mean = nn.Linear(channels, width)
        self.ask = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, heads, dropout=dropout, batch_first=True
        )
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(layers)
        )
        self.heads = nn.ModuleList(
            nn.Linear(width, size) for size in self.sizes
        )
        self.drop = nn.Dropout(dropout)
        for table in (*self.tokens, self.row, self.column):
            nn.init.normal_(table.weight, std=0.1)
        for head in self.heads:  # at first every value is equally likely
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def remember(self, points: Tensor, cells: Tensor, real: Tensor) -> Memory:
        """Look at portraits once, for any number of states.

        Args:
            points: what is known of the history items, [B, n, D].
            cells: grid indices (expectedness, relevance), [B, n, 2].
            real: where there is an item, bool [B, n].
        """
        if self.training and self.thinning:
            real = thin(real, self.thinning)
        keys = self.content(self.drop(points))
        keys = keys + self.row(cells[..., 0]) + self.column(cells[..., 1])
        weights = real.to(points.dtype)[..., None]
        mean = (points * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return Memory(keys, ~real, self.mean(self.drop(mean)))

    def forward(
        self, states: Tensor, points: Tensor, cells: Tensor, real: Tensor
    ) -> list[Tensor]:
        """Look at portraits and answer, as training does in one go."""
        return self.answer(states, self.remember(points, cells, real))

    def answer(
        self, states: Tensor, memory: Memory, which: int | None = None
    ) -> list[Tensor]:
        """Log-probabilities of all tokens, or of one of them.

        Args:
            states: tokens, V_r where token r is masked, [B, S, R].
            memory: of the B users.
            which: the only token that is asked for.

        Returns:
            one [B, S, V_r] for each token that is asked for.
        """
        hidden = memory.summary[:, None] + sum(
            table(states[..., r]) for r, table in enumerate(self.tokens)
        )
        answer, _ = self.attention(
            self.ask(hidden),
            memory.keys,
            memory.keys,
            key_padding_mask=memory.padding,
            need_weights=False,
        )
        hidden = hidden + answer
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        asked = range(len(self.sizes)) if which is None else (which,)
        return [self.heads[r](hidden).log_softmax(dim=-1) for r in asked]


def thin(real: Tensor, share: float) -> Tensor:
    """Hide a share of the items of portraits, bool [B, n].

    A portrait that would be left without any keeps them all.
    """
    kept = real & (torch.rand(real.shape, device=real.device) >= share)
    return torch.where(kept.any(dim=1, keepdim=True), kept, real)


def masked_loss(
    answer: Answer,
    sizes: Sequence[int],
    tokens: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Upper bound on -log p(tokens | user), mean over users.

    In expectation it is the mean over all orders of the chain rule.

    Args:
        answer: the network's, states [B, S, R] -> one [B, S, V_r] per token.
        sizes: V_r of every token.
        tokens: x_0, [B, R].
        generator: draws what is masked (on the processor).
    """
    masked = draw_masks(tokens.shape, generator).to(tokens.device)
    states = torch.where(masked, tokens.new_tensor(sizes), tokens)
    surprise = torch.stack(
        [
            -part[:, 0].gather(1, tokens[:, r : r + 1])[:, 0]
            for r, part in enumerate(answer(states[:, None]))
        ],
        dim=1,
    )
    share = masked.to(surprise.dtype).mean(dim=1)
    return ((surprise * masked).sum(dim=1) / share).mean()


def draw_masks(
    shape: torch.Size | tuple[int, int], generator: torch.Generator
) -> Tensor:
    """A random subset of each row's tokens, its size uniform on 1..R.

    Returns:
        bool [B, R]; every row has at least one.
    """
    count, length = shape
    size = torch.randint(1, length + 1, (count, 1), generator=generator)
    place = torch.rand(count, length, generator=generator).argsort(dim=1)
    return place.argsort(dim=1) < size


def log_table(
    network: TokenNetwork, memory: Memory, orders: Sequence[Order]
) -> Tensor:
    """The exact log-probability of every string of tokens.

    One order costs R calls: the chain rule with all values of the tokens
    before. A network that has learned only in part says something else in
    each order; the mean of the probabilities is a distribution again.

    Args:
        network: of the tokens.
        memory: of B users.
        orders: to average over, each a permutation of 0..R-1.

    Returns:
        [B, V_1, ..., V_R]; the exponentials of a user's table sum to one.
    """
    known: Parts = {}  # what two orders have in common is asked once
    tables = [_chain(network, memory, order, known) for order in orders]
    total = torch.stack(tables).logsumexp(dim=0)
    return total - math.log(len(tables))


def _chain(
    network: TokenNetwork, memory: Memory, order: Order, known: Parts
) -> Tensor:
    """Sum over r of log p(x_r | those before it in ``order``).

    Answers are looked up in ``known``, and new ones added to it.
    """
    sizes, users = network.sizes, len(memory.summary)
    total = memory.summary.new_zeros(())
    for step, which in enumerate(order):
        before = sorted(order[:step])
        asked = (*before, which)
        if asked not in known:
            states = _states(sizes, before).to(memory.summary.device)
            states = states.expand(users, -1, -1)
            (known[asked],) = network.answer(states, memory, which)
        part = known[asked]
        # [B, states, V] -> one axis per token, those still masked of size 1
        part = part.view(users, *(sizes[r] for r in before), sizes[which])
        part = part.movedim(-1, 1 + sum(r < which for r in before))
        seen = [r == which or r in before for r in range(len(sizes))]
        shape = [size if s else 1 for size, s in zip(sizes, seen, strict=True)]
        total = total + part.reshape(users, *shape)
    return total


def _states(sizes: Sequence[int], visible: Sequence[int]) -> Tensor:
    """All values of the ``visible`` tokens, the rest masked: [S, R]."""
    ranges = [
        torch.arange(size) if r in visible else torch.tensor([size])
        for r, size in enumerate(sizes)
    ]
    return torch.cartesian_prod(*ranges).view(-1, len(sizes))


def draw(network: TokenNetwork, memory: Memory, uniform: Tensor) -> Tensor:
    """Draw strings token by token, in a random order each.

    Args:
        network: of the tokens.
        memory: of B users.
        uniform: numbers in [0, 1) that decide, [B, S, 2 R]: the first R of
            them the order, the others the values.

    Returns:
        tokens [B, S, R].
    """
    length = len(network.sizes)
    turn, value = uniform.split(length, dim=-1)
    order = turn.argsort(dim=-1)
    limits = torch.tensor(network.sizes, device=uniform.device)
    states = limits.expand(*uniform.shape[:2], length).clone()
    for step in range(length):
        parts = network.answer(states, memory)
        for r, part in enumerate(parts):
            below = part.exp().cumsum(dim=-1) < value[..., r : r + 1]
            drawn = below.sum(dim=-1).clamp(max=network.sizes[r] - 1)
            now = order[..., step] == r
            states[..., r] = torch.where(now, drawn, states[..., r])
    return states
