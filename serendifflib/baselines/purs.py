"""PURS (Li et al., RecSys 2020): relevance plus personal unexpectedness.

U = r(u, i) + factor(u, i) f(unexpectedness), f(x) = x exp(-x): a little
distance from the user's clusters of interest is worth something, a lot is
not, and how much depends on the user.

Shapes: B users, n history length, C candidates, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from serendifflib.baselines import layers
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.portrait.fold import FoldData

SHORT = 3  # items of the short window
NEGATIVES = 4  # per positive
TOLERANCE = 1e-5  # of mean-shift
ITERATIONS = 50  # of mean-shift, at most


class PURSNetwork(nn.Module):
    """The click utility without its user table.

    LayerNorm stands where the original has a batch normalisation that
    never leaves its inference mode; user and item are normalised each for
    itself, for a recurrent state starts out much shorter than an item. The
    sigmoid layers begin with Glorot's weights for sigmoids, four times
    those for tanh (Glorot & Bengio 2010): two sigmoids in a row with
    torch's own start pass on next to nothing of their input.
    """

    def __init__(
        self, encoder: layers.ItemEncoder, vectors: Tensor, dropout: float
    ):
        super().__init__()
        d = encoder.width
        self.encoder = encoder
        self.register_buffer("vectors", vectors, persistent=False)
        self.gru = nn.GRU(d, d, batch_first=True)
        self.attention = layers.AdditiveAttention(d, 10)
        self.drop = nn.Dropout(dropout)
        self.norm_user = nn.LayerNorm(d)
        self.norm_item = nn.LayerNorm(d)
        self.relevance = layers.perceptron(2 * d, 80, 40, nn.Sigmoid)
        for layer in self.relevance[::2]:
            nn.init.xavier_uniform_(layer.weight, gain=4.0)
            nn.init.zeros_(layer.bias)
        self.match = layers.perceptron(4 * d, 32, 16, nn.ReLU)
        self.factor = nn.Sequential(
            nn.LayerNorm(d), nn.Linear(d, d), nn.Linear(d, 1)
        )
        self.bias = nn.Parameter(torch.zeros(encoder.n_items + 1))

    def forward(
        self, histories: Tensor, candidates: Tensor, unexpectedness: Tensor
    ) -> Tensor:
        """Logits [B, C] of candidates [B, C] with their f(unexp) [B, C]."""
        items = layers.encode_distinct(self.encoder, candidates)
        long = self.norm_user(self.long_term(histories)).unsqueeze(1)
        pair = [long.expand_as(items), self.norm_item(items)]
        relevance = self.relevance(torch.cat(pair, dim=-1))
        factor = self.short_term(histories[:, -SHORT:], items)
        utility = relevance.squeeze(-1) + factor * unexpectedness
        return utility + self.bias[candidates]

    def long_term(self, histories: Tensor) -> Tensor:
        """Attention-pooled GRU states of [B, n], [B, d]."""
        real = histories != 0
        # packing would need lengths; a GRU started late does the same, so
        # items are moved to the front and the padding behind is not used
        order = (~real).int().argsort(dim=1, stable=True)
        moved = histories.gather(1, order)
        states, _ = self.gru(self.encoder(moved))
        return self.drop(self.attention(states, moved != 0))

    def short_term(self, recent: Tensor, items: Tensor) -> Tensor:
        """Personal factor [B, C] from [B, <= 3] and items [B, C, d]."""
        keys = self.encoder(recent).unsqueeze(1)
        query = items.unsqueeze(2)
        keys, query = torch.broadcast_tensors(keys, query)
        pair = torch.cat([keys, keys - query, query, keys * query], dim=-1)
        match = self.match(pair).squeeze(-1).sigmoid()
        logits = match / items.shape[-1] ** 0.5
        logits = logits.masked_fill((recent == 0).unsqueeze(1), -1e9)
        weights = logits.softmax(dim=-1).unsqueeze(-1)
        return self.factor((weights * keys).sum(2)).squeeze(-1)


@dataclass(eq=False, kw_only=True)
class PURS(TorchRival):
    """PURS, inductive and repaired.

    Repairs of the released code: the history ends strictly before the target
    (there the target is its last item), dropout is 0.2 and off when scoring
    (there 90% is dropped, also in tests), labels are binary, users have no
    table. Interactions count as clicks against four uniform items each. The
    radius of the clusters is half the median distance within a history, as 0.2
    means nothing on another scale.

    Attributes:
        use_bias: a learned number per item; untrained for items that training
            never saw, so off here.
    """

    name = "PURS"
    users_at_once = 8
    max_history: int = 10
    use_bias: bool = False

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        encoder = layers.ItemEncoder(vectors, self.width, self.inputs)
        network = PURSNetwork(encoder, vectors, self.dropout)
        network.bias.requires_grad_(self.use_bias)
        return network

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """Clicks of all training users, then the labelled targets."""

        def clicks(histories: Tensor, items: Tensor, _: Tensor) -> Tensor:
            logits = self.score_batch(
                histories.to(self.place), items.to(self.place)
            )
            return layers.first_against_rest(logits)

        return self.stages_of_cases(fold, NEGATIVES, generator, clicks)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Utility of each candidate, [B, C]."""
        vectors, real = self.network.vectors, histories != 0
        with torch.no_grad():
            centres = cluster_centres(vectors[histories], real)
            distance = distances(centres, real, vectors[candidates])
        return self.network(
            histories, candidates, distance * torch.exp(-distance)
        )


