"""SerenEnhance (Fu et al., SIGIR 2023): three towers, pairwise learning.

The design follows the published one. The released code does not run as it
stands, and one of its faults decides the result: it stacks positives and
negatives side by side, reshapes and halves them, so that pair j is two
positives or two negatives, K/2 apart. The model here compares each positive
with a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from serendifflib.baselines import layers
from serendifflib.baselines.sampling import draw_unseen, fill_up, own_items
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.diffusion.unet import sinusoid
from serendifflib.portrait.fold import FoldData
from serendifflib.portrait.scores import CoOccurrence

TOWERS = ("serendipity", "relevance", "unexpectedness")
PAIRS = 50  # positives and as many negatives per objective
POOL = 200  # of each tail of unexpectedness that is kept per user
SHARE = 0.3  # of the catalogue that counts as expected, and as unexpected


class Tower(nn.Module):
    """Transformer over a history, pooled to one user vector."""

    def __init__(self, width: int, blocks: int, dropout: float):
        super().__init__()
        self.blocks = layers.Blocks(
            blocks, width, 2, width // 4, 0.5 * dropout, norm="post"
        )
        self.dense = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """History [B, n, d] and its real places [B, n] to [B, d]."""
        x = layers.masked_mean(self.blocks(x, real), real)
        return self.drop(F.relu(self.dense(x)))


class SerenEnhanceNetwork(nn.Module):
    """One item encoder, one tower per objective."""

    def __init__(
        self, encoder: layers.ItemEncoder, blocks: int, dropout: float
    ):
        super().__init__()
        self.encoder = encoder
        self.towers = nn.ModuleDict(
            {name: Tower(encoder.width, blocks, dropout) for name in TOWERS}
        )

    def forward(self, histories: Tensor) -> dict[str, Tensor]:
        """User vectors [B, d] of histories [B, n], by objective."""
        real = histories != 0
        n, width = histories.shape[1], self.encoder.width
        x = self.encoder(histories) * width**0.5
        places = torch.arange(n, device=x.device).flip(0)
        x = x + sinusoid(places, width)
        return {name: tower(x, real) for name, tower in self.towers.items()}


@dataclass(eq=False, kw_only=True)
class SerenEnhance(TorchRival):
    """SerenEnhance, repaired.

    The user vector is u_serendipity + a u_relevance + (1 - a)
    u_unexpectedness, the score its inner product with the item. Each tower
    learns from pairs of its own, see :class:`PairSampler`.

    Attributes:
        blocks: Transformer blocks per tower.
        relevance_weight: a, 0.6 as released.
        faithful_sigmoid: compare sigmoids of the scores, as released. Their
            difference lies in (-1, 1), so the loss stays between 0.313 and
            1.313 and its gradient fades; without, this is BPR.
    """

    name = "SerenEnhance"
    width: int = 128
    max_history: int = 20
    blocks: int = 1
    relevance_weight: float = 0.6
    faithful_sigmoid: bool = False

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        encoder = layers.ItemEncoder(vectors, self.width, self.inputs)
        return SerenEnhanceNetwork(encoder, self.blocks, self.dropout)

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """All three objectives at once, on the fold's own targets."""
        sampler = PairSampler(fold, generator)

        def loss(index: Tensor) -> Tensor:
            histories, _ = self.batch(fold.train, index)
            users = self.network(histories)
            pairs = sampler.draw(index, generator)
            items = torch.stack([torch.stack(pairs[k]) for k in TOWERS])
            states = torch.stack([users[name] for name in TOWERS])
            # [o, p, b, k] to [o, b, p k]: one row of items per user vector
            rows = items.transpose(1, 2).flatten(2).to(self.place)
            scores = layers.inner_products(
                states.flatten(0, 1), rows.flatten(0, 1), self.network.encoder
            ).unflatten(1, (2, PAIRS))
            if self.faithful_sigmoid:
                scores = scores.sigmoid()
            # mean over pairs, sum over the three objectives
            difference = scores[:, 0] - scores[:, 1]
            return len(TOWERS) * F.softplus(-difference).mean()

        return self.one_stage(fold, loss)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Inner product of the summed user vectors with each candidate."""
        users = self.network(histories)
        a = self.relevance_weight
        user = (
            users["serendipity"]
            + a * users["relevance"]
            + (1 - a) * users["unexpectedness"]
        )
        return layers.inner_products(user, candidates, self.network.encoder)


class PairSampler:
    """Positives and negatives of the three objectives.

    Serendipity: the target against the user's unlabelled items, filled up
    with random items that the user does not have. Relevance: items of the
    history against such random items. Unexpectedness: of the catalogue by
    p(i | T), T the history before the user's last target, a sample of the
    lowest 30% against one of the highest 30%, as in the released script.

    Attributes:
        own: all items of each example's user, [M, n].
        unlabelled: those with label 0, [M, n'].
        unexpected, expected: samples of both tails by user, [U, POOL].
        owner: user of each example, row of the samples, [M].
        pool: items to draw random negatives from, [P].
    """

    def __init__(self, fold: FoldData, generator: Generator):
        self.fold = fold
        users, owner = np.unique(fold.train.users, return_inverse=True)
        latest = np.zeros(len(users), dtype=np.int64)
        latest[owner] = np.arange(len(owner))  # the last one stays
        tails = _tails(fold, users, latest, generator)
        self.unexpected, self.expected = tails
        self.own = own_items(fold, fold.train)
        self.unlabelled = own_items(fold, fold.train, unlabelled=True)
        self.owner = torch.from_numpy(owner)
        self.pool = torch.from_numpy(fold.catalogue)

    def draw(
        self, index: Tensor, generator: Generator
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Positives and negatives [B, 50] of each objective."""
        examples, own = self.fold.train, self.own[index]
        user = self.owner[index]
        targets = examples.targets[index].unsqueeze(1).expand(-1, PAIRS)
        unread = draw_unseen(own, 2 * PAIRS, self.pool, generator)
        others, fresh = unread.split(PAIRS, dim=1)
        unlabelled = fill_up(self.unlabelled[index], others, generator)
        read = pick(examples.histories[index], PAIRS, generator)
        return {
            "serendipity": (targets, unlabelled),
            "relevance": (read, fresh),
            "unexpectedness": (
                pick(self.unexpected[user], PAIRS, generator),
                pick(self.expected[user], PAIRS, generator),
            ),
        }


def _tails(
    fold: FoldData, users: np.ndarray, latest: np.ndarray, generator: Generator
) -> Tensor:
    """Unexpected and expected items by user, [2, U, POOL], drawn again.

    The rows of these training users are not counted (leave one out): else
    everything they read looks expected.
    """
    data, pool = fold.interactions, fold.catalogue
    counts = CoOccurrence.fit(fold.training_histories(), data.n_items)
    size = max(1, int(SHARE * len(pool)))
    draws = torch.randint(
        size, (2, len(users), POOL), generator=generator
    ).numpy()
    tails = np.zeros((2, len(users), POOL), dtype=np.int64)
    for row, example in enumerate(latest):
        history = fold.train.histories[example].numpy()
        own = data.item_index[data.rows(int(users[row]))]
        scores = counts.log_catalogue(history[history != 0], own=own)
        order = pool[np.argsort(scores[pool], kind="stable")]
        tails[0, row] = order[:size][draws[0, row]]
        tails[1, row] = order[len(order) - size :][draws[1, row]]
    return torch.from_numpy(tails)


def pick(table: Tensor, count: int, generator: Generator) -> Tensor:
    """``count`` items of each row [B, n], with replacement; [B, count].

    0 is padding and skipped; each row needs an item.
    """
    place = torch.multinomial(
        (table != 0).float(), count, replacement=True, generator=generator
    )
    return table.gather(1, place)
