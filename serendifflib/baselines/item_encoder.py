"""Item inputs of the trainable rivals: text, ids, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serendifflib.errors import check_choice

Encode = Callable[[Tensor], Tensor]  # item numbers -> their vectors
INPUTS = ("text", "id", "text+id")
FULL_SOFTMAX = 30_000  # up to this many items the loss sees all of them
SAMPLED = 256  # negatives of the sampled softmax above that


class ItemEncoder(nn.Module):
    """Item vectors of width d from frozen text vectors, ids, or both.

    ``text``: e_i = W LN(t_i) with t_i frozen; works for items that were
    never seen in training, which is why it is the default (in SerenLens an
    item has 2.3 reviews). ``id``: a learned row per item. ``text+id``: the
    sum of both.

    Args:
        vectors: of the texts, [N + 1, d_t]; row 0 is padding.
        width: d.
        inputs: one of :data:`INPUTS`.

    Raises:
        ConfigError: ``inputs`` is not known.
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
    generator: torch.Generator,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean softmax cross-entropy of targets [M] against the catalogue.

    With more than :data:`FULL_SOFTMAX` items the denominator is a sample:
    the target and :data:`SAMPLED` uniform negatives, shared by the batch
    (uniform proposals need no correction; negatives that are the target are
    masked).

    Args:
        queries: [M, d].
        targets: item numbers, [M].
        items: item numbers -> vectors of width d.
        n_items: N.
        generator: draws the negatives.
        bias: per item [N + 1], or None.
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
