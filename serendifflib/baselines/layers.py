"""Transformer parts that several rivals share.

Shapes: B sequences, n positions, d width. Sequences are left-padded, so
positions count from the newest item backwards: more padding on the left
changes nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from serendifflib.errors import ConfigError

NORMS = ("pre", "post", "query")


class Positions(nn.Module):
    """Learned vectors of the places in a sequence, newest last."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, n: int) -> torch.Tensor:
        """Vectors of the last ``n`` places, [n, d]."""
        return self.table[len(self.table) - n :]


def attention_mask(real: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Who may look at whom, bool [B, 1, n, n], True = may.

    Padding is never looked at, except by itself: a row with nothing to
    look at would be NaN.

    Args:
        real: True where there is an item, [B, n].
        causal: whether a position sees only itself and what is before it.
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
        """Build.

        Raises:
            ConfigError: unknown ``norm``, or heads do not divide the width.
        """
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(
                f"unknown norm {norm!r}: choose one of {', '.join(NORMS)}"
            )
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

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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

    def attend(
        self, query: torch.Tensor, x: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Multi-head attention of query [B, n, d] over x [B, n, d]."""
        keys, values = self.key_value(x).chunk(2, dim=-1)
        parts = [
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(query), keys, values)
        ]
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        """The position-wise network, with dropout after each layer."""
        inner = self.drop(self.activation(self.up(x)))
        return self.drop(self.down(inner))


def masked_mean(x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean of x [B, n, d] over the real positions [B, n]; [B, d]."""
    weight = real.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1.0)


class AdditiveAttention(nn.Module):
    """Softmax_j v . tanh(W x_j + b) over the real positions."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, 1, bias=False)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Weighted mean of x [..., n, d] by real [..., n]; [..., d]."""
        logits = self.outer(torch.tanh(self.inner(x))).squeeze(-1)
        weights = logits.masked_fill(~real, -1e9).softmax(dim=-1)
        return (weights.unsqueeze(-1) * x).sum(dim=-2)
