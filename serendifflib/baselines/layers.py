"""Transformer parts that several rivals share.

Shapes: B sequences, n positions, d width. Sequences are left-padded, so
positions count from the newest item backwards: more padding on the left
changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines.item_encoder import ItemEncoder
from serendifflib.errors import ConfigError, check_choice

NORMS = ("pre", "post", "query")


class Positions(nn.Module):
    """Learned vectors of the places in a sequence, newest last."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, n: int) -> Tensor:
        """Vectors of the last ``n`` places, [n, d]."""
        return self.table[len(self.table) - n :]


def attention_mask(real: Tensor, *, causal: bool) -> Tensor:
    """Who may look at whom, bool [B, 1, n, n], by what is real, [B, n].

    A causal position sees only itself and what is before it. Padding is
    never looked at, except by itself: a row with nothing to look at would
    be NaN.
    """
    n = real.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=real.device)
    allowed = real.unsqueeze(1).expand(-1, n, -1)
    if causal:
        allowed = allowed & torch.ones_like(own).tril()
    return (allowed | own).unsqueeze(1)


class Block(nn.Module):
    """Self-attention and a position-wise network, each with a residual.

    Attributes:
        norm: ``pre`` (normalise before each part), ``post`` (after each
            residual, as in BERT) or ``query`` (SASRec's released code:
            only the query is normalised before attention, and the
            residual is taken from the *normalised* query).

    Raises:
        ConfigError: unknown ``norm``, or heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        *,
        norm: str = "pre",
        activation: str = "relu",
    ):
        super().__init__()
        check_choice("norm", norm, NORMS)
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide width {width}")
        self.norm = norm
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = (
            nn.Identity() if norm == "query" else nn.Linear(width, width)
        )
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = getattr(F, activation)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, n, d] under a mask [B, 1, n, n] to [B, n, d]."""
        if self.norm == "post":
            x = self.norm1(x + self.drop(self.attend(x, x, mask)))
            return self.norm2(x + self.feed(x))
        query = self.norm1(x)
        if self.norm == "query":
            x = query + self.drop(self.attend(query, x, mask))
            x = self.norm2(x)
            return x + self.feed(x)
        x = x + self.drop(self.attend(query, query, mask))
        return x + self.feed(self.norm2(x))

    def attend(self, query: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention of query [B, n, d] over x [B, n, d]."""
        keys, values = self.key_value(x).chunk(2, dim=-1)
        parts = [
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(query), keys, values)
        ]
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def feed(self, x: Tensor) -> Tensor:
        """The position-wise network, with dropout after each layer."""
        inner = self.drop(self.activation(self.up(x)))
        return self.drop(self.down(inner))


class SequenceEncoder(nn.Module):
    """Items with their places through causal blocks, as in SASRec.

    Args:
        encoder: of the items.
        length: most items that are read.
        dropout: of the inputs and the blocks.
        blocks, heads: of the Transformer.
        options: of :class:`Block`.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        length: int,
        dropout: float,
        *,
        blocks: int = 1,
        heads: int = 1,
        **options: str,
    ):
        super().__init__()
        width = encoder.width
        self.encoder = encoder
        self.positions = Positions(length, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, width, dropout, **options)
            for _ in range(blocks)
        )
        self.last = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, items: Tensor) -> Tensor:
        """States of histories [B, n] after each item, [B, n, d]."""
        real = items != 0
        x = self.encoder(items) * self.encoder.width**0.5
        x = self.drop(x + self.positions(items.shape[1]))
        mask = attention_mask(real, causal=True)
        for block in self.blocks:
            x = block(x, mask)
        return self.last(x) * real.unsqueeze(-1)


def masked_mean(x: Tensor, real: Tensor) -> Tensor:
    """Mean of x [B, n, d] over the real positions [B, n]; [B, d]."""
    weight = real.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)


class AdditiveAttention(nn.Module):
    """Softmax_j v . tanh(W x_j + b) over the real positions."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, 1, bias=False)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Weighted mean of x [..., n, d] by real [..., n]; [..., d]."""
        logits = self.outer(torch.tanh(self.inner(x))).squeeze(-1)
        weights = logits.masked_fill(~real, -1e9).softmax(dim=-1)
        return (weights.unsqueeze(-1) * x).sum(dim=-2)