def cluster_centres(points: Tensor, real: Tensor) -> Tensor:
    """Mean-shift: the mode that each item of a history climbs to, [B, n, d].

    Repeats ``c_j <- sum_l G_jl e_l / sum_l G_jl`` over the ``real`` [B, n]
    of the points e [B, n, d], with ``G_jl = exp(-|c_j - e_l|^2 / r^2)``; r is
    half the median distance between two items. Stops when no share of a
    point in a centre moves by more than 1e-5.
    """
    # every centre is a mixture A of the points, so all distances follow
    # from the points' inner products: n x n numbers instead of n x d
    inner = points @ points.transpose(1, 2)
    size = inner.diagonal(dim1=1, dim2=2)
    own = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    apart = size.unsqueeze(1) + size.unsqueeze(2) - 2 * inner
    apart = apart.clamp(min=0).sqrt()
    pairs = real.unsqueeze(2) & real.unsqueeze(1) & ~own
    apart = apart.masked_fill(~pairs, torch.nan)
    radius = 0.5 * apart.flatten(1).nanmedian(dim=1).values
    # one item alone, or all alike: any radius gives the same centre
    radius = radius.nan_to_num(1.0).clamp(min=1e-3).view(-1, 1, 1)
    mixture = own.to(points.dtype).expand_as(inner)
    for _ in range(ITERATIONS):
        along = mixture @ inner
        length = (along * mixture).sum(2, keepdim=True)
        away = (length - 2 * along + size.unsqueeze(1)).clamp(min=0)
        weights = torch.exp(-away / radius**2) * real.unsqueeze(1)
        moved = weights / weights.sum(2, keepdim=True).clamp(min=1e-12)
        move = ((moved - mixture) * real.unsqueeze(2)).abs().max()
        mixture = moved
        if float(move) < TOLERANCE:
            break
    return mixture @ points


def distances(centres: Tensor, real: Tensor, candidates: Tensor) -> Tensor:
    """Distance of candidates from a user's clusters, [B, C].

    The mean over clusters weighted by their size is the mean over the
    ``real`` [B, n] items of the distance to the item's own centre; centres
    [B, n, d] and candidates [B, C, d].
    """
    weight = real.to(centres.dtype)
    weight = weight / weight.sum(1, keepdim=True)
    return (torch.cdist(candidates, centres) @ weight.unsqueeze(2)).squeeze(2)
