"""What networks of rivals are made of: item inputs, attention, losses.

Shapes: B sequences, n positions, C candidates, M targets, N items, d width.
Sequences are left-padded, so positions count from the newest item backwards:
more padding on the left changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.errors import ConfigError, check_choice

Encode = Callable[[Tensor], Tensor]  # item numbers -> their vectors
INPUTS = ("text", "id", "text+id")
FULL_SOFTMAX = 30_000  # up to this many items the loss sees all of them
SAMPLED = 256  # negatives of the sampled softmax above that
NORMS = ("pre", "post", "query")


class ItemEncoder(nn.Module):
    """Item vectors of width d from frozen text vectors, ids, or both.

    ``text`` is e_i = W LN(t_i) with t_i [N + 1, d_t] frozen: it works for
    items that were never seen in training (in SerenLens an item has 2.3
    reviews). ``id`` is a learned row per item, ``text+id`` the sum of both.
    """

    def __init__(self, vectors: Tensor, width: int, inputs: str = "text"):
        super().__init__()
        check_choice("item inputs", inputs, INPUTS)
        self.inputs = inputs
        self.width = width
        self.n_items = len(vectors) - 1
        if "text" in inputs:
            # LN's own scale and shift are absorbed by W and its bias, so
            # the frozen part is computed once
            normal = F.layer_norm(vectors, vectors.shape[1:])
            self.register_buffer("text", normal, persistent=False)
            self.project = nn.Linear(vectors.shape[1], width)
            # item vectors start with length about 1, so that the first
            # logits are small
            std = (vectors.shape[1] * width) ** -0.5
            nn.init.normal_(self.project.weight, std=std)
            nn.init.zeros_(self.project.bias)
        if "id" in inputs:
            self.table_of_ids = nn.Embedding(
                self.n_items + 1, width, padding_idx=0
            )
            nn.init.normal_(self.table_of_ids.weight, std=width**-0.5)
            with torch.no_grad():
                self.table_of_ids.weight[0] = 0.0

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of item numbers [...]; shape [..., d], padding is zero."""
        vectors: Tensor | float = 0.0
        if "text" in self.inputs:
            vectors = self.project(self.text[items])
        if "id" in self.inputs:
            vectors = vectors + self.table_of_ids(items)
        return vectors * (items != 0).unsqueeze(-1)

    def table(self) -> Tensor:
        """Vectors of the whole catalogue, [N + 1, d]; row 0 is zero."""
        device = next(self.parameters()).device
        return self(torch.arange(self.n_items + 1, device=device))


def catalogue_loss(
    queries: Tensor,
    targets: Tensor,
    items: Encode,
    n_items: int,
    *,
    generator: Generator,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean softmax cross-entropy of targets [M] against the catalogue.

    With more than :data:`FULL_SOFTMAX` items the denominator is a sample:
    the target and :data:`SAMPLED` uniform negatives, shared by the batch
    (uniform proposals need no correction; negatives that are the target are
    masked). Queries are [M, d], the bias is per item [N + 1].
    """
    device = queries.device
    if n_items <= FULL_SOFTMAX:
        catalogue = torch.arange(1, n_items + 1, device=device)
        logits = queries @ items(catalogue).T
        if bias is not None:
            logits = logits + bias[1:]
        return F.cross_entropy(logits, targets - 1)
    negatives = torch.randint(
        1, n_items + 1, (SAMPLED,), generator=generator
    ).to(device)
    positive = (queries * items(targets)).sum(dim=1, keepdim=True)
    others = queries @ items(negatives).T
    if bias is not None:
        positive = positive + bias[targets].unsqueeze(1)
        others = others + bias[negatives]
    same = negatives.unsqueeze(0) == targets.unsqueeze(1)
    logits = torch.cat([positive, others.masked_fill(same, -1e9)], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(targets))


def encode_distinct(encode: Encode, items: Tensor) -> Tensor:
    """Vectors of items [...], each distinct item encoded once; [..., d]."""
    distinct, place = items.unique(return_inverse=True)
    return encode(distinct)[place]


def inner_products(states: Tensor, items: Tensor, encode: Encode) -> Tensor:
    """Inner products of states [B, d] with items [B, C]; [B, C]."""
    distinct, place = items.unique(return_inverse=True)
    return (states @ encode(distinct).T).gather(1, place)


def first_against_rest(logits: Tensor) -> Tensor:
    """Binary cross-entropy of logits [B, 1 + K], the positive first."""
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1.0
    return F.binary_cross_entropy_with_logits(logits, wanted)


def perceptron(
    inputs: int, first: int, second: int, activation: type[nn.Module]
) -> nn.Sequential:
    """Two hidden layers and one number."""
    return nn.Sequential(
        nn.Linear(inputs, first),
        activation(),
        nn.Linear(first, second),
        activation(),
        nn.Linear(second, 1),
    )


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

    The ``norm`` is ``pre`` (normalise before each part), ``post`` (after each
    residual, as in BERT) or ``query`` (SASRec's released code: only the query
    is normalised before attention, and the residual is taken from the
    *normalised* query).
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
            return self.norm2(x + self._feed(x))
        query = self.norm1(x)
        if self.norm == "query":
            x = query + self.drop(self.attend(query, x, mask))
            x = self.norm2(x)
            return x + self._feed(x)
        x = x + self.drop(self.attend(query, query, mask))
        return x + self._feed(self.norm2(x))

    def attend(self, query: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Multi-head attention of query [B, n, d] over x [B, n, d]."""
        keys, values = self.key_value(x).chunk(2, dim=-1)
        parts = [
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(query), keys, values)
        ]
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _feed(self, x: Tensor) -> Tensor:
        """The position-wise network, with dropout after each layer."""
        inner = self.drop(self.activation(self.up(x)))
        return self.drop(self.down(inner))


class Blocks(nn.ModuleList):
    """Blocks one after the other; ``options`` are those of :class:`Block`."""

    def __init__(
        self,
        count: int,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        *,
        causal: bool = False,
        **options: str,
    ):
        super().__init__(
            Block(width, heads, inner, dropout, **options)
            for _ in range(count)
        )
        self.causal = causal

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Map x [B, n, d], of which [B, n] are real, to [B, n, d]."""
        mask = attention_mask(real, causal=self.causal)
        for block in self:
            x = block(x, mask)
        return x


class SequenceEncoder(nn.Module):
    """Items with their places through causal blocks, as in SASRec.

    At most ``length`` items are read; ``options`` are those of
    :class:`Block`.
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
        self.blocks = Blocks(
            blocks, width, heads, width, dropout, causal=True, **options
        )
        self.last = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, items: Tensor) -> Tensor:
        """States of histories [B, n] after each item, [B, n, d]."""
        real = items != 0
        x = self.encoder(items) * self.encoder.width**0.5
        x = self.drop(x + self.positions(items.shape[1]))
        return self.last(self.blocks(x, real)) * real.unsqueeze(-1)


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
